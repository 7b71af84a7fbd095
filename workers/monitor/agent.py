"""The monitor role: follows the topics about streams, and serves the state over HTTP.

It reads all partitions in every process, without a group: monitors behind a balancer are equal, and none has state
that is not in the topics. It reads about 1 kB/s a stream: `stream_status` has state, position and the last frame,
`recognition_state` how far recognition has come, `product_detected` what is on. `live_windows` is ten times as large
and has nothing more.
"""

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from aiohttp import web

from topology import metrics
from topology.errors import BadInput, Unavailable
from topology.evidence import EvidenceStore, evidence_url
from topology.records import EvidenceFrame, ProductDetected, RecognitionState, Record, StreamAnnounced, StreamStatus
from topology.topic_log import Follower, RecordReader, end_offsets
from topology.topics import (
    DETECTION_VERDICTS,
    LIVE_STREAMS,
    PAGE_VECTORS,
    PRODUCT_DETECTED,
    RECOGNITION_STATE,
    STREAM_STATUS,
)
from topology.worker import Worker
from workers.monitor.again import Again, ReadStretch
from workers.monitor.answers import VerdictView
from workers.monitor.detections import Detections, detection_url
from workers.monitor.feed import Feed, Kind
from workers.monitor.history import History
from workers.monitor.http import Api, now_ms
from workers.monitor.kept import KeptEvidence
from workers.monitor.openapi import FILE
from workers.monitor.page_files import add_page
from workers.monitor.products import Products
from workers.monitor.routes import RefusedError, Route, Routes
from workers.monitor.session import Sessions
from workers.monitor.state import MAX_STREAMS, STATES, LastEvent, MonitorState, OnNow, StreamState, StreamView
from workers.monitor.transcript import Transcripts
from workers.monitor.verdicts import Verdicts
from workers.monitor.writing import Writing
from workers.pages import Pages

if TYPE_CHECKING:
    from cope.serving.encoder import Encoder

Named = TypeVar("Named", OnNow, LastEvent)

_log = logging.getLogger(__name__)

# Events about what is on now come every `update_every_ms` of media time, so the newest are enough; a week of them would
# take minutes to read. With 150 streams a partition these are a minute of events and more, 2 MB a partition.
EVENTS_TAIL = 2_000

SWEEP_EVERY_S = 10.0
PROBE_EVERY_S = 10.0
PROBE_TIMEOUT_S = 10.0
WRITE_TIMEOUT_S = 10.0


def build(worker: Worker, encoder: "Encoder | None" = None, read_stretch: ReadStretch | None = None) -> None:
    """Registers the monitor role.

    Args:
        worker: Gets the followers and the routes.
        encoder: A model that the process has loaded already, to look again with; None: load it when it is needed.
        read_stretch: Reads stretches of files, to look at them again; None: only kept frames are looked at.
    """
    Monitor(worker, encoder, read_stretch).register()


