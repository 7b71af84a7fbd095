"""Converts decoded sound of any layout and rate to 16 kHz mono."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt

from workers.capture.media import SAMPLE_RATE, Sound

_US = Fraction(1_000_000)

# Weight of a new piece of sound in the running estimate of opposite phase. Smaller: a wrong cable is noticed late;
# larger: single sounds of a wide stereo picture flip the sign, which is audible as clicks.
_PHASE_WEIGHT = 0.1
# Correlation of the sides, -1 to 1, below which their sum would lose most of the sound.
_OPPOSITE = -0.5


class Mixdown:
    """Mixes one sound track down, and says where each piece of it belongs."""

    def __init__(self) -> None:
        self._resampler: Any = None
        self._format: tuple[str, str, int] | None = None
        self._pending = Fraction(0)  # samples at SAMPLE_RATE that went into the resampler, less those that came out
        self._both = self._power = 0.0  # running product of the sides, and their power

    def take(self, frame: Any, start_us: int) -> Iterator[Sound]:
        """Yields the sound of a decoded frame.

        Args:
            frame: A frame of PyAV.
            start_us: Where it begins, in media time.
        """
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if shape != self._format:  # a resampler is bound to one format
            yield from self.flush(start_us)
            layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
            self._resampler = av.AudioResampler(format="s16", layout=layout, rate=SAMPLE_RATE)
            self._format = shape
        first = round(start_us * SAMPLE_RATE / _US - self._pending)
        samples = self._mono(self._resampler.resample(frame))
        self._pending += Fraction(frame.samples * SAMPLE_RATE, frame.sample_rate) - len(samples)
        if len(samples):
            yield Sound(first, samples)

    def flush(self, end_us: int) -> Iterator[Sound]:
        """Yields what the resampler still holds.

        Args:
            end_us: Where the sound ends, in media time.
        """
        if self._resampler is None:
            return
        samples = self._mono(self._resampler.resample(None))
        self._resampler, self._format, self._pending = None, None, Fraction(0)
        if len(samples):
            yield Sound(round(end_us * SAMPLE_RATE / _US) - len(samples), samples)

    def _mono(self, pieces: list[Any]) -> npt.NDArray[np.int16]:
        if not pieces:
            return np.zeros(0, np.int16)
        channels = pieces[0].layout.nb_channels
        packed = np.concatenate([piece.to_ndarray().reshape(-1) for piece in pieces]).astype(np.int16, copy=False)
        if channels == 1 or not len(packed):
            return packed
        sides = packed.reshape(-1, 2).astype(np.float64)
        # Sides of opposite phase (a cable with swapped wires, "karaoke" effects) cancel out in a plain sum.
        both, power = float((sides[:, 0] * sides[:, 1]).sum()), float((sides**2).sum() / 2)
        weight = _PHASE_WEIGHT if self._power else 1.0
        self._both += weight * (both - self._both)
        self._power += weight * (power - self._power)
        sign = -1 if self._both < _OPPOSITE * self._power else 1
        return ((sides[:, 0] + sign * sides[:, 1]) / 2).astype(np.int16)
