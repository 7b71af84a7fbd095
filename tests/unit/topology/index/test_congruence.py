"""One test body for all indexes: the exact twin, Qdrant Edge, and qdrant-client (local; a server if QDRANT_URL)."""

import os
import uuid

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from topology.errors import BadInput
from topology.index import MemoryIndex, PageEntry, Query
from topology.index.edge import EdgeIndex
from topology.index.server import ServerIndex

pytestmark = pytest.mark.slow

MODEL = "cope-test@1"
DIM = 16
_no_server = pytest.mark.skipif("QDRANT_URL" not in os.environ, reason="QDRANT_URL names no Qdrant server")
KINDS = ["memory", "edge", "client", pytest.param("server", marks=_no_server)]


@pytest.fixture(params=KINDS)
async def index(request, tmp_path):
    if request.param == "memory":
        made = MemoryIndex(MODEL)
    elif request.param == "edge":
        made = EdgeIndex(tmp_path, MODEL)
    else:
        url = os.environ.get("QDRANT_URL") if request.param == "server" else None
        client = AsyncQdrantClient(url=url, prefer_grpc=True) if url else AsyncQdrantClient(":memory:")
        made = ServerIndex(client, f"test_{uuid.uuid4().hex[:8]}", MODEL)
        await made.open()
    yield made
    await made.close()


def unit(vector):
    vector = np.asarray(vector, np.float32)
    return (vector / np.linalg.norm(vector, axis=-1, keepdims=True)).astype(np.float16)


def page(number, images=2, model=MODEL, terms=None):
    rng = np.random.default_rng(number)
    return PageEntry(
        product_id=f"p{number}",
        model_version=model,
        vectors=unit(rng.normal(size=(images, DIM))),
        fused=unit(rng.normal(size=DIM)),
        terms={number: float(np.float32(0.8)), 4_000_000_000: float(np.float32(0.6))} if terms is None else terms,
        title=f"Product {number}",
        category="things",
        titles=(f"Product {number}", f"产品{number}"),
        images=tuple(f"{number}-{image}.jpg" for image in range(images)),
        text=unit(rng.normal(size=DIM)) if number % 3 else np.zeros(0, np.float16),
    )


def ids(candidates):
    return [one.product_id for one in candidates]


async def test_an_empty_index_finds_nothing(index):
    query = Query(regions=np.ones((1, DIM)), embedding=np.ones(DIM), terms={1: 1.0})
    assert await index.search(query, 5) == []
    assert await index.count() == 0
    assert await index.vectors(["p1"]) == {}
    assert await index.digests() == {}
    await index.remove(["p1"])


async def test_pages_come_back_as_they_went_in(index):
    pages = {one.product_id: one for one in (page(1), page(2, images=3), page(3, images=1, terms={}))}
    await index.upsert(list(pages.values()))
    held = await index.vectors(["p1", "p2", "p3", "unknown"])
    assert held.keys() == pages.keys()
    for product_id, one in held.items():
        np.testing.assert_array_equal(one.vectors, pages[product_id].vectors)
        np.testing.assert_array_equal(one.fused, pages[product_id].fused)
        np.testing.assert_array_equal(one.text, pages[product_id].text)
        assert dict(one.terms) == dict(pages[product_id].terms)
        assert one.digest == pages[product_id].digest
    assert await index.digests() == {one.product_id: one.digest for one in pages.values()}
    assert await index.count() == 3


async def test_a_region_finds_the_product_of_its_picture_among_many(index):
    await index.upsert([page(number) for number in range(40)])
    found = await index.search(Query(regions=page(7).vectors[1:].astype(np.float32)), 5)
    assert found[0].product_id == "p7"
    assert found[0].dense == pytest.approx(1.0, abs=2e-3)
    assert len(found) == 5


async def test_all_indexes_rank_as_exact_search_does(index):
    pages = [page(number, images=1 + number % 4) for number in range(60)]
    twin = MemoryIndex(MODEL)
    await twin.upsert(pages)
    await index.upsert(pages)
    rng = np.random.default_rng(99)
    query = Query(
        unit(rng.normal(size=(3, DIM))),
        unit(rng.normal(size=DIM)),
        {5: 0.6, 6: 0.8},
        speech=unit(rng.normal(size=(2, DIM))),
    )
    expected, found = await twin.search(query, 6), await index.search(query, 6)
    assert ids(found) == ids(expected)
    np.testing.assert_allclose([one.dense for one in found], [one.dense for one in expected], atol=2e-3)
    np.testing.assert_allclose([one.text for one in found], [one.text for one in expected], atol=1e-3)


async def test_speech_finds_the_page_that_says_the_same(index):
    await index.upsert([page(number) for number in range(40)])
    found = await index.search(Query(speech=page(7).text[None].astype(np.float32)), 5)
    assert found[0].product_id == "p7"
    assert found[0].dense == pytest.approx(1.0, abs=2e-3)


async def test_a_product_with_many_pictures_does_not_crowd_out_others(index):
    crowd = page(1, images=1)
    many = PageEntry("crowd", MODEL, np.repeat(crowd.vectors, 40, axis=0), crowd.fused, images=("a",) * 40)
    await index.upsert([many, *(page(number) for number in range(2, 8))])
    found = await index.search(Query(regions=crowd.vectors), 4)
    assert found[0].product_id == "crowd"
    assert len(found) == 4


async def test_rare_words_rank_before_common_ones(index):
    pages = [page(number, terms={10: 0.6, number: 0.8}) for number in range(20, 30)]
    await index.upsert([*pages, page(50, terms={11: 1.0})])
    found = await index.search(Query(terms={10: 0.7, 25: 0.7}), 3)
    assert found[0].product_id == "p25"
    assert found[0].text > 2 * found[1].text > 0
    assert found[0].dense == -1.0


async def test_a_bag_limits_the_search(index):
    await index.upsert([page(number) for number in range(10)])
    query = Query(regions=page(3).vectors, embedding=page(3).fused, terms={3: 1.0}, bag=("p1", "p2", "unknown"))
    assert sorted(ids(await index.search(query, 5))) == ["p1", "p2"]
    assert await index.search(Query(regions=page(3).vectors, bag=()), 5) == []


async def test_a_new_edition_of_a_page_replaces_the_old_one_with_all_its_pictures(index):
    await index.upsert([page(1, images=3), page(2)])
    changed = PageEntry("p1", MODEL, page(9, images=1).vectors, page(9).fused, {77: 1.0}, "New", "c", ("new.jpg",))
    await index.upsert([changed])
    held = (await index.vectors(["p1"]))["p1"]
    assert held.digest == changed.digest
    assert await index.count() == 2
    assert (await index.search(Query(regions=page(1, images=3).vectors[2:]), 2))[0].dense < 0.9


async def test_a_removed_product_is_found_no_more(index):
    await index.upsert([page(1), page(2)])
    await index.remove(["p1", "unknown"])
    assert ids(await index.search(Query(regions=page(1).vectors), 5)) == ["p2"]
    assert await index.count() == 1


async def test_a_page_of_another_model_is_refused_with_both_names(index):
    with pytest.raises(BadInput, match=r"p1 .*other@2.*cope-test@1"):
        await index.upsert([page(1, model="other@2")])
    assert await index.count() == 0


async def test_vectors_of_another_length_are_refused(index):
    await index.upsert([page(1)])
    short = PageEntry("p2", MODEL, page(2).vectors[:, :8], page(2).fused[:8])
    with pytest.raises(BadInput, match="p2 has vectors of 8 values, the index of 16"):
        await index.upsert([short])
