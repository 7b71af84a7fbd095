from collections.abc import Iterable

import pytest

from tests.unit.workers.capture.capture_media import loud_detector, media
from topology.records import Frame, Speech
from topology.settings import Settings
from workers.capture.media import MediaItem, Picture, Sound
from workers.capture.pipeline import PROGRESS_MS, EpochCutter, OutRecord, StreamFacts

SETTINGS = Settings(_env_file=None)


def play(items: Iterable[MediaItem], *, has_audio: bool = True, skip_ms: int = 0) -> list[OutRecord]:
    facts = StreamFacts("s", "en", ("p1",), live=False, has_audio=has_audio)
    cutter = EpochCutter(facts, 3, SETTINGS, skip_ms=skip_ms, now_ms=lambda: 0, detector=loud_detector)
    records: list[OutRecord] = []
    for item in items:
        if isinstance(item, Picture):
            records += cutter.picture(item)
        elif isinstance(item, Sound):
            records += cutter.sound(item)
    return records + list(cutter.finish())


def frames(records: list[OutRecord]) -> list[Frame]:
    return [r for r in records if isinstance(r, Frame)]


def speech(records: list[OutRecord]) -> list[Speech]:
    return [r for r in records if isinstance(r, Speech)]


def assert_covers(records: list[OutRecord], start_ms: int = 0) -> None:
    stretches = speech(records)
    assert stretches[0].start_ms <= start_ms
    assert [s.start_ms for s in stretches[1:]] == [s.end_ms for s in stretches[:-1]]


def test_an_epoch_ends_with_one_end_record_each() -> None:
    records = play(media(10))
    assert [r.end_of_epoch for r in records].count(True) == 2
    assert frames(records)[-1].end_of_epoch and speech(records)[-1].end_of_epoch
    assert frames(records)[-1].pts_ms == speech(records)[-1].end_ms >= 10_000


def test_frames_and_speech_say_what_was_announced() -> None:
    records = play(media(4))
    assert {(r.stream_id, r.epoch) for r in records} == {("s", 3)}
    assert all(f.product_ids == ("p1",) for f in frames(records))
    assert all(s.language == "en" for s in speech(records))
    assert [f.pts_ms for f in frames(records)[:-1]] == [0, 1000, 2000, 3000]


def test_a_stream_without_sound_sends_progress_and_covers_the_epoch() -> None:
    records = play(media(9, sound=False), has_audio=False)
    assert_covers(records)
    assert not any(s.audio for s in speech(records))
    assert max(s.end_ms - s.start_ms for s in speech(records)) <= PROGRESS_MS


def test_sound_that_stops_is_taken_as_silence_so_that_windows_go_on() -> None:
    items = [item for item in media(40) if not isinstance(item, Sound) or item.start < 16_000 * 3]
    records = play(items)
    assert_covers(records)
    position = -1
    for record in records:
        if isinstance(record, Frame):
            assert record.end_of_epoch or record.pts_ms - position <= 16_000
        else:
            position = record.end_ms


@pytest.mark.parametrize("skip_ms", [0, 1, 999, 1000, 4321, 9999, 10_000, 50_000])
def test_a_replay_that_skips_what_was_sent_sends_the_same_rest(skip_ms: int) -> None:
    whole, rest = play(media(10)), play(media(10), skip_ms=skip_ms)
    expected = [
        r for r in whole if r.end_of_epoch or (r.pts_ms >= skip_ms if isinstance(r, Frame) else r.end_ms > skip_ms)
    ]
    assert rest == expected
