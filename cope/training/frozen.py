"""Training on frozen towers and rendered products, as cope-mini is: what the towers see is computed once and kept.

Two stages: where in a frame something is shown (the region finder), and what it is (everything else). The projections
start from closed forms, which are already better than the frozen towers.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cope.config import TrainConfig
from cope.data.items import Counts
from cope.data.listing import NO_PICTURE
from cope.domains import Domain
from cope.model.modeling import CopeModel, RegionFinder
from cope.model.views import NOBODY, Views
from cope.runtime.distributed import rank
from cope.towers.packaged import TextTower, VisionTower, finder_tower, text_tower, vision_tower
from cope.training.features import Features, Work, rendered
from cope.training.finder import take_finder
from cope.training.losses import finder_loss
from cope.training.objective import Objective
from cope.training.texts import Texts, kept
from cope.training.trainer import Group, Stage, Trainer
from cope.training.validation import directions

# Clips in which the host talks of something else, and in which what is said names nothing.
MISLED, CHATTING = 0.1, 0.15
SCENES_AT_ONCE = 16
FINDER_RATE = 2e-3


def train_rendered(
    trainer: Trainer, config: TrainConfig, data: Path, cache: Path, counts: Counts
) -> tuple[CopeModel, dict[str, float]]:
    """Trains a model on rendered products; returns it with its figures on rendered products of the other side.

    Args:
        trainer: Runs the stages.
        config: Configuration of the training run.
        data: Folder of objects and backgrounds.
        cache: Folder where features are kept. Runs that differ in nothing that is rendered may share it.
        counts: What the data's source has skipped so far; pictures that are left out are added.

    Returns:
        The model, and R@1 of single crops and page pictures, see `crops_evaluation`.

    Raises:
        UserError: The data are not there, or the configuration is not for frozen towers.
    """
    m = config.model
    vision = vision_tower(m.vision)
    see, read = cast(VisionTower, vision), cast(TextTower, text_tower(m.text))
    finder = cast(VisionTower | None, finder_tower(m, vision))
    model = CopeModel(m, () if finder is None else finder.map_channels, see.descriptor_width, read.width)
    if m.regions and not config.finder_steps:
        take_finder(model, config)

    # 1. What the towers see and read.
    def report(done: int, of: int) -> None:
        trainer.log.say(f"rendering  {done} of {of} parts")

    work = Work.of(config, data)
    skipped = Counts()
    _, unseen = rendered(replace(work, split="val", scenes=0), cache, report, skipped)
    products, features = rendered(work, cache, report, skipped)
    counts.add(NO_PICTURE, skipped[NO_PICTURE])  # the source has counted the rows of the list
    trainer.log.say(f"reading what is said about {len(products)} products")
    texts = kept(products, read, config, cache)

    # 2. Where something is shown.
    if m.regions and config.finder_steps:
        trainer.run(finder_stage(model, features, config))

    # 3. What it is.
    start_text(model, texts)
    stage = representation_stage(model, features, texts, config)
    figures = trainer.run(replace(stage, evaluate=crops_evaluation(model, unseen)))
    return model, figures


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


class Sampler:
    """Draws batches of products as pages, videos and live clips. Batch n depends on the seed, the process and n."""

    def __init__(self, features: Features, texts: Texts, config: TrainConfig) -> None:
        self.texts = texts
        self.config = config
        self.live = torch.from_numpy(features.live)
        self.video = torch.from_numpy(features.video)
        self.page = torch.from_numpy(features.page)
        count = int(features.page_product.max()) + 1
        self.live_of = [np.flatnonzero(features.live_product == i) for i in range(count)]
        self.video_of = [np.flatnonzero(features.video_product == i) for i in range(count)]
        self.page_of = [np.flatnonzero(features.page_product == i) for i in range(count)]
        self.no_live = np.flatnonzero(features.live_product == NOBODY)
        self.no_video = np.flatnonzero(features.video_product == NOBODY)
        self.shown = np.array([i for i in range(count) if len(self.live_of[i]) and len(self.video_of[i])])

    def batch(self, number: int) -> tuple[Views, Views, Views]:
        """Page, video and live clip of different products."""
        rng = np.random.default_rng([self.config.seed, 2, number, rank()])
        products = rng.choice(self.shown, min(self.config.batch_products, len(self.shown)), replace=False)
        return (
            self._page(rng, products),
            self._clip(rng, products, self.video, self.video_of, self.no_video, others=0.0),
            self._clip(rng, products, self.live, self.live_of, self.no_live, others=1.0),
        )

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

    def _clip(
        self,
        rng: np.random.Generator,
        products: NDArray[np.int64],
        crops: Tensor,
        crops_of: Sequence[NDArray[np.int64]],
        nothing: NDArray[np.int64],
        others: float,
    ) -> Views:
        """Clips as the finder makes them: in each frame the product, things that are not sold, and background.

        Args:
            rng: Source of the choice.
            products: (B,).
            crops: Crops of this domain.
            crops_of: Rows of each product.
            nothing: Rows that show none.
            others: Chance that a clip has another product lying about in all of its frames.
        """
        frames, regions = self.config.clip_frames, self.config.clip_regions
        shape = (len(products), frames, regions)
        rows = rng.choice(nothing, shape)
        salience = rng.uniform(0.02, 0.3, shape)
        right = np.zeros(shape, np.bool_)
        for i, product in enumerate(products):
            rows[i, :, 0] = rng.choice(crops_of[product], frames)
            if regions > 2 and rng.random() < others:
                rows[i, :, 1] = rng.choice(crops_of[rng.choice(self.shown)], frames)
                salience[i, :, 1] = rng.uniform(0.1, 0.75, frames)
        right[..., 0] = True
        salience[..., 0] = rng.uniform(0.45, 0.95, shape[:2])
        gone = rng.random(shape[:2]) < 0.15  # hidden or missed in this frame, but not in all
        gone[:, 0] = False
        rows[..., 0][gone] = rng.choice(nothing, int(gone.sum()))
        salience[..., 0][gone] = rng.uniform(0.02, 0.3, int(gone.sum()))
        right[..., 0][gone] = False
        number = np.broadcast_to(np.arange(frames)[None, :, None], shape).reshape(len(products), -1)
        words, told = self._speech(rng, torch.from_numpy(products))
        return Views(
            descriptors=crops[torch.from_numpy(rows.reshape(len(products), -1))].float(),
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


def representation_stage(model: CopeModel, features: Features, texts: Texts, config: TrainConfig) -> Stage:
    """Trains projections, attention and fusion."""
    sampler = Sampler(features, texts, config)
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
        batch_size=min(config.batch_products, len(sampler.shown)),
        accumulate=config.accumulate,
        after_step=objective.after_step,
    )
