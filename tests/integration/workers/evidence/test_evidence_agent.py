"""The evidence role on a broker: what is kept of a sighting, and served by a monitor."""

import io
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from tests.integration.workers.monitor.test_monitor_agent import event, get, monitor, send_stream
from tests.integration.workers.monitor.test_monitor_rest import publish
from topology.admin import create_topics
from topology.evidence import EvidenceStore
from topology.records import Evidence, EvidenceFrame, Frame
from topology.topic_log import Producer, end_offsets, partition_of
from topology.topics import LIVE_FRAMES, PRODUCT_DETECTED
from topology.worker import Worker
from workers.evidence.agent import build

BOX = (0.25, 0.25, 0.75, 0.75)


@pytest.fixture
async def producer(broker):
    await create_topics(broker)
    async with Producer(broker) as one:
        yield one


@pytest.fixture
def settings(broker, tmp_path):
    return broker.model_copy(update={"evidence_url": str(tmp_path / "evidence"), "evidence_frames": 3})


@asynccontextmanager
async def keeping(settings):
    worker = Worker("evidence", settings, serve_http=False)
    build(worker)
    try:
        await worker.start()
        yield worker
    finally:
        await worker.stop()


def picture(number):
    buffer = io.BytesIO()
    pixels = np.full((90, 160, 3), 2 * number, np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


async def send_frames(broker, producer, count):
    """Sends frames of two rooms; returns the offset of each of the first room's."""
    ends = await end_offsets(broker, LIVE_FRAMES)
    partition = partition_of("room", len(ends))
    neighbour = next(f"n{i}" for i in range(100) if partition_of(f"n{i}", len(ends)) == partition)
    offsets = []
    for number in range(count):
        for stream_id in (neighbour, "room"):
            frame = Frame(
                stream_id=stream_id,
                epoch=0,
                pts_ms=1_000 * number,
                captured_at_ms=7,
                width=160,
                height=90,
                jpeg=picture(number + (100 if stream_id == neighbour else 0)),
            )
            await producer.send(LIVE_FRAMES, stream_id, frame)
        offsets.append(ends[partition] + 2 * number + 1)
    return offsets


def seen(kind, at_ms, frames, offsets):
    evidence = Evidence(
        frames=tuple(
            EvidenceFrame(pts_ms=1_000 * number, box=BOX, score=score, page_image="shop/1.jpg", offset=offsets[number])
            for number, score in frames
        )
    )
    return msgspec.structs.replace(event(kind, at_ms=at_ms), detection_id="d-1", evidence=evidence)


async def test_what_an_event_rests_on_is_kept_and_served(settings, producer, until):
    store = EvidenceStore(settings.evidence_url)
    await publish(producer, settings, "bag")
    offsets = await send_frames(settings, producer, 8)
    await send_stream(producer)
    async with keeping(settings), monitor(settings) as (_, client):
        await producer.send(PRODUCT_DETECTED, "room", seen("started", 8_000, [(1, 0.5), (2, 0.8), (3, 0.6)], offsets))
        await producer.send(PRODUCT_DETECTED, "room", seen("updated", 18_000, [(4, 0.7)], offsets))
        await producer.send(PRODUCT_DETECTED, "room", seen("updated", 28_000, [(5, 0.9), (6, 0.95)], offsets))
        await producer.send(PRODUCT_DETECTED, "room", seen("ended", 38_000, [(7, 0.1)], offsets))
        await until(lambda: (kept := store.get("d-1")) is not None and kept.event.status == "ended")
        kept = store.get("d-1")
        assert [one.pts_ms for one in kept.frames] == [2_000, 3_000, 6_000]
        assert kept.frames[0].jpeg == picture(2), "no face, no change"
        assert (kept.title, [one.status for one in kept.events]) == ("The bag", ["started", "ended"])
        assert Image.open(io.BytesIO(kept.page)).size == (64, 48)

        async def told() -> bool:
            (room,) = (await get(client, "/streams"))["streams"]
            return (room["frame"], room["box"]) == ("/detections/d-1/frames/6000.jpg", list(BOX))

        await until(told)
        detail = await get(client, "/detections/d-1")
        assert [one["url"] for one in detail["frames"]][-1] == "/detections/d-1/frames/6000.jpg"
        async with client.get(detail["frames"][0]["url"]) as response:
            assert await response.read() == picture(2)
            assert "immutable" in response.headers["Cache-Control"]
        for path in (detail["frames"][1]["crop_url"], "/detections/d-1/page.jpg", "/streams/room/frame.jpg"):
            async with client.get(path) as response:
                assert (response.status, response.content_type) == (200, "image/jpeg"), path
        async with client.get("/detections/d-1/frames/5000.jpg") as response:
            assert (response.status, set(await response.json())) == (404, {"error"})


async def test_what_is_gone_is_left_out_the_limit_is_obeyed_and_old_detections_are_told_of(settings, producer, until):
    settings = settings.model_copy(update={"evidence_limit_mb": 1})
    store = EvidenceStore(settings.evidence_url)
    offsets = await send_frames(settings, producer, 3)
    wrong = [offsets[0], offsets[1] - 1, 10_000]  # the neighbour's, and one that is not there
    large = await send_large_frame(settings, producer)
    async with keeping(settings):
        await producer.send(PRODUCT_DETECTED, "room", seen("started", 8_000, [(0, 0.5), (1, 0.8), (2, 0.6)], wrong))
        await until(lambda: store.get("d-1") is not None)
        assert [one.pts_ms for one in store.get("d-1").frames] == [0]
        for number in range(8):
            one = seen("started", 8_000, [(9, 0.5)], {9: large})
            await producer.send(PRODUCT_DETECTED, "room", msgspec.structs.replace(one, detection_id=f"large-{number}"))
        await until(lambda: store.get("large-7") is not None)
        assert store.get("d-1") is None, "the oldest goes first"
        assert size_of(settings.evidence_url) <= 1_000_000
    elsewhere = settings.model_copy(update={"topic_prefix": settings.topic_prefix + "empty-"})
    async with monitor(elsewhere) as (_, client):
        detail = await get(client, "/detections/large-7")
        assert (detail["detection"]["status"], len(detail["frames"])) == ("started", 1)


def size_of(folder):
    return sum(path.stat().st_size for path in Path(folder).rglob("*.evidence"))


async def send_large_frame(broker, producer):
    ends = await end_offsets(broker, LIVE_FRAMES)
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (500, 700, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", quality=60)
    assert 150_000 < buffer.tell() < 250_000
    frame = Frame(
        stream_id="room", epoch=0, pts_ms=9_000, captured_at_ms=7, width=700, height=500, jpeg=buffer.getvalue()
    )
    await producer.send(LIVE_FRAMES, "room", frame)
    return ends[partition_of("room", len(ends))]
