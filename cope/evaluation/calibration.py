"""How far stated probabilities can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability curve.

    Attributes:
        low: Lower edge of the bin.
        high: Upper edge of the bin. It belongs to the next bin, except in the last.
        stated: Mean stated probability of its samples.
        observed: Share of its samples that were true.
        count: Number of its samples.
    """

    low: float
    high: float
    stated: float
    observed: float
    count: int


def reliability(probabilities: Sequence[float], truths: Sequence[bool], bins: int = 10) -> list[Bin]:
    """The reliability curve over bins of equal width; empty bins are left out."""
    p, t = np.asarray(probabilities, np.float64), np.asarray(truths, np.float64)
    index = np.minimum((p * bins).astype(np.int64), bins - 1)
    curve = []
    for b in range(bins):
        inside = index == b
        if inside.any():
            curve.append(
                Bin(b / bins, (b + 1) / bins, float(p[inside].mean()), float(t[inside].mean()), int(inside.sum()))
            )
    return curve


def curve_error(curve: Sequence[Bin]) -> float:
    """The expected calibration error of a curve: the mean distance of its bins from the diagonal, by their size."""
    total = sum(b.count for b in curve)
    return sum(b.count * abs(b.stated - b.observed) for b in curve) / max(total, 1)


def expected_calibration_error(probabilities: Sequence[float], truths: Sequence[bool], bins: int = 10) -> float:
    """Mean distance between stated probability and observed share, over equal-width bins weighted by size."""
    return curve_error(reliability(probabilities, truths, bins))
