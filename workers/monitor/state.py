"""The state of each stream: plain data, fed with records.

Records of one topic come in the order of their log, copies of a crash included; records of different topics come in
any order. The outcome depends on neither the copies nor the order between topics.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from topology.records import ProductDetected, RecognitionState, RunnerUp, StreamAnnounced, StreamStatus
from topology.redact import redacted

StreamState = Literal["announced", "connecting", "live", "stalled", "ended", "failed", "unknown", "forgotten"]
STATES: tuple[StreamState, ...] = ("announced", "connecting", "live", "stalled", "ended", "failed", "unknown")

_FINAL = ("ended", "failed")

# How long a stream that is over is still listed: long enough to look up why it failed, and for the rest of its events.
# Below some minutes, the end of a backlog would recreate it; far above, `/streams` fills with old streams.
KEEP_MS = 3_600_000

# A stream takes up to 5 kB here, so this is 50 MB. Above, `/streams` becomes an answer of many MB.
MAX_STREAMS = 10_000
_CROWDED = 0.9  # beyond this share of the maximum, streams that are over make room before their time


class OnNow(msgspec.Struct, frozen=True, kw_only=True):
    """The product that a stream is showing.

    Attributes:
        media_start_ms: Media time of the epoch since which it is shown.
        media_end_ms: Media time up to which it was seen, as of the last event.
        title: Title of the product; None if the catalogue does not have it.
        image_url: Address of the page picture that it matched.
        runner_up: The product that comes next.
        runner_up_title: Its title.
    """

    product_id: str
    detection_id: str
    confidence: float
    epoch: int
    media_start_ms: int
    media_end_ms: int
    title: str | None = None
    image_url: str | None = None
    runner_up: RunnerUp | None = None
    runner_up_title: str | None = None


class LastEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The newest `product_detected` event of a stream, without its evidence.

    Attributes:
        title: Title of the product; None if the catalogue does not have it.
        image_url: Address of the page picture that it matched.
    """

    status: Literal["started", "updated", "ended"]
    product_id: str
    detection_id: str
    confidence: float
    epoch: int
    emitted_media_ms: int
    detected_at: str
    latency_ms: int
    title: str | None = None
    image_url: str | None = None


