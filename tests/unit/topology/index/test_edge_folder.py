"""The folder of the embedded index: kept, locked, refused."""

import json
import shutil
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest

from topology.errors import UserError
from topology.index import MemoryIndex, PageEntry, Query, edge
from topology.index.edge import EdgeIndex

pytestmark = pytest.mark.slow

PAGE = PageEntry(
    "p1", "m@1", np.eye(1, 8, dtype=np.float16), np.eye(1, 8, dtype=np.float16)[0], {1: 1.0}, "t", "c", ("i",)
)


async def test_a_folder_keeps_its_pages_over_a_restart(tmp_path):
    first = EdgeIndex(tmp_path, "m@1")
    await first.upsert([PAGE])
    await first.close()
    again = EdgeIndex(tmp_path, "m@1")
    assert await again.digests() == {"p1": PAGE.digest}
    assert [one.product_id for one in await again.search(Query(terms={1: 1.0}), 3)] == ["p1"]
    await again.close()


async def test_a_folder_of_an_older_layout_is_filled_anew(tmp_path):
    first = EdgeIndex(tmp_path, "m@1")
    await first.upsert([PAGE])
    await first.close()
    meta = tmp_path / "product_pages_v1" / "cope.json"
    meta.write_text(json.dumps({"model_version": "m@1", "dim": 8}))
    (meta.parent / "shard").mkdir()
    again = EdgeIndex(tmp_path, "m@1")
    assert await again.digests() == {}
    await again.upsert([replace(PAGE, product_id="p2")])
    assert list(await again.digests()) == ["p2"]
    assert not (meta.parent / "shard").exists()
    await again.close()


async def test_a_page_that_lost_pictures_is_written_again(tmp_path):
    first = EdgeIndex(tmp_path, "m@1")
    await first.upsert([PAGE, replace(PAGE, product_id="p2", vectors=np.eye(3, 8, dtype=np.float16))])
    first._drop(first._images, [edge._point_id(edge._hash("p2"), 1)])
    await first.close()
    again = EdgeIndex(tmp_path, "m@1")
    assert await again.digests() == {"p1": PAGE.digest}
    assert list(await again.vectors(["p1", "p2"])) == ["p1"]
    assert again._pictures() == 1
    await again.close()


async def test_pictures_whose_page_was_not_written_any_more_are_gone(tmp_path):
    first = EdgeIndex(tmp_path, "m@1")
    await first.upsert([PAGE, replace(PAGE, product_id="p2", vectors=np.eye(3, 8, dtype=np.float16))])
    first._drop(first._pages, [edge._point_id(edge._hash("p2"), 0)])  # killed between the two writes
    await first.close()
    again = EdgeIndex(tmp_path, "m@1")
    assert again._pictures() == 1
    await again.upsert([replace(PAGE, product_id="p2")])
    found = await again.search(Query(regions=np.eye(3, 8)[2:]), 3)
    assert [one.dense for one in found] == [0.0, 0.0]
    await again.close()


async def test_pictures_of_earlier_editions_and_removed_products_are_gone(tmp_path):
    index = EdgeIndex(tmp_path, "m@1")
    await index.upsert([replace(PAGE, vectors=np.eye(3, 8, dtype=np.float16)), replace(PAGE, product_id="p2")])
    assert index._pictures() == 4
    await index.upsert([PAGE])
    assert index._pictures() == 2
    await index.remove(["p2", "p3"])
    assert index._pictures() == 1
    await index.close()


async def test_a_folder_whose_making_was_broken_off_is_made_anew(tmp_path):
    first = EdgeIndex(tmp_path, "m@1")
    await first.upsert([PAGE])
    await first.close()
    (tmp_path / "product_pages_v1" / "cope.json").unlink()
    shutil.rmtree(tmp_path / "product_pages_v1" / "pages")
    again = EdgeIndex(tmp_path, "m@1")
    await again.upsert([PAGE])
    assert await again.digests() == {"p1": PAGE.digest}
    await again.close()


async def test_a_folder_of_another_model_is_refused(tmp_path):
    first = EdgeIndex(tmp_path, "m@1")
    await first.upsert([PAGE])
    await first.close()
    with pytest.raises(UserError, match=r"product_pages_v1 holds vectors of model m@1, this worker runs m@2: remove"):
        EdgeIndex(tmp_path, "m@2")


async def test_a_folder_in_use_by_another_worker_is_refused_even_before_it_has_pages(tmp_path):
    index = EdgeIndex(tmp_path, "m@1")
    with pytest.raises(UserError, match=r"is in use by another process: stop it, or set COPE_INDEX_DIR"):
        EdgeIndex(tmp_path, "m@1")
    await index.upsert([PAGE])
    with pytest.raises(UserError, match="is in use by another process"):
        EdgeIndex(tmp_path, "m@1")
    await index.close()
    await EdgeIndex(tmp_path, "m@1").close()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"file/product_pages_v1 cannot be used .*: set COPE_INDEX_DIR"):
        EdgeIndex(tmp_path / "file", "m@1")


