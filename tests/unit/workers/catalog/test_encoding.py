"""Pictures and words of a page."""

import numpy as np
import pytest

from cope.serving.encoder import PageOutput
from topology.errors import BadInput, Unavailable
from topology.index import PageEntry
from topology.records import PageImage, ProductPage
from workers.catalog.encoding import (
    FETCH_ATTEMPTS,
    MOST_IMAGES,
    Pictures,
    failed,
    fetch_pictures,
    page_input,
    page_vectors,
    withdrawn,
)


def page(count=3, **fields):
    images = tuple(PageImage(uri=f"{number}.jpg") for number in range(count))
    return ProductPage(product_id="p", title="Red cup", images=images, **fields)


class Loader:
    """Images by name; each name's first answers may be errors."""

    def __init__(self, errors=None, shape=(20, 30, 3)):
        self.errors = errors or {}
        self.shape = shape
        self.calls = []

    def __call__(self, image):
        self.calls.append(image.uri)
        for error in self.errors.get(image.uri, []):
            self.errors[image.uri].remove(error)
            raise error
        return np.zeros(self.shape, np.uint8)


class Pauses(list):
    async def __call__(self, seconds):
        self.append(seconds)


async def test_good_pictures_stay_in_order_beside_bad_ones():
    load = Loader({"1.jpg": [BadInput("1.jpg: not a picture")]})
    found = await fetch_pictures(page(), load, Pauses())
    assert found.uris == ["0.jpg", "2.jpg"]
    assert len(found.images) == 2
    assert found.problems == ["1.jpg: not a picture"]


async def test_a_host_that_comes_back_costs_a_pause_only():
    load, pauses = Loader({"0.jpg": [Unavailable("down"), Unavailable("down")]}), Pauses()
    found = await fetch_pictures(page(1), load, pauses)
    assert found.uris == ["0.jpg"]
    assert list(pauses) == [0.5, 1.0]


async def test_a_host_that_stays_away_is_given_up():
    load, pauses = Loader({"0.jpg": [Unavailable("shop.example does not answer") for _ in range(99)]}), Pauses()
    found = await fetch_pictures(page(2), load, pauses)
    assert found.uris == ["1.jpg"]
    assert found.problems == ["shop.example does not answer"]
    assert load.calls.count("0.jpg") == FETCH_ATTEMPTS


async def test_galleries_are_cut():
    found = await fetch_pictures(page(MOST_IMAGES + 5), Loader(), Pauses())
    assert len(found.images) == MOST_IMAGES
    assert "69 images: the first 64 are used" in found.problems[0]


def test_the_model_sees_what_the_page_says_in_a_fixed_order():
    one = page(1, brand="Acme", category="Cups", description="For tea", attributes={"size": "L", "colour": "red"})
    assert page_input(one, Pictures()).text == "Acme. Cups. red. L. For tea"


def test_the_record_of_a_page_makes_an_entry_of_the_index():
    output = PageOutput(np.eye(2, 4, dtype=np.float16), np.eye(1, 4, dtype=np.float16)[0])
    record = page_vectors(page(2), 1, 7, Pictures(uris=["a", "b"]), output, "m@1")
    entry = PageEntry.from_record(record)
    np.testing.assert_array_equal(entry.vectors, output.vectors)
    assert entry.images == ("a", "b")
    assert entry.terms
    assert (record.source_partition, record.source_offset) == (1, 7)


@pytest.mark.parametrize("record", [failed("p", 1, 7, BadInput("why"), "m@1"), withdrawn("p", 1, 7, "m@1")])
def test_records_without_vectors_make_no_entry(record):
    assert bool(record.error) != record.withdrawn
    with pytest.raises(BadInput, match="encode it again"):
        PageEntry.from_record(record)
