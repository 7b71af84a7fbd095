"""The catalog role with a Qdrant server, played by the client's own engine in memory: a new model moves in."""

from typing import Any, cast

import pytest
from qdrant_client import AsyncQdrantClient

from tests.integration.workers.catalog_parts import HueModel, page, running, until
from topology.index.server import ServerIndex
from topology.settings import Settings
from topology.topic_log import Producer, end_offsets
from topology.topics import PRODUCT_PAGES
from topology.worker import Worker
from workers.catalog.agent import build
from workers.catalog.progress import wait_indexed


@pytest.fixture
async def qdrant(monkeypatch):
    client = AsyncQdrantClient(":memory:")
    close = client.close

    async def stay():
        """Workers close their connection; the server stays."""

    monkeypatch.setattr(client, "close", stay)
    monkeypatch.setattr("topology.index.server.connect", lambda settings: client)
    yield client
    await close()


@pytest.fixture
def settings(broker, qdrant):
    return broker.model_copy(update={"qdrant_url": "http://qdrant:6333"})


def catalog(settings: Settings, model: HueModel) -> Worker:
    worker = Worker("catalog", settings, serve_http=False)
    build(worker, cast(Any, model))
    return worker


async def publish(settings, *names):
    async with Producer(settings) as producer:
        for name in names:
            await producer.send(PRODUCT_PAGES, name, page(name))
    [last] = [p async for p in wait_indexed(settings, await end_offsets(settings, PRODUCT_PAGES))][-1:]
    assert last.errors == {}


async def searched(qdrant):
    """The collection behind the alias, and how many pictures it holds."""
    aliases = (await qdrant.get_aliases()).aliases
    [collection] = [one.collection_name for one in aliases if one.alias_name == "product_pages"]
    return collection, (await qdrant.count(collection)).count


async def test_pages_go_to_the_server(settings, qdrant):
    async with running(catalog(settings, HueModel())):
        await publish(settings, "red", "green", "blue")
        assert await searched(qdrant) == ("product_pages_v1", 3)
        async with Producer(settings) as producer:
            await producer.send(PRODUCT_PAGES, "red", None)
        index = ServerIndex(qdrant, "product_pages", "hue@1")
        await index.open()

        async def withdrawn():
            return set(await index.digests()) == {"green", "blue"}

        await until(withdrawn)


async def test_searches_move_to_a_new_models_collection_once_it_holds_the_catalogue(settings, qdrant):
    async with running(catalog(settings, HueModel("hue@1"))):
        await publish(settings, "red", "green", "blue")
    async with running(catalog(settings, HueModel("hue@2"))) as worker:

        async def moved():
            return await searched(qdrant) == ("product_pages_v2", 3)

        await until(moved, worker)
    assert (await qdrant.count("product_pages_v1")).count == 3, "the old collection stays, for the way back"


async def test_searches_stay_where_they_are_when_the_new_collection_lacks_a_page(settings, qdrant, monkeypatch, caplog):
    async with running(catalog(settings, HueModel("hue@1"))):
        await publish(settings, "red", "green")
    whole = ServerIndex.upsert

    async def lossy(self, pages):
        await whole(self, [one for one in pages if one.product_id != "green"])

    monkeypatch.setattr(ServerIndex, "upsert", lossy)
    async with running(catalog(settings, HueModel("hue@2"))) as worker:

        async def refused():
            return "the new collection is not used" in caplog.text

        await until(refused, worker)
    assert "1 of 2 pages are missing or differ, green among them" in caplog.text
    assert await searched(qdrant) == ("product_pages_v1", 2)
