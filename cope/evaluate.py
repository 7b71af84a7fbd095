"""Retrieval figures by the paper's protocol: a query is right if any of its positives is among the first K."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Queries per block: 1,024 x 66,000 float32 scores are 270 MB.
BLOCK = 1024


@dataclass(frozen=True)
class Retrieval:
    """Figures of one direction, each in [0, 1]."""

    r1: float
    r5: float
    r10: float
    mean_average_precision: float
    queries: int


def retrieval(queries: Tensor, query_ids: Tensor, gallery: Tensor, gallery_ids: Tensor) -> Retrieval:
    """Exact search in blocks.

    Args:
        queries: (N, D) L2-normalised.
        query_ids: (N,) product of each. Queries without a positive in the gallery do not count.
        gallery: (M, D) L2-normalised.
        gallery_ids: (M,).

    Returns:
        R@1, R@5, R@10 by the any-positive rule, and mAP.
    """
    known = torch.isin(query_ids, gallery_ids)
    queries, query_ids = queries[known], query_ids[known]
    hits = {1: 0, 5: 0, 10: 0}
    precision = 0.0
    for at in range(0, len(queries), BLOCK):
        scores = queries[at : at + BLOCK] @ gallery.T
        order = scores.argsort(dim=1, descending=True, stable=True)
        right = gallery_ids[order] == query_ids[at : at + BLOCK].unsqueeze(1)  # (b, M)
        for k in hits:
            hits[k] += int(right[:, :k].any(dim=1).sum())
        ranks = torch.arange(1, right.shape[1] + 1)
        found = right.cumsum(dim=1) / ranks * right
        precision += float((found.sum(dim=1) / right.sum(dim=1)).sum())
    n = max(len(queries), 1)
    return Retrieval(hits[1] / n, hits[5] / n, hits[10] / n, precision / n, len(queries))


def rejection(known: Tensor, unknown: Tensor, false_alarms: float = 0.01) -> float:
    """Share of known things that score above the threshold at which `false_alarms` of unknown ones do.

    Args:
        known: (N,) best score of things that are in the catalogue, 0 or less where the best one is wrong.
        unknown: (M,) best score of things that are not.
        false_alarms: Share of unknown things that may pass.
    """
    if not len(known) or not len(unknown):
        return 0.0
    threshold = unknown.quantile(1.0 - false_alarms)
    return float((known > threshold).float().mean())


def expected_calibration_error(probabilities: Sequence[float], truths: Sequence[bool], bins: int = 10) -> float:
    """Mean distance between stated probability and observed share, over equal-width bins weighted by size."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    t = torch.tensor(truths, dtype=torch.float64)
    index = (p * bins).long().clamp(max=bins - 1)
    error = 0.0
    for b in range(bins):
        inside = index == b
        if bool(inside.any()):
            error += float(inside.double().mean() * (p[inside].mean() - t[inside].mean()).abs())
    return error
