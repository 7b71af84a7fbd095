"""Cuts the sound track into stretches: speech of at most a few seconds, cut at pauses, and silence between.

All decisions are made per block of 32 ms windows counted from the epoch's start, so the same sound gives the
same stretches however it was cut into packets.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.capture.media import SAMPLE_RATE, Sound

WINDOW = 512  # samples a window: fixed by Silero at 16 kHz
WINDOW_MS = WINDOW * 1000 // SAMPLE_RATE  # 32

# Windows per pass of the detector. Smaller: more passes, each with its overhead; larger: later decisions (256 ms now).
BLOCK = 8
# Clocks of sound cards and time stamps disagree by milliseconds all the time; only a real hole is filled.
ALIGN_TOLERANCE = SAMPLE_RATE // 10

SPEECH_PROBABILITY = 0.5  # Silero's own default: a window at or above it begins speech
SILENCE_PROBABILITY = 0.35  # and below it ends; between the two, things stay as they are
PAD = 7  # windows (224 ms) kept around speech, so that soft first and last sounds are not cut
MIN_VOICED = 3  # windows; fewer are a click rather than a word
END_PAUSE = 25  # windows (800 ms): the speaker has stopped. Shorter: sentences fall apart; longer: text comes later
BREATH = 8  # windows (256 ms): a pause to cut at, once a chunk is long enough
SILENCE_WINDOWS = 60  # windows (1.9 s): silence is sent as progress at least so often

Detector = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Takes the next windows of one sound track, (N, WINDOW) in [-1, 1]; returns (N,) speech probabilities."""


@dataclass(frozen=True)
class Stretch:
    """A stretch of the sound track, [start_ms, end_ms). `audio` is empty if nobody speaks in it."""

    start_ms: int
    end_ms: int
    audio: bytes = b""


