"""Routes about what was detected."""

from typing import Any
from urllib.parse import quote

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from topology.settings import Settings
from workers.monitor.answers import (
    BeliefPoint,
    CandidateView,
    DetectionDetail,
    DetectionItem,
    DetectionList,
    FrameView,
    ReviewList,
    Transcript,
    VerdictView,
)
from workers.monitor.history import History, Order, Sighting, Why
from workers.monitor.products import Products
from workers.monitor.routes import RefusedError, Route, answer, from_cursor, limit_of, number_of, to_cursor
from workers.monitor.transcript import read_transcript


class Detections:
    """What the newest sightings were, and why."""

    def __init__(self, settings: Settings, history: History, products: Products) -> None:
        self._settings = settings
        self._history = history
        self._products = products

    def routes(self) -> list[Route]:
        """Returns the routes."""
        paging = {"after": "`next` of the page before", "limit": "1 to 200; 50 if it is not given"}
        stretch = {"from_ms": "Media time, of any epoch", "to_ms": "Media time, of any epoch"}
        return [
            Route(
                "GET",
                "/streams/{stream_id:.+}/detections",
                self._of_stream,
                "Sightings of a stream, newest first.",
                DetectionList,
                paging,
            ),
            Route(
                "GET",
                "/streams/{stream_id:.+}/transcript",
                self._transcript,
                "What was said in a stream within the last hour.",
                Transcript,
                stretch,
            ),
            Route(
                "GET",
                "/review",
                self._review,
                "Sightings that are likely wrong and have no verdict, the likeliest first.",
                ReviewList,
                {"limit": "1 to 200; 50 if it is not given"},
            ),
            Route("GET", "/detections/{detection_id}", self._one, "All that is known of a detection.", DetectionDetail),
        ]

    async def _of_stream(self, request: web.Request) -> web.Response:
        limit = limit_of(request)
        before = from_cursor(request.query["after"], Order) if request.query.get("after") else None
        found = self._history.of_stream(request.match_info["stream_id"], before, limit + 1)
        more = to_cursor(found[limit - 1].order) if len(found) > limit else None
        return answer(DetectionList(detections=[self._item(one) for one in found[:limit]], next=more))

    async def _transcript(self, request: web.Request) -> web.Response:
        from_ms, to_ms = number_of(request, "from_ms", None), number_of(request, "to_ms", None)
        return answer(await read_transcript(self._settings, request.match_info["stream_id"], from_ms, to_ms))

    async def _review(self, request: web.Request) -> web.Response:
        found = self._history.doubtful(lambda one: self._verdict(one) is not None, limit_of(request))
        return answer(ReviewList(items=[self._item(one, why) for one, why in found]))

    async def _one(self, request: web.Request) -> web.Response:
        return answer(self._detail(self._sighting(request)))

    def _sighting(self, request: web.Request) -> Sighting:
        detection_id = request.match_info["detection_id"]
        found = self._history.get(detection_id)
        if found is None:
            raise RefusedError(404, f"no detection {detection_id[:80]!r}, or it is too old")
        return found

    def _verdict(self, detection_id: str) -> VerdictView | None:
        return None

    def _item(self, one: Sighting, why: Why | UnsetType = UNSET) -> DetectionItem:
        event = one.event
        fields = {name: getattr(event, name) for name in event.__struct_fields__}
        title = self._products.title(one.product_id)
        return DetectionItem(**fields, verdict=self._verdict(one.detection_id), title=title, why=why)

    def _detail(self, one: Sighting) -> DetectionDetail:
        events = one.events
        return DetectionDetail(
            detection=events[-1],
            events=events,
            belief=[BeliefPoint(media_ms=at_ms, confidence=value) for at_ms, value in one.belief],
            frames=self._frames(one),
            page=self._products.view(one.product_id),
            candidates=self._candidates(one),
            threshold=self._settings.threshold,
            verdict=self._verdict(one.detection_id),
        )

    def _frames(self, one: Sighting) -> list[FrameView]:
        frames = {frame.pts_ms: frame for event in one.events for frame in event.evidence.frames}
        return [FrameView(**_told(frame), url=None, crop_url=None) for _, frame in sorted(frames.items())]

    def _candidates(self, one: Sighting) -> list[CandidateView]:
        best: dict[str, float] = {}
        for event in one.events:
            best[event.product_id] = max(best.get(event.product_id, 0.0), event.confidence)
            other = event.evidence.runner_up
            if other is not None:
                best[other.product_id] = max(best.get(other.product_id, 0.0), other.confidence)
        return [
            CandidateView(
                product_id=product_id,
                title=self._products.title(product_id),
                confidence=confidence,
                image_url=self._products.image_url(product_id),
            )
            for product_id, confidence in sorted(best.items(), key=lambda entry: (-entry[1], entry[0]))
        ]


def _told(frame: msgspec.Struct) -> dict[str, Any]:
    wanted = ("pts_ms", "captured_at_ms", "box", "score", "page_image")
    return {name: getattr(frame, name) for name in wanted}


def detection_url(detection_id: str) -> str:
    """Returns the address of a detection."""
    return f"/detections/{quote(detection_id, safe='')}"
