"""Cross-domain few-shot classification: k items of each product from one domain, those of another to be classified."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cope.evaluation.ranking import TIE

# Of each product in an episode: more only repeat what these say, since an interval is over episodes.
QUERIES_EACH = 5

_Z95 = 1.959964  # two-sided 95 % of the normal distribution


@dataclass(frozen=True)
class FewShot:
    """Accuracy over episodes.

    Attributes:
        mean: In [0, 1].
        interval: Half width of its 95 % interval over episodes (1.96 standard errors).
        ways: Products of an episode, and so the classes that an item is told from.
        products: Those that have enough items in both domains to take part.
    """

    mean: float
    interval: float
    ways: int
    products: int


def few_shot(
    shots: Tensor,
    shot_ids: Tensor,
    queries: Tensor,
    query_ids: Tensor,
    k: int,
    ways: int,
    episodes: int = 200,
    seed: int = 0,
) -> FewShot | None:
    """Classifies items of one domain by the nearest mean of k items of each product of another (prototypes).

    An episode draws `ways` products, k shots of each and up to `QUERIES_EACH` queries of each. As in retrieval, ties
    count against the model.

    Args:
        shots: (N, D) L2-normalised.
        shot_ids: (N,) int64, the product of each; negative ones belong to none.
        queries: (M, D) L2-normalised.
        query_ids: (M,) int64.
        k: Shots of a product.
        ways: Products of an episode; of fewer that have k shots and a query, all.
        episodes: Drawn.
        seed: Seed of the draw.

    Returns:
        None if fewer than two products have k shots and a query.
    """
    rng = np.random.default_rng([seed, k])
    shot_rows, query_rows = _rows(shot_ids), _rows(query_ids)
    able = [p for p in sorted(shot_rows) if len(shot_rows[p]) >= k and p in query_rows]
    if len(able) < 2:
        return None
    ways = min(ways, len(able))
    found = []
    for _ in range(episodes):
        products = [able[int(i)] for i in rng.choice(len(able), ways, replace=False)]
        support = torch.from_numpy(np.stack([rng.choice(shot_rows[p], k, replace=False) for p in products]))
        asked = [rng.choice(query_rows[p], min(QUERIES_EACH, len(query_rows[p])), replace=False) for p in products]
        label = torch.repeat_interleave(torch.arange(ways), torch.tensor([len(rows) for rows in asked]))
        prototypes = functional.normalize(shots[support.flatten()].view(ways, k, -1).mean(dim=1), dim=-1)
        scores = queries[torch.from_numpy(np.concatenate(asked))] @ prototypes.T  # (Q, ways)
        own = scores.gather(1, label.unsqueeze(1)).squeeze(1).clone()
        best_other = scores.scatter(1, label.unsqueeze(1), float("-inf")).amax(dim=1)
        found.append(float((own - TIE > best_other).float().mean()))
    spread = float(np.std(found, ddof=1)) if episodes > 1 else 0.0
    return FewShot(float(np.mean(found)), _Z95 * spread / math.sqrt(episodes), ways, len(able))


def _rows(ids: Tensor) -> dict[int, NDArray[np.int64]]:
    """The rows of each product."""
    if not len(ids):  # `np.split` makes one part of nothing
        return {}
    values = ids.numpy()
    order = np.argsort(values, kind="stable")
    found, starts = np.unique(values[order], return_index=True)
    parts = np.split(order, starts[1:])
    return {int(p): part for p, part in zip(found, parts, strict=True) if p >= 0}
