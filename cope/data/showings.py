"""Streams on which known products are shown one after the other: rendered from objects, or made of recorded live clips.

What calibration reads. It makes the random draws itself, so that one seed gives one calibration.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from cope.data import rendered
from cope.data.files import Folder
from cope.data.items import Counts, Item, Source
from cope.data.listing import local_folder, read_products
from cope.data.manifest import ANYTHING_BUT
from cope.data.objects import Product, read_backgrounds, siblings
from cope.data.opening import open_source
from cope.data.sampling import spread
from cope.domains import Split
from cope.render.live_scene import LiveScene
from cope.render.lives import Plan, Shown, View
from cope.render.motion import held_anyhow
from cope.render.phrases import Offer
from cope.render.scenes import video_frame
from cope.render.speech import Talk, transcript
from cope.render.synthetic import random_camera, render_page
from cope.vision.cutouts import Pixels, thing

SHOWING_S, GAP_S = 10, 4
AT_A_STREAM = 6  # showings
BYSTANDERS = 12  # things that may stand about on a stream, and as many products
PIECE_S = 6  # of rendered speech that is transcribed at a time, as long as one is in service at most
PAGE_PICTURES = 2  # of a product
MOST_PRODUCTS = 600  # of recorded data: enough for catalogues of 300 that differ
NOT_LISTED = -1  # the number of what is in no catalogue
ANYTHING_BUT_FIRST = -2  # the number of a clip that shows anything but product 0; -3 of one but product 1, ...
HELD_S = 4  # a recorded clip of fewer pictures shows them again: they are of one showing, which lasts longer


@dataclass(frozen=True)
class Known:
    """A product that may be in a catalogue.

    Attributes:
        id: Unique.
        group: Group of products that look alike.
        name: Its title.
        text: What else its page says.
    """

    id: str
    group: str
    name: str
    text: str = ""


@dataclass(frozen=True)
class Line:
    """Something that is said on a stream, from second to second."""

    start_s: int
    end_s: int
    text: str


@dataclass(frozen=True)
class Stream:
    """A stream at 1 frame/s.

    Attributes:
        frames: (H, W, 3) uint8 RGB each, and the number of the product that is shown; -1 for none of them, below that
            for anything but one of them (`refused`).
        said: What the host says, given what is shown in each second and which products are in the catalogue.
        clips: The second at which each recorded clip begins.
    """

    frames: Iterator[tuple[Pixels, int]]
    said: Callable[[Sequence[int], Sequence[int]], list[Line]]
    clips: Sequence[int] = ()


def refused(number: int) -> int:
    """Returns the product that a frame of this number does not show, where nothing else is known of it; else -1."""
    return ANYTHING_BUT_FIRST - number if number <= ANYTHING_BUT_FIRST else -1


class Showings(Protocol):
    """Products of one side of the split, and streams with some of them.

    Attributes:
        products: By number.
        count: Number of streams.
        counts: What of the data was left out.
    """

    products: Sequence[Known]
    count: int
    counts: Counts

    def page(self, number: int) -> list[Pixels]:
        """Pictures of a product's page."""

    def streams(self) -> Iterator[Stream]:
        """Each is to be read to its end before the next is asked for."""


def open_showings(data: str, split: Split, rng: np.random.Generator, count: int, crossing: bool = True) -> Showings:
    """The showings of any data.

    Args:
        data: Folder or URL.
        split: Side of the split.
        rng: Source of all draws.
        count: Products that are shown, at most.
        crossing: See `open_source`.

    Raises:
        UserError: As `open_source`.
    """
    folder = Folder(data)
    if rendered.is_here(folder):
        return RenderedShowings(local_folder(folder), split, rng, count)
    return RecordedShowings(open_source(data, split, crossing), rng, count)


