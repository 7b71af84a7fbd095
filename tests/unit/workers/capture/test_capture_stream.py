"""Captures over in-memory sources: no broker, no files."""

import asyncio
import time
from collections.abc import Iterable

import pytest

from tests.unit.workers.capture.capture_media import FILE, LIVE, SILENT_FILE, loud_detector, media
from topology.errors import BadInput
from topology.records import Frame, Record, Speech, StreamAnnounced, StreamStatus
from topology.settings import Settings
from workers.capture import pacing
from workers.capture import stream as stream_module
from workers.capture.media import (
    BadSource,
    InMemorySource,
    MediaItem,
    MediaSource,
    NewEpoch,
    Sound,
    SourceDown,
    SourceInfo,
)
from workers.capture.repeats import PacketMemory
from workers.capture.stream import StreamCapture

SETTINGS = Settings(_env_file=None).model_copy(update={"reconnect_give_up_s": 0.2, "reconnect_max_s": 0.05})


class Log:
    """Takes what a capture sends; breaks off where told, as a crash would."""

    def __init__(self, crash_after: int | None = None) -> None:
        self.records: list[Record] = []
        self._crash_after = crash_after

    async def send(self, topic: str, key: str, record: Record) -> None:
        if self._crash_after is not None and len(self.records) >= self._crash_after:
            raise asyncio.CancelledError
        assert key == "s"
        self.records.append(record)

    @property
    def media(self) -> list[Frame | Speech]:
        return [r for r in self.records if isinstance(r, Frame | Speech)]

    @property
    def statuses(self) -> list[StreamStatus]:
        return [r for r in self.records if isinstance(r, StreamStatus)]


class Opener:
    """Opens what is next in line: a source or an error."""

    def __init__(self, *results: MediaSource | Exception) -> None:
        self._results = list(results)
        self.opened = 0

    def __call__(self, url: str, seen: PacketMemory | None) -> MediaSource:
        self.opened += 1
        result = self._results.pop(0) if self._results else SourceDown(f"{url}: cannot be reached")
        if isinstance(result, Exception):
            raise result
        return result


class NoFollower:
    """Windows that are always far enough."""

    def __init__(self, *_: object) -> None:
        pass

    async def wait(self, epoch: int, position_ms: int) -> None:
        pass

    async def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "Ahead", NoFollower)
    monkeypatch.setattr(stream_module, "FIRST_PAUSE_S", 0.01)


async def capture(opener: Opener, log: Log, previous: StreamStatus | None = None, offset: int = 5) -> StreamCapture:
    made = StreamCapture(
        SETTINGS,
        log.send,
        opener,
        StreamAnnounced(stream_id="s", url="file"),
        offset=offset,
        partition=0,
        previous=previous,
        detector=loud_detector,
    )
    try:
        await made.run()
    except asyncio.CancelledError:
        if log._crash_after is None:
            raise
    return made


def source(info: SourceInfo, items: Iterable[MediaItem], breaks: Exception | None = None) -> InMemorySource:
    return InMemorySource(info, items, breaks)


def identity(record: Frame | Speech) -> tuple[object, ...]:
    if isinstance(record, Frame):
        return ("frame", record.epoch, record.pts_ms, record.jpeg, record.end_of_epoch)
    return ("speech", record.epoch, record.start_ms, record.end_ms, record.audio, record.end_of_epoch)


async def test_a_file_is_sent_whole_and_ends() -> None:
    log = Log()
    made = await capture(Opener(source(FILE, media(10))), log)
    assert log.statuses[0].state == "connecting"
    assert made.status.state == "ended"
    assert made.status.sent_until_ms >= 10_000
    assert [r.end_of_epoch for r in log.media].count(True) == 2
    assert not any(f.live for f in log.media if isinstance(f, Frame))


