"""The interface of a speech recognizer, and its twin in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000

Audio = npt.NDArray[np.float32]
"""Mono sound at 16 kHz, (N,), values in [-1, 1]."""

Piece = tuple[Audio, str | None]
"""At most 30 s of sound, and its language: one that the recognizer knows, or None to detect it."""


@dataclass(frozen=True)
class Transcript:
    """What was said in a piece of sound.

    Attributes:
        text: Empty if nobody was understood.
        language: Primary language tag, as asked for or detected; None if unknown.
        language_probability: 1 for a language that was asked for.
        confidence: Mean token probability in [0, 1]; 0 without text.
    """

    text: str = ""
    language: str | None = None
    language_probability: float = 0.0
    confidence: float = 0.0


class Recognizer(Protocol):
    """Turns sound into text. The same sound gives the same text, whatever was heard before."""

    @property
    def languages(self) -> frozenset[str]:
        """Language tags that may be asked for."""

    @property
    def at_once(self) -> int:
        """How many pieces are transcribed best together."""

    def transcribe(self, pieces: Sequence[Piece]) -> list[Transcript]:
        """Returns what is said in each piece."""


class MemoryRecognizer:
    """A recognizer with a given answer for each sound, for tests of everything around it.

    Args:
        listen: Returns the transcript of a sound.
        languages: What it accepts.
    """

    def __init__(self, listen: Callable[[Audio, str | None], Transcript], languages: tuple[str, ...] = ("en", "zh")):
        self._listen = listen
        self._languages = frozenset(languages)

    @property
    def languages(self) -> frozenset[str]:
        """Language tags that may be asked for."""
        return self._languages

    @property
    def at_once(self) -> int:
        """How many pieces are transcribed best together."""
        return 4

    def transcribe(self, pieces: Sequence[Piece]) -> list[Transcript]:
        """Returns what `listen` says of each."""
        return [self._listen(audio, language) for audio, language in pieces]
