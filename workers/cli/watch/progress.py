"""The state of a watch: plain data, fed with records, read by the views."""

from dataclasses import dataclass, field

from topology.records import ProductDetected, RecognitionState, StreamStatus


@dataclass
class StreamProgress:
    """One watched stream.

    Attributes:
        duration_ms: Length of the file; None for network streams.
        state: Capture's state.
        processed_ms: Media time up to which products were looked for.
        on: Sightings that are open: product_id to confidence.
        sightings: Sightings started so far.
    """

    stream_id: str
    url: str
    duration_ms: int | None
    state: str = "waiting"
    detail: str = ""
    epoch: int = 0
    processed_ms: int = 0
    on: dict[str, float] = field(default_factory=dict)
    sightings: int = 0
    recognised_epoch: int = -1

    @property
    def failed(self) -> bool:
        """The source could not be played to its end."""
        return self.state == "failed"

    @property
    def finished(self) -> bool:
        """Everything that capture sent has been looked at, and nothing more comes."""
        if self.state not in ("ended", "failed"):
            return False
        # A stream that failed before its first packet has no epoch to recognise.
        return self.recognised_epoch >= self.epoch or (self.failed and self.processed_ms == 0)


class WatchProgress:
    """All watched streams, and which events were new."""

    def __init__(self, streams: list[StreamProgress], window_ms: int) -> None:
        self.streams = {stream.stream_id: stream for stream in streams}
        self._window_ms = window_ms
        self._seen: set[tuple[str, str, int]] = set()

    @property
    def finished(self) -> bool:
        """All streams are finished."""
        return all(stream.finished for stream in self.streams.values())

    def on_status(self, status: StreamStatus) -> StreamProgress | None:
        """Takes capture's state; returns the stream if its state or detail changed."""
        stream = self.streams.get(status.stream_id)
        if stream is None:
            return None
        changed = (stream.state, stream.detail) != (status.state, status.detail)
        stream.state, stream.detail, stream.epoch = status.state, status.detail, status.epoch
        return stream if changed else None

    def on_recognition(self, state: RecognitionState) -> None:
        """Takes how far recognition has come."""
        stream = self.streams.get(state.stream_id)
        if stream is None:
            return
        if state.start_ms >= 0:
            stream.processed_ms = state.start_ms + self._window_ms
            if stream.duration_ms is not None:
                stream.processed_ms = min(stream.processed_ms, stream.duration_ms)
        if state.ended:
            stream.recognised_epoch = max(stream.recognised_epoch, state.epoch)

    def on_event(self, event: ProductDetected) -> bool:
        """Takes an event; returns False if it is of another stream or was delivered before."""
        stream = self.streams.get(event.stream_id)
        identity = (event.detection_id, event.status, event.emitted_media_ms)
        if stream is None or identity in self._seen:
            return False
        self._seen.add(identity)
        if event.status == "ended":
            stream.on.pop(event.product_id, None)
        else:
            stream.on[event.product_id] = event.confidence
            stream.sightings += event.status == "started"
        return True
