"""The plan of a live stream: what is shown when and how it moves, where the camera looks, and what is said."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cope.render.motion import Showing, presented
from cope.render.phrases import Host, Offer
from cope.render.synthetic import Camera

# A stream opens with a greeting of this length, if it is long enough to have one.
_GREETING_S = 2.5
# Below this length a stream has no stretches without a product: they would be most of it.
_SHORT_S = 30.0


@dataclass(frozen=True)
class Timing:
    """Lengths and counts of a stream.

    Attributes:
        duration_s: Length of the stream.
        showing_s: Shortest and longest showing of a product.
        pause_s: Shortest and longest pause between two showings.
        no_product: Stretches of chat, without any product of the catalogue.
        no_product_s: Shortest and longest such stretch.
    """

    duration_s: float = 90.0
    showing_s: tuple[float, float] = (6.0, 9.0)
    pause_s: tuple[float, float] = (0.4, 1.6)
    no_product: int = 2
    no_product_s: tuple[float, float] = (8.0, 10.0)


@dataclass(frozen=True)
class Shown:
    """Something that the host shows: a product, or (`offer` is None) a thing of no catalogue.

    Attributes:
        choice: Random number in [0, 1): which picture of it, or which distractor.
        change_s: When the host turns to another picture of it, since the start.
    """

    offer: Offer | None
    showing: Showing
    choice: float
    change_s: float


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
        seed: Seed of the part of the room that is seen, and of the things that stand there.
        bystanders: How many things stand there.
        camera: What films it; None for the camera of the stream.
    """

    start_s: float
    seed: int
    bystanders: int
    camera: Camera | None = None


@dataclass(frozen=True)
class Plan:
    """A stream before it is drawn."""

    duration_s: float
    shown: tuple[Shown, ...]
    lines: tuple[Line, ...]
    views: tuple[View, ...]


def make_plan(
    rng: np.random.Generator, offers: Sequence[Offer], timing: Timing, language: str, *, in_order: bool = False
) -> Plan:
    """Plans a stream.

    Args:
        rng: Source of all choices.
        offers: Products to choose from.
        timing: Lengths and counts.
        language: What the host speaks, "en" or "zh".
        in_order: Show exactly these products, in this order.
    """
    host = Host(language, rng)
    short = timing.duration_s < _SHORT_S
    breaks = 0 if short else timing.no_product
    opening_s = 0.0 if short else _GREETING_S
    break_s = [float(rng.uniform(*timing.no_product_s)) for _ in range(breaks)]
    room_s = max(timing.duration_s - opening_s - sum(break_s), timing.duration_s / 2)
    count = max(1, round(room_s / (sum(timing.showing_s) / 2 + sum(timing.pause_s) / 2)))
    queue = _queue(rng, offers, count, in_order)
    # Lengths are drawn, then scaled a little so that the last showing ends with the stream.
    showing_s = [float(rng.uniform(*timing.showing_s)) for _ in queue]
    pause_s = [float(rng.uniform(*timing.pause_s)) for _ in queue]
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
    return Plan(timing.duration_s, tuple(shown), tuple(sorted(lines, key=lambda line: line.wish_s)), tuple(views))


def _queue(rng: np.random.Generator, offers: Sequence[Offer], count: int, in_order: bool) -> Sequence[Offer]:
    """Returns what is shown: no product again before all were shown."""
    if in_order:
        return offers
    queue: list[Offer] = []
    while len(queue) < count:
        order = rng.permutation(len(offers))
        queue += [offers[int(index)] for index in order][: count - len(queue)]
    return queue


def _shown(rng: np.random.Generator, offer: Offer | None, start_s: float, end_s: float) -> Shown:
    showing = presented(rng, start_s, end_s)
    return Shown(offer, showing, float(rng.random()), float(rng.uniform(0.4, 0.7)) * (end_s - start_s))


def _lines_about(rng: np.random.Generator, host: Host, item: Shown) -> list[Line]:
    """The host names most products while showing them, some before or after, and some never."""
    if item.offer is None:
        return []
    start_s, end_s = item.showing.start_s, item.showing.end_s
    where = rng.random()
    if where < 0.25:
        named = Line(start_s - 2.5, start_s + 1.5, host.coming(item.offer))
        return [named, Line(start_s + 2.0, end_s - 1.5, host.details(item.offer))]
    if where < 0.7:
        named = Line(start_s + float(rng.uniform(0.3, 2.0)), end_s - 2.0, host.here(item.offer))
        return [named, Line(start_s + 4.0, end_s - 1.5, host.details(item.offer))]
    if where < 0.85:
        vague = Line(start_s + 0.8, end_s - 2.0, host.vague())
        return [vague, Line(end_s - 1.5, end_s + 1.5, host.was(item.offer))]
    return [Line(start_s + 1.0, end_s - 2.0, host.vague()), Line(start_s + 4.5, end_s - 1.5, host.chat())]


def _view(rng: np.random.Generator, start_s: float) -> View:
    return View(start_s, int(rng.integers(2**31)), int(rng.integers(3)))
