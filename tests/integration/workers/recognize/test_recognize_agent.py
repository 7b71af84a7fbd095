"""The recognize role on a broker, with Qdrant Edge."""

import pytest

from cope.model.scoring import UNCALIBRATED
from tests.integration.workers.catalog_parts import HueModel, end_of_epoch, page, read_all, running, until, window
from topology.admin import create_topics
from topology.records import ProductDetected, RecognitionState
from topology.topic_log import Producer, end_offsets
from topology.topics import LIVE_WINDOWS, PRODUCT_DETECTED, PRODUCT_PAGES, RECOGNITION_STATE, dead_letter
from topology.worker import Worker
from workers.catalog.agent import build as build_catalog
from workers.catalog.progress import wait_indexed
from workers.recognize.agent import build as build_recognize

SHOW = [None] * 3 + ["red"] * 6 + [None] * 6 + ["blue"] * 6 + [None] * 2


def role(name, settings, **parts):
    worker = Worker(name, settings, serve_http=False)
    {"catalog": build_catalog, "recognize": build_recognize}[name](worker, encoder=HueModel(), **parts)
    return worker


@pytest.fixture
async def catalogue(broker):
    """A broker whose catalogue is encoded."""
    await create_topics(broker)
    async with Producer(broker) as producer:
        for name in ("red", "blue", "green"):
            await producer.send(PRODUCT_PAGES, name, page(name))
    async with running(role("catalog", broker)):
        async for _ in wait_indexed(broker, await end_offsets(broker, PRODUCT_PAGES)):
            pass
    return broker


async def feed(settings, records):
    async with Producer(settings) as producer:
        for record in records:
            await producer.send(LIVE_WINDOWS, record.stream_id, record)


def stream(show=SHOW, **options):
    return [window(number, name, **options) for number, name in enumerate(show)]


async def finished(settings, stream_id="room", start_ms=None):
    """True when the stream's state says that it has ended (or that the window was seen)."""
    states = [
        one for one in await read_all(settings, RECOGNITION_STATE, RecognitionState) if one.stream_id == stream_id
    ]
    return any(one.ended if start_ms is None else one.start_ms >= start_ms for one in states)


async def events(settings):
    return await read_all(settings, PRODUCT_DETECTED, ProductDetected)


def outcome(found):
    return {(one.detection_id, one.status) for one in found}


async def test_showings_become_sightings(catalogue):
    await feed(catalogue, [*stream(), end_of_epoch(len(SHOW))])
    async with running(role("recognize", catalogue)) as worker:
        await until(lambda: finished(catalogue), worker)
    found = await events(catalogue)
    assert [(one.product_id, one.status) for one in found if one.status != "updated"] == [
        ("red", "started"),
        ("red", "ended"),
        ("blue", "started"),
        ("blue", "ended"),
    ]
    started = found[0]
    assert started.media_start_ms == 3 * 2_000 + 6_000
    assert started.model_version == "hue@1"
    assert started.index_version == "product_pages_v1"
    assert started.evidence.frame_pts_ms and started.evidence.visual_score > 0.9
    assert started.latency_ms >= 0


async def test_a_restart_in_the_middle_changes_no_outcome(catalogue):
    records = [*stream(), end_of_epoch(len(SHOW))]
    other = [*stream(stream_id="other"), end_of_epoch(len(SHOW), stream_id="other")]
    await feed(catalogue, records[:7])
    async with running(role("recognize", catalogue)) as worker:
        await until(lambda: finished(catalogue, start_ms=6 * 2_000), worker)
    await feed(catalogue, records[5:])  # two of them again
    async with running(role("recognize", catalogue)) as worker:
        await until(lambda: finished(catalogue), worker)
        await feed(catalogue, other)
        await until(lambda: finished(catalogue, "other"), worker)
    found = await events(catalogue)
    halved = [one for one in found if one.stream_id == "room"]
    undisturbed = [one for one in found if one.stream_id == "other"]
    assert [(one.product_id, one.status, one.media_start_ms, one.media_end_ms, one.confidence) for one in halved] == [
        (one.product_id, one.status, one.media_start_ms, one.media_end_ms, one.confidence) for one in undisturbed
    ]


async def test_a_bag_limits_what_is_recognised_and_unknown_ids_are_ignored(catalogue):
    await feed(catalogue, [*stream(bag=("blue", "unknown")), end_of_epoch(len(SHOW))])
    async with running(role("recognize", catalogue)) as worker:
        await until(lambda: finished(catalogue), worker)
    assert {one.product_id for one in await events(catalogue)} == {"blue"}


async def test_what_is_not_in_the_catalogue_is_not_recognised(catalogue):
    await feed(catalogue, [*stream(["cyan"] * 10), end_of_epoch(10)])
    async with running(role("recognize", catalogue)) as worker:
        await until(lambda: finished(catalogue), worker)
    assert await events(catalogue) == []


async def test_an_empty_catalogue_sees_windows_through_as_none(broker, caplog):
    await create_topics(broker)
    await feed(broker, [*stream(), end_of_epoch(len(SHOW))])
    async with running(role("recognize", broker)) as worker:
        await until(lambda: finished(broker), worker)
    assert await events(broker) == []
    assert "the catalogue is empty" in caplog.text


async def test_a_model_that_is_not_calibrated_is_told(broker, caplog):
    await create_topics(broker)
    model, worker = HueModel(), Worker("recognize", broker, serve_http=False)
    model.calibration = UNCALIBRATED
    build_recognize(worker, encoder=model)
    async with running(worker):
        pass
    assert "the model is not calibrated" in caplog.text and "cope.calibrate" in caplog.text


async def test_a_window_of_another_model_is_dead_lettered_and_the_stream_goes_on(catalogue):
    records = stream()
    records[2] = window(2, model="other@9")
    await feed(catalogue, [*records, end_of_epoch(len(SHOW))])
    async with running(role("recognize", catalogue)) as worker:
        await until(lambda: finished(catalogue), worker)
    assert sum((await end_offsets(catalogue, dead_letter(LIVE_WINDOWS))).values()) == 1
    assert {one.product_id for one in await events(catalogue)} == {"red", "blue"}


async def test_windows_wait_for_a_catalogue_that_is_not_encoded_yet(broker):
    await create_topics(broker)
    async with Producer(broker) as producer:
        for name in ("red", "blue"):
            await producer.send(PRODUCT_PAGES, name, page(name))
    await feed(broker, [*stream(), end_of_epoch(len(SHOW))])
    async with running(role("recognize", broker)) as recognize, running(role("catalog", broker)) as catalog:
        await until(lambda: finished(broker), recognize, catalog)
    assert {one.product_id for one in await events(broker)} == {"red", "blue"}


async def test_a_product_published_while_running_is_recognised_by_the_next_stream(catalogue):
    show = ["cyan"] * 6
    async with running(role("recognize", catalogue)) as recognize, running(role("catalog", catalogue)) as catalog:
        await feed(catalogue, [*stream(show), end_of_epoch(6)])
        await until(lambda: finished(catalogue), recognize)
        async with Producer(catalogue) as producer:
            await producer.send(PRODUCT_PAGES, "cyan", page("cyan"))
        async for _ in wait_indexed(catalogue, await end_offsets(catalogue, PRODUCT_PAGES)):
            pass
        await feed(catalogue, [*stream(show, stream_id="next"), end_of_epoch(6, stream_id="next")])
        await until(lambda: finished(catalogue, "next"), recognize, catalog)
    assert {(one.stream_id, one.product_id) for one in await events(catalogue)} == {("next", "cyan")}
