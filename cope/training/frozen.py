"""Training on frozen towers, as cope-mini is: what they see of any data is computed once and kept.

Two stages: where in a frame something is shown (the region finder, from rendered scenes), and what it is. The visual
projection is a closed form (`cope.training.whitening`) or starts as one; attention, text and fusion are learned.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cope.config import TrainConfig
from cope.data.items import Counts, Source
from cope.data.listing import NO_PICTURE
from cope.data.rendered import RenderedSource
from cope.domains import Domain
from cope.errors import UserError
from cope.model.modeling import CopeModel, RegionFinder, weights_hash
from cope.model.views import NOBODY, Views
from cope.runtime.distributed import rank
from cope.serving.looking import Looker
from cope.towers.compiled import frozen_vision
from cope.towers.packaged import TextTower, VisionTower, finder_tower, text_tower
from cope.training.features import Features, Work, joined, rendered
from cope.training.finder import go_on, take_finder
from cope.training.losses import finder_loss
from cope.training.objective import Objective
from cope.training.seen import Seeing, seen
from cope.training.texts import TRANSCRIPTS, Named, Texts, kept
from cope.training.trainer import Group, Stage, Trainer
from cope.training.validation import directions
from cope.training.whitening import rows_of, whiten

# Clips in which the host talks of something else, and in which what is said names nothing.
MISLED, CHATTING = 0.1, 0.15
SCENES_AT_ONCE = 16
# Products on which a best checkpoint may be chosen; with fewer, one that is right by chance would be.
LEAST_UNSEEN = 20
FINDER_RATE = 2e-3


@dataclass(frozen=True)
class Weighted:
    """A data set and its share of what is learned from.

    Attributes:
        source: The side that is trained on.
        unseen: The side that the run is evaluated on; None without one.
        weight: More than 0; only the ratio to others counts.
    """

    source: Source
    unseen: Source | None
    weight: float = 1.0


def train_frozen(
    trainer: Trainer, config: TrainConfig, data: Sequence[Weighted], cache: Path
) -> tuple[CopeModel, dict[str, float]]:
    """Trains a model on frozen towers; returns it with its figures on products of the other side.

    Args:
        trainer: Runs the stages.
        config: Configuration of the training run.
        data: What to learn from; at most one is rendered.
        cache: Folder where features are kept. Runs that differ in nothing that the towers see may share it.

    Returns:
        The model, and R@1 of single crops and page pictures, see `crops_evaluation`; empty with too few products.

    Raises:
        UserError: The data are not there, or the configuration is not for frozen towers.
    """
    m = config.model
    vision = frozen_vision(m.vision, torch.get_num_threads())
    see, read = cast(VisionTower, vision), cast(TextTower, text_tower(m.text))
    if m.colour and not see.colours:
        raise UserError(f"the vision tower {m.vision!r} describes no colours; set model.colour=0")
    finder = cast(VisionTower | None, finder_tower(m, vision))
    model = CopeModel(m, () if finder is None else finder.map_channels, see.descriptor_width, read.width)
    drawn = next((one for one in data if isinstance(one.source, RenderedSource)), None)
    learns_finder = bool(m.regions and config.finder_steps and drawn is not None and not config.init_from)
    if config.init_from:
        go_on(model, config.init_from)
    elif m.regions and not learns_finder:
        take_finder(model, config.finder_from or "cope-mini", m)

    # 1. What the towers see of rendered products, and where something is shown.
    parts: list[Part] = []
    unseen: list[Features] = []
    if drawn is not None:
        shown, features, theirs = _rendered(trainer, config, drawn, cache)
        if learns_finder:
            trainer.run(finder_stage(model, features, config))
        parts.append(Part(shown, features, drawn.weight))
        unseen.append(theirs)

    # 2. What they see of everything else, through that finder.
    seeing = Seeing(Looker(m, model.finder, finder, torch.device("cpu")), see, weights_hash(model.finder))
    for one in data:
        if one is drawn:
            continue
        features = _seen(trainer, one.source, seeing, cache)
        parts.append(Part([_named(one.source, n) for n in range(len(one.source))], features, one.weight))
        if one.unseen is not None:
            unseen.append(_seen(trainer, one.unseen, seeing, cache))

    # 3. What it is.
    products = [product for part in parts for product in part.products]
    trainer.log.say(f"reading what is said about {len(products)} products")
    texts = kept(products, read, config, cache)
    if m.projection == "whitened":
        rows = [rows_of(part.features, part.weight) for part in parts]
        whiten(model.visual, rows, config.shrinkage, bool(config.init_from))
    if not config.init_from:
        start_text(model, texts)
    stage = representation_stage(model, parts, texts, config)
    others = joined_features(unseen, [_products(one) for one in unseen]) if unseen else None
    evaluable = 0 if others is None else len(np.intersect1d(others.page_product, others.live_product))
    if others is not None and evaluable >= LEAST_UNSEEN:
        trainer.log.say(f"the best checkpoint is chosen on {evaluable} products that are not trained on")
        return model, trainer.run(replace(stage, evaluate=crops_evaluation(model, others)))
    trainer.log.say(
        f"{evaluable} products of another side of the split: fewer than {LEAST_UNSEEN}, so the last checkpoint is taken"
    )
    return model, trainer.run(stage)


def _products(features: Features) -> int:
    """One more than the highest number of a product."""
    return 1 + max(
        int(p.max(initial=-1)) for p in (features.page_product, features.video_product, features.live_product)
    )


def _rendered(
    trainer: Trainer, config: TrainConfig, data: Weighted, cache: Path
) -> tuple[list[Named], Features, Features]:
    source = data.source
    assert isinstance(source, RenderedSource)  # noqa: S101 - the caller has looked

    def report(done: int, of: int) -> None:
        trainer.log.say(f"rendering  {done} of {of} parts")

    work = Work.of(config, source.folder)
    skipped = Counts()
    _, unseen = rendered(replace(work, split="val", scenes=0), cache, report, skipped)
    products, features = rendered(work, cache, report, skipped)
    source.counts.add(NO_PICTURE, skipped[NO_PICTURE])  # the source has counted the rows of the list
    return [Named(p.id, p.name) for p in products], features, unseen


def _seen(trainer: Trainer, source: Source, seeing: Seeing, cache: Path) -> Features:
    every = max(1, len(source) // 20)

    def report(done: int, of: int) -> None:
        if done % every == 0 or done == of:
            trainer.log.say(f"looking at {source.name}  {done} of {of} products")

    return seen(source, seeing, cache, report)


def _named(source: Source, number: int) -> Named:
    """A product by its page's text, and what is said in its clips."""
    pages = source.items(number, "page")
    clips = [*source.items(number, "live")[:TRANSCRIPTS], *source.items(number, "video")[:TRANSCRIPTS]]
    said = tuple(clip.text for clip in clips if clip.text)[:TRANSCRIPTS]
    return Named(source.product_id(number), next((page.text for page in pages if page.text), ""), said)


