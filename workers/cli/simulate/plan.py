"""The plan of a simulated stream: what is shown when and how it moves, and what is said about it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cope.render.synthetic import Placement, random_placement
from topology.records import ProductPage
from workers.cli.simulate.phrases import Host
from workers.cli.simulate.recipe import Recipe

# How long the host takes to bring a thing into the picture, and to put it away.
MOVE_S = 0.6
# Of that, when the thing counts as shown: mostly in the picture.
_SEEN_AFTER_S = 0.4
# A stream opens with a greeting of this length, if it is long enough to have one.
_GREETING_S = 2.5
# Below this length a stream has no stretches without a product: they would be most of it.
_SHORT_S = 30.0


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
class Shown:
    """Something that the host shows: a product, or (`page` is None) a thing of no catalogue.

    Attributes:
        choice: Random number in [0, 1): which picture of it, or which distractor.
        change_s: When the host turns to another picture of it, since the start.
        comes_from: Unit vector to the side that it enters from, in frame coordinates.
    """

    page: ProductPage | None
    start_s: float
    end_s: float
    motion: Motion
    cover: Cover | None
    choice: float
    change_s: float
    comes_from: tuple[float, float]

    @property
    def seen_from_s(self) -> float:
        """When it is mostly in the picture."""
        return self.start_s + _SEEN_AFTER_S

    @property
    def seen_until_s(self) -> float:
        """When it has mostly left the picture."""
        return self.end_s - _SEEN_AFTER_S

    def placement(self, t_s: float) -> Placement:
        """Returns where it is at a time of the stream."""
        since, left = t_s - self.start_s, self.end_s - t_s
        away = 1 - _smooth(min(since, left) / MOVE_S)
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


@dataclass(frozen=True)
class Line:
    """A sentence, and when the host would like to say it; after `latest_s` it is left out."""

    wish_s: float
    latest_s: float
    text: str


@dataclass(frozen=True)
class View:
    """Where the camera looks from a time on.

    Attributes:
        seed: Of the part of the room that is seen, and of the things that stand there.
        bystanders: How many things stand there.
    """

    start_s: float
    seed: int
    bystanders: int


@dataclass(frozen=True)
class Plan:
    """A stream before it is drawn."""

    duration_s: float
    shown: tuple[Shown, ...]
    lines: tuple[Line, ...]
    views: tuple[View, ...]


def make_plan(rng: np.random.Generator, pages: Sequence[ProductPage], recipe: Recipe) -> Plan:
    """Plans a stream.

    Args:
        rng: Source of all choices.
        pages: Products to choose from; if the recipe names products, exactly those, in this order.
        recipe: Lengths and counts.
    """
    host = Host(recipe.language, rng)
    short = recipe.duration_s < _SHORT_S
    breaks = 0 if short else recipe.no_product
    opening_s = 0.0 if short else _GREETING_S
    break_s = [float(rng.uniform(*recipe.no_product_s)) for _ in range(breaks)]
    room_s = max(recipe.duration_s - opening_s - sum(break_s), recipe.duration_s / 2)
    count = max(1, round(room_s / (sum(recipe.showing_s) / 2 + sum(recipe.pause_s) / 2)))
    queue = _queue(rng, pages, count, bool(recipe.products))
    # Lengths are drawn, then scaled a little so that the last showing ends with the stream.
    showing_s = [float(rng.uniform(*recipe.showing_s)) for _ in queue]
    pause_s = [float(rng.uniform(*recipe.pause_s)) for _ in queue]
    ratio = room_s / (sum(showing_s) + sum(pause_s))
    groups = np.array_split(np.arange(len(queue)), breaks + 1)

    lines = [Line(0.3, 4.0, host.greeting())]
    shown: list[Shown] = []
    views = [_view(rng, 0.0)]
    now_s = opening_s
    for group_number, group in enumerate(groups):
        for number in group:
            start_s, now_s = now_s, now_s + showing_s[number] * ratio
            item = _shown(rng, queue[number], start_s, now_s)
            shown.append(item)
            lines += _lines_about(rng, host, item)
            now_s += pause_s[number] * ratio
            if rng.random() < 0.4:
                views.append(_view(rng, now_s - pause_s[number] * ratio / 2))
        if group_number < breaks:
            end_s = now_s + break_s[group_number]
            # In every other break the host shows something that is not for sale.
            if group_number % 2 == 0:
                shown.append(_shown(rng, None, now_s + 1.0, end_s - 1.0))
            lines += [Line(at, at + 3, host.chat()) for at in np.arange(now_s + 0.2, end_s - 2, 3.5).tolist()]
            now_s = end_s
            views.append(_view(rng, now_s))
    return Plan(recipe.duration_s, tuple(shown), tuple(sorted(lines, key=lambda line: line.wish_s)), tuple(views))


def _queue(rng: np.random.Generator, pages: Sequence[ProductPage], count: int, in_order: bool) -> Sequence[ProductPage]:
    """Returns what is shown: no product again before all were shown."""
    if in_order:
        return pages
    queue: list[ProductPage] = []
    while len(queue) < count:
        order = rng.permutation(len(pages))
        queue += [pages[int(index)] for index in order][: count - len(queue)]
    return queue


def _shown(rng: np.random.Generator, page: ProductPage | None, start_s: float, end_s: float) -> Shown:
    length_s = end_s - start_s
    like = random_placement(rng, scale=(0.38, 0.8), cover=0.42)
    side = int(rng.integers(3))

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
    return Shown(
        page=page,
        start_s=start_s,
        end_s=end_s,
        motion=motion,
        cover=cover,
        choice=float(rng.random()),
        change_s=float(rng.uniform(0.4, 0.7)) * length_s,
        comes_from=((-1.0, 0.0), (1.0, 0.0), (0.0, 1.0))[side],
    )


def _lines_about(rng: np.random.Generator, host: Host, item: Shown) -> list[Line]:
    """The host names most products while showing them, some before or after, and some never."""
    if item.page is None:
        return []
    start_s, end_s = item.start_s, item.end_s
    where = rng.random()
    if where < 0.25:
        named = Line(start_s - 2.5, start_s + 1.5, host.coming(item.page))
        return [named, Line(start_s + 2.0, end_s - 1.5, host.details(item.page))]
    if where < 0.7:
        named = Line(start_s + float(rng.uniform(0.3, 2.0)), end_s - 2.0, host.here(item.page))
        return [named, Line(start_s + 4.0, end_s - 1.5, host.details(item.page))]
    if where < 0.85:
        vague = Line(start_s + 0.8, end_s - 2.0, host.vague())
        return [vague, Line(end_s - 1.5, end_s + 1.5, host.was(item.page))]
    return [Line(start_s + 1.0, end_s - 2.0, host.vague()), Line(start_s + 4.5, end_s - 1.5, host.chat())]


def _view(rng: np.random.Generator, start_s: float) -> View:
    return View(start_s, int(rng.integers(2**31)), int(rng.integers(3)))


def _smooth(share: float) -> float:
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)
