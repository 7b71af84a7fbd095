"""The monitor role on a broker, asked over HTTP."""

import asyncio
import time
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest

from topology.admin import create_topics
from topology.embedded import EmbeddedBroker
from topology.records import Evidence, ProductDetected, RecognitionState, StreamAnnounced, StreamStatus
from topology.settings import Settings
from topology.topic_log import Producer
from topology.topics import LIVE_STREAMS, PRODUCT_DETECTED, RECOGNITION_STATE, STREAM_STATUS
from topology.worker import Worker
from workers.monitor import agent
from workers.monitor.agent import build


@asynccontextmanager
async def monitor(settings: Settings):
    """A running monitor, which has read the topics back, and a client of it."""
    worker = Worker("monitor", settings)
    build(worker)
    try:
        await worker.start()
        async with aiohttp.ClientSession(f"http://127.0.0.1:{worker.http_port}") as client:
            await until(lambda: healthy(client), worker)
            yield worker, client
    finally:
        await worker.stop()


async def until(condition, worker: Worker):
    async with asyncio.timeout(120):
        while not (result := await condition()):
            if worker.delivery.failure is not None:
                raise worker.delivery.failure
            await asyncio.sleep(0.05)
        return result


async def healthy(client) -> bool:
    async with client.get("/healthz") as response:
        return response.status == 200


async def get(client, path):
    async with client.get(path) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def stream(client, stream_id="room"):
    async with client.get(f"/streams/{stream_id}") as response:
        return await response.json() if response.status == 200 else None


async def read_changes(response, count):
    """The next changes of the feed as (event, id, data)."""
    found = []
    async with asyncio.timeout(120):
        while len(found) < count:
            lines = (await response.content.readuntil(b"\n\n")).decode().splitlines()
            fields = dict(line.split(": ", 1) for line in lines if line and not line.startswith(":"))
            if "event" in fields:
                found.append((fields["event"], fields["id"], msgspec.json.decode(fields["data"])))
    return found


def event(kind, product_id="bag", at_ms=12_000):
    return ProductDetected(
        detection_id=f"sighting of {product_id}",
        stream_id="room",
        product_id=product_id,
        status=kind,
        epoch=0,
        media_start_ms=9_000,
        media_end_ms=at_ms,
        emitted_media_ms=at_ms,
        detected_at="2026-01-01T00:00:00.000Z",
        latency_ms=1_850,
        confidence=0.93,
        evidence=Evidence(frame_pts_ms=(9_000, 10_000)),
        model_version="cope-mini@3fa1c2",
        index_version="product_pages_v1",
    )


def status(state, sent_until_ms=0, detail=""):
    now_ms = time.time_ns() // 1_000_000
    return StreamStatus(
        stream_id="room",
        epoch=0,
        state=state,
        announced_offset=0,
        sent_until_ms=sent_until_ms,
        detail=detail,
        at_ms=now_ms,
        frame_at_ms=now_ms - 200,
    )


@pytest.fixture
async def producer(broker):
    await create_topics(broker)
    async with Producer(broker) as one:
        yield one


async def send_stream(producer):
    await producer.send(LIVE_STREAMS, "room", StreamAnnounced(stream_id="room", url="rtmp://media.example/room"))
    await producer.send(STREAM_STATUS, "room", status("live", 20_000))
    await producer.send(RECOGNITION_STATE, "room", RecognitionState(stream_id="room", epoch=0, start_ms=6_000))
    await producer.send(PRODUCT_DETECTED, "room", event("started"))


async def test_it_knows_streams_of_before_its_start(broker, producer):
    await send_stream(producer)
    async with monitor(broker) as (_, client):
        listed = await get(client, "/streams")
        (one,) = listed["streams"]
        assert (one["state"], one["url"], one["position_ms"]) == ("live", "rtmp://media.example/room", 20_000)
        assert (one["recognised_ms"], one["lag_s"]) == (14_000, 6.0)
        assert one["frame_age_s"] >= 0.2
        assert (one["on"]["product_id"], one["last_event"]["status"]) == ("bag", "started")
        assert [one["stream_id"] for one in (await get(client, "/now"))["now"]] == ["room"]
        async with client.get("/metrics") as response:
            assert 'cope_monitor_streams{state="live"} 1.0' in await response.text()