def joined_features(several: Sequence[Features], counts: Sequence[int]) -> Features:
    """One after the other, their products numbered on; `counts` says how many each has."""
    offset, numbered = 0, []
    for one, products in zip(several, counts, strict=True):
        moved: dict[str, Any] = {
            name: np.where(getattr(one, name) == NOBODY, NOBODY, getattr(one, name) + offset)
            for name in ("page_product", "video_product", "live_product")
        }
        numbered.append(replace(one, **moved))
        offset += products
    return joined(numbered)


def crops_evaluation(model: CopeModel, unseen: Features) -> Callable[[nn.Module], dict[str, float]]:
    """The evaluation during training: each crop is searched among those of another domain, without words.

    It compares the checkpoints of a run. `cope.evaluate` measures a model on whole clips and what is said in them.
    """
    crops: dict[Domain, tuple[Tensor, Tensor]] = {
        "page": (torch.from_numpy(unseen.page), torch.from_numpy(unseen.page_product)),
        "video": (torch.from_numpy(unseen.video), torch.from_numpy(unseen.video_product)),
        "live": (torch.from_numpy(unseen.live), torch.from_numpy(unseen.live_product)),
    }

    def evaluate(_module: nn.Module) -> dict[str, float]:
        device = model.no_text.device
        sides: dict[Domain, tuple[Tensor, Tensor]] = {}
        for domain, (descriptors, product) in crops.items():
            shown = product != NOBODY
            if shown.any():
                sides[domain] = (model.visual(descriptors[shown].float().to(device), domain), product[shown])
        return directions(sides)

    return evaluate


class FinderObjective(nn.Module):
    """The region finder with its loss."""

    def __init__(self, finder: RegionFinder) -> None:
        super().__init__()
        self.finder = finder

    def forward(self, batch: tuple[list[Tensor], list[Tensor]]) -> dict[str, Tensor]:
        """Maps by level, each (B, C, h, w), and true boxes by scene, (n, 4) relative -> losses by name."""
        device = next(self.finder.parameters()).device
        levels, truths = batch
        logits, boxes = self.finder([level.to(device).float() for level in levels])
        salience, fit = finder_loss(logits, boxes, [truth.to(device) for truth in truths])
        return {"salience": salience, "boxes": fit}