class RenderedShowings:
    """Streams of objects as in service: a product is held and moves, is laid down, other things stand about.

    Every sixth showing is of a thing that is in no catalogue.
    """

    def __init__(self, folder: Path, split: Split, rng: np.random.Generator, count: int) -> None:
        self.counts = Counts()
        self._split: Split = split
        self._rng, self._shown = rng, count
        self._objects = read_products(folder, split, self.counts)
        self._objects += siblings(rng, self._objects, len(self._objects) // 3)
        self._photos = read_backgrounds(folder, split)
        self.products: Sequence[Known] = [Known(one.id, one.group, one.name) for one in self._objects]
        self.count = -(-min(count, len(self._objects)) // AT_A_STREAM)

    def page(self, number: int) -> list[Pixels]:
        """Pictures of a product's page, of every other product on a scene."""
        cutout = self._objects[number].cutout
        if self._rng.random() < 0.5:
            return [video_frame(self._rng, cutout, self._photos)[0] for _ in range(PAGE_PICTURES)]
        return [render_page(self._rng, cutout) for _ in range(PAGE_PICTURES)]

    def streams(self) -> Iterator[Stream]:
        """Streams of six showings each."""
        order = [int(i) for i in self._rng.permutation(len(self._objects))[: self._shown]]
        for at in range(0, len(order), AT_A_STREAM):
            yield Stream(shown_frames(self._rng, self._objects, order[at : at + AT_A_STREAM], self._photos), self._said)

    def _said(self, shown: Sequence[int], catalogue: Sequence[int]) -> list[Line]:
        return speech(self._rng, shown, self.products, catalogue, self._split)


class RecordedShowings:
    """Streams made of the live clips of a data set, a frame a second, each clip with what was said in it.

    Between two clips there is no gap. Nothing is shown, for a reader, where the product is not in its catalogue. Clips
    of products without a page are of things that are in no catalogue, or of anything but a product that has one
    (`cope.data.manifest.ANYTHING_BUT`).
    """

    def __init__(self, source: Source, rng: np.random.Generator, count: int) -> None:
        self.counts = source.counts
        self._source, self._rng = source, rng
        order = [int(number) for number in rng.permutation(len(source))]
        self._numbers = list(islice((n for n in order if len(source.items(n, "page"))), MOST_PRODUCTS))
        unlisted = [n for n in order if not len(source.items(n, "page"))]
        places = {source.product_id(n): place for place, n in enumerate(self._numbers)}
        shown = [*enumerate(self._numbers), *_without_page(source, unlisted, places)]
        live = [(i, n, rng.permutation(len(source.items(n, "live")))) for i, n in shown]
        # Products in turn, until there are enough showings or no clips are left.
        most = max((len(clips) for *_, clips in live), default=0)
        turns = [(i, n, int(clips[turn])) for turn in range(most) for i, n, clips in live if turn < len(clips)]
        if unlisted and len(turns) > AT_A_STREAM:  # not all at the end
            turns = [turns[at] for at in rng.permutation(len(turns))]
        self._shown = turns[:count]
        self.count = -(-len(self._shown) // AT_A_STREAM)
        self.products: Sequence[Known] = [
            Known(source.product_id(n), source.category(n) or source.product_id(n), *_page_text(source, n))
            for n in self._numbers
        ]

    def page(self, number: int) -> list[Pixels]:
        """Pictures of a product's page; none if they cannot be read."""
        item = self._source.items(self._numbers[number], "page")[0]
        return self._read(replace(item, images=item.images[:PAGE_PICTURES], boxes=item.boxes[:PAGE_PICTURES]))

    def streams(self) -> Iterator[Stream]:
        """Streams of six clips each."""
        for at in range(0, len(self._shown), AT_A_STREAM):
            clips: list[tuple[int, list[Pixels]]] = []
            lines: list[Line] = []
            second = 0
            for number, product, clip in self._shown[at : at + AT_A_STREAM]:
                item = self._source.items(product, "live")[clip]
                kept = spread(None, len(item.images), SHOWING_S)
                pictures = self._read(item.with_pictures(kept))
                while 0 < len(pictures) < HELD_S:
                    pictures += pictures
                if pictures:
                    clips.append((number, pictures))
                    lines.append(Line(second, second + len(pictures), item.text))
                    second += len(pictures)
            frames = ((picture, number) for number, pictures in clips for picture in pictures)
            yield Stream(frames, partial(_as_recorded, lines), [line.start_s for line in lines])

    def _read(self, item: Item) -> list[Pixels]:
        found = self._source.read(item)
        for picture in found:
            if picture.problem:
                self.counts.add(picture.problem)
        return [picture.pixels for picture in found if picture.pixels is not None and min(picture.pixels.shape[:2]) > 0]


def _without_page(source: Source, numbers: Sequence[int], places: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """Yields the number to show and the number in the source of what has no page."""
    for number in numbers:
        name = source.product_id(number)
        if not name.startswith(ANYTHING_BUT):
            yield NOT_LISTED, number
        elif (place := places.get(name.removeprefix(ANYTHING_BUT))) is not None:
            yield ANYTHING_BUT_FIRST - place, number


def _page_text(source: Source, number: int) -> tuple[str, str]:
    """The title of a product's page, and what stands on the lines below it."""
    title, _, rest = source.items(number, "page")[0].text.partition("\n")
    return title, rest


def _as_recorded(lines: list[Line], _shown: Sequence[int], _catalogue: Sequence[int]) -> list[Line]:
    return lines


def shown_frames(
    rng: np.random.Generator, products: Sequence[Product], order: Sequence[int], photos: Sequence[Pixels]
) -> Iterator[tuple[Pixels, int]]:
    """Shows the products of `order` one after the other, with gaps; every sixth showing is of an unknown thing.

    The scene is that of `cope-live simulate`, held less carefully and filmed by cameras that are worse and change. In
    half of the showings something stands about: a made-up thing, or as often a product that is not shown.
    """
    shown, views = [], []
    groups = {products[index].group for index in order}
    beside = [product.cutout for product in products if product.group not in groups]
    others = [thing(rng) for _ in range(BYSTANDERS)]
    others += [beside[int(i)] for i in rng.permutation(len(beside))[:BYSTANDERS]]
    for number, index in enumerate(order):
        start_s = float(number * (SHOWING_S + GAP_S))
        offer = None if number % 6 == 5 else Offer(str(index), products[index].name)
        showing = held_anyhow(rng, start_s, start_s + SHOWING_S)
        # The unknown thing is one of the made-up ones, which are the first of `others`.
        choice = float(rng.random()) * BYSTANDERS / len(others)
        shown.append(Shown(offer, showing, choice, SHOWING_S))
        camera = replace(random_camera(rng), noise=float(rng.uniform(0, 3)), jpeg_quality=int(rng.integers(60, 95)))
        views.append(View(start_s, int(rng.integers(2**31)), int(rng.random() < 0.5), camera))
    plan = Plan(len(order) * (SHOWING_S + GAP_S), tuple(shown), (), tuple(views))
    seed = int(rng.integers(2**31))
    scene = LiveScene(plan, photos, lambda ident: [products[int(ident)].cutout], distractors=others, seed=seed)
    for number, index in enumerate(order):
        for second in range(SHOWING_S + GAP_S):
            at_s = number * (SHOWING_S + GAP_S) + second
            held = second < SHOWING_S and number % 6 != 5
            # In the middle of the second: at its start a thing would still be outside.
            yield scene.frame(at_s + 0.5, at_s), index if held else -1


def speech(
    rng: np.random.Generator,
    shown: Sequence[int],
    products: Sequence[Known],
    catalogue: Sequence[int],
    split: Split,
) -> list[Line]:
    """What is said on a rendered stream: a third of the streams is silent, else the host goes on talking.

    Hosts name what they show, or other things, or chat. Between showings they also name what they have just shown or
    will show next.
    """
    if rng.random() < 0.33:
        return []
    lines: list[Line] = []
    start_s = int(rng.integers(PIECE_S))
    while start_s < len(shown):
        talk, about = _topic(rng, shown, min(start_s + PIECE_S // 2, len(shown) - 1), catalogue)
        text = transcript(rng, [products[index].name for index in about], talk, split)
        lines.append(Line(start_s, start_s + PIECE_S, text))
        start_s += PIECE_S + int(rng.integers(PIECE_S))
    return lines


def _topic(
    rng: np.random.Generator, shown: Sequence[int], at_s: int, catalogue: Sequence[int]
) -> tuple[Talk, Sequence[int]]:
    """What the host talks about at a time, and the products of which one is named."""
    if shown[at_s] >= 0:
        near, share = [shown[at_s]], 0.6
    else:
        before = [index for index in shown[:at_s] if index >= 0]
        after = [index for index in shown[at_s:] if index >= 0]
        near, share = before[-1:] + after[:1], 0.4
    roll = rng.random()
    if roll < share and near:
        return "named", near
    return ("other", catalogue) if roll < share + 0.1 else ("chat", ())
