"""Pages, short videos and live clips of cut-outs, rendered as they are asked for: a data set without files.

The products are those of `cope.data.objects`, with recoloured siblings and made-up things. What an item looks like
and says depends on nothing but (seed, product, domain, number), so loader processes, ranks and a resumed run see the
same pixels. To keep them as files:

    python -m cope.data.writing OBJECTS --out FOLDER --format rope --products 1000
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cope.data.files import Folder
from cope.data.items import Counts, Item, ItemsOnDemand, Picture
from cope.data.listing import (
    LIST,
    NO_PICTURE,
    Listed,
    fingerprint,
    local_folder,
    nothing_usable,
    read_objects,
)
from cope.data.objects import Product, read_backgrounds, read_cutout, siblings, split_of
from cope.domains import DOMAINS, Domain, Split
from cope.render.scenes import Clip, clutter
from cope.render.speech import Talk, transcript
from cope.render.synthetic import render_page
from cope.vision.cutouts import Cutout, Pixels, thing

# Items of a product and domain. Training never runs out of new ones; a measurement wants few, the same for all, but
# more than the 8 shots of few-shot classification.
_TRAIN_ITEMS, _TEST_ITEMS = 64, 10
# Frames of a clip; a step takes some of them.
CLIP_FRAMES = 8
# As for cope-mini (`cope.training.features`): so many of the objects have a recoloured sibling, and so many made-up
# things come along.
_SIBLINGS, _THINGS = 3, 6
# Cut-outs of 256 px are 260 kB; a loader process keeps so many.
_KEPT = 256
# What a host says with a clip, and how often.
_TALK: tuple[tuple[Talk | None, float], ...] = (("named", 0.6), ("chat", 0.2), ("other", 0.1), (None, 0.1))
_TITLES = ("{name}", "{name}, new", "{name} for every day", "the original {name}", "{name}, ships today")


@dataclass(frozen=True)
class _Object(Listed):
    """A product before its picture is read. `kind` says how it is made of the object."""

    kind: str = "object"


class RenderedSource:
    """A `Source` of rendered products.

    Attributes:
        folder: Folder of objects and backgrounds.
        sizes: Items by domain.
        concurrency: Items that are worth reading at once in one process: rendering is work, not waiting.
    """

    concurrency: int = 1

    def __init__(self, folder: Path, split: Split, seed: int = 0) -> None:
        """Reads the list of objects; pictures are read when they are shown.

        Args:
            folder: Folder of objects and backgrounds.
            split: Side of the split.
            seed: Seed of everything random.

        Raises:
            UserError: The list or the backgrounds are missing or broken, or no object of use is on this side.
        """
        self.name = f"{folder.name} ({split}, rendered)"
        self.counts = Counts()
        self.folder, self._split, self._seed = folder, split, seed
        listed = read_objects(folder, self.counts)
        objects = [_Object(one.id, one.group, one.name, one.image) for one in listed if split_of(one.group) == split]
        self._objects = [*objects, *_more(objects, seed)]
        self._names = [one.name for one in objects if one.name]
        each = _TRAIN_ITEMS if split == "train" else _TEST_ITEMS
        self._each = each
        self.sizes: Mapping[Domain, int] = {domain: each * len(self._objects) for domain in DOMAINS}
        self.fingerprint = hashlib.sha256(f"{fingerprint(folder)} {seed}".encode()).hexdigest()
        self._photos: list[Pixels] = read_backgrounds(folder, split)
        self._cutout = functools.lru_cache(_KEPT)(self._read_cutout)
        if all(self._cutout(number) is None for number in range(len(objects))):
            self.counts.add(NO_PICTURE, len(objects))
            raise nothing_usable(folder, split, self.counts)

    def __len__(self) -> int:
        return len(self._objects)

    def product_id(self, number: int) -> str:
        """The object's id; of a sibling, with its change of hue."""
        return self._objects[number].id

    def category(self, number: int) -> str:
        """Objects of one group are alike but for colour and style."""
        return self._objects[number].group

    def items(self, number: int, domain: Domain) -> Sequence[Item]:
        """The items of a product in a domain, imagined as they are asked for."""
        if not 0 <= number < len(self):
            raise IndexError(f"{self.name} has {len(self)} products, not a product {number}")
        return ItemsOnDemand(functools.partial(self.item, number, domain), self._each)

    def item(self, number: int, domain: Domain, at: int) -> Item:
        """One of the product's items."""
        ident = f"{self._objects[number].id}/{domain}/{at}"
        frames = 1 if domain == "page" else CLIP_FRAMES
        rng = self._rng(number, domain, at, 0)
        return Item(
            ident,
            number,
            domain,
            tuple(f"{ident}/{frame}" for frame in range(frames)),
            self._title(number, rng) if domain == "page" else self._speech(number, rng),
        )

    def read(self, item: Item, side: int = 0) -> list[Picture]:
        """Renders the item's pictures, with the box of what of the product is visible; `Source.read`."""
        cutout = self._cutout(item.product)
        if cutout is None:
            return [Picture(None, problem=NO_PICTURE)] * len(item.images)
        at = int(item.id.rpartition("/")[2])
        if item.domain == "page":
            rng = self._rng(item.product, item.domain, at, 1)
            return [Picture(render_page(rng, cutout)) for _ in item.images]
        clip = Clip(self._rng(item.product, item.domain, at, 1), item.domain, self._photos, self._others(item, at))
        frames = [int(image.rpartition("/")[2]) for image in item.images]
        drawn = (
            clip.frame(self._rng(item.product, item.domain, at, 2 + frame), cutout, frame / CLIP_FRAMES)
            for frame in frames
        )
        return [Picture(frame, box) for frame, box in drawn]

    def pictures(self, item: Item) -> list[Pixels | None]:
        """The item's pictures, (H, W, 3) uint8 RGB each."""
        return [picture.pixels for picture in self.read(item)]

    def _title(self, number: int, rng: np.random.Generator) -> str:
        name = self._objects[number].name
        return _TITLES[int(rng.integers(len(_TITLES)))].format(name=name) if name else ""

    def _speech(self, number: int, rng: np.random.Generator) -> str:
        talk = _TALK[int(rng.choice(len(_TALK), p=[share for _, share in _TALK]))][0]
        if talk is None:
            return ""
        name = self._objects[number].name
        names = self._names if talk == "other" else [name] if name else []
        return transcript(rng, names, talk, self._split)

    def _others(self, item: Item, at: int) -> list[Cutout]:
        """Things beside the product in a live clip: another product now and then, and made-up clutter."""
        if item.domain != "live":
            return []
        rng = self._rng(item.product, item.domain, at, 1_000)
        others = clutter(rng)
        if rng.random() < 0.4:
            other = int(rng.integers(len(self)))
            cutout = self._cutout(other) if self._objects[other].group != self._objects[item.product].group else None
            others += [] if cutout is None else [cutout]
        return others

    def _read_cutout(self, number: int) -> Cutout | None:
        one = self._objects[number]
        if one.kind == "thing":
            return thing(self._rng(number, "page", 0, 1_001), one.id)
        cutout = read_cutout(self.folder / one.image, one.id)
        if cutout is None or one.kind == "object":
            return cutout
        origin = Product(one.id, one.group, one.name, cutout)
        return siblings(self._rng(number, "page", 0, 1_002), [origin], 1)[0].cutout

    def _rng(self, number: int, domain: Domain, at: int, what: int) -> np.random.Generator:
        side = ("train", "val", "test").index(self._split)
        return np.random.default_rng([self._seed, side, number, DOMAINS.index(domain), at, what])

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_cutout"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._cutout = functools.lru_cache(_KEPT)(self._read_cutout)


def is_here(folder: Folder) -> bool:
    """Whether the folder holds a list of objects."""
    return LIST in folder.names and not folder.file


def open_folder(folder: Folder, split: Split) -> RenderedSource:
    """Opens a folder of objects.

    Raises:
        UserError: It is not on this machine, or lacks something.
    """
    return RenderedSource(local_folder(folder), split)


def _more(objects: Sequence[_Object], seed: int) -> list[_Object]:
    """Recoloured siblings of some objects, and made-up things."""
    chosen = np.random.default_rng(seed).permutation(len(objects))[: len(objects) // _SIBLINGS]
    coloured = [replace(objects[int(i)], id=f"{objects[int(i)].id}+hue", kind="sibling") for i in chosen]
    made_up = [_Object(f"thing-{i}", f"thing-{i}", "", "", "thing") for i in range(len(objects) // _THINGS)]
    return [*coloured, *made_up]
