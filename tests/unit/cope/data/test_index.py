import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from cope.data import indexing
from cope.data.opening import open_source
from cope.data.rope import PAIRS, TEXTS
from cope.errors import UserError
from tests.unit.cope.data.data_sets import rope_files, write_rope

pytestmark = pytest.mark.slow

# Reads ROPE and is killed while its facts are written, or when the index is about to be moved to its place.
KILLED = """
import os, signal, sys
from cope.data import indexing
from cope.data.opening import open_source
name = sys.argv[2]
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(*((os, "replace") if name == "replace" else (indexing, name)), die)
open_source(sys.argv[1])
"""


def indexes(folder):
    return sorted(path.name for path in (folder / ".cope-live").glob("*.sqlite"))


def test_an_index_is_built_once(rope, monkeypatch):
    first = open_source(str(rope))
    monkeypatch.setattr(indexing, "_build", None)
    again = open_source(str(rope), "val")
    assert again.fingerprint == first.fingerprint
    assert len(indexes(rope)) == 1


def test_changed_data_get_an_index_of_their_own(rope):
    before = open_source(str(rope))
    titles = rope / TEXTS["page"]
    titles.write_text(titles.read_text().replace("velvet", "velours"))
    after = open_source(str(rope))
    assert after.fingerprint != before.fingerprint
    assert after.items(0, "page")[0].text.startswith("velours")
    assert before.items(0, "page")[0].text.startswith("velvet")


@pytest.mark.parametrize("where", ["_number_products", "replace"])
def test_a_kill_leaves_no_half_index(rope, where):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(rope), where], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert indexes(rope) == []
    assert list((rope / ".cope-live").glob("*.part"))
    assert len(open_source(str(rope))) > 20
    assert len(indexes(rope)) == 1
    assert not list((rope / ".cope-live").glob("*.part"))


def test_a_folder_that_cannot_be_written_is_indexed_in_the_cache(rope, cache, monkeypatch):
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: rope not in path.parents and real(path, mode))
    assert len(open_source(str(rope))) > 20
    assert len(list(cache.glob("*.sqlite"))) == 1
    assert indexes(rope) == []


def test_a_damaged_index_is_named_with_the_mend(rope):
    source = open_source(str(rope))
    [index] = (rope / ".cope-live").glob("*.sqlite")
    index.write_bytes(b"no index" * 1000)
    for read in (lambda: open_source(str(rope)), lambda: pickle.loads(pickle.dumps(source)).items(0, "page")):
        with pytest.raises(UserError, match=r"index-.*\.sqlite is damaged .* remove it and start the same command"):
            read()


def test_products_that_no_two_domains_share_are_nothing_to_learn(tmp_path):
    files = rope_files()
    for domain, name in PAIRS.items():
        files[name] = [f"{domain}-{row}" for row in files[name]]
    with pytest.raises(
        UserError, match=r"no product on the train side has items in two domains.*\(120 products in one"
    ):
        open_source(str(write_rope(tmp_path, files)))


def test_columns_parted_by_tabs_are_counted_where_nothing_is_left(tmp_path):
    files = {name: [row.replace(",", "\t", 1) for row in rows] for name, rows in rope_files().items()}
    with pytest.raises(UserError, match=r"without a usable product.*\d+ rows with too few columns"):
        open_source(str(write_rope(tmp_path, files)))


def test_a_full_disk_is_named_with_the_mend(rope, monkeypatch):
    real = indexing._write_facts

    def write_into_a_small_file(db, *rest):
        db.execute("PRAGMA work.max_page_count = 4")
        real(db, *rest)

    monkeypatch.setattr(indexing, "_write_facts", write_into_a_small_file)
    with pytest.raises(UserError, match=r"disk is full .* free some space"):
        open_source(str(rope))
    assert not list((rope / ".cope-live").glob("*.part"))


def test_a_line_without_end_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("cope.data.files._LONGEST_LINE_BYTES", 100)
    files = rope_files()
    files[TEXTS["live"]].insert(3, "live0," + "x" * 1000)
    source = open_source(str(write_rope(tmp_path, files)))
    assert source.counts.as_dict() == {"rows longer than 4 MB": 1}


def test_an_item_with_endless_pictures_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(indexing, "_MOST_IMAGES", 2)
    source = open_source(str(write_rope(tmp_path, rope_files())))
    assert source.counts[indexing.TOO_MANY_IMAGES] == 160
    assert len(source.items(0, "live")[0].images) == 2


def test_a_source_can_be_sent_to_other_processes_and_threads(rope):
    source = open_source(str(rope))
    copy = pickle.loads(pickle.dumps(source))
    assert copy.items(1, "video")[1] == source.items(1, "video")[1]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(source.product_id, range(20))) == [source.product_id(i) for i in range(20)]


def test_items_are_a_sequence(rope):
    source = open_source(str(rope))
    pages = source.items(0, "page")
    assert len(pages) == 2
    assert list(pages) == [pages[0], pages[1]] == list(pages[:5])
    assert pages[-1] == pages[1]
    with pytest.raises(IndexError):
        pages[2]
    with pytest.raises(IndexError, match="not a product 1000"):
        source.product_id(1000)
