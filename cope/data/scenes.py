"""Renders products into live scenes and pages and runs them through the frozen towers, once, before training.

What is learned sits on top of frozen towers, so their output is computed once and kept as float16: an epoch
over it takes seconds on a CPU.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from cope.backbones import VisionTower
from cope.config import ModelConfig
from cope.data.cutouts import Cutout, Pixels, thing
from cope.data.objects import Product
from cope.data.synthetic import Box, random_background, random_camera, random_placement, render_frame, render_page
from cope.pictures import fit_area, page_crop, square_crop
from cope.regions import overlap

LANDSCAPE, PORTRAIT = (640, 360), (360, 640)
# A thing of which less is left is not asked for: nobody could name it.
MIN_SIDE_PX = 24
NOTHING = -1  # the product of a crop that shows none


@dataclass
class Features:
    """Rendered products as the towers see them.

    Attributes:
        live: (N, F) float16 descriptors of crops of live frames.
        live_product: (N,) index of the product; `NOTHING` for backgrounds and overlays.
        live_pixels: (N,) longer side of the thing in the frame, in pixels.
        page: (M, F) float16 descriptors of page pictures.
        page_product: (M,) index of the product.
        maps: Per scene with kept maps, one (C, h, w) float16 per level.
        boxes: Per such scene, (n, 4) relative boxes of what is shown.
    """

    live: NDArray[np.float16]
    live_product: NDArray[np.int64]
    live_pixels: NDArray[np.float32]
    page: NDArray[np.float16]
    page_product: NDArray[np.int64]
    maps: list[list[NDArray[np.float16]]]
    boxes: list[NDArray[np.float32]]

    def save(self, path: Path) -> None:
        """Writes the features with `torch.save`."""
        torch.save({f.name: getattr(self, f.name) for f in fields(self)}, path)

    @classmethod
    def load(cls, path: Path) -> "Features":
        """Reads what `save` wrote."""
        return cls(**torch.load(path, weights_only=False))

    @classmethod
    def join(cls, parts: Sequence["Features"]) -> "Features":
        """Several renderings of the same products as one."""
        arrays = ("live", "live_product", "live_pixels", "page", "page_product")
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
        return cls(
            **joined,
            maps=[maps for part in parts for maps in part.maps],
            boxes=[boxes for part in parts for boxes in part.boxes],
        )


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
            placement = type(placement)(**{**placement.__dict__, "x": x, "y": y})
        items.append((cutout, placement))
    for _ in range(int(rng.integers(0, 4))):
        place = random_placement(rng, (0.15, 0.7), cover=0.06)
        upright = {"rotation_deg": 0.0, "tilt_deg": 0.0, "turn_deg": 0.0, "cover": 0.0, "gain": 1.0}
        at = {"x": float(rng.uniform(0, 1)), "y": float(rng.choice([0.05, 0.12, 0.88, 0.95]))}
        items.append((overlay(rng), type(place)(**{**place.__dict__, **upright, **at})))
    frame, boxes = render_frame(rng, random_background(rng, photos, size), items, size, random_camera(rng))
    seen = [b for b in boxes if b.id != "overlay" and max(b.x1 - b.x0, b.y1 - b.y0) >= MIN_SIDE_PX]
    return frame, seen, [b for b in boxes if b.id == "overlay"]


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


def _relative(box: Box, frame: Pixels) -> NDArray[np.float32]:
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


class Renderer:
    """Renders and describes products of one side of the split."""

    def __init__(self, config: ModelConfig, tower: VisionTower, photos: Sequence[Pixels], seed: int) -> None:
        self.config = config
        self.tower = tower
        self.photos = photos
        self.rng = np.random.default_rng(seed)

    def features(self, products: Sequence[Product], live_views: int, page_views: int, scenes: int) -> Iterator[float]:
        """Renders all, yielding the share done; then `result` holds the features.

        Args:
            products: What to show.
            live_views: Showings of each product.
            page_views: Page pictures of each product.
            scenes: Frames of which the maps are kept.
        """
        live: list[torch.Tensor] = []
        live_product: list[int] = []
        live_pixels: list[float] = []
        maps: list[list[NDArray[np.float16]]] = []
        boxes: list[NDArray[np.float32]] = []
        index = {p.cutout.id: i for i, p in enumerate(products)}
        queue = [i for _ in range(live_views) for i in self.rng.permutation(len(products))]
        total = len(queue)
        while queue:
            count = int(self.rng.choice([0, 1, 2, 3], p=[0.05, 0.4, 0.3, 0.25]))
            shown = [products[queue.pop()].cutout for _ in range(min(count, len(queue)))]
            frame, seen, overlays = scene(self.rng, shown, self.photos)
            truth = np.array([_relative(b, frame) for b in seen], np.float32).reshape(-1, 4)
            if len(maps) < scenes:
                maps.append(self._maps(frame))
                boxes.append(truth)
            crops = [
                (box, index.get(b.id, NOTHING), max(b.x1 - b.x0, b.y1 - b.y0))
                for b, box in zip(seen, truth, strict=True)
            ]
            crops += [(_relative(b, frame), NOTHING, b.x1 - b.x0) for b in overlays[:1]]
            empty = elsewhere(self.rng, truth)
            crops += [] if empty is None else [(empty, NOTHING, 0)]
            if crops:
                live.append(self._describe([self._crop(frame, jittered(self.rng, box)) for box, _, _ in crops]))
                live_product += [product for _, product, _ in crops]
                live_pixels += [float(side) for _, _, side in crops]
            yield 0.8 * (1 - len(queue) / total)
        page: list[torch.Tensor] = []
        for i, product in enumerate(products):
            pictures = [render_page(self.rng, product.cutout) for _ in range(page_views)]
            page.append(
                self._describe([page_crop(p, self.config.crop_pixels, self.config.crop_margin) for p in pictures])
            )
            yield 0.8 + 0.2 * i / len(products)
        self.result = Features(
            live=torch.cat(live).numpy(),
            live_product=np.array(live_product),
            live_pixels=np.array(live_pixels, np.float32),
            page=torch.cat(page).numpy(),
            page_product=np.repeat(np.arange(len(products)), page_views),
            maps=maps,
            boxes=boxes,
        )

    def _crop(self, frame: Pixels, box: NDArray[np.float32]) -> Pixels:
        return square_crop(frame, box, self.config.crop_pixels, self.config.crop_margin)

    @torch.inference_mode()
    def _describe(self, crops: Sequence[Pixels]) -> torch.Tensor:
        pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float()
        return self.tower.describe(pixels).half()

    @torch.inference_mode()
    def _maps(self, frame: Pixels) -> list[NDArray[np.float16]]:
        small = fit_area(frame, self.config.frame_pixels, self.tower.stride)
        levels = self.tower.maps(torch.from_numpy(small)[None].permute(0, 3, 1, 2).float())
        h, w = levels[min(1, len(levels) - 1)].shape[-2:]
        # Finer maps than the finder's grid are averaged to it, as the finder does: a quarter of the memory.
        return [
            (torch.nn.functional.adaptive_avg_pool2d(m, (h, w)) if m.shape[-1] > w else m)[0].half().numpy()
            for m in levels
        ]
