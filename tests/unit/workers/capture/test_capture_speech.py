import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.capture.media import SAMPLE_RATE, Sound
from workers.capture.speech import (
    ALIGN_TOLERANCE,
    BLOCK,
    PAD,
    SILENCE_WINDOWS,
    WINDOW,
    WINDOW_MS,
    SileroDetector,
    SoundTrack,
    SpeechCutter,
    Stretch,
)

CHUNK_S = 6.0


def loud_is_speech(windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A detector for tests: a window is speech if it is loud."""
    return (np.abs(windows).max(axis=1) > 0.1).astype(np.float32)


def track(*parts: tuple[bool, float]) -> npt.NDArray[np.int16]:
    """Sound of (spoken, seconds) parts."""
    return np.concatenate([np.full(int(s * SAMPLE_RATE), 10_000 if spoken else 0, np.int16) for spoken, s in parts])


def cut(samples: npt.NDArray[np.int16], sizes: list[int] | None = None, chunk_s: float = CHUNK_S) -> list[Stretch]:
    cutter = SpeechCutter(loud_is_speech, chunk_s)
    stretches: list[Stretch] = []
    position = 0
    for size in sizes or []:
        stretches += cutter.feed(samples[position : position + size])
        position += size
    stretches += cutter.feed(samples[position:])
    return stretches + list(cutter.finish(len(samples) * 1000 // SAMPLE_RATE))


def assert_covers(stretches: list[Stretch], end_ms: int) -> None:
    edges = [0, *(s.end_ms for s in stretches)]
    assert [s.start_ms for s in stretches] == edges[:-1]
    assert end_ms <= edges[-1] <= end_ms + WINDOW_MS


parts = st.lists(st.tuples(st.booleans(), st.floats(0.02, 9)), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(parts, st.lists(st.integers(0, 9_000), max_size=30))
def test_stretches_are_the_same_however_sound_is_cut_into_packets(
    spoken: list[tuple[bool, float]], sizes: list[int]
) -> None:
    samples = track(*spoken)
    assert cut(samples, sizes) == cut(samples)


@settings(max_examples=40, deadline=None)
@given(parts, st.floats(0.6, 12))
def test_stretches_cover_the_epoch_and_keep_all_speech(spoken: list[tuple[bool, float]], chunk_s: float) -> None:
    samples = track(*spoken)
    stretches = cut(samples, chunk_s=chunk_s)
    assert_covers(stretches, len(samples) * 1000 // SAMPLE_RATE)
    for stretch in stretches:
        length = stretch.end_ms - stretch.start_ms
        assert length <= max(chunk_s * 1000, (SILENCE_WINDOWS + PAD) * WINDOW_MS)
        if stretch.audio:
            first = stretch.start_ms * SAMPLE_RATE // 1000
            heard = np.frombuffer(stretch.audio, "<i2")
            assert len(heard) == length * SAMPLE_RATE // 1000
            known = samples[first : first + len(heard)]
            assert np.array_equal(heard[: len(known)], known)
    if all(s >= 0.5 for talks, s in spoken if talks):
        kept = sum(np.count_nonzero(np.frombuffer(s.audio, "<i2")) for s in stretches)
        # Only what is shorter than a word at a cut may be taken for a click.
        assert kept >= np.count_nonzero(samples) - len(stretches) * 3 * WINDOW


def test_silence_is_told_at_least_every_two_seconds() -> None:
    stretches = cut(track((False, 10)))
    assert not any(s.audio for s in stretches)
    assert max(s.end_ms - s.start_ms for s in stretches) <= 2_000


def test_speech_is_cut_at_its_pause() -> None:
    stretches = cut(track((False, 1), (True, 3), (False, 3), (True, 2), (False, 2)))
    spoken = [s for s in stretches if s.audio]
    assert len(spoken) == 2
    assert abs(spoken[0].start_ms - 776) <= 32 and abs(spoken[0].end_ms - 4_224) <= 32


def test_a_long_speech_is_cut_at_a_breath_in_it() -> None:
    stretches = [s for s in cut(track((True, 4.0), (False, 0.3), (True, 6))) if s.audio]
    assert 4_000 <= stretches[0].end_ms <= 4_320


def test_a_speech_without_any_pause_is_cut_at_the_longest_chunk() -> None:
    stretches = cut(track((True, 14)))
    assert [s.end_ms - s.start_ms for s in stretches][:2] == [5_984, 5_984]


def test_a_click_is_silence() -> None:
    assert not any(s.audio for s in cut(track((False, 2), (True, 0.03), (False, 2))))


def test_an_epoch_that_outlasts_its_sound_ends_in_silence() -> None:
    cutter = SpeechCutter(loud_is_speech, CHUNK_S)
    stretches = [*cutter.feed(track((False, 1))), *cutter.finish(5_000)]
    assert_covers(stretches, 5_000)


@given(st.lists(st.tuples(st.integers(-2_000, 20_000), st.integers(1, 4_000)), max_size=20))
def test_the_track_has_no_holes_and_loses_no_time(pieces: list[tuple[int, int]]) -> None:
    sound_track = SoundTrack()
    laid = 0
    for start, count in pieces:
        laid += len(sound_track.lay(Sound(start, np.ones(count, np.int16))))
        assert sound_track.length == laid
        assert sound_track.length >= start + count - ALIGN_TOLERANCE


def test_a_hole_is_filled_with_silence_and_an_overlap_is_trimmed() -> None:
    sound_track = SoundTrack()
    sound_track.lay(Sound(0, np.ones(1_600, np.int16)))
    after_hole = sound_track.lay(Sound(16_000, np.ones(1_600, np.int16)))
    assert len(after_hole) == 16_000 and not after_hole[:14_400].any() and after_hole[14_400:].all()
    assert len(sound_track.lay(Sound(12_000, np.ones(8_000, np.int16)))) == 2_400


def test_small_disagreements_of_clocks_are_left_alone() -> None:
    sound_track = SoundTrack()
    sound_track.lay(Sound(0, np.ones(1_600, np.int16)))
    assert len(sound_track.lay(Sound(1_700, np.ones(1_600, np.int16)))) == 1_600


def test_silero_gives_the_same_however_its_windows_come() -> None:
    rng = np.random.default_rng(7)
    windows = (rng.standard_normal((4 * BLOCK, WINDOW)) * 0.1).astype(np.float32)
    whole, parts_ = SileroDetector(), SileroDetector()
    expected = whole(windows)
    got = np.concatenate([parts_(windows[i : i + BLOCK]) for i in range(0, len(windows), BLOCK)])
    assert got.shape == (4 * BLOCK,)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert expected.max() < 0.5, "noise is no speech"
