"""The routes, over real connections, without a broker."""

import asyncio
import time
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.unit.workers.monitor.monitor_records import WINDOW_MS, announced, event, recognised, status
from topology import metrics
from topology.records import ProductDetected
from workers.monitor import http
from workers.monitor.feed import Feed
from workers.monitor.http import Api
from workers.monitor.routes import Routes
from workers.monitor.state import MonitorState


class Site:
    """The routes on a server of their own, fed by hand."""

    def __init__(self, capacity=100):
        self.state = MonitorState(WINDOW_MS)
        self.feed = Feed(capacity)
        self.behind = []
        self.api = Api(self.state, self.feed)
        self.routes = Routes({"streams": lambda: self.behind})
        self.routes.add(*self.api.routes())

    def see(self, record):
        now_ms = http.now_ms()
        if self.state.on_event(record, now_ms, now_ms):
            self.feed.publish("detection", msgspec.json.encode(record))

    @asynccontextmanager
    async def serve(self):
        application = web.Application()
        self.routes.serve(application)
        async with TestClient(TestServer(application)) as client:
            yield client
            self.feed.close()


@pytest.fixture
async def site():
    return Site()


async def read_messages(response, count):
    """The next messages as (event, id, data); comments and the retry time are passed over."""
    found = []
    async with asyncio.timeout(60):
        while len(found) < count:
            lines = (await response.content.readuntil(b"\n\n")).decode().splitlines()
            fields = dict(line.split(": ", 1) for line in lines if line and not line.startswith(":"))
            if "event" in fields:
                found.append((fields["event"], fields["id"], msgspec.json.decode(fields["data"])))
    return found


def dropped(reason):
    return metrics.MONITOR_CLIENTS_DROPPED.labels(reason)._value.get()


async def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_streams_are_listed_and_looked_up(site):
    now_ms = http.now_ms()
    site.state.on_announced("shop/7", announced("shop/7"), 0, now_ms, now_ms)
    site.state.on_status("shop/7", status(stream_id="shop/7", frame_at_ms=now_ms - 500), now_ms, now_ms)
    async with site.serve() as client:
        listed = await (await client.get("/streams")).json()
        assert [one["stream_id"] for one in listed["streams"]] == ["shop/7"]
        for path in ("/streams/shop/7", "/streams/shop%2F7"):
            one = await (await client.get(path)).json()
            assert (one["state"], one["on"]) == ("live", None)
            assert 0.5 <= one["frame_age_s"] < 20


async def test_what_can_be_got_has_a_head_but_the_feed_which_has_no_end(site):
    async with site.serve() as client:
        for path, status in (("/streams", 200), ("/streams/none", 404), ("/now", 200), ("/events", 405)):
            response = await client.head(path)
            assert (response.status, await response.read()) == (status, b""), path


async def test_an_unknown_stream_is_404_in_json(site):
    async with site.serve() as client:
        response = await client.get("/streams/nowhere")
        assert response.status == 404
        assert "nowhere" in (await response.json())["error"]


async def test_now_lists_only_streams_that_show_something(site):
    now_ms = http.now_ms()
    site.see(event("started", stream_id="room-1"))
    site.see(event("started", stream_id="room-2"))
    site.see(event("ended", stream_id="room-2", at_ms=14_000))
    site.state.on_recognition(recognised(4_000, stream_id="room-1"), now_ms, now_ms)
    async with site.serve() as client:
        now = (await (await client.get("/now")).json())["now"]
    assert [(one["stream_id"], one["product_id"], one["confidence"]) for one in now] == [("room-1", "bag", 0.93)]


@pytest.mark.parametrize("path", ["/streams", "/streams/a", "/now", "/events"])
async def test_nothing_is_told_before_the_topics_are_read_back(site, path):
    site.behind.append("stream_status")
    async with site.serve() as client:
        response = await client.get(path)
        assert response.status == 503
        assert "stream_status" in (await response.json())["error"]
        assert response.headers["Retry-After"] == "1"


