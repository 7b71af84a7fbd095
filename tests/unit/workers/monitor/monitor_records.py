"""Records as the other roles write them, with what the tests of the monitor do not look at filled in."""

from topology.records import Evidence, ProductDetected, RecognitionState, StreamAnnounced, StreamStatus

NOW_MS = 1_800_000_000_000
WINDOW_MS = 8_000


def announced(stream_id="room", url="rtmp://media.example/live/room", state="live"):
    return StreamAnnounced(stream_id=stream_id, url=url, state=state)


def status(state="live", *, stream_id="room", epoch=0, offset=0, sent_until_ms=0, frame_at_ms=0, at_ms=0, **more):
    return StreamStatus(
        stream_id=stream_id,
        epoch=epoch,
        state=state,
        announced_offset=offset,
        sent_until_ms=sent_until_ms,
        frame_at_ms=frame_at_ms,
        at_ms=at_ms,
        **more,
    )


def recognised(start_ms, *, stream_id="room", epoch=0, ended=False):
    return RecognitionState(stream_id=stream_id, epoch=epoch, start_ms=start_ms, ended=ended, tracker=b"opaque")


def event(kind, product="bag", at_ms=12_000, *, stream_id="room", epoch=0, sighting=None, confidence=0.93):
    return ProductDetected(
        detection_id=sighting or f"{stream_id}-{epoch}-{product}",
        stream_id=stream_id,
        product_id=product,
        status=kind,
        epoch=epoch,
        media_start_ms=9_000,
        media_end_ms=at_ms,
        emitted_media_ms=at_ms,
        detected_at="2026-01-01T00:00:00.000Z",
        latency_ms=1_850,
        confidence=confidence,
        evidence=Evidence(),
        model_version="cope-mini@3fa1c2",
        index_version="product_pages_v1",
    )