class StreamView(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as it stands.

    Attributes:
        url: As announced, without user, password and query: they may hold secrets.
        state: Capture's state; "announced" while no capture has taken the newest announcement up, "unknown" if only
            other roles have told of the stream, "forgotten" in the feed when it is dropped.
        detail: What happened, in words.
        live: From a network stream.
        epoch: The newest one.
        reconnects: Since the announcement.
        position_ms: Media time of the epoch up to which capture has sent picture and sound.
        recognised_ms: Media time of the epoch up to which products have been looked for.
        lag_s: Media that was sent and not looked at yet, in seconds.
        frame_age_s: Since the newest frame that capture has told of was captured; None before the first. At one
            frame and one status a second, the age of a stream that flows stays below about 2 s.
        status_age_s: Since capture last told anything; None if it never has.
        on: What is shown now.
        frame: Where the frame that shows the newest sighting best is served; None if it is not kept.
        box: x0, y0, x1, y1 of the product in that frame, relative to it.
        heard: Spoken words that named the product of the newest event.
        read: Lines read in frames that named it.
    """

    stream_id: str
    url: str
    state: StreamState
    detail: str
    live: bool
    epoch: int
    reconnects: int
    position_ms: int
    recognised_ms: int
    lag_s: float
    frame_age_s: float | None
    status_age_s: float | None
    on: OnNow | None
    last_event: LastEvent | None
    frame: str | None = None
    box: tuple[float, float, float, float] | None = None
    heard: tuple[str, ...] = ()
    read: tuple[str, ...] = ()


_Identity = tuple[str, str]


@dataclass
class _Stream:
    """What the topics said of one stream.

    Attributes:
        touched_ms: Append time of the newest record about it.
        url: URL of the newest announcement that names one.
        at_last: Which events were taken at the media time of the last one: those that come again are copies.
    """

    stream_id: str
    touched_ms: int = 0
    url: str = ""
    announced: StreamAnnounced | None = None
    announced_offset: int = -1
    status: StreamStatus | None = None
    recognised: RecognitionState | None = None
    on: ProductDetected | None = None
    last: ProductDetected | None = None
    at_last: set[_Identity] = field(default_factory=set)

    @property
    def state(self) -> StreamState:
        if self.announced is not None and (self.status is None or self.status.announced_offset < self.announced_offset):
            if self.announced.state == "live":
                return "announced"
            if self.status is None:
                return "ended"
        return "unknown" if self.status is None else self.status.state

    def is_over(self, now_ms: int) -> bool:
        """Whether the stream has been over for long enough."""
        flows = self.status is not None and self.state not in _FINAL
        return not flows and now_ms - self.touched_ms > KEEP_MS


class MonitorState:
    """All streams.

    Attributes:
        left_out: Records left out because there were too many streams.
    """

    def __init__(self, window_ms: int, max_streams: int = MAX_STREAMS) -> None:
        self.left_out = 0
        self._window_ms = window_ms
        self._max_streams = max_streams
        self._streams: dict[str, _Stream] = {}

    # -- records in ----------------------------------------------------------------------------------------------

    def on_announced(
        self, stream_id: str, announced: StreamAnnounced | None, offset: int, log_ms: int, now_ms: int
    ) -> bool:
        """Takes an announcement (None: withdrawn); returns whether the stream's view changed."""
        if announced is None:
            if stream_id not in self._streams:
                return False
            announced = StreamAnnounced(stream_id=stream_id, state="ended")
        stream = self._stream(stream_id, log_ms, now_ms)
        if stream is None:
            return False
        before = (stream.state, stream.url)
        stream.url = announced.url or stream.url  # the announcement of an end names none
        stream.announced, stream.announced_offset = announced, offset
        return before != (stream.state, stream.url)

    def on_status(self, stream_id: str, status: StreamStatus | None, log_ms: int, now_ms: int) -> bool:
        """Takes a status of capture; returns whether more than the stream's times and positions changed."""
        if status is None and stream_id not in self._streams:
            return False
        flows = status is not None and status.state not in _FINAL
        stream = self._stream(stream_id, log_ms, now_ms, anyway=flows)
        if stream is None:
            return False
        before, stream.status = stream.status, status
        return _essence(before) != _essence(status)

    def on_recognition(self, state: RecognitionState, log_ms: int, now_ms: int) -> None:
        """Takes how far recognition has come."""
        stream = self._stream(state.stream_id, log_ms, now_ms)
        if stream is None:
            return
        known = stream.recognised
        if known is None or _progress(known) < _progress(state):
            stream.recognised = msgspec.structs.replace(state, tracker=b"")

    def on_event(self, event: ProductDetected, log_ms: int, now_ms: int) -> bool:
        """Takes an event; returns False for a copy of one that was taken before.

        Media time never goes back in the log of a stream, except in copies.
        """
        stream = self._stream(event.stream_id, log_ms, now_ms)
        if stream is None:
            return False
        newest = (-1, -1) if stream.last is None else _moment(stream.last)
        if _moment(event) < newest:
            return False
        if _moment(event) > newest:
            stream.at_last.clear()
        identity = (event.detection_id, event.status)
        if identity in stream.at_last:
            return False
        stream.at_last.add(identity)
        stream.last = event
        stream.on = None if event.status == "ended" else event  # a stream has one sighting at a time
        return True

    def sweep(self, now_ms: int) -> list[StreamView]:
        """Drops streams that have been over for long, or earlier where room is short; returns their last views."""
        gone = [stream for stream in self._streams.values() if stream.is_over(now_ms)]
        room = int(self._max_streams * _CROWDED) - (len(self._streams) - len(gone))
        if room < 0:
            dropped = {stream.stream_id for stream in gone}
            ended = [s for s in self._streams.values() if s.state in _FINAL and s.stream_id not in dropped]
            gone += sorted(ended, key=lambda stream: (stream.touched_ms, stream.stream_id))[:-room]
        for stream in gone:
            del self._streams[stream.stream_id]
        return [msgspec.structs.replace(self._view(stream, now_ms), state="forgotten") for stream in gone]

    def _stream(self, stream_id: str, log_ms: int, now_ms: int, *, anyway: bool = False) -> _Stream | None:
        """Returns the stream, made anew if the record is recent, or `anyway`; None if the record is of no interest."""
        stream = self._streams.get(stream_id)
        if stream is None:
            if not anyway and now_ms - log_ms > KEEP_MS:
                return None
            if len(self._streams) >= self._max_streams:
                self.left_out += 1
                return None
            stream = self._streams[stream_id] = _Stream(stream_id)
        stream.touched_ms = max(stream.touched_ms, log_ms)
        return stream

    # -- views out -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._streams)

    def counts(self) -> Counter[StreamState]:
        """Returns how many streams are in each state."""
        return Counter(stream.state for stream in self._streams.values())

    def views(self, now_ms: int) -> Iterator[StreamView]:
        """Yields all streams, by id."""
        for stream_id in sorted(self._streams):
            yield self._view(self._streams[stream_id], now_ms)

    def view(self, stream_id: str, now_ms: int) -> StreamView | None:
        """Returns a stream; None if it is not known."""
        stream = self._streams.get(stream_id)
        return None if stream is None else self._view(stream, now_ms)

    def source(self, stream_id: str) -> tuple[str, int]:
        """Returns the URL of a stream as announced, which may hold secrets, and its newest epoch; or none and -1."""
        stream = self._streams.get(stream_id)
        return (stream.url, stream.status.epoch) if stream is not None and stream.status is not None else ("", -1)

    def _view(self, stream: _Stream, now_ms: int) -> StreamView:
        status, recognised = stream.status, stream.recognised
        epoch = max(status.epoch if status else 0, recognised.epoch if recognised else 0)
        position_ms = status.sent_until_ms if status is not None and status.epoch == epoch else 0
        recognised_ms = 0
        if recognised is not None and recognised.epoch == epoch:
            if recognised.ended:
                recognised_ms = position_ms
            elif recognised.start_ms >= 0:
                recognised_ms = recognised.start_ms + self._window_ms
        return StreamView(
            stream_id=stream.stream_id,
            url=redacted(stream.url),
            state=stream.state,
            detail=status.detail if status else "",
            live=status.live if status else False,
            epoch=epoch,
            reconnects=status.reconnects if status else 0,
            position_ms=position_ms,
            recognised_ms=recognised_ms,
            lag_s=max(0, position_ms - recognised_ms) / 1000,
            frame_age_s=_age_s(status.frame_at_ms, now_ms) if status else None,
            status_age_s=_age_s(status.at_ms, now_ms) if status else None,
            on=_on(stream),
            last_event=_last_event(stream.last) if stream.last else None,
            heard=stream.last.evidence.keywords if stream.last else (),
            read=stream.last.evidence.read if stream.last else (),
        )


def _moment(event: ProductDetected) -> tuple[int, int]:
    return event.epoch, event.emitted_media_ms


def _progress(state: RecognitionState) -> tuple[int, bool, int]:
    return state.epoch, state.ended, state.start_ms


def _essence(status: StreamStatus | None) -> tuple[object, ...] | None:
    if status is None:
        return None
    return status.state, status.detail, status.epoch, status.reconnects, status.live, status.announced_offset


def _age_s(then_ms: int, now_ms: int) -> float | None:
    return max(0, now_ms - then_ms) / 1000 if then_ms else None


def _on(stream: _Stream) -> OnNow | None:
    event, recognised = stream.on, stream.recognised
    if event is None or (recognised is not None and recognised.ended and event.epoch <= recognised.epoch):
        return None  # the end of an epoch ends what was on, also if its event has not been read yet
    return OnNow(
        product_id=event.product_id,
        detection_id=event.detection_id,
        confidence=event.confidence,
        epoch=event.epoch,
        media_start_ms=event.media_start_ms,
        media_end_ms=event.media_end_ms,
        runner_up=event.evidence.runner_up,
    )


def _last_event(event: ProductDetected) -> LastEvent:
    told = set(LastEvent.__struct_fields__) & set(event.__struct_fields__)
    return LastEvent(**{name: getattr(event, name) for name in told})
