"""The catalog role on a broker."""

import asyncio

import pytest

from tests.integration.workers.catalog_parts import HueModel, page, png, read_all, running, until
from topology.index.progress import CatalogProgress
from topology.records import PageImage, PageVectors
from topology.topic_log import Follower, Producer, end_offsets
from topology.topics import PAGE_VECTORS, PRODUCT_PAGES, dead_letter
from topology.worker import Worker
from workers.catalog.agent import build
from workers.catalog.progress import wait_indexed


def catalog(settings, model=None):
    worker = Worker("catalog", settings, serve_http=False)
    build(worker, model or HueModel())
    return worker


async def publish(settings, *pages):
    async with Producer(settings) as producer:
        for one in pages:
            await producer.send(PRODUCT_PAGES, one.product_id, one)


async def indexed(settings):
    return [progress async for progress in wait_indexed(settings, await end_offsets(settings, PRODUCT_PAGES))][-1]


async def vectors(settings):
    return {record.product_id: record for record in await read_all(settings, PAGE_VECTORS, PageVectors)}


async def test_pages_are_encoded_and_progress_reaches_the_end(broker):
    async with running(catalog(broker)):
        await publish(broker, page("red"), page("blue"), page("green"))
        progress = await indexed(broker)
    assert progress.encoded == 3 and progress.errors == {}
    held = await vectors(broker)
    assert held.keys() == {"red", "blue", "green"}
    assert held["red"].model_version == "hue@1"
    assert held["red"].terms and held["red"].vectors and held["red"].fused


async def test_bad_pictures_cost_a_page_only_if_none_is_left(broker):
    bad, good = PageImage(uri="/nowhere/bad.jpg"), PageImage(uri="good.png", data=png("red"))
    async with running(catalog(broker)) as worker:
        await publish(broker, page("red", (bad, good)), page("blue", (bad,)), page("green"))
        progress = await indexed(broker)
        assert list(progress.errors) == ["blue"]
        assert "/nowhere/bad.jpg" in progress.errors["blue"]

        async def dead():
            return sum((await end_offsets(broker, dead_letter(PRODUCT_PAGES))).values()) == 1

        await until(dead, worker)
    assert (await vectors(broker))["red"].images == ("good.png",)


async def test_why_a_page_failed_is_awaited_also_where_its_dead_letter_comes_first(broker, monkeypatch):
    async with running(catalog(broker)) as worker:
        await publish(broker, page("red", (PageImage(uri="/nowhere/red.jpg"),)))

        async def dead():
            return sum((await end_offsets(broker, dead_letter(PRODUCT_PAGES))).values()) == 1

        await until(dead, worker)

    looked = asyncio.Event()

    class Late(Follower):
        async def __aiter__(self):
            await looked.wait()
            async for record in super().__aiter__():
                yield record

    class Looked(CatalogProgress):
        def has_reached(self, offsets):
            if reached := super().has_reached(offsets):
                looked.set()
            return reached

    monkeypatch.setattr("workers.catalog.progress.Follower", Late)
    monkeypatch.setattr("workers.catalog.progress.CatalogProgress", Looked)
    assert "/nowhere/red.jpg" in (await indexed(broker)).errors["red"]


async def test_a_record_that_is_no_page_does_not_hold_up_progress(broker):
    async with running(catalog(broker)):
        await publish(broker, page("red"))
        async with Producer(broker) as producer:
            for key in (b"junk-1", b"junk-2", b"junk-3"):  # some of them last in their partitions
                await producer.send_raw(PRODUCT_PAGES, key, b"\xc1", [])
        assert (await indexed(broker)).errors == {}


async def test_a_tombstone_withdraws_a_page(broker):
    async with running(catalog(broker)):
        await publish(broker, page("red"))
        async with Producer(broker) as producer:
            await producer.send(PRODUCT_PAGES, "red", None)
        await indexed(broker)
    assert (await vectors(broker))["red"].withdrawn


async def test_a_page_under_a_foreign_key_is_refused(broker):
    async with running(catalog(broker)):
        async with Producer(broker) as producer:
            await producer.send(PRODUCT_PAGES, "blue", page("red"))
        assert "send it with its own id" in (await indexed(broker)).errors["blue"]


@pytest.mark.parametrize("again", [True, False])
async def test_pages_of_another_model_are_encoded_again_once(broker, again):
    async with running(catalog(broker)):
        await publish(broker, page("red"), page("blue"))
        await indexed(broker)
    model = HueModel("hue@2" if again else "hue@1")

    async with running(catalog(broker, model)) as worker:
        await publish(broker, page("green"))

        async def all_new():
            return {r.model_version for r in (await vectors(broker)).values()} == {model.version} and "green" in (
                await vectors(broker)
            )

        await until(all_new, worker)
    records = await read_all(broker, PAGE_VECTORS, PageVectors)
    assert sorted(record.product_id for record in records) == sorted(
        ["red", "blue", "green"] + (["red", "blue"] if again else [])
    )
