"""How a host shows a thing: it is brought into the picture, moved and turned, a hand passes over it, and it goes."""

import math
from dataclasses import dataclass

import numpy as np

from cope.render.synthetic import Placement, random_placement

# How long the host takes to bring a thing into the picture, and to put it away.
MOVE_S = 0.6
# Of that, when the thing counts as shown: mostly in the picture.
_SEEN_AFTER_S = 0.4
# Where things come from: the left, the right, or below.
_SIDES = ((-1.0, 0.0), (1.0, 0.0), (0.0, 1.0))


@dataclass(frozen=True)
class Wave:
    """A value that swings around its mean."""

    mean: float
    swing: float
    period_s: float
    phase: float

    def at(self, t_s: float) -> float:
        """Returns the value at a time."""
        return self.mean + self.swing * math.sin(2 * math.pi * t_s / self.period_s + self.phase)


@dataclass(frozen=True)
class Motion:
    """How a host's hands move a thing."""

    x: Wave
    y: Wave
    scale: Wave
    rotation_deg: Wave
    tilt_deg: Wave
    turn_deg: Wave


@dataclass(frozen=True)
class Cover:
    """A hand before the thing, from a time to another, since the showing began."""

    from_s: float
    until_s: float
    share: float
    from_deg: float
    rgb: tuple[int, int, int]

    def share_at(self, t_s: float) -> float:
        """Returns the share that is covered: it comes and goes within half a second."""
        ramp = min((t_s - self.from_s) / 0.5, (self.until_s - t_s) / 0.5, 1.0)
        return self.share * max(0.0, ramp)


@dataclass(frozen=True)
class Showing:
    """A thing in the host's hands, from a time of the stream to another.

    Attributes:
        comes_from: Unit vector to the side that it enters from and leaves to, in frame coordinates.
    """

    start_s: float
    end_s: float
    motion: Motion
    cover: Cover | None
    comes_from: tuple[float, float]

    @property
    def seen_from_s(self) -> float:
        """When the thing is mostly in the picture."""
        return self.start_s + _SEEN_AFTER_S

    @property
    def seen_until_s(self) -> float:
        """When the thing has mostly left the picture."""
        return self.end_s - _SEEN_AFTER_S

    def placement(self, t_s: float) -> Placement:
        """Returns where the thing is at a time of the stream."""
        since, left = t_s - self.start_s, self.end_s - t_s
        away = 1 - eased(min(since, left) / MOVE_S)
        motion, cover = self.motion, self.cover
        return Placement(
            x=motion.x.at(since) + away * 0.9 * self.comes_from[0],
            y=motion.y.at(since) + away * 1.1 * self.comes_from[1],
            scale=motion.scale.at(since),
            rotation_deg=motion.rotation_deg.at(since),
            tilt_deg=motion.tilt_deg.at(since),
            turn_deg=motion.turn_deg.at(since),
            cover=cover.share_at(since) if cover else 0.0,
            cover_from_deg=cover.from_deg if cover else 90.0,
            cover_rgb=cover.rgb if cover else (0, 0, 0),
        )


def eased(share: float) -> float:
    """The share of a way that a hand has gone after that share of the time: it starts and ends slowly."""
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def presented(rng: np.random.Generator, start_s: float, end_s: float) -> Showing:
    """A showing by a host who wants the thing to be seen: near the middle, upright, large."""
    length_s = end_s - start_s
    like = random_placement(rng, scale=(0.38, 0.8), cover=0.42)
    comes_from = _SIDES[int(rng.integers(3))]

    def wave(mean: float, swing: float) -> Wave:
        return Wave(mean, swing, float(rng.uniform(2.5, 7.0)), float(rng.uniform(0, 2 * math.pi)))

    motion = Motion(
        x=wave(float(rng.uniform(0.35, 0.65)), float(rng.uniform(0.02, 0.1))),
        y=wave(float(rng.uniform(0.45, 0.6)), float(rng.uniform(0.02, 0.08))),
        scale=wave(like.scale, like.scale * float(rng.uniform(0.05, 0.25))),
        rotation_deg=wave(float(rng.normal(0, 5)), float(rng.uniform(2, 14))),
        tilt_deg=wave(0.0, float(rng.uniform(0, 15))),
        turn_deg=wave(0.0, float(rng.uniform(5, 38))),
    )
    cover = None
    if like.cover and length_s > 3:
        from_s = float(rng.uniform(0.5, length_s / 2))
        until_s = from_s + float(rng.uniform(0.3, 0.8)) * (length_s - from_s)
        cover = Cover(from_s, until_s, like.cover, like.cover_from_deg, like.cover_rgb)
    return Showing(start_s, end_s, motion, cover, comes_from)


def held_anyhow(rng: np.random.Generator, start_s: float, end_s: float) -> Showing:
    """A showing by a careless host: anywhere in the picture, small or leaning too, mostly with a hand before it."""
    base = random_placement(rng, (0.25, 0.9), 0.35)
    comes_from = _SIDES[int(rng.integers(3))]

    def wave(mean: float, swing: float) -> Wave:
        return Wave(mean, swing, float(rng.uniform(4.0, 12.0)), float(rng.uniform(0, 2 * math.pi)))

    motion = Motion(
        x=wave(min(max(base.x, 0.18), 0.82), 0.08),
        y=wave(base.y, 0.05),
        scale=wave(base.scale, 0.15 * base.scale),
        rotation_deg=wave(base.rotation_deg, 10.0),
        tilt_deg=wave(base.tilt_deg, 0.0),
        turn_deg=wave(min(max(base.turn_deg, -35.0), 35.0), 15.0),
    )
    cover = None
    if base.cover:
        hidden_s = 0.7 * (end_s - start_s)
        from_s = float(rng.uniform(0, end_s - start_s - hidden_s))
        cover = Cover(from_s, from_s + hidden_s, base.cover, base.cover_from_deg, base.cover_rgb)
    return Showing(start_s, end_s, motion, cover, comes_from)
