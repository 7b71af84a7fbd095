"""Draws products into live scenes, short videos and pages, for training on frozen towers."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from cope.render.synthetic import Box, Placement, random_background, random_camera, random_placement, render_frame
from cope.vision.cutouts import Cutout, Pixels, thing
from cope.vision.regions import overlap

LANDSCAPE, PORTRAIT = (640, 360), (360, 640)
# A thing of which less is left is not asked for: nobody could name it.
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
    clutter = [thing(rng, "clutter") for _ in range(int(rng.integers(0, 3)))] if rng.random() < 0.4 else []
    items = []
    cells = rng.permutation(4)  # products keep to different parts of the frame, or one would hide another
    for i, cutout in enumerate([*clutter, *shown]):
        single = len(shown) == 1 and cutout.id != "clutter"
        placement = random_placement(rng, (0.2, 1.0) if single else (0.16, 0.5))
        if not single:
            cell = int(cells[i % 4])
            x = 0.25 + 0.5 * (cell % 2) + float(rng.uniform(-0.1, 0.1))
            y = 0.27 + 0.46 * (cell // 2) + float(rng.uniform(-0.1, 0.1))
            placement = replace(placement, x=x, y=y)
        items.append((cutout, placement))
    for _ in range(int(rng.integers(0, 4))):
        place = random_placement(rng, (0.15, 0.7), cover=0.06)
        x, y = float(rng.uniform(0, 1)), float(rng.choice([0.05, 0.12, 0.88, 0.95]))
        items.append((overlay(rng), Placement(x=x, y=y, scale=place.scale)))
    frame, boxes = render_frame(rng, random_background(rng, photos, size), items, size, random_camera(rng))
    seen = [b for b in boxes if b.id != "overlay" and max(b.x1 - b.x0, b.y1 - b.y0) >= MIN_SIDE_PX]
    return frame, seen, [b for b in boxes if b.id == "overlay"]


def video_frame(rng: np.random.Generator, shown: Cutout, photos: Sequence[Pixels]) -> tuple[Pixels, Box | None]:
    """Draws one frame of a short video: the product alone, large and about central, well lit, without overlays.

    Returns:
        The frame, and the box of the product; None if too little of it is seen.
    """
    size = PORTRAIT if rng.random() < 0.6 else LANDSCAPE
    place = random_placement(rng, (0.45, 1.0), cover=0.25)
    x, y = 0.5 + float(rng.normal(0, 0.08)), 0.5 + float(rng.normal(0, 0.08))
    # The scale is a share of the height: in an upright frame a thing must also fit the width.
    scale = place.scale * (size[0] / size[1] if size == PORTRAIT else 1.0)
    place = replace(place, x=x, y=y, scale=scale)
    camera = replace(random_camera(rng), jpeg_quality=int(rng.integers(60, 95)))
    background = random_background(rng, photos, size)
    frame, boxes = render_frame(rng, background, [(shown, place)], size, camera)
    box = boxes[0] if boxes else None
    return frame, box if box is not None and max(box.x1 - box.x0, box.y1 - box.y0) >= MIN_SIDE_PX else None


def overlay(rng: np.random.Generator) -> Cutout:
    """A price tag, a banner or plain writing, as streams carry them."""
    words = "".join(
        chr(int(c)) for c in rng.choice([*range(48, 58), *range(65, 91), 36, 37, 32], int(rng.integers(3, 14)))
    )
    face, size, stroke = int(rng.integers(0, 5)), float(rng.uniform(1.0, 2.2)), int(rng.integers(2, 6))
    (width, height), base = cv2.getTextSize(words, face, size, stroke)
    canvas = np.zeros((height + base + 24, width + 24, 4), np.uint8)
    if rng.random() < 0.7:  # on a plate
        canvas[...] = [*rng.integers(0, 256, 3), int(rng.integers(150, 256))]
    ink = [*(int(c) for c in rng.integers(0, 256, 3)), 255]
    cv2.putText(canvas, words, (12, height + 12), face, size, ink, stroke, cv2.LINE_AA)
    return Cutout("overlay", canvas)


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