@pytest.mark.parametrize("crash_after", [1, 2, 3, 5, 8, 13, 17])
async def test_a_file_that_is_resumed_after_a_crash_sends_the_same_set(
    crash_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "STATUS_EVERY_S", 0.0)  # a status after each record: the finest resume points

    def items() -> list[MediaItem]:
        return [*media(6), NewEpoch(), *media(6)]

    undisturbed, first, second = Log(), Log(crash_after), Log()
    await capture(Opener(source(FILE, items())), undisturbed)
    await capture(Opener(source(FILE, items())), first)
    previous = first.statuses[-1] if first.statuses else None
    made = await capture(Opener(source(FILE, items())), second, previous)
    assert made.status.state == "ended" and made.status.epoch == 1
    both = {identity(r) for r in first.media + second.media}
    assert both == {identity(r) for r in undisturbed.media}
    assert len(first.media) + len(second.media) <= len(undisturbed.media) + crash_after


async def test_a_clock_reset_opens_a_new_epoch_and_ends_the_old_one() -> None:
    log = Log()
    made = await capture(Opener(source(FILE, [*media(3), NewEpoch(), *media(3)])), log)
    assert made.status.epoch == 1
    assert [(r.epoch, type(r)) for r in log.media if r.end_of_epoch] == [
        (0, Frame),
        (0, Speech),
        (1, Frame),
        (1, Speech),
    ]


async def test_a_live_stream_that_breaks_off_comes_back_in_a_new_epoch() -> None:
    log = Log()
    opener = Opener(
        source(LIVE, media(3), SourceDown("connection lost")), SourceDown("refused"), source(LIVE, media(3))
    )
    made = await capture(opener, log)
    states = [(s.state, s.epoch) for s in log.statuses]
    assert ("stalled", 0) in states and ("live", 1) in states
    assert {r.epoch for r in log.media} == {0, 1}
    assert [r.epoch for r in log.media if r.end_of_epoch] == [0, 0, 1, 1]
    assert made.status.reconnects == 1
    assert made.status.state == "ended", "its last connection came to an orderly end"
    assert all(f.live for f in log.media if isinstance(f, Frame))


async def test_a_live_stream_that_stays_away_after_a_break_has_ended() -> None:
    log = Log()
    made = await capture(Opener(source(LIVE, media(3), SourceDown("room: connection lost"))), log)
    assert made.status.state == "ended"
    assert "given up after" in made.status.detail
    assert [r.end_of_epoch for r in log.media].count(True) == 2


async def test_a_live_stream_that_has_become_a_recording_has_ended() -> None:
    log = Log()
    made = await capture(Opener(source(LIVE, media(3)), source(FILE, media(3))), log)
    assert made.status.state == "ended"
    assert {r.epoch for r in log.media} == {0}


async def test_a_bad_source_fails_with_its_line() -> None:
    log = Log()
    opener = Opener(BadSource("x.mp4: no such file: check the path"))
    made = await capture(opener, log)
    assert made.status.state == "failed" and made.status.detail == "x.mp4: no such file: check the path"
    assert not log.media and opener.opened == 1


async def test_a_file_without_a_picture_fails() -> None:
    made = await capture(Opener(source(FILE, [])), Log())
    assert made.status.state == "failed" and "none of its pictures" in made.status.detail


async def test_a_file_without_sound_says_so_and_goes_on() -> None:
    log = Log()
    made = await capture(Opener(source(SILENT_FILE, media(4, sound=False))), log)
    assert made.status.state == "ended" and "no sound" in made.status.detail
    assert any(isinstance(r, Speech) for r in log.media)


async def test_a_recording_that_breaks_off_is_read_again_without_repeating_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_module, "STATUS_EVERY_S", 0.0)
    whole, log = Log(), Log()
    await capture(Opener(source(FILE, media(9))), whole)
    made = await capture(Opener(source(FILE, media(5), SourceDown("lost")), source(FILE, media(9))), log)
    assert made.status.state == "ended" and made.status.epoch == 0
    assert {identity(r) for r in log.media} == {identity(r) for r in whole.media}
    assert [r.end_of_epoch for r in log.media].count(True) == 2


async def test_a_live_capture_that_crashed_first_ends_its_epoch() -> None:
    previous = StreamStatus(
        stream_id="s", epoch=4, first_epoch=2, state="live", announced_offset=5, sent_until_ms=7_000, live=True
    )
    log = Log()
    await capture(Opener(source(LIVE, media(2))), log, previous)
    assert [(r.epoch, r.end_of_epoch) for r in log.media[:2]] == [(4, True), (4, True)]
    assert {r.epoch for r in log.media[2:]} == {5}


