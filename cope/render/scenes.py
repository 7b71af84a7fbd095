"""Draws products into single live frames, clips and video frames, for training."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cope.domains import Domain
from cope.render.motion import eased
from cope.render.overlays import sticker
from cope.render.synthetic import Box, Placement, random_background, random_camera, random_placement, render_frame
from cope.vision.cutouts import Cutout, Pixels, thing
from cope.vision.regions import overlap

LANDSCAPE, PORTRAIT = (640, 360), (360, 640)
# A thing whose visible part is smaller is not a target, since it could not be recognised.
MIN_SIDE_PX = 24


def scene(
    rng: np.random.Generator, shown: Sequence[Cutout], photos: Sequence[Pixels]
) -> tuple[Pixels, list[Box], list[Box]]:
    """Draws one live frame.

    Returns:
        The frame, the boxes of what is shown (made-up clutter too: the finder knows no products), and those of
        overlays, which are never a product.
    """
    size = LANDSCAPE if rng.random() < 0.75 else PORTRAIT
    beside = clutter(rng)
    items = []
    cells = rng.permutation(4)  # products keep to different parts of the frame, or one would hide another
    for i, cutout in enumerate([*beside, *shown]):
        single = len(shown) == 1 and cutout.id != "clutter"
        placement = random_placement(rng, (0.2, 1.0) if single else (0.16, 0.5))
        if not single:
            cell = int(cells[i % 4])
            x = 0.25 + 0.5 * (cell % 2) + float(rng.uniform(-0.1, 0.1))
            y = 0.27 + 0.46 * (cell // 2) + float(rng.uniform(-0.1, 0.1))
            placement = replace(placement, x=x, y=y)
        items.append((cutout, placement))
    for _ in range(int(rng.integers(0, 4))):
        place = at_the_edge(rng)
        items.append((sticker(rng), place))
    frame, boxes = render_frame(rng, random_background(rng, photos, size), items, size, random_camera(rng))
    seen = [b for b in boxes if b.id != "overlay" and _large(b)]
    return frame, seen, [b for b in boxes if b.id == "overlay"]


def video_frame(rng: np.random.Generator, shown: Cutout, photos: Sequence[Pixels]) -> tuple[Pixels, Box | None]:
    """Draws one frame of a short video: the product alone, large and about central, well lit, without overlays.

    Returns:
        The frame, and the box of the product; None if too little of it is seen.
    """
    size = PORTRAIT if rng.random() < 0.6 else LANDSCAPE
    place = _presented(rng, size)
    camera = replace(random_camera(rng), jpeg_quality=int(rng.integers(60, 95)))
    background = random_background(rng, photos, size)
    frame, boxes = render_frame(rng, background, [(shown, place)], size, camera)
    box = boxes[0] if boxes else None
    return frame, box if box is not None and _large(box) else None


class Clip:
    """One showing: the scene and the way of the product through it."""

    def __init__(self, rng: np.random.Generator, domain: Domain, photos: Sequence[Pixels], others: Sequence[Cutout]):
        self._live = domain == "live"
        upright = rng.random() < (0.25 if self._live else 0.6)
        self._size = PORTRAIT if upright else LANDSCAPE
        self._background = random_background(rng, photos, self._size)
        # A video shows its product large, a live room at any size; both move it about and turn it.
        self._start, self._end = (
            random_placement(rng, (0.2, 1.0)) if self._live else _presented(rng, self._size) for _ in range(2)
        )
        self._others = [(other, random_placement(rng, (0.16, 0.5))) for other in others]
        count = int(rng.integers(0, 4)) if self._live else 0
        self._overlays = [(sticker(rng), at_the_edge(rng)) for _ in range(count)]
        quality = (35, 95) if self._live else (60, 95)
        self._camera = replace(random_camera(rng), jpeg_quality=int(rng.integers(*quality)))

    def frame(
        self, rng: np.random.Generator, cutout: Cutout, share: float
    ) -> tuple[Pixels, tuple[float, float, float, float] | None]:
        """Draws the frame at a share of the clip's length.

        Returns:
            (H, W, 3) uint8 RGB, and the box of the product as shares of the frame; None if too little of it is seen.
        """
        share = eased(share)
        moved = {
            name: (1 - share) * getattr(self._start, name) + share * getattr(self._end, name)
            for name in ("x", "y", "scale", "rotation_deg", "tilt_deg", "turn_deg", "cover")
        }
        place = replace(self._start, **moved)
        items = [*self._others, (replace(cutout, id="shown"), place), *self._overlays]
        frame, boxes = render_frame(rng, self._background, items, self._size, self._camera)
        for box in boxes:
            if box.id == "shown" and _large(box):
                x0, y0, x1, y1 = (float(v) for v in relative(box, frame))
                return frame, (x0, y0, x1, y1)
        return frame, None


def clutter(rng: np.random.Generator) -> list[Cutout]:
    """Made-up things that lie about in four of ten scenes."""
    return [thing(rng, "clutter") for _ in range(int(rng.integers(0, 3)))] if rng.random() < 0.4 else []


def at_the_edge(rng: np.random.Generator) -> Placement:
    """Where platforms draw over a stream: along its upper and lower edge."""
    scale = random_placement(rng, (0.15, 0.7)).scale
    return Placement(x=float(rng.uniform(0, 1)), y=float(rng.choice([0.05, 0.12, 0.88, 0.95])), scale=scale)


def _presented(rng: np.random.Generator, size: tuple[int, int]) -> Placement:
    """Where a short video shows its product: large, about central, hardly covered."""
    place = random_placement(rng, (0.45, 1.0), cover=0.25)
    x, y = 0.5 + float(rng.normal(0, 0.08)), 0.5 + float(rng.normal(0, 0.08))
    # The scale is a share of the height: in an upright frame a thing must also fit the width.
    width, height = size
    return replace(place, x=x, y=y, scale=place.scale * min(1.0, width / height))


def _large(box: Box) -> bool:
    return max(box.x1 - box.x0, box.y1 - box.y0) >= MIN_SIDE_PX


def relative(box: Box, frame: Pixels) -> NDArray[np.float32]:
    """The box as shares of the frame: (4,) x0, y0, x1, y1."""
    height, width = frame.shape[:2]
    return np.array([box.x0 / width, box.y0 / height, box.x1 / width, box.y1 / height], np.float32)


def jittered(rng: np.random.Generator, box: NDArray[np.float32], amount: float = 0.1) -> NDArray[np.float32]:
    """A box as a finder might have found it: edges moved by up to twice `amount` of its sides."""
    side = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    return np.asarray(box + np.clip(rng.normal(0, amount, 4), -2 * amount, 2 * amount) * side, np.float32)


def elsewhere(rng: np.random.Generator, taken: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """A box that shows none of the things; None if the frame is full."""
    for _ in range(10):
        side = rng.uniform(0.1, 0.5, 2)
        corner = rng.uniform(0, 1 - side)
        box = np.array([*corner, *(corner + side)], np.float32)
        if not len(taken) or float(overlap(box[None], taken).max()) < 0.05:
            return box
    return None