class Monitor:
    """Feeds the state from the topics, and the feed from the state."""

    def __init__(
        self, worker: Worker, encoder: "Encoder | None" = None, read_stretch: ReadStretch | None = None
    ) -> None:
        settings = worker.settings
        self._worker = worker
        self._state = MonitorState(settings.window_ms)
        self._feed = Feed()
        self._history = History()
        self._reader = RecordReader(settings)
        self._pages = Pages(settings, self._reader, alike=True)
        self._products = Products(self._pages, self._history)
        self._again = Again(settings, self._pages, self._reader, worker.in_executor, encoder, read_stretch)
        self._transcripts = Transcripts(settings)
        self._verdicts = Verdicts(settings, self._write, self._tell_verdict)
        self._kept = KeptEvidence(EvidenceStore(evidence_url(settings)))
        self._api = Api(self._state, self._feed, self._dressed)
        self._trouble = ""
        self._told_left_out = 0
        self._announcements = Follower(settings, LIVE_STREAMS, StreamAnnounced)
        self._statuses = Follower(settings, STREAM_STATUS, StreamStatus)
        self._progress = Follower(settings, RECOGNITION_STATE, RecognitionState)
        self._events = Follower(settings, PRODUCT_DETECTED, ProductDetected, from_beginning=False, tail=EVENTS_TAIL)
        self._followers: dict[str, Follower[Any]] = {
            STREAM_STATUS: self._statuses,
            LIVE_STREAMS: self._announcements,
            RECOGNITION_STATE: self._progress,
            PRODUCT_DETECTED: self._events,
            DETECTION_VERDICTS: self._verdicts.follower,
        }

    def register(self) -> None:
        """Hooks itself into the worker."""
        worker = self._worker
        self.routes().serve(worker.http)
        add_page(worker.http)
        worker.health.add("topics", self._check_topics)
        worker.background(self._follow_statuses)
        worker.background(self._follow_announcements)
        worker.background(self._follow_progress)
        worker.background(self._follow_events)
        worker.background(self._pages.follow)
        worker.background(self._verdicts.follow)
        worker.background(self._sweep)
        worker.background(self._probe)
        worker.on_stop(self._stop)
        metrics.MONITOR_CLIENTS.set_function(lambda: self._api.clients)
        for state in STATES:
            metrics.MONITOR_STREAMS.labels(state).set_function(partial(self._count, state))

    def routes(self) -> Routes:
        """Returns the routes, in the order in which they are tried."""
        settings = self._worker.settings
        routes = Routes({"streams": self._behind, "products": self._behind_products})
        routes.add(*Sessions(settings, self._state, self._history).routes())
        detections = Detections(
            settings,
            self._history,
            self._products,
            self._kept,
            self._verdicts,
            self._again,
            self._transcripts,
            self._state.source,
        )
        routes.add(*detections.routes())
        routes.add(*self._products.routes())
        routes.add(*Writing(self._write).routes())
        routes.add(*self._api.routes())
        routes.add(Route("GET", "/openapi.json", _openapi, "This document.", "application/json", needs=""))
        return routes

    def _dressed(self, view: StreamView) -> StreamView:
        on, last = view.on, view.last_event
        if last is None:
            return view
        sighting = self._history.get(last.detection_id)
        best = sighting.best if sighting is not None else None
        if best is not None and best.offset >= 0:
            frame = f"{detection_url(last.detection_id)}/frames/{best.pts_ms}.jpg"
            view = msgspec.structs.replace(view, frame=frame, box=best.box)
        view = msgspec.structs.replace(view, last_event=self._named(last, best))
        if on is None:
            return view
        other = on.runner_up
        runner_up_title = None if other is None else self._products.title(other.product_id)
        on = msgspec.structs.replace(self._named(on, best), runner_up_title=runner_up_title)
        return msgspec.structs.replace(view, on=on)

    def _named(self, event: Named, best: EvidenceFrame | None) -> Named:
        return msgspec.structs.replace(
            event,
            title=self._products.title(event.product_id),
            image_url=self._products.image_url(event.product_id, best.page_image if best else None),
        )

    # -- topics --------------------------------------------------------------------------------------------------

    async def _follow_statuses(self) -> None:
        async for record in self._statuses:
            if self._state.on_status(record.key, record.value, record.log_ms, now_ms()):
                self._tell_stream(record.key)

    async def _follow_announcements(self) -> None:
        # An old announcement only matters if its stream is still captured, which the statuses show.
        await self._statuses.caught_up.wait()
        async for record in self._announcements:
            if self._state.on_announced(record.key, record.value, record.offset, record.log_ms, now_ms()):
                self._tell_stream(record.key)

    async def _follow_progress(self) -> None:
        await self._statuses.caught_up.wait()
        async for record in self._progress:
            if record.value is not None:
                self._state.on_recognition(record.value, record.log_ms, now_ms())

    async def _follow_events(self) -> None:
        await self._statuses.caught_up.wait()
        async for record in self._events:
            if record.value is None:
                continue
            self._history.add(record.value)
            if self._state.on_event(record.value, record.log_ms, now_ms()):
                self._publish("detection", record.value)

    def _tell_stream(self, stream_id: str) -> None:
        view = self._state.view(stream_id, now_ms())
        if view is not None:
            self._publish("stream", self._dressed(view))

    def _tell_verdict(self, view: VerdictView) -> None:
        self._publish("verdict", view)

    async def _write(self, topic: str, key: str, record: Record | None) -> int:
        """Sends a record, with a time-out, since a client waits for the answer; returns its offset.

        Raises:
            Unavailable: The broker does not answer.
            RefusedError: The record is too large.
        """
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                return await self._worker.delivery.send(topic, key, record)
        except TimeoutError:
            raise Unavailable("the broker does not answer: nothing is written for sure; try again") from None
        except BadInput as error:
            raise RefusedError(413, str(error)) from None

    def _publish(self, kind: Kind, value: msgspec.Struct) -> None:
        if not self._behind():  # records that are read back at the start are not changes
            self._feed.publish(kind, msgspec.json.encode(value))

    # -- beside them ---------------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            for view in self._state.sweep(now_ms()):
                self._publish("stream", view)
            self._tell_left_out()

    def _tell_left_out(self) -> None:
        left_out, self._told_left_out = self._state.left_out - self._told_left_out, self._state.left_out
        if left_out:
            metrics.MONITOR_LEFT_OUT.inc(left_out)
            _log.warning("too many streams: some are not told of", extra={"kept": MAX_STREAMS, "records": left_out})

    async def _probe(self) -> None:
        """Asks the broker now and then, since a follower does not notice when it is down."""
        while True:
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    await end_offsets(self._worker.settings, STREAM_STATUS)
                self._trouble = ""
            except TimeoutError:
                self._trouble = "the broker does not answer: what is told here may be old"
            await asyncio.sleep(PROBE_EVERY_S)

    async def _stop(self) -> None:
        self._feed.close()
        await self._reader.stop()

    # -- health --------------------------------------------------------------------------------------------------

    def _behind(self) -> list[str]:
        return [topic for topic, follower in self._followers.items() if not follower.caught_up.is_set()]

    def _behind_products(self) -> list[str]:
        return [] if self._pages.caught_up.is_set() else [PAGE_VECTORS]

    def _check_topics(self) -> str | None:
        behind = self._behind()
        return f"reading {', '.join(behind)} back" if behind else self._trouble or None

    def _count(self, state: StreamState) -> float:
        return self._state.counts()[state]


async def _openapi(_: web.Request) -> web.Response:
    return web.Response(body=FILE.read_bytes(), content_type="application/json")
