"""What is on now over HTTP: JSON for the state, server-sent events for changes (`docs/monitor.md`)."""

import asyncio
import time
from collections.abc import Callable

import msgspec
from aiohttp import web

from topology import metrics
from workers.monitor.feed import Feed, TooOldError, message
from workers.monitor.routes import RefusedError, Route, answer, error
from workers.monitor.state import MonitorState, OnNow, StreamView

# Proxies close connections that are silent for 30 to 60 s, and a closed connection is only noticed by writing to it.
HEARTBEAT_S = 15.0
# A client that takes nothing for this long has stopped reading; a page on a bad line recovers sooner.
WRITE_TIMEOUT_S = 10.0
# Each client is a socket and a task that each change wakes. For more, put a server in front that fans out.
MAX_CLIENTS = 256
_RETRY_MS = 2_000  # how long a browser waits before it connects again

Dress = Callable[[StreamView], StreamView]


class NowOn(OnNow, frozen=True, kw_only=True):
    """What one stream is showing."""

    stream_id: str
    lag_s: float


class StreamList(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of /streams. Reading `/events?after=<last_event_id>` goes on where this answer stands."""

    last_event_id: str
    streams: list[StreamView]


class NowList(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of /now."""

    last_event_id: str
    now: list[NowOn]


class Api:
    """Streams, what they show, and the feed.

    Args:
        state: The state of all streams.
        feed: Its changes.
        dress: Adds names and pictures to a stream, which the state does not have.
    """

    def __init__(self, state: MonitorState, feed: Feed, dress: Dress = lambda view: view) -> None:
        self.clients = 0
        self._state = state
        self._feed = feed
        self._dress = dress

    def routes(self) -> list[Route]:
        """Returns the routes. The route of a stream matches any path with its prefix, so it comes last."""
        after = {"after": "`last_event_id` of an answer: the feed goes on where that stands"}
        return [
            Route("GET", "/streams", self._get_streams, "All streams.", StreamList),
            Route("GET", "/streams/{stream_id:.+}", self._get_stream, "One stream.", StreamView),
            Route("GET", "/now", self._get_now, "What is on now, by stream.", NowList),
            Route(
                "GET", "/events", self._get_events, "The change feed: server-sent events.", "text/event-stream", after
            ),
        ]

    async def _get_streams(self, _: web.Request) -> web.Response:
        views = [self._dress(view) for view in self._state.views(now_ms())]
        return answer(StreamList(last_event_id=self._feed.last_id, streams=views))

    async def _get_stream(self, request: web.Request) -> web.Response:
        stream_id = request.match_info["stream_id"]
        view = self._state.view(stream_id, now_ms())
        if view is None:
            raise RefusedError(404, f"no stream {stream_id[:80]!r}: /streams lists those that are known")
        return answer(self._dress(view))

    async def _get_now(self, _: web.Request) -> web.Response:
        now = [
            NowOn(stream_id=view.stream_id, lag_s=view.lag_s, **msgspec.structs.asdict(view.on))
            for view in map(self._dress, self._state.views(now_ms()))
            if view.on is not None
        ]
        return answer(NowList(last_event_id=self._feed.last_id, now=now))

    async def _get_events(self, request: web.Request) -> web.StreamResponse:
        if self.clients >= MAX_CLIENTS:
            metrics.MONITOR_CLIENTS_DROPPED.labels("full").inc()
            return error(503, f"{MAX_CLIENTS} clients follow already", {"Retry-After": "10"})
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        self.clients += 1
        try:
            await response.prepare(request)
            await self._follow(request, response)
        except TooOldError:
            self._drop(request, "slow")
        except TimeoutError:
            self._drop(request, "stuck")
        except ConnectionError:
            pass  # it has left
        finally:
            self.clients -= 1
        return response

    async def _follow(self, request: web.Request, response: web.StreamResponse) -> None:
        wanted = request.headers.get("Last-Event-ID") or request.query.get("after")
        position = self._feed.position(wanted) if wanted else self._feed.end
        await _write(response, b"retry: %d\n\n" % _RETRY_MS)
        if position is None:
            position = self._feed.end
            reason = b'{"reason":"changes were missed: read /streams again"}'
            await _write(response, message("reset", self._feed.last_id, reason))
        while not self._feed.closed:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    changes = await self._feed.after(position)
            except TimeoutError:
                await _write(response, b": nothing new\n\n")
                continue
            if changes:
                await _write(response, b"".join(changes))
                position += len(changes)

    def _drop(self, request: web.Request, reason: str) -> None:
        metrics.MONITOR_CLIENTS_DROPPED.labels(reason).inc()
        if request.transport is not None:
            request.transport.abort()  # an orderly end would wait for the client to read


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_TIMEOUT_S):
        await response.write(data)


def now_ms() -> int:
    """Returns the wall clock, Unix milliseconds."""
    return time.time_ns() // 1_000_000