async def test_it_follows_what_happens(broker, producer):
    async with monitor(broker) as (worker, client):
        assert (await get(client, "/streams"))["streams"] == []
        async with client.get("/events") as feed:
            await send_stream(producer)
            await producer.send(PRODUCT_DETECTED, "room", event("ended", at_ms=20_000))
            await producer.send(STREAM_STATUS, "room", status("failed", 20_000, "404 Not Found"))
            changes = await read_changes(feed, 5)
        detections = [data["status"] for kind, _, data in changes if kind == "detection"]
        assert detections == ["started", "ended"]
        states = [data["state"] for kind, _, data in changes if kind == "stream"]
        assert len(states) == 3 and states[-1] == "failed"

        async def failed():
            return (await stream(client))["state"] == "failed"

        await until(failed, worker)
        one = await stream(client)
        assert (one["detail"], one["on"]) == ("404 Not Found", None)


async def test_a_broken_feed_is_resumed_without_gaps_and_copies(broker, producer):
    async with monitor(broker) as (worker, client):
        async with client.get("/events") as feed:
            await producer.send(PRODUCT_DETECTED, "room", event("started"))
            ((_, last_id, _),) = await read_changes(feed, 1)
        for one in (event("started"), event("updated", at_ms=22_000), event("updated", at_ms=22_000)):
            await producer.send(PRODUCT_DETECTED, "room", one)

        async def seen():
            return (await stream(client))["last_event"]["emitted_media_ms"] == 22_000

        await until(seen, worker)
        async with client.get("/events", headers={"Last-Event-ID": last_id}) as feed:
            await producer.send(PRODUCT_DETECTED, "room", event("ended", at_ms=30_000))
            changes = await read_changes(feed, 2)
        assert [data["status"] for *_, data in changes] == ["updated", "ended"]
        assert msgspec.convert(changes[1][2], ProductDetected) == event("ended", at_ms=30_000)


async def test_another_monitor_knows_the_same_and_resets_the_feed_of_the_first(broker, producer):
    await send_stream(producer)
    async with monitor(broker) as (_, client):
        before = await get(client, "/now")
    async with monitor(broker) as (_, client):
        after = await get(client, "/now")
        assert after["now"] == before["now"]
        async with client.get("/events", headers={"Last-Event-ID": before["last_event_id"]}) as feed:
            ((kind, *_),) = await read_changes(feed, 1)
    assert kind == "reset"


async def test_clients_do_not_hold_its_stop_up(broker, producer):
    async with monitor(broker) as (worker, client):
        async with client.get("/events") as feed:
            await feed.content.readuntil(b"\n\n")
            await asyncio.wait_for(worker.stop(), 5)
            assert await asyncio.wait_for(feed.content.read(), 5) == b""


async def test_records_it_cannot_read_are_passed_over(broker, producer):
    await producer.send_raw(STREAM_STATUS, b"room", b"\x00 no record", [])
    await send_stream(producer)
    async with monitor(broker) as (_, client):
        assert (await stream(client))["state"] == "live"


async def test_a_broker_that_is_gone_makes_it_unhealthy_but_not_silent(monkeypatch):
    monkeypatch.setattr(agent, "PROBE_EVERY_S", 0.2)
    monkeypatch.setattr(agent, "PROBE_TIMEOUT_S", 2.0)
    broker = EmbeddedBroker()
    broker.start()
    try:
        settings = broker.configure(Settings(_env_file=None)).model_copy(update={"stream_partitions": 1})
        await create_topics(settings)
        async with Producer(settings) as producer:
            await send_stream(producer)
        async with monitor(settings) as (worker, client):
            broker.stop()

            async def unhealthy():
                return not await healthy(client)

            await until(unhealthy, worker)
            async with client.get("/healthz") as response:
                assert "the broker does not answer" in (await response.json())["checks"]["topics"]
            assert (await stream(client))["state"] == "live"
    finally:
        broker.stop()