def finder_stage(model: CopeModel, features: Features, config: TrainConfig) -> Stage:
    """Trains the region finder on the kept maps. Scenes of unlike shape go into batches of their own."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, maps in enumerate(features.maps):
        by_shape.setdefault(maps[0].shape, []).append(i)
    shapes = list(by_shape)
    share = np.array([len(by_shape[s]) for s in shapes]) / len(features.maps)

    def batches(start: int) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        for number in count(start):
            rng = np.random.default_rng([config.seed, 1, number, rank()])
            chosen = rng.choice(by_shape[shapes[int(rng.choice(len(shapes), p=share))]], SCENES_AT_ONCE)
            levels = [
                torch.from_numpy(np.stack([features.maps[i][level] for i in chosen]))
                for level in range(len(features.maps[0]))
            ]
            truths = [torch.from_numpy(features.boxes[i]) for i in chosen]
            if rng.random() < 0.5:  # mirrored
                levels = [level.flip(3) for level in levels]
                truths = [torch.stack([1 - t[:, 2], t[:, 1], 1 - t[:, 0], t[:, 3]], dim=1) for t in truths]
            yield levels, truths

    return Stage(
        name="finder",
        module=FinderObjective(cast(RegionFinder, model.finder)),
        groups=[Group("finder", list(model.finder.parameters()), FINDER_RATE, 0.01)],
        batches=batches,
        steps=config.finder_steps,
        batch_size=SCENES_AT_ONCE,
    )


def start_text(model: CopeModel, texts: Texts) -> None:
    """Starts the text projection as the principal axes of the centred text vectors."""
    x = torch.cat([texts.titles[texts.named], texts.spoken[texts.told > 0]])
    if not len(x):  # no product has a name
        return
    mean = x.mean(dim=0)
    _, _, axes = torch.linalg.svd(x - mean, full_matrices=False)
    with torch.no_grad():
        model.text.mean.copy_(mean)
        rows = min(len(axes), model.config.dim)
        model.text.axes.weight.zero_()
        model.text.axes.weight[:rows].copy_(axes[:rows])


@dataclass(frozen=True)
class Part:
    """A data set as the towers see it.

    Attributes:
        products: By number.
        features: Of these.
        weight: Share of a batch, beside the weights of other parts.
    """

    products: Sequence[Named]
    features: Features
    weight: float


class Sampler:
    """Draws batches of products as pages, videos and live clips. Batch n depends on the seed, the process and n."""

    def __init__(self, parts: Sequence[Part], texts: Texts, config: TrainConfig) -> None:
        self.texts = texts
        self.config = config
        features = joined_features([part.features for part in parts], [len(part.products) for part in parts])
        self.live = torch.from_numpy(features.live)
        self.video = torch.from_numpy(features.video)
        self.page = torch.from_numpy(features.page)
        count = sum(len(part.products) for part in parts)
        self.live_of = _by_product(features.live_product, count)
        self.video_of = _by_product(features.video_product, count)
        self.page_of = _by_product(features.page_product, count)
        self.no_live = np.flatnonzero(features.live_product == NOBODY)
        self.no_video = np.flatnonzero(features.video_product == NOBODY)
        if not len(self.no_live):  # photos alone: other products stand for what is not meant
            self.no_live = np.arange(len(features.live_product))
        self.shown: list[NDArray[np.int64]] = []  # of each part
        at = 0
        for part in parts:
            numbers = range(at, at + len(part.products))
            usable = [i for i in numbers if len(self.page_of[i]) and (len(self.live_of[i]) or len(self.video_of[i]))]
            self.shown.append(np.array(usable, np.int64))
            at += len(part.products)
        if not any(len(usable) > 1 for usable in self.shown):
            raise UserError("no two products have a page and a clip that can be read; add some")
        total = sum(part.weight for part in parts)
        self.drawn = [
            min(len(usable), max(2, round(config.batch_products * part.weight / total)))
            for part, usable in zip(parts, self.shown, strict=True)
        ]
        self.size = sum(self.drawn)

    def batch(self, number: int) -> tuple[Views, Views, Views]:
        """Page, video and live clip of different products."""
        rng = np.random.default_rng([self.config.seed, 2, number, rank()])
        drawn = [rng.choice(usable, n, replace=False) for usable, n in zip(self.shown, self.drawn, strict=True)]
        products = np.concatenate(drawn)
        return self._page(rng, products), self._clip(rng, products, "video"), self._clip(rng, products, "live")

    def _page(self, rng: np.random.Generator, products: NDArray[np.int64]) -> Views:
        rows = torch.from_numpy(np.array([[rng.choice(self.page_of[p])] for p in products]))
        ids = torch.from_numpy(products)
        return Views(
            descriptors=self.page[rows].float(),
            salience=torch.ones(rows.shape),
            frame=torch.zeros_like(rows),
            words=self.texts.titles[ids],
            told=(self.texts.named[ids] & torch.from_numpy(rng.random(len(ids)) < 0.9)).float(),
            product=ids,
            right=torch.ones(rows.shape, dtype=torch.bool),
        )

    def _clip(self, rng: np.random.Generator, products: NDArray[np.int64], domain: Domain) -> Views:
        """Clips as the finder makes them: in each frame the product, things that are not sold, and background.

        A product without clips of a domain is shown by those of the other one.
        """
        frames, regions = self.config.clip_frames, self.config.clip_regions
        video = domain == "video" and len(self.no_video) > 0
        crops, nothing = (self.video, self.no_video) if video else (self.live, self.no_live)
        first, second = (self.video_of, self.live_of) if domain == "video" else (self.live_of, self.video_of)
        shape = (len(products), frames, regions)
        rows = rng.choice(nothing, shape)
        descriptors = crops[torch.from_numpy(rows)]  # (B, T, K, F)
        salience = rng.uniform(0.02, 0.3, shape)
        right = np.zeros(shape, np.bool_)
        gone = rng.random(shape[:2]) < 0.15  # hidden or missed in this frame, but not in all
        gone[:, 0] = False
        own, other = (self.video, self.live) if domain == "video" else (self.live, self.video)

        def seen_of(product: int) -> Tensor:
            near = first[product]
            return (own if len(near) else other)[rng.choice(near if len(near) else second[product], frames)]

        for i, product in enumerate(products):
            descriptors[i, ~gone[i], 0] = seen_of(product)[~gone[i]]
            if regions > 2 and domain == "live":  # another product lies about
                descriptors[i, :, 1] = seen_of(rng.choice(products))
                salience[i, :, 1] = rng.uniform(0.1, 0.6, frames)
        right[..., 0] = ~gone
        # In real frames the salience of what is shown has a median of 0.38.
        salience[..., 0] = np.where(gone, salience[..., 0], rng.uniform(0.15, 0.95, shape[:2]))
        number = np.broadcast_to(np.arange(frames)[None, :, None], shape).reshape(len(products), -1)
        words, told = self._speech(rng, torch.from_numpy(products))
        return Views(
            descriptors=descriptors.flatten(1, 2).float(),
            salience=torch.from_numpy(salience.reshape(len(products), -1)).float(),
            frame=torch.from_numpy(number.copy()),
            words=words,
            told=told,
            product=torch.from_numpy(products),
            right=torch.from_numpy(right.reshape(len(products), -1)),
        )

    def _speech(self, rng: np.random.Generator, ids: Tensor) -> tuple[Tensor, Tensor]:
        """What is said with each clip: mostly the product's name, now and then another's, or nothing that counts."""
        texts = self.texts
        which = torch.from_numpy(rng.integers(texts.spoken.shape[1], size=len(ids)))
        words, told = texts.spoken[ids, which], texts.told[ids, which]
        kind = torch.from_numpy(rng.random(len(ids)))
        misled, chatting = kind < MISLED, (kind >= MISLED) & (kind < MISLED + CHATTING)
        talk = torch.from_numpy(rng.integers(len(texts.chat), size=len(ids)))
        words = torch.where(misled.unsqueeze(1), words.roll(1, dims=0), words)
        words = torch.where(chatting.unsqueeze(1), texts.chat[talk], words)
        told = torch.where(chatting, texts.chat_told[talk], torch.where(misled, told.roll(1), told))
        told = told * torch.from_numpy(rng.random(len(ids)) < self.config.words)
        return words, told


def _by_product(product: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    """The rows of each product."""
    order = np.argsort(product, kind="stable")
    edges = np.searchsorted(product[order], np.arange(count + 1))
    return [order[start:end] for start, end in pairwise(edges)]


class RenderedObjective(nn.Module):
    """The objective on a batch of the sampler."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: tuple[Views, Views, Views]) -> dict[str, Tensor]:
        """Page, video and live clips of B products -> losses by name."""
        device = self.objective.model.attention.device
        page, video, live = (one.to(device) for one in batch)
        losses: dict[str, Tensor] = self.objective(page, video, live)
        return losses


def representation_stage(model: CopeModel, parts: Sequence[Part], texts: Texts, config: TrainConfig) -> Stage:
    """Trains projections, attention and fusion."""
    sampler = Sampler(parts, texts, config)
    objective = Objective(model, config, len(texts.titles))

    def batches(start: int) -> Iterator[Any]:
        with ThreadPoolExecutor(1) as ahead:  # while one batch is learned from, the next is drawn
            coming = ahead.submit(sampler.batch, start)
            for number in count(start + 1):
                batch = coming.result()
                coming = ahead.submit(sampler.batch, number)
                yield batch

    return Stage(
        name="representation",
        module=RenderedObjective(objective),
        groups=objective.groups(),
        batches=batches,
        steps=config.steps,
        batch_size=sampler.size,
        accumulate=config.accumulate,
        after_step=objective.after_step,
    )
