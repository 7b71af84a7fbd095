"""Training products: cut-outs of things with a name, told apart by object, and the photographs behind them.

A data folder holds `objects.jsonl`, one line per object with `id`, `group`, `name` and `image` (a path relative
to the folder, RGBA or on a plain background), and a folder `backgrounds` of photographs. Objects of one group
are the same thing in another colour or style: a split never separates them. `python -m cope.data.collect`
makes such a folder; anyone's own products go into one just as well.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cope.domains import Split
from cope.errors import UserError
from cope.vision.cutouts import Cutout, Pixels, cutout_of, thing

# Of ten groups one is for validation and one for the test. The hash of the name decides, so that a folder that
# grows keeps its split.
_SPLITS: tuple[Split, ...] = ("val", "test") + ("train",) * 8

# A frame shows a part of a photograph at 640 px; larger ones would only fill the memory.
_BACKGROUND_SIDE_PX = 1400


@dataclass(frozen=True)
class Product:
    """One training product.

    Attributes:
        id: Unique.
        group: Group of the same object in other colours and styles.
        name: What a host would call it; empty for made-up things.
        cutout: Picture of the object.
    """

    id: str
    group: str
    name: str
    cutout: Cutout


def split_of(group: str) -> Split:
    """The side of the split on which a group lies."""
    return _SPLITS[int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) % len(_SPLITS)]


def read_cutout(path: Path, ident: str) -> Cutout | None:
    """The cut-out of an image file; None if it cannot be read."""
    try:
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # more pixels than it reads
        return None
    if image is None or image.dtype != np.uint8 or image.ndim != 3:
        return None
    order = cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return cutout_of(np.asarray(cv2.cvtColor(image, order), np.uint8), ident)


def siblings(rng: np.random.Generator, products: Sequence[Product], count: int) -> list[Product]:
    """Recoloured copies: what a catalogue calls another variant, and the hardest to tell apart."""
    out = []
    for i in rng.permutation(len(products))[:count]:
        origin = products[int(i)]
        rgba = origin.cutout.rgba
        hsv = cv2.cvtColor(np.ascontiguousarray(rgba[..., :3]), cv2.COLOR_RGB2HSV)
        shift = int(rng.integers(30, 150))  # of 180: at least a sixth of the colour circle
        hsv[..., 0] = ((hsv[..., 0].astype(np.int16) + shift) % 180).astype(np.uint8)
        if float(hsv[..., 1].mean()) < 40:  # grey things have no hue to turn: they get a colour
            hsv[..., 1] = np.maximum(hsv[..., 1], 130)
        recoloured: Pixels = np.dstack([np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8), rgba[..., 3]])
        ident = f"{origin.id}+hue{shift}"
        out.append(Product(ident, origin.group, origin.name, Cutout(ident, recoloured, origin.cutout.card)))
    return out


def things(rng: np.random.Generator, count: int) -> list[Product]:
    """Made-up things: shapes with patterns and letters, so that texture counts, not only the kind of thing."""
    return [Product(f"thing-{i}", f"thing-{i}", "", thing(rng, f"thing-{i}")) for i in range(count)]


def read_backgrounds(folder: Path, split: Split) -> list[Pixels]:
    """The background photographs of one side of the split: every fifth for validation and test, the rest to train.

    Raises:
        UserError: There are none.
    """
    files = sorted((folder / "backgrounds").glob("*.*"))
    photos = []
    for number, file in enumerate(files):
        if (number % 5 == 0) == (split != "train"):
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if image is not None:
                zoom = min(1.0, _BACKGROUND_SIDE_PX / max(image.shape[:2]))
                small = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
                photos.append(np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8))
    if not photos:
        raise UserError(f"{folder / 'backgrounds'}: no photographs; put a few JPEG files there")
    return photos