async def test_a_newer_announcement_ends_the_old_epoch_and_opens_the_next() -> None:
    previous = StreamStatus(stream_id="s", epoch=0, state="live", announced_offset=4, sent_until_ms=3_000)
    log = Log()
    made = await capture(Opener(source(FILE, media(2))), log, previous, offset=9)
    assert [(r.epoch, r.end_of_epoch) for r in log.media[:2]] == [(0, True), (0, True)]
    assert {r.epoch for r in log.media[2:]} == {1} and made.status.first_epoch == 1


async def test_a_record_that_is_too_large_is_dropped_and_the_stream_goes_on() -> None:
    log = Log()

    async def send(topic: str, key: str, record: Record) -> None:
        if isinstance(record, Frame) and record.pts_ms == 1000:
            raise BadInput("too large")
        await log.send(topic, key, record)

    made = StreamCapture(
        SETTINGS,
        send,
        Opener(source(FILE, media(3))),
        StreamAnnounced(stream_id="s", url="file"),
        offset=0,
        partition=0,
        detector=loud_detector,
    )
    await made.run()
    assert made.status.state == "ended"
    assert [f.pts_ms for f in log.media if isinstance(f, Frame) and not f.end_of_epoch] == [0, 2000]


async def test_a_stream_that_is_stopped_ends_its_epoch() -> None:
    log = Log()
    started = asyncio.Event()

    async def send(topic: str, key: str, record: Record) -> None:
        await log.send(topic, key, record)
        if isinstance(record, Frame):
            started.set()
            await asyncio.Event().wait()

    made = StreamCapture(
        SETTINGS,
        send,
        Opener(source(LIVE, media(9))),
        StreamAnnounced(stream_id="s", url="x"),
        offset=0,
        partition=0,
        detector=loud_detector,
    )
    task = asyncio.create_task(made.run())
    await asyncio.wait_for(started.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    made._send = log.send
    await made.stop(7)
    assert made.status.state == "ended" and made.status.announced_offset == 7
    assert [r.end_of_epoch for r in log.media].count(True) == 2


async def test_real_time_waits_as_long_as_the_media_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [100.0], []

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(asyncio, "sleep", sleep)
    pace = pacing.RealTime()
    for position_ms in (2_000, 3_000, 2_500, 5_000):
        await pace.wait(0, position_ms)
    await pace.wait(1, 0)
    await pace.wait(1, 400)
    assert slept == [1.0, 2.0, 0.4]


def test_a_file_may_always_be_ahead_by_what_a_window_needs() -> None:
    narrow = SETTINGS.model_copy(update={"file_ahead_s": 1.0})
    assert pacing.allowance_ms(narrow) > narrow.window_ms + narrow.speech_chunk_s * 1000 + 10_000
    assert pacing.allowance_ms(SETTINGS) == 60_000


async def test_a_live_stream_that_gives_only_sound_is_never_live_and_given_up() -> None:
    log = Log()
    only_sound = [item for item in media(2) if isinstance(item, Sound)]
    made = await capture(Opener(*(source(LIVE, only_sound, SourceDown("no picture")) for _ in range(50))), log)
    assert made.status.state == "failed" and "no picture; given up after" in made.status.detail
    assert "live" not in [status.state for status in log.statuses] and log.media == []


async def test_a_recording_that_turned_out_to_be_one_ends_in_its_epoch() -> None:
    log = Log()
    again = source(LIVE, [])
    again.over = True
    made = await capture(Opener(source(LIVE, media(3)), again), log)
    assert made.status.state == "ended" and {record.epoch for record in log.media} == {0}


async def test_what_a_source_loses_is_told_while_it_is_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "STATUS_EVERY_S", 0.0)
    log = Log()
    lossy = source(LIVE, media(3))
    lossy.detail = "2.0 s of the picture were lost"
    lossy.over = True
    await capture(Opener(lossy), log)
    assert [status.detail for status in log.statuses if status.state in ("live", "ended")][1:]
    assert {status.detail for status in log.statuses if status.state != "connecting"} == {lossy.detail}
