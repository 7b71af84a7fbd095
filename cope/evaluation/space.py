"""Items of an evaluation set as vectors: of a trained model, or of frozen towers without any training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from cope.domains import DOMAINS, Domain
from cope.evaluation.sets import EvaluationSet, blocks
from cope.model.modeling import CopeModel
from cope.model.views import Views

Kind = Literal["vision", "fused"]

# How frozen descriptors are made comparable. Each step is learned from nothing but means and spreads.
Standard = Literal["raw", "all", "domain"]


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
        fused[domain] = _side(torch.cat(both), views, pictured(views) | (views.told > 0))
    return Space(vision, fused)


@torch.inference_mode()
def frozen(data: EvaluationSet, standard: Standard = "all") -> Space:
    """Items as the frozen towers alone see them: what all training is to be compared with.

    Descriptors are averaged over an item's regions weighted by salience, standardised and L2-normalised. Text vectors
    are centred likewise, since those of E5 lie within a narrow cone. The fused vector is picture and text side by side,
    so that its cosine is the mean of the two.

    Args:
        data: The items as towers see them that nobody has tuned (see `cope.evaluation.describing.Describer`).
        standard: `all`: by mean and spread over all items, which is what is usually meant. `domain`: by those of each
            domain, which takes the gap between domains away without learning, but needs to know the evaluated items.
            `raw`: not at all.
    """
    pictures = {domain: _mean_descriptors(data.views[domain]) for domain in DOMAINS}
    texts = {domain: data.views[domain].words.float() for domain in DOMAINS}
    seen = {domain: pictured(data.views[domain]) for domain in DOMAINS}
    told = {domain: data.views[domain].told > 0 for domain in DOMAINS}
    groups: dict[Standard, list[tuple[Domain, ...]]] = {
        "raw": [],
        "all": [DOMAINS],
        "domain": [(domain,) for domain in DOMAINS],
    }
    for group in groups[standard]:
        _standardise(pictures, seen, group, scale=True)
        _standardise(texts, told, group, scale=False)
    vision: dict[Domain, Side] = {}
    fused: dict[Domain, Side] = {}
    for domain in DOMAINS:
        views = data.views[domain]
        picture = torch.where(seen[domain].unsqueeze(1), functional.normalize(pictures[domain], dim=-1), 0.0)
        text = torch.where(told[domain].unsqueeze(1), functional.normalize(texts[domain], dim=-1), 0.0)
        both = functional.normalize(torch.cat([picture, text], dim=1), dim=-1)
        vision[domain] = _side(picture, views, seen[domain])
        fused[domain] = _side(both, views, seen[domain] | told[domain])
    return Space(vision, fused)


def _mean_descriptors(views: Views) -> Tensor:
    """(B, F), over regions weighted by salience; zeros where there are none."""
    means = [torch.zeros(0, views.descriptors.shape[2])]
    for rows in blocks(views):
        block = block_of(views, rows, torch.device("cpu"))
        weight = block.salience * (block.frame >= 0)
        total = weight.sum(dim=1, keepdim=True).clamp_min(1e-9)
        means.append((weight.unsqueeze(1) @ block.descriptors).squeeze(1) / total)
    return torch.cat(means)


def _standardise(
    vectors: dict[Domain, Tensor], real: Mapping[Domain, Tensor], group: Sequence[Domain], scale: bool
) -> None:
    """Centres (and scales) the vectors of some domains together, in place, by the rows that are real."""
    together = torch.cat([vectors[domain][real[domain]] for domain in group])
    if len(together) < 2:
        return
    mean, spread = together.mean(dim=0), together.std(dim=0).clamp_min(1e-3)
    for domain in group:
        vectors[domain] = (vectors[domain] - mean) / (spread if scale else 1.0)


def block_of(views: Views, rows: Tensor, device: torch.device) -> Views:
    """Rows of views whose descriptors may be float16 and on disk: float32 on a device."""
    block = views.rows(rows)
    return Views(**{**vars(block), "descriptors": block.descriptors.float(), "words": block.words.float()}).to(device)


def _side(vectors: Tensor, views: Views, there: Tensor) -> Side:
    rows = (there & (views.product >= 0)).nonzero().squeeze(1)
    return Side(vectors[rows].contiguous(), views.product[rows], rows)
