"""Boxes: overlap, and the choice of a frame's regions."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[Any]  # (N, 4): x0, y0, x1, y1


def overlap(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Intersection over union of each box with each other one: (N, 4), (M, 4) -> (N, M)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inner = np.clip(high - low, 0, None).prod(axis=2)
    area_a = (a[:, 2:] - a[:, :2]).prod(axis=1)
    area_b = (b[:, 2:] - b[:, :2]).prod(axis=1)
    return np.asarray(inner / np.maximum(area_a[:, None] + area_b[None] - inner, 1e-12), np.float64)


def best_regions(boxes: Boxes, salience: NDArray[Any], count: int, limit: float) -> tuple[Boxes, NDArray[np.float32]]:
    """The most salient boxes, without those that overlap a better one by more than `limit`.

    Args:
        boxes: (N, 4) relative.
        salience: (N,).
        count: Most that are kept.
        limit: IoU.

    Returns:
        Boxes (K, 4) and saliences (K,), best first. Of equal ones the first comes first.
    """
    order = np.argsort(-salience, kind="stable")[: 20 * count]
    candidates, free = boxes[order], np.ones(len(order), bool)
    kept: list[int] = []
    while len(kept) < count and free.any():
        best = int(free.argmax())
        kept.append(best)
        free &= overlap(candidates[best : best + 1], candidates)[0] <= limit
        free[best] = False
    chosen = order[kept]
    return boxes[chosen], salience[chosen].astype(np.float32)
