"""From a `Source` to batches: chooses, reads, decodes, transforms and tokenises in loader processes.

for batch in batches(open_source("data"), config, tower.tokenize, start_step=step): ...
"""

import itertools
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cope.config import TrainConfig
from cope.data.items import Counts, Item, Source
from cope.data.live_text import NOTHING, LiveText
from cope.data.sampling import Sampler, category_sizes, long_tail, spread
from cope.data.transforms import canvas_side, enough, frame_picture, light, page_picture, window
from cope.domains import DOMAINS, Domain
from cope.errors import UserError
from cope.model.views import NOBODY
from cope.runtime.processes import Caught, begin_reading, received

__all__ = ["Batch", "ItemBatch", "Loader", "batches", "canvas_side", "item_batch"]

Tokenize = Callable[[str, int], list[int]]  # text, most tokens

WITHOUT_PICTURE = "drawn items without a readable picture"

# Batches that each loader process prepares ahead. One is being made while another waits: more only take memory.
_AHEAD = 2
# So many batches without one readable picture mean that the disk or the network is gone.
_HOPELESS = 3
_WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class ItemBatch:
    """One domain of a batch, B rows; T is 1 for pages. S is `crop_pixels`, C `canvas_side`.

    Attributes:
        pixels: (B, T, 3, S, S) uint8 RGB of pages, and of clips without regions; (B, T, 3, C, C) of clips with
            regions. In memory the channels come last.
        content: (B, T, 4) float32 relative x0, y0, x1, y1: the part of `pixels` that is picture.
        boxes: (B, T, 4) float32 of the product, relative to `pixels`; zeros where unknown.
        frame_there: (B, T) bool, whether there is a picture.
        tokens: (B, L) int64, padded with 0.
        mask: (B, L) bool, false at padding.
        told: (B,) float32 in [0, 1], how surely the words name something; 0 where there are none.
        product: (B,) int64 number in the source; `NOBODY` for an item that is missing.
    """

    pixels: Tensor
    content: Tensor
    boxes: Tensor
    frame_there: Tensor
    tokens: Tensor
    mask: Tensor
    told: Tensor
    product: Tensor

    def __len__(self) -> int:
        return len(self.product)

    def to(self, device: torch.device) -> "ItemBatch":
        """The same on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "ItemBatch":
        """The same in page-locked memory; the loader calls it."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "ItemBatch":
        return ItemBatch(**{f.name: change(getattr(self, f.name)) for f in fields(self)})


