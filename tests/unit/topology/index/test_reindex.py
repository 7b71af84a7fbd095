"""Numbered collections behind an alias: filling a new one while the old one is searched."""

from dataclasses import replace

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from topology.errors import Unavailable, UserError
from topology.index import PageEntry, Query, open_index
from topology.index.server import ServerIndex, open_to_fill
from topology.settings import Settings
from workers.catalog.reindex import Expected, find_fault

ALIAS = "product_pages"


def page(name, axis, model):
    vectors = np.eye(8, dtype=np.float16)
    return PageEntry(name, model, vectors[axis][None], vectors[axis], {axis: 1.0}, images=("i",))


@pytest.fixture
async def client():
    made = AsyncQdrantClient(":memory:")
    yield made
    await made.close()


async def searched(client, model):
    index = ServerIndex(client, ALIAS, model)
    await index.open()
    return index


async def test_the_first_collection_is_searched_at_once(client):
    index = await open_to_fill(client, ALIAS, "m@1")
    await index.upsert([page("a", 0, "m@1")])
    assert index.version == "product_pages_v1"
    assert await index.is_searched()
    reader = await searched(client, "m@1")
    assert [one.product_id for one in await reader.search(Query(terms={0: 1.0}), 3)] == ["a"]


async def test_a_new_model_fills_a_collection_of_its_own_until_the_alias_is_switched(client):
    old = await open_to_fill(client, ALIAS, "m@1")
    await old.upsert([page("a", 0, "m@1")])
    reader = await searched(client, "m@1")

    new = await open_to_fill(client, ALIAS, "m@2")
    await new.upsert([page("a", 1, "m@2"), page("b", 2, "m@2")])
    assert new.version == "product_pages_v2"
    assert not await new.is_searched()
    assert await reader.count() == 1
    with pytest.raises(UserError, match=r"product_pages_v1 holds vectors of model m@1, this worker runs m@2"):
        await searched(client, "m@2")
    # A second worker of the new model joins in.
    assert (await open_to_fill(client, ALIAS, "m@2")).version == "product_pages_v2"

    await new.publish()
    assert await new.is_searched()
    assert (await searched(client, "m@2")).version == "product_pages_v2"
    assert await (await searched(client, "m@2")).count() == 2
    with pytest.raises(UserError, match=r"now holds vectors of model m@2, this worker runs m@1"):
        await reader.vectors(["a"])


async def test_a_collection_is_checked_before_the_switch(client):
    pages = [page(f"p{axis}", axis, "m@1") for axis in range(6)]
    expected = {one.product_id: Expected.of(one) for one in pages}
    index = await open_to_fill(client, ALIAS, "m@1")
    await index.upsert(pages[:5])
    assert await find_fault(index, expected) == "1 of 6 pages are missing or differ, p5 among them"
    await index.upsert(pages[5:])
    assert await find_fault(index, expected) == ""
    unfindable = {name: replace(one, picture=-one.picture) for name, one in expected.items()}
    assert "of 6 pages are found by their own picture" in await find_fault(index, unfindable)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9"])
async def test_a_server_that_is_down_is_unavailable(url):
    with pytest.raises(Unavailable, match="Qdrant does not answer"):
        await open_index(Settings(_env_file=None, qdrant_url=url), "m@1")