class SileroDetector:
    """Silero VAD as shipped inside faster-whisper, fed as a stream: it carries its state from call to call."""

    _CONTEXT = 64  # samples of the previous window that the network sees before each window

    def __init__(self) -> None:
        self._session = _silero_session()
        self._h = np.zeros((1, 1, 128), np.float32)
        self._c = np.zeros((1, 1, 128), np.float32)
        self._tail = np.zeros(self._CONTEXT, np.float32)

    def __call__(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Returns (N,) probabilities of speech in the next (N, WINDOW) windows."""
        context = np.concatenate([self._tail[None], windows[:-1, -self._CONTEXT :]])
        self._tail = windows[-1, -self._CONTEXT :].copy()
        output, self._h, self._c = self._session.run(
            None, {"input": np.concatenate([context, windows], axis=1), "h": self._h, "c": self._c}
        )
        probabilities: npt.NDArray[np.float32] = output.reshape(-1)
        return probabilities


@lru_cache(maxsize=1)
def _silero_session() -> Any:
    # Imported here: faster-whisper takes a second to import, and streams without sound never need it.
    from faster_whisper.vad import get_vad_model

    return get_vad_model().session  # ONNX Runtime sessions may be run from many threads


class SoundTrack:
    """Lays pieces of sound end to end on the epoch's time line: fills holes with zeros, trims overlaps.

    Attributes:
        length: Samples laid so far.
    """

    def __init__(self) -> None:
        self.length = 0

    def lay(self, sound: Sound) -> npt.NDArray[np.int16]:
        """Returns the samples, (N,), that continue the track."""
        offset = sound.start - self.length
        if abs(offset) <= ALIGN_TOLERANCE and self.length:
            offset = 0
        samples = sound.samples
        if offset > 0:
            samples = np.concatenate([np.zeros(offset, np.int16), samples])
        elif offset < 0:
            samples = samples[-offset:]
        self.length += len(samples)
        return samples

    def fill_to(self, length: int) -> npt.NDArray[np.int16]:
        """Returns the zeros, (N,), that make the track so long."""
        samples = np.zeros(max(0, length - self.length), np.int16)
        self.length += len(samples)
        return samples


class SpeechCutter:
    """Cuts a continuous sound track into stretches that cover it without gaps.

    Args:
        detector: A fresh one; it is used for this sound track only.
        chunk_s: Longest stretch of speech, in seconds.
    """

    def __init__(self, detector: Detector, chunk_s: float) -> None:
        self._detector = detector
        self._max = int(chunk_s * 1000) // WINDOW_MS
        # At a breath, a chunk is long enough from two thirds of the longest on: short chunks cost as much as long ones.
        self._enough = self._max * 2 // 3
        self._loose = np.zeros(0, np.int16)  # less than a block
        self._held: list[npt.NDArray[np.int16]] = []  # windows not yet given out
        self._voiced: list[bool] = []  # whether each held window has a voice
        self._start = 0  # window number of the first held one
        self._speaking = False  # a voice was heard in the held windows
        self._hot = False  # the last window was voiced: hysteresis

    def feed(self, samples: npt.NDArray[np.int16]) -> Iterator[Stretch]:
        """Takes the next samples, (N,), and yields the stretches that are complete."""
        self._loose = np.concatenate([self._loose, samples])
        size = WINDOW * BLOCK
        while len(self._loose) >= size:
            block, self._loose = self._loose[:size], self._loose[size:]
            yield from self._take(block.reshape(BLOCK, WINDOW))

    def finish(self, end_ms: int = 0) -> Iterator[Stretch]:
        """Ends the track and yields what is left.

        Args:
            end_ms: End of the epoch; where sound ends earlier, silence follows.
        """
        if len(self._loose):
            windows = -(-len(self._loose) // WINDOW)
            padded = np.zeros(WINDOW * BLOCK, np.int16)
            padded[: len(self._loose)] = self._loose
            self._loose = self._loose[:0]
            yield from self._take(padded.reshape(BLOCK, WINDOW), windows)
        if self._held:
            yield self._cut(len(self._held))
        start_ms = self._start * WINDOW_MS
        if end_ms > start_ms:
            yield Stretch(start_ms, end_ms)

    def _take(self, block: npt.NDArray[np.int16], count: int = BLOCK) -> Iterator[Stretch]:
        probabilities = self._detector(block.astype(np.float32) / np.float32(32_768))
        for window, probability in zip(block[:count], probabilities[:count], strict=True):
            self._hot = probability >= (SILENCE_PROBABILITY if self._hot else SPEECH_PROBABILITY)
            self._held.append(window)
            self._voiced.append(bool(self._hot))
            yield from self._decide()

    def _decide(self) -> Iterator[Stretch]:
        held = len(self._held)
        if not self._speaking:
            if self._voiced[-1]:
                self._speaking = True
                silent = held - 1 - PAD
                if silent > 0:
                    yield self._cut(silent, silent=True)
            elif held >= SILENCE_WINDOWS + PAD:
                yield self._cut(SILENCE_WINDOWS, silent=True)
            return
        pause = _trailing_pause(self._voiced)
        if pause >= END_PAUSE:
            yield self._cut(held - pause + PAD)
        elif pause >= BREATH and held - pause // 2 >= self._enough:
            yield self._cut(held - pause // 2)
        elif held >= self._max:
            yield self._cut(_best_cut(self._voiced, self._max))

    def _cut(self, count: int, silent: bool = False) -> Stretch:
        start_ms = self._start * WINDOW_MS
        is_speech = not silent and sum(self._voiced[:count]) >= MIN_VOICED
        audio = np.concatenate(self._held[:count]).astype("<i2").tobytes() if is_speech else b""
        del self._held[:count], self._voiced[:count]
        self._start += count
        self._speaking = any(self._voiced)
        return Stretch(start_ms, self._start * WINDOW_MS, audio)


def _trailing_pause(voiced: list[bool]) -> int:
    pause = 0
    for is_voiced in reversed(voiced):
        if is_voiced:
            break
        pause += 1
    return pause


def _best_cut(voiced: list[bool], longest: int) -> int:
    """Returns where to cut a chunk that is full: amid the longest pause of its second half, else at its end."""
    best, best_length, run = longest, 0, 0
    for position in range(longest // 2, longest):
        run = 0 if voiced[position] else run + 1
        if run and run >= best_length:
            best, best_length = position + 1 - run // 2, run
    return best
