"""What frozen towers see of rendered products, computed once before training and kept on disk.

What is learned sits on top of frozen towers, so an epoch over their kept output takes seconds on a CPU.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from cope.config import ModelConfig, TrainConfig
from cope.data.items import Counts
from cope.data.listing import fingerprint, read_products
from cope.data.objects import Product, read_backgrounds, siblings, things
from cope.domains import Split
from cope.model.views import NOBODY
from cope.render.scenes import elsewhere, jittered, relative, scene, video_frame
from cope.render.synthetic import render_page
from cope.runtime.files import full_disk, whole, write_whole
from cope.runtime.processes import pool, processors
from cope.towers.compiled import frozen_vision
from cope.towers.packaged import VisionTower
from cope.vision.cutouts import Pixels
from cope.vision.pictures import CENTRES, fit_area, page_crop, square_crop

# Products are dealt out to so many shards whatever the number of processes, so that this never changes a pixel.
# More make a finer progress bar, and scenes with things of fewer products.
SHARDS = 24
WHOLE = np.array([0.0, 0.0, 1.0, 1.0], np.float32)
# Share of page crops that are not framed by the product. Service compares with such views too, and takes the best.
LOOSE_PAGES = 0.25


@dataclass
class Features:
    """Rendered products as the towers see them.

    Attributes:
        live: (N, F) float16 descriptors of crops of live frames.
        live_product: (N,) number of the product; `NOBODY` for backgrounds and overlays.
        live_pixels: (N,) longer side of the thing in the frame, in pixels.
        video: (M, F) float16 descriptors of crops of short videos.
        video_product: (M,) number of the product; `NOBODY` for backgrounds.
        page: (Q, F) float16 descriptors of page pictures.
        page_product: (Q,) number of the product.
        maps: Per scene with kept maps, one (C, h, w) float16 per level.
        boxes: Per such scene, (n, 4) relative boxes of what is shown.
    """

    live: NDArray[np.float16]
    live_product: NDArray[np.int64]
    live_pixels: NDArray[np.float32]
    video: NDArray[np.float16]
    video_product: NDArray[np.int64]
    page: NDArray[np.float16]
    page_product: NDArray[np.int64]
    maps: list[list[NDArray[np.float16]]]
    boxes: list[NDArray[np.float32]]


@dataclass(frozen=True)
class Work:
    """All that rendered features depend on.

    Attributes:
        model: Towers, sizes of frames and crops.
        data: Folder of objects and backgrounds.
        split: Side of the split.
        seed: Seed of everything random.
        live_views: Showings of each product in live scenes.
        video_views: Showings of each product in short videos.
        page_views: Page pictures of each product.
        scenes: Live scenes of which the maps are kept.
    """

    model: ModelConfig
    data: Path
    split: Split
    seed: int
    live_views: int
    video_views: int
    page_views: int
    scenes: int

    @classmethod
    def of(cls, config: TrainConfig, data: Path) -> "Work":
        """What a training run renders."""
        return cls(
            config.model,
            data,
            "train",
            config.seed,
            config.live_views,
            config.video_views,
            config.page_views,
            config.scenes if config.model.regions and config.finder_steps else 0,
        )

    def key(self, products: Sequence[Product]) -> str:
        """A hash of all of it; of the model only what pixels and towers depend on."""
        m = self.model
        looks = [m.vision, m.finder, m.frame_pixels, m.crop_pixels, m.crop_margin, m.regions > 0, m.tuning]
        rest = {k: v for k, v in asdict(self).items() if k not in ("model", "data")}
        text = json.dumps([looks, rest, [p.id for p in products], fingerprint(self.data)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def products_of(data: Path, split: Split, seed: int, counts: Counts | None = None) -> list[Product]:
    """The products of one side of the split: objects, recoloured siblings and made-up things."""
    products = read_products(data, split, counts)
    rng = np.random.default_rng(seed)
    count = len(products)
    return products + siblings(rng, products, count // 3) + things(rng, count // 6)


def rendered(
    work: Work, cache: Path, report: Callable[[int, int], None], counts: Counts | None = None
) -> tuple[list[Product], Features]:
    """Products and what the towers see of them, from the cache where it is there.

    Args:
        work: What to render.
        cache: Folder; files in it are named by their content's key.
        report: Called with the shards done and all.
        counts: Gets the rows and pictures that are left out.

    Raises:
        UserError: The disk is full, a process died, or what is kept is damaged.
    """
    products = products_of(work.data, work.split, work.seed, counts)
    file = cache / f"{work.split}-{work.key(products)}.tensors.pt"
    return products, kept_features(file, lambda: joined(_rendered(work, report)))


def kept_features(file: Path, make: Callable[[], Features]) -> Features:
    """Features from a file, which is made if it is not there.

    Raises:
        UserError: The disk is full, or the file is damaged.
    """
    if not file.is_file():
        made = make()
        with full_disk(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            tensors = {one.name: _tensors(getattr(made, one.name)) for one in fields(made)}
            write_whole(file, lambda out: torch.save(tensors, out))
    with whole(file):
        tensors = torch.load(file, weights_only=True)
        return Features(**{name: _arrays(value) for name, value in tensors.items()})


def _tensors(value: Any) -> Any:
    """Arrays as tensors: a file of tensors is read without running what is in it."""
    return [_tensors(one) for one in value] if isinstance(value, list) else torch.from_numpy(value)


def _arrays(value: Any) -> Any:
    return [_arrays(one) for one in value] if isinstance(value, list) else value.numpy()


def _rendered(work: Work, report: Callable[[int, int], None]) -> list[Features]:
    """All shards in order, by a process for each core that this one may use."""
    parts: dict[int, Features] = {}
    with pool(min(SHARDS, processors()), get_context("spawn"), partial(_start, work)) as rendering:
        waiting = {rendering.submit(_shard, number): number for number in range(SHARDS)}
        for done, future in enumerate(as_completed(waiting), 1):
            parts[waiting[future]] = future.result()
            report(done, SHARDS)
    return [parts[number] for number in range(SHARDS)]


def joined(parts: Sequence[Features]) -> Features:
    """One after the other."""
    arrays = [f.name for f in fields(Features) if f.name not in ("maps", "boxes")]
    return Features(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays},
        maps=[maps for part in parts for maps in part.maps],
        boxes=[boxes for part in parts for boxes in part.boxes],
    )


class _Renderer:
    """Lives in each process of the pool."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.products = products_of(work.data, work.split, work.seed)
        self.photos = read_backgrounds(work.data, work.split)
        self.vision = cast(VisionTower, frozen_vision(work.model.vision, threads=1))
        same = work.model.finder == work.model.vision
        self.finder = self.vision
        if work.scenes and not same:
            self.finder = cast(VisionTower, frozen_vision(work.model.finder, threads=1))

    def shard(self, number: int) -> Features:
        """Renders and describes every `SHARDS`-th product."""
        rng = np.random.default_rng([self.work.seed, ("train", "val", "test").index(self.work.split), number])
        numbers = list(range(number, len(self.products), SHARDS))
        result = Features(
            *(np.zeros((0, self.vision.descriptor_width), np.float16), np.zeros(0, np.int64), np.zeros(0, np.float32)),
            *(np.zeros((0, self.vision.descriptor_width), np.float16), np.zeros(0, np.int64)),
            *(np.zeros((0, self.vision.descriptor_width), np.float16), np.zeros(0, np.int64)),
            maps=[],
            boxes=[],
        )
        self._live(rng, numbers, result)
        self._video(rng, numbers, result)
        pages = [(number, picture) for number in numbers for picture in self._pages(rng, number)]
        result.page = self._describe([picture for _, picture in pages])
        result.page_product = np.array([number for number, _ in pages], np.int64)
        return result

    def _live(self, rng: np.random.Generator, numbers: Sequence[int], result: Features) -> None:
        crops: list[Pixels] = []
        whose: list[int] = []
        pixels: list[float] = []
        scenes = -(-self.work.scenes // SHARDS)
        by_id = {self.products[i].cutout.id: i for i in numbers}
        queue = [int(i) for _ in range(self.work.live_views) for i in rng.permutation(numbers)]
        while queue:
            count = int(rng.choice([0, 1, 2, 3], p=[0.05, 0.4, 0.3, 0.25]))
            shown = [self.products[queue.pop()].cutout for _ in range(min(count, len(queue)))]
            frame, seen, overlays = scene(rng, shown, self.photos)
            truth = np.array([relative(b, frame) for b in seen], np.float32).reshape(-1, 4)
            if len(result.maps) < scenes:
                result.maps.append(self._maps(frame))
                result.boxes.append(truth)
            for b, box in zip(seen, truth, strict=True):
                crops.append(self._crop(rng, frame, box))
                whose.append(by_id.get(b.id, NOBODY))
                pixels.append(float(max(b.x1 - b.x0, b.y1 - b.y0)))
            empty = elsewhere(rng, truth)
            for box in [relative(b, frame) for b in overlays[:1]] + ([] if empty is None else [empty]):
                crops.append(self._crop(rng, frame, box))
                whose.append(NOBODY)
                pixels.append(0.0)
        result.live = self._describe(crops)
        result.live_product = np.array(whose, np.int64)
        result.live_pixels = np.array(pixels, np.float32)

    def _video(self, rng: np.random.Generator, numbers: Sequence[int], result: Features) -> None:
        crops: list[Pixels] = []
        whose: list[int] = []
        for number in numbers:
            for _ in range(self.work.video_views):
                frame, box = video_frame(rng, self.products[number].cutout, self.photos)
                taken = np.zeros((0, 4), np.float32)
                if box is not None:
                    taken = relative(box, frame)[None]
                    crops.append(self._crop(rng, frame, taken[0]))
                    whose.append(number)
                empty = elsewhere(rng, taken)
                if empty is not None and rng.random() < 0.25:
                    crops.append(self._crop(rng, frame, empty))
                    whose.append(NOBODY)
        result.video = self._describe(crops)
        result.video_product = np.array(whose, np.int64)

    def _pages(self, rng: np.random.Generator, number: int) -> list[Pixels]:
        """Crops of page pictures, every other one of a picture on a scene, framed as one of the views of service."""
        model, cutout = self.work.model, self.products[number].cutout
        side, margin = model.crop_pixels, model.crop_margin
        crops = []
        for at in range(self.work.page_views):
            loosely = rng.random() < LOOSE_PAGES
            picture, box = (render_page(rng, cutout), None) if at % 2 == 0 else video_frame(rng, cutout, self.photos)
            if loosely or (at % 2 and box is None):
                crops.append(square_crop(picture, CENTRES[int(rng.integers(len(CENTRES)))], side, 0.0))
            elif box is None:
                crops.append(page_crop(picture, side, margin))
            else:
                crops.append(square_crop(picture, jittered(rng, relative(box, picture)), side, margin))
        return crops

    def _crop(self, rng: np.random.Generator, frame: Pixels, box: NDArray[np.float32]) -> Pixels:
        model = self.work.model
        if not model.regions:  # the whole frame stands for whatever is in it
            return square_crop(frame, WHOLE, model.crop_pixels, 0.0)
        return square_crop(frame, jittered(rng, box), model.crop_pixels, model.crop_margin)

    @torch.inference_mode()
    def _describe(self, crops: Sequence[Pixels]) -> NDArray[np.float16]:
        out = []
        for at in range(0, len(crops), 16):
            pixels = torch.from_numpy(np.stack(crops[at : at + 16])).permute(0, 3, 1, 2).float()
            out.append(self.vision.describe(pixels).half().numpy())
        return np.concatenate(out) if out else np.zeros((0, self.vision.descriptor_width), np.float16)

    @torch.inference_mode()
    def _maps(self, frame: Pixels) -> list[NDArray[np.float16]]:
        small = fit_area(frame, self.work.model.frame_pixels, self.finder.stride)
        levels = self.finder.maps(torch.from_numpy(small)[None].permute(0, 3, 1, 2).float())
        h, w = levels[min(1, len(levels) - 1)].shape[-2:]
        # Finer maps than the finder's grid are averaged to it, as the finder does: a quarter of the memory.
        return [
            (torch.nn.functional.adaptive_avg_pool2d(m, (h, w)) if m.shape[-1] > w else m)[0].half().numpy()
            for m in levels
        ]


_renderer: _Renderer | None = None


def _start(work: Work) -> None:
    global _renderer
    torch.set_num_threads(1)  # the processes share the cores
    _renderer = _Renderer(work)


def _shard(number: int) -> Features:
    assert _renderer is not None  # noqa: S101 - set by `_start`, which runs first in each process
    return _renderer.shard(number)