async def test_the_feed_goes_on_where_a_list_stands(site):
    site.see(event("started", "before"))
    async with site.serve() as client:
        last_id = (await (await client.get("/now")).json())["last_event_id"]
        site.see(event("ended", "before", 14_000))
        async with client.get("/events", params={"after": last_id}) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            site.see(event("started", "after", 16_000))
            got = await read_messages(response, 2)
    assert [(kind, data["product_id"], data["status"]) for kind, _, data in got] == [
        ("detection", "before", "ended"),
        ("detection", "after", "started"),
    ]
    assert msgspec.convert(got[1][2], ProductDetected) == event("started", "after", 16_000)


async def test_a_client_that_comes_back_gets_what_it_missed(site):
    async with site.serve() as client:
        async with client.get("/events") as response:
            site.see(event("started", at_ms=12_000))
            ((_, last_id, _),) = await read_messages(response, 1)
        for at_ms in (22_000, 32_000):
            site.see(event("updated", at_ms=at_ms))
        async with client.get("/events", headers={"Last-Event-ID": last_id}) as response:
            got = await read_messages(response, 2)
    assert [data["emitted_media_ms"] for *_, data in got] == [22_000, 32_000]


@pytest.mark.parametrize("why", ["too old", "of another process"])
async def test_a_client_whose_changes_are_gone_is_told_to_read_anew(why):
    site = Site(capacity=2)
    first = site.feed.last_id if why == "too old" else Feed().last_id
    for at_ms in (12_000, 22_000, 32_000):
        site.see(event("updated", at_ms=at_ms))
    async with site.serve() as client, client.get("/events", headers={"Last-Event-ID": first}) as response:
        site.see(event("ended", at_ms=40_000))
        (reset, change) = await read_messages(response, 2)
    assert reset[0] == "reset"
    assert change[2]["status"] == "ended"
    assert site.feed.position(reset[1]) == 3, "a reconnection after the reset goes on, and is not reset again"


async def test_a_silent_feed_is_kept_open_with_comments(site, monkeypatch):
    monkeypatch.setattr(http, "HEARTBEAT_S", 0.05)
    async with site.serve() as client, client.get("/events") as response:
        async with asyncio.timeout(60):
            assert (await response.content.readuntil(b"\n\n")).startswith(b"retry: ")
            assert (await response.content.readuntil(b"\n\n")).startswith(b":")


async def test_a_client_that_the_ring_runs_over_is_cut_off_and_counted(site):
    before = dropped("slow")
    async with site.serve() as client, client.get("/events") as response:
        await until(lambda: site.api.clients == 1)
        await response.content.readuntil(b"\n\n")
        for number in range(101):  # at once: the client's task cannot run in between
            site.feed.publish("stream", str(number).encode())
        with pytest.raises((aiohttp.ClientError, asyncio.IncompleteReadError)):
            await read_messages(response, 1)
        await until(lambda: site.api.clients == 0)
    assert dropped("slow") == before + 1


async def test_a_client_that_does_not_read_is_cut_off_and_counted(site, monkeypatch):
    monkeypatch.setattr(http, "WRITE_TIMEOUT_S", 0.2)
    before = dropped("stuck")
    async with site.serve() as client:
        reader, writer = await asyncio.open_connection(client.host, client.port, limit=1_024)
        writer.write(b"GET /events HTTP/1.1\r\nHost: monitor\r\n\r\n")
        await until(lambda: site.api.clients == 1)
        while site.api.clients:
            site.feed.publish("stream", b'"' + b"x" * 1_000_000 + b'"')
            await asyncio.sleep(0.01)
        writer.close()
        assert reader is not None
    assert dropped("stuck") == before + 1


async def test_a_client_too_many_is_refused(site, monkeypatch):
    monkeypatch.setattr(http, "MAX_CLIENTS", 1)
    async with site.serve() as client, client.get("/events"):
        second = await client.get("/events")
        assert second.status == 503
        assert "Retry-After" in second.headers


async def test_closing_the_feed_ends_its_clients_in_order(site):
    async with site.serve() as client, client.get("/events") as response:
        await until(lambda: site.api.clients == 1)
        site.feed.close()
        async with asyncio.timeout(60):
            assert (await response.read()).startswith(b"retry: ")
    assert site.api.clients == 0
