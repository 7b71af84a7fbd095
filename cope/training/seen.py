"""What frozen towers see of any data set, computed once before training and kept on disk by content.

`cope.training.features` does the same for products that are rendered.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cope.data.items import Item, Picture, Source
from cope.data.sampling import spread
from cope.domains import Domain
from cope.serving.looking import WHOLE, Looker, as_tensor
from cope.towers.interface import VisionTower
from cope.towers.packaged import fingerprint
from cope.training.features import Features, kept_features
from cope.vision.cutouts import Pixels
from cope.vision.pictures import CENTRES, square_crop

# Pictures of a product that are looked at, by domain. More of one product teach little that is new.
MOST_PICTURES = 64
# Enough for crops of 224 px of the central half.
_SIDE_PX = 640
_AT_ONCE = 64  # crops


@dataclass(frozen=True)
class Seeing:
    """How pictures become descriptors: as in service.

    Attributes:
        looker: Finds and cuts out what is shown.
        tower: Describes it.
        finder: Hash of the region finder's weights.
    """

    looker: Looker
    tower: VisionTower
    finder: str

    @torch.inference_mode()
    def describe(self, crops: Sequence[Pixels]) -> NDArray[np.float16]:
        """Crops of one size -> (N, F)."""
        described: Tensor = self.tower.describe(as_tensor(crops, torch.device("cpu")))
        return described.half().numpy()

    def key(self, source: Source) -> str:
        """A hash of all that features depend on."""
        m = self.looker.config
        looks = [m.vision, fingerprint(m.vision), m.crop_pixels, m.crop_margin, m.multi_view, m.regions > 0]
        text = json.dumps([looks, self.finder, source.fingerprint, MOST_PICTURES])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def seen(source: Source, seeing: Seeing, cache: Path, report: Callable[[int, int], None]) -> Features:
    """The features of a data set, from the cache where they are there.

    Of a page picture all views are kept; of a clip's picture the product's box where it is known, else the whole, its
    central 80 % and what the finder finds first.

    Args:
        source: The data.
        seeing: How.
        cache: Folder; files in it are named by their content's key.
        report: Called with the products done and all.

    Raises:
        UserError: The disk is full, or what is kept is damaged.
    """
    return kept_features(cache / f"seen-{seeing.key(source)}.pt", lambda: _seen(source, seeing, report))


def _seen(source: Source, seeing: Seeing, report: Callable[[int, int], None]) -> Features:
    domains: tuple[Domain, ...] = ("page", "video", "live")
    rows: dict[Domain, list[NDArray[np.float16]]] = {domain: [] for domain in domains}
    whose: dict[Domain, list[int]] = {domain: [] for domain in domains}
    waiting: list[Pixels] = []
    places: list[tuple[Domain, int]] = []

    def flush() -> None:
        for (domain, number), row in zip(places, seeing.describe(waiting) if waiting else (), strict=True):
            rows[domain].append(row)
            whose[domain].append(number)
        waiting.clear()
        places.clear()

    with ThreadPoolExecutor(1) as ahead:  # the next product is read while this one is described
        read = lambda number: list(_pictures(source, number))  # noqa: E731
        coming = ahead.submit(read, 0)
        for number in range(len(source)):
            pictures = coming.result()
            if number + 1 < len(source):
                coming = ahead.submit(read, number + 1)
            for domain, picture in pictures:
                crops = _crops(seeing.looker, domain, picture)
                waiting += crops
                places += [(domain, number)] * len(crops)
            if len(waiting) >= _AT_ONCE:
                flush()
            report(number + 1, len(source))
    flush()
    width = next((len(row) for each in rows.values() for row in each), 0)

    def stacked(domain: Domain) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        each = rows[domain]
        return (np.stack(each) if each else np.zeros((0, width), np.float16)), np.array(whose[domain], np.int64)

    page, page_product = stacked("page")
    video, video_product = stacked("video")
    live, live_product = stacked("live")
    pixels = np.zeros(len(live), np.float32)
    return Features(live, live_product, pixels, video, video_product, page, page_product, [], [])


def _pictures(source: Source, number: int) -> Iterator[tuple[Domain, Picture]]:
    """The readable pictures of a product, spread evenly over its items."""
    domains: tuple[Domain, ...] = ("page", "video", "live")
    for domain in domains:
        items = source.items(number, domain)
        chosen = spread(None, len(items), MOST_PICTURES)
        each = max(1, MOST_PICTURES // max(1, len(chosen)))
        for at in chosen:
            item: Item = items[at]
            for picture in source.read(item.with_pictures(spread(None, len(item.images), each)), _SIDE_PX):
                if picture.problem:
                    source.counts.add(picture.problem)
                if picture.pixels is not None and min(picture.pixels.shape[:2]) > 0:
                    yield domain, picture


def _crops(looker: Looker, domain: Domain, picture: Picture) -> list[Pixels]:
    image, config = picture.pixels, looker.config
    assert image is not None  # noqa: S101 - the caller has looked
    if domain == "page":
        return looker.page_crops(image)
    if not config.regions:
        return looker.crops(image, WHOLE)
    if picture.box is not None:
        return looker.crops(image, np.array([picture.box], np.float32))
    wide = [square_crop(image, box, config.crop_pixels, 0.0) for box in CENTRES[:2]]
    return wide + looker.crops(image, looker.find(image)[0][:1])