@dataclass(frozen=True)
class Batch:
    """B products, each with one item of each domain where it has one.

    Attributes:
        page: Pages.
        video: Short videos.
        live: Live clips.
        weight: (B,) float32 of each product, by the size of its category; 1 on average over all products.
        counts: What could not be read, by kind. `batches` has added it to the source's counts.
    """

    page: ItemBatch
    video: ItemBatch
    live: ItemBatch
    weight: Tensor
    counts: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.weight)

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        moved = {domain: getattr(self, domain).to(device) for domain in DOMAINS}
        return replace(self, **moved, weight=self.weight.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same in page-locked memory; the loader calls it."""
        pinned = {domain: getattr(self, domain).pin_memory() for domain in DOMAINS}
        return replace(self, **pinned, weight=self.weight.pin_memory())


class Loader(Dataset[Batch]):
    """Batch n of a training run, for any n."""

    def __init__(self, source: Source, config: TrainConfig, tokenize: Tokenize, rank: int = 0, world: int = 1) -> None:
        """Prepares the order of the products.

        Raises:
            UserError: There are fewer products than ranks, items of one domain only, or no categories to balance.
        """
        if sum(source.sizes[domain] > 0 for domain in DOMAINS) < 2:
            raise UserError(f"{source.name}: items of one domain only; learning across domains needs two")
        self._source, self._config, self._tokenize, self._rank = source, config, tokenize, rank
        self._text = LiveText(source, config)
        self._weight: NDArray[np.float64] | None = None
        drawn: NDArray[np.float64] | None = None
        if config.balance or config.reweight:
            sizes = category_sizes(source)
            if sizes[0] == len(source):
                raise UserError(
                    f"{source.name}: all products are of one category, or of none, so there is no long tail; set "
                    f"balance=0 and reweight=0, or add categories"
                )
            drawn = long_tail(sizes, config.balance) if config.balance else None
            self._weight = long_tail(sizes, config.reweight) if config.reweight else None
        self.sampler = Sampler(len(source), config.batch_products, config.seed, world, drawn)
        if self.sampler.each * world == 1 and not config.classification:
            raise UserError(
                f"{source.name}: a batch of one product has nothing to tell it from; set batch_products=2 or more, and "
                f"see that there are as many products"
            )

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step.

        Raises:
            UserError: The index of the data was damaged or removed.
        """
        counts = Counts()
        products = self.sampler.products(step, self._rank).tolist()
        drawn = {domain: [self._draw(step, number, domain) for number in products] for domain in DOMAINS}
        with self._text.among(products):
            made = {
                domain: item_batch(
                    self._source,
                    self._config,
                    domain,
                    [item for item, _ in drawn[domain]],
                    [self._words(item, rng) for item, rng in drawn[domain]],
                    self._tokenize,
                    counts,
                    [rng for _, rng in drawn[domain]],
                )
                for domain in DOMAINS
            }
        weight = torch.ones(len(products))
        if self._weight is not None:
            weight = torch.from_numpy(self._weight[products]).float()
        return Batch(made["page"], made["video"], made["live"], weight, counts.as_dict())

    def _draw(self, step: int, number: int, domain: Domain) -> tuple[Item | None, np.random.Generator]:
        rng = np.random.default_rng([self._config.seed, step, number, DOMAINS.index(domain)])
        items = self._source.items(number, domain)
        return (items[int(rng.integers(len(items)))] if items else None), rng

    def _words(self, item: Item | None, rng: np.random.Generator) -> tuple[str, float]:
        if item is not None and item.domain != "page" and rng.random() >= self._config.words:
            return NOTHING
        return self._text.read(item)


def item_batch(
    source: Source,
    config: TrainConfig,
    domain: Domain,
    items: Sequence[Item | None],
    words: Sequence[tuple[str, float]],
    tokenize: Tokenize,
    counts: Counts,
    rngs: Sequence[np.random.Generator] | None = None,
) -> ItemBatch:
    """Reads items of one domain and makes a batch of them.

    Args:
        source: Source of the items.
        config: For sizes.
        domain: Domain of the items.
        items: B; None for those that a product does not have.
        words: B, what is read with each, "" for nothing; and how surely it names something.
        tokenize: Tokenizer of the text tower.
        counts: Gets what could not be read.
        rngs: B, for jitter and augmentation; None for the middle of everything, as in an evaluation.
    """
    frames = 1 if domain == "page" else config.clip_frames
    model, shape = config.model, (len(items), frames)
    side = model.crop_pixels if domain == "page" or not model.regions else canvas_side(model)
    # Channels last, as decoded: towers like it, and `permute` costs nothing.
    pixels = np.zeros((*shape, side, side, 3), np.uint8)
    content = np.tile(np.array(_WHOLE, np.float32), (*shape, 1))
    boxes = np.zeros((*shape, 4), np.float32)
    there = np.zeros(shape, np.bool_)

    def fill(row: int) -> list[str]:
        """Reads the item of a row, and returns what was wrong with it."""
        item, rng = items[row], rngs[row] if rngs else None
        if item is None:
            return []
        looks, problems = _looks(item, frames, rng), []
        # One window and one light for all frames of a clip: a camera does not jump.
        part, gains = (_WHOLE, None) if rng is None else (window(rng), light(rng))
        for seen in looks:
            for at, picture in enumerate(source.read(seen, enough(model, domain == "page"))):
                if picture.pixels is None:
                    problems.append(picture.problem)
                elif domain == "page":
                    pixels[row, at], there[row, at] = page_picture(model, picture.pixels, rng), True
                else:
                    made = frame_picture(model, picture.pixels, picture.box, part, gains)
                    pixels[row, at], content[row, at], boxes[row, at] = made
                    there[row, at] = True
            if there[row].any():
                return problems
        return [*problems, WITHOUT_PICTURE]

    with ThreadPoolExecutor(source.concurrency) if source.concurrency > 1 else nullcontext() as pool:
        for problem in itertools.chain.from_iterable((pool.map if pool else map)(fill, range(len(items)))):
            counts.add(problem)
    some: list[bool] = np.asarray(there.any(axis=1)).tolist()
    read = [tokenize(text, model.text_tokens) if text and ok else [] for (text, _), ok in zip(words, some, strict=True)]
    lengths = torch.tensor([len(one) for one in read])
    tokens = torch.zeros(len(items), max([1, *map(len, read)]), dtype=torch.int64)
    for row, one in enumerate(read):
        tokens[row, : len(one)] = torch.tensor(one, dtype=torch.int64)
    numbers = [NOBODY if item is None or not ok else item.product for item, ok in zip(items, some, strict=True)]
    return ItemBatch(
        pixels=torch.from_numpy(pixels).permute(0, 1, 4, 2, 3),
        content=torch.from_numpy(content),
        boxes=torch.from_numpy(boxes),
        frame_there=torch.from_numpy(there),
        tokens=tokens,
        mask=torch.arange(tokens.shape[1]) < lengths.unsqueeze(1),
        told=torch.tensor([sure for _, sure in words]) * (lengths > 0),
        product=torch.tensor(numbers, dtype=torch.int64),
    )


def _looks(item: Item, frames: int, rng: np.random.Generator | None) -> list[Item]:
    """The item with the pictures that are looked at; of a page others, should those be broken."""
    count = len(item.images)
    if item.domain != "page":
        return [item.with_pictures(spread(rng, count, frames))]
    first = 0 if rng is None else int(rng.integers(count))
    return [item.with_pictures([(first + more) % count]) for more in range(count)]


def batches(
    source: Source,
    config: TrainConfig,
    tokenize: Tokenize,
    *,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    """Yields the batches of a training run, without end, each a function of the seed, the ranks and its number alone.

    Args:
        source: Products.
        config: Configuration of the training run. Its `workers` processes prepare batches; 0: this process does.
        tokenize: Tokenizer of the text tower: text and most tokens to token numbers.
        start_step: The first batch; the run that resumes there sees what the other would have seen.
        rank: This process.
        world: Number of processes; no product is in the batches of two of them at the same step.

    Raises:
        UserError: There are too few products, no picture can be read, or shared memory is too small.
    """
    loader = Loader(source, config, tokenize, rank, world)
    if config.workers:
        _check_shared_memory(loader, config)
    ready: Iterable[Batch | UserError] = DataLoader(
        Caught(loader),
        batch_size=None,
        sampler=_Steps(start_step),
        num_workers=config.workers,
        prefetch_factor=_AHEAD if config.workers else None,
        worker_init_fn=begin_reading,
        pin_memory=torch.cuda.is_available(),
        # Its own source of numbers, or making the loader would move the trainer's.
        generator=torch.Generator(),
    )
    return _watched(received(ready), source)


def _watched(ready: Iterable[Batch], source: Source) -> Iterator[Batch]:
    """Keeps the counts, and stops where nothing can be read."""
    hopeless = 0
    for batch in ready:
        source.counts.merge(batch.counts)
        empty = all(bool((getattr(batch, domain).product == NOBODY).all()) for domain in DOMAINS)
        hopeless = hopeless + 1 if empty else 0
        if hopeless == _HOPELESS:
            raise UserError(
                f"{source.name}: no picture of {_HOPELESS} batches could be read ({Counts(batch.counts)}); check that "
                "the paths or addresses are right and the disk or network is there"
            )
        yield batch


class _Steps:
    """The numbers of batches, from one on."""

    def __init__(self, start: int) -> None:
        self._start = start

    def __iter__(self) -> Iterator[int]:
        step = self._start
        while True:
            yield step
            step += 1


def _check_shared_memory(loader: Loader, config: TrainConfig) -> None:
    """Batches travel through /dev/shm, of which a container has 64 MB: too little ends in a bus error."""
    model, products = config.model, loader.sampler.each
    frame = canvas_side(model) if model.regions else model.crop_pixels
    size = products * 3 * (model.crop_pixels**2 + 2 * config.clip_frames * frame**2)
    needed = size * (config.workers * _AHEAD + 1)
    if sys.platform == "linux" and Path("/dev/shm").is_dir():  # noqa: S108 - where the kernel has it
        free = shutil.disk_usage("/dev/shm").free  # noqa: S108
        if free < needed:
            raise UserError(
                f"shared memory has {free / 1e9:.1f} GB, {config.workers} loader processes need {needed / 1e9:.1f} GB "
                "for their batches; lower workers or batch_products, or start the container with a larger --shm-size"
            )
