"""Media of tests: pictures and sound in memory, and a speech detector that hears whatever is loud."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from workers.capture.media import SAMPLE_RATE, MediaItem, Picture, Sound, SourceInfo

FILE = SourceInfo(duration_ms=10_000, has_audio=True, live=False, width=64, height=36)
LIVE = SourceInfo(duration_ms=None, has_audio=True, live=True, width=64, height=36)
SILENT_FILE = SourceInfo(duration_ms=10_000, has_audio=False, live=False, width=64, height=36)


def loud_detector() -> "LoudDetector":
    return LoudDetector()


class LoudDetector:
    def __call__(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return (np.abs(windows).max(axis=1) > 0.1).astype(np.float32)


def media(seconds: float, *, fps: int = 5, sound: bool = True, start: float = 0.0) -> Iterator[MediaItem]:
    """A scene that changes each second, spoken to for two seconds of every three."""
    for index in range(int(seconds * fps)):
        time = start + index / fps
        shade = int(time) * 37 % 200
        yield Picture(round(time * 1000), partial(np.full, (36, 64, 3), shade, np.uint8))
        if sound:
            first, last = round(time * SAMPLE_RATE), round((time + 1 / fps) * SAMPLE_RATE)
            loud = int(time) % 3 != 2
            yield Sound(first, np.full(last - first, 10_000 if loud else 0, np.int16))