def test_a_full_disk_is_refused_before_the_engine_meets_it(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1000, 990, 10))
    with pytest.raises(UserError, match=r"0 MB of free space, 134 MB are needed: free some, or set COPE_INDEX_DIR"):
        EdgeIndex(tmp_path, "m@1")


async def test_a_disk_that_fills_up_later_stops_the_next_write(tmp_path, monkeypatch):
    index = EdgeIndex(tmp_path, "m@1")
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(1000, 990, 10))
        with pytest.raises(UserError, match="free space"):
            await index.upsert([PAGE])
    await index.close()


@pytest.mark.parametrize("shard", ["images", "pages"])
async def test_a_damaged_folder_is_refused_with_the_way_out(tmp_path, shard):
    first = EdgeIndex(tmp_path, "m@1")
    await first.upsert([PAGE])
    await first.close()
    for segment in (tmp_path / "product_pages_v1" / shard / "segments").iterdir():
        (segment / "segment.json").write_text("{")
    with pytest.raises(UserError, match="remove it"):
        EdgeIndex(tmp_path, "m@1")


async def test_a_temporary_folder_is_gone_after_close():
    index = EdgeIndex(None, "m@1")
    await index.upsert([PAGE])
    folder = index._folder
    assert folder.exists()
    await index.close()
    assert not folder.exists()


async def test_the_engine_s_log_does_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(edge, "_FLUSH_EVERY", 3)
    index = EdgeIndex(tmp_path, "m@1")
    await index.upsert([PAGE])
    begins = tmp_path / "product_pages_v1/images/wal/first-index"  # what is older is dropped
    before = begins.read_text()
    await index.upsert([replace(PAGE, product_id="p2")])
    assert begins.read_text() == before
    await index.upsert([replace(PAGE, product_id="p3")])
    assert begins.read_text() != before
    await index.close()


async def test_a_large_catalogue_is_searched_by_its_graph_as_exactly_as_without(tmp_path, monkeypatch):
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((4_000, 2, 768), np.float32)  # 24 MB: the engine builds no graph for less than 20
    rows = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float16)
    pages = [PageEntry(f"p{number}", "m@1", views, views[0], images=("i", "j")) for number, views in enumerate(rows)]
    exact, index = MemoryIndex("m@1"), EdgeIndex(tmp_path, "m@1")
    monkeypatch.setattr(edge, "EXACT_UP_TO", 7_999)  # vectors, not products
    for one in (exact, index):
        await one.upsert(pages)
        await one.optimize()
    assert index._images.info().indexed_vectors_count >= 8_000
    queries = [Query(regions=views[1:] + rng.normal(scale=0.03, size=(1, 768))) for views in rows[:100]]
    found = [[one.product_id for one in await index.search(query, 10)] for query in queries]
    best = [[one.product_id for one in await exact.search(query, 10)] for query in queries]
    assert [some[0] for some in found] == [some[0] for some in best]
    assert all(len(some) == 10 for some in found)
    await index.close()


async def test_speech_is_searched_for_once_until_the_catalogue_changes(monkeypatch):
    index = EdgeIndex(None, "m@1")
    await index.upsert([replace(PAGE, product_id="p1", text=PAGE.fused)])
    asked = []
    ask = index._ask

    def counted(shard, name, searches, *others):
        asked.append((name, len(searches)))
        return ask(shard, name, searches, *others)

    monkeypatch.setattr(index, "_ask", counted)
    first, second = np.eye(2, 8, dtype=np.float32)

    async def search(*speech, bag=None):
        asked.clear()
        found = await index.search(Query(speech=np.stack(speech), bag=bag), 3)
        return [one.product_id for one in found], [count for name, count in asked if name == "text"]

    assert await search(first) == (["p1"], [1])
    assert await search(first, second) == (["p1"], [1])
    assert await search(first, second) == (["p1"], [0])
    assert await search(first, bag=["p2"]) == ([], [1])
    await index.upsert([replace(PAGE, product_id="p2", text=PAGE.fused)])
    assert await search(first) == (["p1", "p2"], [1])
    await index.remove(["p1"])
    assert await search(first) == (["p2"], [1])
    monkeypatch.setattr(edge, "_SAID", 1)
    assert await search(first, second) == (["p2"], [1])
    assert await search(second) == (["p2"], [0])
    assert await search(first) == (["p2"], [1])
    await index.close()


async def test_a_bag_is_looked_up_again_when_the_catalogue_changes(monkeypatch):
    monkeypatch.setattr(edge, "_BAGS", 1)
    index = EdgeIndex(None, "m@1")
    await index.upsert([PAGE])

    async def search(*bag):
        return [one.product_id for one in await index.search(Query(regions=np.eye(1, 8), bag=bag), 3)]

    assert await search("p1", "p2") == ["p1"]
    await index.upsert([replace(PAGE, product_id="p2")])
    assert await search("p1", "p2") == ["p1", "p2"]
    assert await search("p2") == ["p2"]
    await index.remove(["p1"])
    assert await search("p1", "p2") == ["p2"]
    await index.close()
