"""Items of an evaluation set as vectors: of a trained model, or of frozen towers without any training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from cope.evaluation.sets import EvaluationSet, blocks
from cope.modeling import DOMAINS, CopeModel, Domain
from cope.views import Views

Kind = Literal["vision", "fused"]


@dataclass(frozen=True)
class Side:
    """The items of one domain that have a vector.

    Attributes:
        vectors: (N, D) float32, L2-normalised.
        products: (N,) int64.
        rows: (N,) int64, of the evaluation set.
    """

    vectors: Tensor
    products: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Space:
    """All domains, by what is seen alone and by what is seen and said together."""

    vision: Mapping[Domain, Side]
    fused: Mapping[Domain, Side]

    def of(self, kind: Kind) -> Mapping[Domain, Side]:
        """One of the two."""
        return self.vision if kind == "vision" else self.fused


def pictured(views: Views) -> Tensor:
    """(B,) bool, the items of which there is anything to see."""
    return (views.frame >= 0).any(dim=1)


@torch.inference_mode()
def embedded(model: CopeModel, data: EvaluationSet, device: torch.device) -> Space:
    """Items as a model sees them. One without any picture is not in `vision`, one with nothing at all in neither."""
    vision: dict[Domain, Side] = {}
    fused: dict[Domain, Side] = {}
    for domain in DOMAINS:
        views = data.views[domain]
        seen: list[Tensor] = [torch.zeros(0, model.config.dim)]
        both: list[Tensor] = [torch.zeros(0, model.config.dim)]
        for rows in blocks(views):
            block = block_of(views, rows, device)
            # Words guide the attention over regions, so what is seen alone needs a pass without them.
            seen.append(model.embed(block.without_words(), domain).visual.float().cpu())
            both.append(model.embed(block, domain).fused.float().cpu())
        vision[domain] = _side(torch.cat(seen), views, pictured(views))
        fused[domain] = _side(torch.cat(both), views, pictured(views) | views.told)
    return Space(vision, fused)


@torch.inference_mode()
def frozen(data: EvaluationSet) -> Space:
    """Items as the frozen towers alone see them: what all training is to be compared with.

    As good as it can be had without learning: descriptors are standardised per domain by the mean and spread of the
    evaluated items themselves (which a service could not know in advance), averaged over an item's regions weighted by
    salience, and L2-normalised. Text vectors are centred per domain, since those of E5 lie within a narrow cone. The
    fused vector is picture and text side by side, so that its cosine is the mean of the two.
    """
    vision: dict[Domain, Side] = {}
    fused: dict[Domain, Side] = {}
    for domain in DOMAINS:
        views = data.views[domain]
        means: list[Tensor] = []
        for rows in blocks(views):
            block = block_of(views, rows, torch.device("cpu"))
            weight = block.salience * (block.frame >= 0)
            total = weight.sum(dim=1, keepdim=True).clamp_min(1e-9)
            means.append((weight.unsqueeze(1) @ block.descriptors).squeeze(1) / total)
        x = torch.cat(means) if means else torch.zeros(0, views.descriptors.shape[2])
        there, told = pictured(views), views.told
        picture = torch.where(there.unsqueeze(1), _standardised(x, there, scale=True), 0.0)
        text = torch.where(told.unsqueeze(1), _standardised(views.words.float(), told, scale=False), 0.0)
        vision[domain] = _side(picture, views, there)
        both = functional.normalize(torch.cat([picture, text], dim=1), dim=-1)
        fused[domain] = _side(both, views, there | told)
    return Space(vision, fused)


def block_of(views: Views, rows: Tensor, device: torch.device) -> Views:
    """Rows of views whose descriptors may be float16 and on disk: float32 on a device."""
    block = views.rows(rows)
    return Views(**{**vars(block), "descriptors": block.descriptors.float(), "words": block.words.float()}).to(device)


def _standardised(x: Tensor, real: Tensor, scale: bool) -> Tensor:
    """Centred (and scaled) by the rows that are real, then L2-normalised."""
    if int(real.sum()) > 1:
        x = x - x[real].mean(dim=0)
        x = x / x[real].std(dim=0).clamp_min(1e-3) if scale else x
    return functional.normalize(x, dim=-1)


def _side(vectors: Tensor, views: Views, there: Tensor) -> Side:
    rows = (there & (views.product >= 0)).nonzero().squeeze(1)
    return Side(vectors[rows].contiguous(), views.product[rows], rows)
