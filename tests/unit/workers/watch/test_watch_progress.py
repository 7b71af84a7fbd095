from tests.unit.workers.watch.watch_events import event
from topology.records import RecognitionState, StreamStatus
from workers.cli.watch.progress import StreamProgress, WatchProgress


def status(state: str, epoch: int = 0, detail: str = "") -> StreamStatus:
    return StreamStatus(stream_id="a", epoch=epoch, state=state, announced_offset=0, detail=detail)  # type: ignore[arg-type]


def one_stream() -> WatchProgress:
    return WatchProgress([StreamProgress("a", "a.mp4", 20_000)], window_ms=8_000)


def test_a_stream_is_finished_when_capture_has_ended_and_its_last_epoch_was_recognised() -> None:
    progress = one_stream()
    progress.on_status(status("ended", epoch=1))
    progress.on_recognition(RecognitionState(stream_id="a", epoch=0, start_ms=4000, ended=True))
    assert not progress.finished
    progress.on_recognition(RecognitionState(stream_id="a", epoch=1, start_ms=4000, ended=True))
    assert progress.finished


def test_a_stream_that_failed_before_its_first_packet_is_finished() -> None:
    progress = one_stream()
    progress.on_status(status("failed", detail="no such host"))
    assert progress.finished
    assert progress.streams["a"].failed


def test_a_stream_that_failed_in_its_middle_is_finished_after_its_windows() -> None:
    progress = one_stream()
    progress.on_recognition(RecognitionState(stream_id="a", epoch=0, start_ms=2000))
    progress.on_status(status("failed"))
    assert not progress.finished
    progress.on_recognition(RecognitionState(stream_id="a", epoch=0, start_ms=4000, ended=True))
    assert progress.finished


def test_an_event_delivered_twice_counts_once() -> None:
    progress = one_stream()
    assert progress.on_event(event("started"))
    assert not progress.on_event(event("started"))
    assert progress.streams["a"].sightings == 1


def test_products_are_on_between_started_and_ended() -> None:
    progress = one_stream()
    progress.on_event(event("started", "p"))
    progress.on_event(event("started", "q"))
    progress.on_event(event("ended", "p", 12_000))
    assert set(progress.streams["a"].on) == {"q"}


def test_processed_media_time_never_passes_the_end_of_the_file() -> None:
    progress = one_stream()
    progress.on_recognition(RecognitionState(stream_id="a", epoch=0, start_ms=16_000))
    assert progress.streams["a"].processed_ms == 20_000


def test_records_of_other_streams_are_ignored() -> None:
    progress = WatchProgress([StreamProgress("b", "b.mp4", None)], window_ms=8_000)
    assert progress.on_status(status("ended")) is None
    assert not progress.on_event(event("started"))
    progress.on_recognition(RecognitionState(stream_id="a", epoch=0, start_ms=0, ended=True))
    assert not progress.finished
