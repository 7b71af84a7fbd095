"""Routes about detections."""

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from topology.evidence import Kept, KeptFrame
from topology.records import EvidenceFrame, RunnerUp
from topology.settings import Settings
from workers.monitor.again import Again, stretch_of
from workers.monitor.answers import (
    AgainView,
    BeliefPoint,
    CandidateView,
    DetectionDetail,
    DetectionItem,
    DetectionList,
    FrameView,
    Judged,
    ReviewList,
    Transcript,
    VerdictInput,
    VerdictView,
)
from workers.monitor.history import History, Order, Sighting, Why
from workers.monitor.kept import KeptEvidence
from workers.monitor.products import Products
from workers.monitor.routes import (
    RefusedError,
    Route,
    answer,
    body,
    from_cursor,
    limit_of,
    number_of,
    picture,
    to_cursor,
)
from workers.monitor.session import user_of
from workers.monitor.transcript import Transcripts
from workers.monitor.verdicts import Verdicts

SourceOf = Callable[[str], tuple[str, int]]
"""Returns the URL and the newest epoch of a stream; no URL if it is not known."""

_LOOKED_AT = 8  # sightings of a stream, until one has a frame
_COMING_S = 15.0  # after an event, evidence may still be under way


class Detections:
    """The newest sightings, and the reasons for them."""

    def __init__(
        self,
        settings: Settings,
        history: History,
        products: Products,
        kept: KeptEvidence,
        verdicts: Verdicts,
        again: Again,
        transcripts: Transcripts,
        source_of: SourceOf,
    ) -> None:
        self._settings = settings
        self._history = history
        self._products = products
        self._kept = kept
        self._verdicts = verdicts
        self._again = again
        self._transcripts = transcripts
        self._source_of = source_of

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
            Route(
                "GET",
                "/streams/{stream_id:.+}/frame.jpg",
                self._newest_frame,
                "The frame that shows the newest sighting of a stream best.",
                "image/jpeg",
            ),
            Route(
                "GET",
                "/detections/{detection_id}/{what:frames|crops}/{pts_ms:-?\\d+}.jpg",
                self._frame,
                "A kept frame, or the product in it.",
                "image/jpeg",
            ),
            Route(
                "POST",
                "/detections/{detection_id}/verdict",
                self._judge,
                "Says whether a detection is right. Saying the same again changes nothing.",
                VerdictView,
                body=VerdictInput,
            ),
            Route(
                "POST",
                "/detections/{detection_id}/again",
                self._look_again,
                "Looks again, at its stretch of a file or at kept frames, with the model and the catalogue of now.",
                AgainView,
                needs="products",
            ),
            Route(
                "GET",
                "/detections/{detection_id}/page.jpg",
                self._page_picture,
                "The page picture that matched.",
                "image/jpeg",
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
        return answer(await self._transcripts.read(request.match_info["stream_id"], from_ms, to_ms))

    async def _review(self, request: web.Request) -> web.Response:
        found = self._history.doubtful(
            lambda one: self._verdicts.of(one) is not None, limit_of(request), self._verdicts.corrected
        )
        return answer(ReviewList(items=[self._item(one, why) for one, why in found]))

    async def _one(self, request: web.Request) -> web.Response:
        one, kept = await self._found(request.match_info["detection_id"])
        return answer(self._detail(one, kept))

    async def _look_again(self, request: web.Request) -> web.Response:
        one, kept = await self._found(request.match_info["detection_id"])
        event = one.event
        url, epoch = self._source_of(event.stream_id)
        has_frames = kept is not None and bool(kept.frames)
        start_ms, end_ms = stretch_of(event, self._settings)
        back_ms = self._settings.look_back_ms
        said = await self._transcripts.said(event.stream_id, event.epoch, start_ms - back_ms, end_ms)
        # Kept frames show whether this is the same file; without any, the stream must not have begun anew.
        stretch = await self._again.stretch(event, kept, url if has_frames or epoch == event.epoch else "", said)
        before = self._candidates(one)
        found, version = await self._again.look(stretch, one.events, [candidate.product_id for candidate in before])
        after = [self._candidate(product_id, confidence) for product_id, confidence in found]
        is_shown = bool(after) and after[0].confidence >= self._settings.threshold
        return answer(
            AgainView(
                source=stretch.source,
                from_ms=stretch.from_ms,
                to_ms=stretch.to_ms,
                frames=len(stretch.frames),
                before=Judged(
                    product_id=event.product_id,
                    confidence=event.confidence,
                    candidates=before,
                    model_version=event.model_version,
                ),
                after=Judged(
                    product_id=after[0].product_id if is_shown else None,
                    confidence=after[0].confidence if after else 0.0,
                    candidates=after,
                    model_version=version,
                ),
            )
        )

    async def _judge(self, request: web.Request) -> web.Response:
        given = await body(request, VerdictInput)
        one, _ = await self._found(request.match_info["detection_id"])
        if (given.verdict == "other") != bool(given.product_id):
            raise RefusedError(400, 'name the product_id that was shown with "other", and with nothing else')
        if given.product_id and self._products.view(given.product_id) is None:
            raise RefusedError(400, f"no product {given.product_id[:80]!r} is indexed")
        if given.product_id == one.product_id:
            raise RefusedError(400, 'this is the product that was detected: that is "right"')
        return answer(await self._verdicts.give(one.event, given, user_of(request).name or ""))

    async def _newest_frame(self, request: web.Request) -> web.Response:
        stream_id = request.match_info["stream_id"]
        for one in self._history.of_stream(stream_id, None, _LOOKED_AT):
            if one.best is not None and one.best.offset >= 0:
                return await self._frame_of(request, one.detection_id, one.best.pts_ms, crop=False, changes=True)
        raise RefusedError(404, f"no frame of {stream_id[:80]!r} is kept")

    async def _frame(self, request: web.Request) -> web.Response:
        match = request.match_info
        crop = match["what"] == "crops"
        return await self._frame_of(request, match["detection_id"], int(match["pts_ms"]), crop=crop, changes=False)

    async def _frame_of(
        self, request: web.Request, detection_id: str, pts_ms: int, *, crop: bool, changes: bool
    ) -> web.Response:
        if self._is_coming(detection_id, pts_ms):
            kept = await self._kept.awaited(detection_id, pts_ms)
        else:
            kept = await self._kept.get(detection_id)
        frame = kept.frame(pts_ms) if kept is not None else None
        data = b"" if frame is None else frame.crop if crop else frame.jpeg
        if not data:
            raise RefusedError(404, "no such picture is kept (any more)")
        return picture(request, data, f"{detection_id}-{pts_ms}", changes=changes)

    def _is_coming(self, detection_id: str, pts_ms: int) -> bool:
        """Whether the evidence of a recent event may still be under way."""
        one = self._history.get(detection_id)
        if one is None or not any(pts_ms == frame.pts_ms for frame in one.event.evidence.frames):
            return False
        try:
            detected_at = datetime.fromisoformat(one.event.detected_at)
        except ValueError:
            return False
        age = datetime.now(UTC) - detected_at.replace(tzinfo=detected_at.tzinfo or UTC)
        return age.total_seconds() < _COMING_S

    async def _page_picture(self, request: web.Request) -> web.Response:
        detection_id = request.match_info["detection_id"]
        kept = await self._kept.get(detection_id)
        if kept is None or not kept.page:
            raise RefusedError(404, "no page picture is kept (any more)")
        return picture(request, kept.page, f"{detection_id}-page-{len(kept.page)}", changes=True)

    async def _found(self, detection_id: str) -> tuple[Sighting, Kept | None]:
        """Returns a detection: from memory, or, if it is older, from what is kept of it."""
        kept = await self._kept.get(detection_id)
        one = self._history.get(detection_id)
        if one is None and kept is not None:
            old = History()
            for event in kept.events:
                one = old.add(event)
        if one is None:
            raise RefusedError(404, f"no detection {detection_id[:80]!r}, or it is too old")
        return one, kept

    def _item(self, one: Sighting, why: Why | UnsetType = UNSET) -> DetectionItem:
        event, other = one.event, one.runner_up
        fields = {name: getattr(event, name) for name in event.__struct_fields__}
        rival = None if other is None else RunnerUp(product_id=other[0], confidence=other[1])
        fields["evidence"] = msgspec.structs.replace(event.evidence, runner_up=rival)
        title = self._products.title(one.product_id)
        return DetectionItem(**fields, verdict=self._verdicts.of(one.detection_id), title=title, why=why)

    def _detail(self, one: Sighting, kept: Kept | None) -> DetectionDetail:
        events = one.events
        return DetectionDetail(
            detection=events[-1],
            events=events,
            belief=[BeliefPoint(media_ms=at_ms, confidence=value) for at_ms, value in one.belief],
            frames=self._frames(one, kept),
            page=self._products.view(one.product_id),
            candidates=self._candidates(one),
            threshold=self._settings.threshold,
            verdict=self._verdicts.of(one.detection_id),
        )

    def _frames(self, one: Sighting, kept: Kept | None) -> list[FrameView]:
        """Returns the kept frames, or, while none is kept, those that the events name, without pictures."""
        if kept is None or not kept.frames:
            named = {frame.pts_ms: frame for event in one.events for frame in event.evidence.frames}
            return [self._frame_view(one, named[at]) for at in sorted(named)]
        address = detection_url(one.detection_id)
        return [
            self._frame_view(
                one,
                frame,
                f"{address}/frames/{frame.pts_ms}.jpg",
                f"{address}/crops/{frame.pts_ms}.jpg" if frame.crop else None,
            )
            for frame in kept.frames
        ]

    def _frame_view(
        self, one: Sighting, frame: EvidenceFrame | KeptFrame, url: str | None = None, crop_url: str | None = None
    ) -> FrameView:
        return FrameView(
            pts_ms=frame.pts_ms,
            captured_at_ms=frame.captured_at_ms,
            box=frame.box,
            score=frame.score,
            page_image=frame.page_image,
            url=url,
            crop_url=crop_url,
            page_image_url=self._products.image_url(one.product_id, frame.page_image),
        )

    def _candidates(self, one: Sighting) -> list[CandidateView]:
        best: dict[str, float] = {}
        for event in one.events:
            best[event.product_id] = max(best.get(event.product_id, 0.0), event.confidence)
            other = event.evidence.runner_up if event.status != "ended" else None  # what was shown after it
            if other is not None:
                best[other.product_id] = max(best.get(other.product_id, 0.0), other.confidence)
        ordered = sorted(best.items(), key=lambda entry: (-entry[1], entry[0]))
        return [self._candidate(product_id, confidence) for product_id, confidence in ordered]

    def _candidate(self, product_id: str, confidence: float) -> CandidateView:
        return CandidateView(
            product_id=product_id,
            title=self._products.title(product_id),
            confidence=confidence,
            image_url=self._products.image_url(product_id),
        )


def detection_url(detection_id: str) -> str:
    """Returns the address of a detection."""
    return f"/detections/{quote(detection_id, safe='')}"
