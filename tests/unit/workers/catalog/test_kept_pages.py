"""Pages that were encoded before are found by their content alone."""

import numpy as np
import pytest

from topology.records import PageImage, PageVectors, ProductPage
from workers.catalog.encoding import Pictures
from workers.catalog.kept import KeptPages, content_of

PAGE = ProductPage(product_id="p", title="Red cup", images=(PageImage(uri="p.jpg"),))
PICTURES = Pictures([np.zeros((2, 3, 3), np.uint8)], ["p.jpg"])
RECORD = PageVectors(product_id="p", source_partition=1, source_offset=7, model_version="m@1", vectors=b"ab")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "cope-live/pages"


def test_a_record_is_found_by_the_next_process():
    content = content_of(PAGE, PICTURES)
    first = KeptPages("m@1")
    assert first.find(content) is None
    first.keep(content, RECORD)
    first.close()
    assert KeptPages("m@1").find(content) == RECORD


def test_another_model_has_pages_of_its_own():
    KeptPages("m@1").keep(b"c", RECORD)
    assert KeptPages("m@2").find(b"c") is None


@pytest.mark.parametrize(
    ("page", "pictures"),
    [
        (ProductPage(product_id="p", title="Blue cup", images=PAGE.images), PICTURES),
        (PAGE, Pictures([np.ones((2, 3, 3), np.uint8)], ["p.jpg"])),
        (PAGE, Pictures([np.zeros((3, 2, 3), np.uint8)], ["p.jpg"])),
        (PAGE, Pictures([], [])),
    ],
)
def test_a_page_that_differs_in_anything_is_another(page, pictures):
    assert content_of(page, pictures) != content_of(PAGE, PICTURES)


def test_a_damaged_file_is_begun_anew(cache):
    kept = KeptPages("m@1")
    kept.keep(b"c", RECORD)
    kept.close()
    (file,) = cache.iterdir()
    file.write_bytes(b"no database" * 1000)
    kept = KeptPages("m@1")
    assert kept.find(b"c") is None
    kept.keep(b"c", RECORD)
    assert kept.find(b"c") == RECORD


def test_files_of_few_models_stay(cache):
    for number in range(6):
        KeptPages(f"m@{number}").close()
    assert len(list(cache.iterdir())) == 4


def test_without_a_folder_nothing_is_kept(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    kept = KeptPages("m@1")
    kept.keep(b"c", RECORD)
    assert kept.find(b"c") is None
