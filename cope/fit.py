"""The two optimisations of `cope.train`: the region finder, and everything in the shared space."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cope.config import TrainConfig
from cope.data.scenes import NOTHING, Features
from cope.losses import finder_loss, info_nce, pairwise_sigmoid
from cope.modeling import CopeModel

Report = Callable[[int, int, dict[str, float]], None]  # step, of, what to show


@dataclass(frozen=True)
class Texts:
    """What is written of and said about products, through the frozen text tower.

    Attributes:
        titles: (P, F) one page text per product.
        spoken: (P, F) what a host calls it.
        named: (P,) bool; made-up things have no name.
        key: (P,) int64, equal for products of one name: words cannot tell those apart.
    """

    titles: Tensor
    spoken: Tensor
    named: Tensor
    key: Tensor


def schedule(step: int, steps: int, warm_up: float = 0.05) -> float:
    """Share of the peak learning rate: linear warm-up, then cosine to zero."""
    start = max(1, int(warm_up * steps))
    if step < start:
        return (step + 1) / start
    return 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, steps - start)))


def fit_finder(model: CopeModel, features: Features, config: TrainConfig, report: Report) -> None:
    """Trains the region finder on the kept maps. Scenes of unlike shape go into batches of their own."""
    rng = np.random.default_rng(config.seed)
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, maps in enumerate(features.maps):
        by_shape.setdefault(maps[0].shape, []).append(i)
    shapes = list(by_shape)
    share = np.array([len(by_shape[s]) for s in shapes]) / len(features.maps)
    model.finder.train()
    optimiser = torch.optim.AdamW(model.finder.parameters(), lr=2e-3, weight_decay=0.01)
    for step in range(config.finder_steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * schedule(step, config.finder_steps)
        members = by_shape[shapes[int(rng.choice(len(shapes), p=share))]]
        chosen = rng.choice(members, 16)
        levels = [
            torch.from_numpy(np.stack([features.maps[i][level] for i in chosen])).float()
            for level in range(len(features.maps[0]))
        ]
        truths = [torch.from_numpy(features.boxes[i]) for i in chosen]
        if rng.random() < 0.5:  # mirrored
            levels = [level.flip(3) for level in levels]
            truths = [torch.stack([1 - t[:, 2], t[:, 1], 1 - t[:, 0], t[:, 3]], dim=1) for t in truths]
        logits, boxes = model.finder(levels)
        salience, fit = finder_loss(logits, boxes, truths)
        optimiser.zero_grad()
        (salience + fit).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.finder.parameters(), 5.0)
        optimiser.step()
        report(step, config.finder_steps, {"salience": salience.item(), "boxes": fit.item()})
    model.finder.eval()


def start_projection(model: CopeModel, features: Features, shrinkage: float = 0.2) -> None:
    """Starts the visual projection as the discriminant axes of the frozen features.

    Directions in which one product's live views and page pictures differ (light, background, pose) are scaled
    down, those in which products differ are kept (LDA, as speaker recognition uses it). It is in closed form,
    so it cannot forget what the tower knows, and it carries over to products never seen.

    Args:
        model: Its `visual` is set.
        features: Of the training products.
        shrinkage: Share of the identity in the within-product covariance. Smaller trusts rare directions more.
    """
    shown = features.live_product != NOTHING
    x = torch.from_numpy(np.concatenate([features.live[shown], features.page])).float()
    ids = torch.from_numpy(np.concatenate([features.live_product[shown], features.page_product]))
    mean, scale = x.mean(dim=0), 1.0 / x.std(dim=0).clamp_min(1e-3)
    x = (x - mean) * scale
    count = int(ids.max()) + 1
    sums = torch.zeros(count, x.shape[1]).index_add_(0, ids, x)
    means = sums / torch.bincount(ids, minlength=count).clamp_min(1).unsqueeze(1)
    within = x - means[ids]
    covariance = (within.T @ within) / len(within)
    covariance = (1 - shrinkage) * covariance + shrinkage * torch.eye(len(covariance)) * covariance.diagonal().mean()
    values, vectors = torch.linalg.eigh(covariance)
    whiten = vectors / values.sqrt()  # (F, F): columns
    spread = means - means.mean(dim=0) if count > model.config.dim else x  # few products span too few axes
    _, _, axes = torch.linalg.svd(spread @ whiten, full_matrices=False)
    weight = (whiten @ axes[: model.config.dim].T).T  # (D, F)
    with torch.no_grad():
        model.visual.mean.copy_(mean)
        model.visual.scale.copy_(scale)
        # Unit mean length, so that the learned correction starts on an equal footing.
        model.visual.axes.weight.copy_(weight / (x @ weight.T).norm(dim=1).mean())


def start_text(model: CopeModel, texts: Texts) -> None:
    """Starts the text projection as the principal axes of the centred text vectors."""
    x = torch.cat([texts.titles[texts.named], texts.spoken[texts.named]])
    mean = x.mean(dim=0)
    _, _, axes = torch.linalg.svd(x - mean, full_matrices=False)
    with torch.no_grad():
        model.text.mean.copy_(mean)
        rows = min(len(axes), model.config.dim)
        model.text.axes.weight.zero_()
        model.text.axes.weight[:rows].copy_(axes[:rows])


class Sampler:
    """Draws batches of products with live crops, page pictures, clips and words."""

    def __init__(self, features: Features, texts: Texts | None, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.texts = texts
        self.live = torch.from_numpy(features.live)
        self.page = torch.from_numpy(features.page)
        count = int(features.page_product.max()) + 1
        self.live_of = [np.flatnonzero(features.live_product == i) for i in range(count)]
        self.page_of = [np.flatnonzero(features.page_product == i) for i in range(count)]
        self.nothing = np.flatnonzero(features.live_product == NOTHING)
        self.shown = [i for i in range(count) if len(self.live_of[i]) >= 2]

    def products(self, count: int) -> list[int]:
        """Different products, in random order."""
        return [int(i) for i in self.rng.choice(self.shown, min(count, len(self.shown)), replace=False)]

    def pick(self, rows: Sequence[NDArray[np.int64]], each: int) -> Tensor:
        """`each` random members of each row: (len(rows) * each,) int64."""
        return torch.from_numpy(np.concatenate([self.rng.choice(r, each, replace=len(r) < each) for r in rows]))

    def clips(self, products: Sequence[int], frames: int = 4) -> tuple[Tensor, Tensor, Tensor]:
        """Clips as the finder makes them: the product, one thing that is not sold, and background.

        Returns:
            Rows of `live` (B, R), saliences (B, R) and frame numbers (B, R), R = 3 regions in each frame.
        """
        b = len(products)
        rows = np.empty((b, frames, 3), np.int64)
        salience = np.empty((b, frames, 3), np.float32)
        for i, product in enumerate(products):
            rows[i, :, 0] = self.rng.choice(self.live_of[product], frames)
            other = self.shown[int(self.rng.integers(len(self.shown)))]
            rows[i, :, 1] = self.rng.choice(self.live_of[other], frames)
            rows[i, :, 2] = self.rng.choice(self.nothing, frames)
        salience[..., 0] = self.rng.uniform(0.45, 0.95, (b, frames))
        salience[..., 1] = self.rng.uniform(0.1, 0.75, (b, frames))
        salience[..., 2] = self.rng.uniform(0.02, 0.3, (b, frames))
        gone = self.rng.random((b, frames)) < 0.15  # hidden or missed in this frame
        rows[..., 0][gone] = self.rng.choice(self.nothing, int(gone.sum()))
        salience[..., 0][gone] = self.rng.uniform(0.02, 0.3, int(gone.sum()))
        number = np.broadcast_to(np.arange(frames)[None, :, None], rows.shape).reshape(b, -1)
        flat = torch.from_numpy(rows.reshape(b, -1))
        return flat, torch.from_numpy(salience.reshape(b, -1)), torch.from_numpy(number.copy())


def fit_visual(model: CopeModel, features: Features, config: TrainConfig, report: Report) -> None:
    """Trains the visual projection with contrastive losses between page pictures, video and live crops."""
    torch.manual_seed(config.seed)
    sampler = Sampler(features, None, config.seed)
    scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))
    pair = nn.Parameter(torch.tensor([math.log(20.0), -8.0]))  # of the sigmoid loss: log scale, bias
    optimiser = _optimiser(list(model.visual.parameters()), [scale, pair], config)
    peaks = [group["lr"] for group in optimiser.param_groups]
    model.visual.train()
    for step in range(config.visual_steps):
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * schedule(step, config.visual_steps)
        products = sampler.products(config.batch_products)
        ids = torch.tensor(products)
        # One showing passes as a live crop, the other as a short video's. Empty live crops are negatives.
        shown = sampler.pick([sampler.live_of[p] for p in products], 2).view(-1, 2)
        empty = torch.from_numpy(sampler.rng.choice(sampler.nothing, len(products) // 2))
        live_ids = torch.cat([ids, torch.full((len(empty),), NOTHING)])
        live = model.visual(sampler.live[torch.cat([shown[:, 0], empty])].float(), "live")
        video = model.visual(sampler.live[shown[:, 1]].float(), "video")
        page = model.visual(sampler.page[sampler.pick([sampler.page_of[p] for p in products], 1)].float(), "page")
        grown = scale.exp().clamp(max=100.0)
        losses = {
            "page-live": info_nce(page, ids, live, live_ids, grown, config.label_smoothing),
            "page-video": info_nce(page, ids, video, ids, grown, config.label_smoothing),
            "video-live": 0.5 * info_nce(video, ids, live, live_ids, grown, config.label_smoothing),
            "pairs": pairwise_sigmoid(live, live_ids, page, ids, pair[0].exp(), pair[1]),
        }
        _step(optimiser, losses)
        report(step, config.visual_steps, {k: v.item() for k, v in losses.items()})
    model.visual.eval()


def fit_fusion(model: CopeModel, features: Features, texts: Texts, config: TrainConfig, report: Report) -> None:
    """Trains words, attention and fusion on top of the finished visual space, which is computed once."""
    torch.manual_seed(config.seed)
    sampler = Sampler(features, texts, config.seed)
    with torch.inference_mode():
        live = torch.cat([model.visual(rows.float(), "live") for rows in torch.split(sampler.live, 4096)]).clone()
        page = torch.cat([model.visual(rows.float(), "page") for rows in torch.split(sampler.page, 4096)]).clone()
    scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))
    spaces = [*model.text.parameters(), *model.looks_like.parameters(), model.no_picture, model.no_text]
    optimiser = _optimiser(spaces, [model.attention, *model.text_share.parameters(), scale], config)
    peaks = [group["lr"] for group in optimiser.param_groups]
    for step in range(config.fusion_steps):
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * schedule(step, config.fusion_steps)
        losses = _fusion_losses(model, sampler, live, page, config, scale.exp().clamp(max=100.0))
        _step(optimiser, losses)
        report(step, config.fusion_steps, {k: v.item() for k, v in losses.items()})


def _fusion_losses(
    model: CopeModel, sampler: Sampler, live: Tensor, page: Tensor, config: TrainConfig, scale: Tensor
) -> dict[str, Tensor]:
    assert sampler.texts is not None  # noqa: S101 - given by fit_fusion
    rng, texts, smoothing = sampler.rng, sampler.texts, config.label_smoothing
    products = sampler.products(config.batch_products)
    ids = torch.tensor(products)
    named, key = texts.named[ids], texts.key[ids]
    pictures = page[sampler.pick([sampler.page_of[p] for p in products], 1)]

    # Page texts against what is said, and the look of what is named.
    titles, spoken = model.text(texts.titles[ids]), model.text(texts.spoken[ids])
    losses = {"text": 0.5 * info_nce(titles[named], key[named], spoken[named], key[named], scale, smoothing)}
    look = functional.normalize(model.looks_like(spoken[named]), dim=-1)
    losses["looks"] = 0.2 * info_nce(look, key[named], pictures, key, scale, smoothing)

    # Clips with and without words against pages with and without. Some hosts talk of something else.
    rows, salience, frame = sampler.clips(products)
    wrong = torch.from_numpy(rng.random(len(ids)) < 0.2)
    heard = torch.where(wrong.unsqueeze(1), spoken.roll(1, dims=0), spoken)
    told = torch.where(wrong, named.roll(1), named) & torch.from_numpy(rng.random(len(ids)) < 0.5)
    pooled = model.pool(live[rows], salience, frame, heard, told)
    clip = model.fuse(pooled, torch.ones_like(told), heard, told, "live")
    titled = named & torch.from_numpy(rng.random(len(ids)) < 0.9)
    pictured = torch.from_numpy(rng.random(len(ids)) < 0.95) | ~titled
    whole = model.fuse(pictures, pictured, titles, titled, "page")
    losses["fused"] = info_nce(clip, ids, whole, ids, scale, smoothing)
    return losses


def _optimiser(spaces: list[nn.Parameter], scalars: list[nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """Scalars move tenfold faster and do not decay: a weight of 0 means nothing for them."""
    return torch.optim.AdamW(
        [
            {"params": spaces, "lr": config.learning_rate, "weight_decay": config.weight_decay},
            {"params": scalars, "lr": 10 * config.learning_rate, "weight_decay": 0.0},
        ]
    )


def _step(optimiser: torch.optim.AdamW, losses: dict[str, Tensor]) -> None:
    optimiser.zero_grad()
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    for group in optimiser.param_groups:
        nn.utils.clip_grad_norm_(group["params"], 5.0)
    optimiser.step()
