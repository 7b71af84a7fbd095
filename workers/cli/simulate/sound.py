"""The sound track of a simulated stream."""

from collections.abc import Iterator, Sequence

import numpy as np

from cope.render.lives import Line
from workers.cli.simulate.voices import SAMPLE_RATE, Samples, Voice

# People leave this much between two sentences.
_BREATH_S = 0.25
# Voice detectors are tuned on real rooms, which are never digitally silent.
_ROOM_NOISE = 0.002
_LOUDNESS = 0.09


def speak(lines: Sequence[Line], voice: Voice, duration_s: float, seed: int) -> tuple[Samples, list[tuple[float, str]]]:
    """Speaks the lines one after another, each as near to its wanted time as those before allow.

    Args:
        lines: By wanted time.
        voice: The host.
        duration_s: Length of the track; a line that does not fit into it is left out.
        seed: Seed of the voice and the room's noise.

    Returns:
        Mono samples at `SAMPLE_RATE`, and what was said when.
    """
    rng = np.random.default_rng([seed, 3])
    length = int(duration_s * SAMPLE_RATE)
    track = rng.normal(0, _ROOM_NOISE, length).astype(np.float32)
    said: list[tuple[float, str]] = []
    free_s = 0.0
    for number, line in enumerate(lines):
        start_s = max(line.wish_s, free_s, 0.0)
        if start_s > line.latest_s:
            continue
        spoken = _levelled(voice.say(line.text, seed + number))
        first = int(start_s * SAMPLE_RATE)
        if first + len(spoken) > length:
            continue
        track[first : first + len(spoken)] += spoken
        said.append((start_s, line.text))
        free_s = start_s + len(spoken) / SAMPLE_RATE + _BREATH_S
    return np.clip(track, -1, 1), said


def blocks(track: Samples, size: int) -> Iterator[Samples]:
    """Cuts the track into blocks of that many samples; the last one is filled up with silence."""
    for first in range(0, len(track), size):
        block = track[first : first + size]
        yield np.pad(block, (0, size - len(block)))


def _levelled(samples: Samples) -> Samples:
    """Brings each sentence to the same loudness."""
    level = float(np.sqrt(np.mean(samples**2))) if len(samples) else 0.0
    return samples * np.float32(_LOUDNESS / level) if level > 0 else samples
