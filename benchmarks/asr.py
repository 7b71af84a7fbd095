"""Whisper's word errors and work by the length that speech is padded to, and its work by the pieces taken at once.

    python -m benchmarks.asr            # two tables, and build/asr.json

English sentences about products, spoken by hibari; the packaged Whisper base, int8, greedy, one thread. Each is
tried with 1, 2 and 4 s of silence behind the speech, with a fixed 10 s, and with Whisper's own 30 s.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import hibari
import numpy as np
from rapidfuzz.distance import Levenshtein

from topology.settings import Settings
from workers.transcribe import whisper
from workers.transcribe.recognizer import SAMPLE_RATE, Audio

SENTENCES = (
    "Hello everybody, thanks for joining the stream tonight.",
    "First up we have this fresh apple juice, cold pressed and delicious.",
    "This is the carrot juice, full of vitamins.",
    "Next is the black hoodie, very soft and warm.",
    "The coconut juice is on sale today.",
    "Look at this colored parrot cushion for your sofa.",
    "The hyperspace turquoise paint is the last one in stock.",
    "A glass of red wine goes well with dinner.",
    "This code division t-shirt is for developers.",
    "The mustard hoodie is my favorite of them all.",
    "This polo shirt comes in four colors.",
    "If you like it, hit the heart and subscribe.",
    "Bean juice is what we call our coffee.",
    "Let's move on to the pineapple juice.",
    "The light speed yellow paint dries in one hour.",
    "Space dust navy paint, two coats are enough.",
)

CONTEXTS: dict[str, Callable[[float], int]] = {
    "speech + 1 s": lambda seconds: math.ceil(seconds + 1),
    "speech + 2 s": lambda seconds: math.ceil(seconds + 2),
    "speech + 4 s": lambda seconds: math.ceil(seconds + 4),
    "10 s": lambda seconds: 10,
    "30 s": lambda seconds: 30,
}


def main() -> None:
    """Prints the table and writes the figures."""
    recognizer = whisper.open_recognizer(Settings(threads=1, device="cpu"))
    voice = hibari.Hibari()
    spoken = [resampled(np.asarray(voice(text, seed=0), np.float32)) for text in SENTENCES]
    rows = []
    print(f"{'padded to':>14} {'word errors':>12} {'real-time factor':>17}")
    for name, context in CONTEXTS.items():
        errors, words, began = 0, 0, time.perf_counter()
        for text, audio in zip(SENTENCES, spoken, strict=True):
            seconds = len(audio) / SAMPLE_RATE
            features = recognizer._model.feature_extractor(audio)
            heard = recognizer._decode(recognizer._encode([features], context(seconds)), ["en"], seconds)[0]
            errors += Levenshtein.distance(plain(text), plain(heard.text))
            words += len(plain(text))
        factor = (time.perf_counter() - began) * SAMPLE_RATE / sum(map(len, spoken))
        rows.append({"padded_to": name, "word_error_rate": errors / words, "real_time_factor": factor})
        print(f"{name:>14} {errors / words:>12.1%} {factor:>17.3f}")
    pieces = [(audio, "en") for audio in spoken]
    together = []
    print(f"\n{'at once':>14} {'real-time factor':>17}")
    for at_once in (1, 2, 4, 8):
        began = time.perf_counter()
        for at in range(0, len(pieces), at_once):
            recognizer.transcribe(pieces[at : at + at_once])
        factor = (time.perf_counter() - began) * SAMPLE_RATE / sum(map(len, spoken))
        together.append({"at_once": at_once, "real_time_factor": factor})
        print(f"{at_once:>14} {factor:>17.3f}")
    Path("build").mkdir(exist_ok=True)
    Path("build/asr.json").write_text(json.dumps({"padding": rows, "together": together}, indent=2))


def resampled(audio: Audio) -> Audio:
    """Returns hibari's sound at Whisper's rate."""
    length = round(len(audio) * SAMPLE_RATE / hibari.SAMPLE_RATE)
    return np.asarray(cv2.resize(audio[None], (length, 1), interpolation=cv2.INTER_AREA)[0], np.float32)


def plain(text: str) -> list[str]:
    """Returns the words without case and punctuation."""
    return "".join(letter if letter.isalnum() else " " for letter in text.casefold().replace("'", "")).split()


if __name__ == "__main__":
    main()
