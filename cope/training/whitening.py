"""A visual projection in closed form: within-class covariance normalisation (Hatch, Kajarekar and Stolcke, 2006).

Pictures of one product differ by light, pose, background and camera. Directions in which they differ much say little
about which product it is; the projection divides by that scatter, so that a cosine afterwards weighs each direction by
what it tells. Nothing is fitted to single products, so it holds on products that were never seen: of photos of
groceries whose classes it had not seen, it found the page among 40 for 59 % where the former learned projection found
it for 48 %, and the same projection trained further by InfoNCE for 53 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from cope.model.modeling import VisualProjection
from cope.model.views import NOBODY
from cope.training.features import Features

Matrix = NDArray[np.float64]

# As how many rows a space counts that is kept and changed: with 500 rows of ten new products, what they show counts for
# 14 %. Of products seen in neither, the page was found for 51.8 % of photos before, 52.8 % then, and 51.3 % where the
# new rows counted for 80 %.
ROWS_BEFORE = 3_000
# Rows of one data set that are looked at: enough for a scatter of 1,456 dimensions, and a minute's work on a CPU.
MOST_ROWS = 40_000


@dataclass(frozen=True)
class Rows:
    """Descriptors of one data set.

    Attributes:
        rows: (N, F) float32 of pages, videos and live clips.
        product: (N,) the product of each.
        weight: How much the data set counts.
    """

    rows: NDArray[np.float32]
    product: NDArray[np.int64]
    weight: float


def rows_of(features: Features, weight: float) -> Rows:
    """The rows of a data set that show a product, thinned evenly to at most `MOST_ROWS`."""
    several = [(features.page, features.page_product), (features.live, features.live_product)]
    if features.video is not features.live:
        several.append((features.video, features.video_product))
    product = np.concatenate([whose for _, whose in several])
    chosen = np.flatnonzero(product != NOBODY)
    chosen = chosen[:: -(-len(chosen) // MOST_ROWS)]
    return Rows(np.concatenate([x for x, _ in several])[chosen].astype(np.float32), product[chosen], weight)


def whiten(projection: VisualProjection, parts: Sequence[Rows], shrinkage: float, go_on: bool = False) -> None:
    """Computes the axes of a projection.

    Args:
        projection: Its axes are replaced.
        parts: At least one, in which some product has two rows.
        shrinkage: Share of the identity in the scatter, in (0, 1].
        go_on: The projection was whitened on other data: its space is kept, and changed by what these data show.
            The share of the identity, which is what it has learned, is then `ROWS_BEFORE` to all rows, but no less
            than `shrinkage`.
    """
    axes = projection.axes
    if projection.colours is not None and not go_on:
        mean = np.concatenate([part.rows[:, axes.in_features :] for part in parts]).mean(axis=0)
        projection.colours.copy_(torch.from_numpy(mean))
    parts = [replace(part, rows=part.rows[:, : axes.in_features]) for part in parts]
    if go_on:
        before, offset = axes.weight.double().numpy().T, axes.bias.double().numpy()
    else:
        everything = np.concatenate([part.rows for part in parts])
        spread = everything.std(axis=0, dtype=np.float64) + 1e-3
        before = np.diag(1 / spread)
        offset = -everything.mean(axis=0, dtype=np.float64) / spread
    seen = [Rows(part.rows @ before + offset, part.product, part.weight) for part in parts]
    width = before.shape[1]
    total = sum(part.weight for part in parts)
    within = np.zeros((width, width))
    for part in seen:
        one = _within(part)
        within += part.weight / total * one * (width / max(float(np.trace(one)), 1e-12))
    if go_on:
        shrinkage = max(shrinkage, ROWS_BEFORE / (ROWS_BEFORE + sum(len(part.rows) for part in seen)))
    within = (1 - shrinkage) * within + shrinkage * np.eye(width)
    values, vectors = np.linalg.eigh(within)
    whitening = vectors / np.sqrt(values)
    if go_on:  # turned back, since texts have learned where pictures lie
        whitening = whitening @ vectors.T
    dim = axes.out_features
    if dim < width:  # the directions in which pictures lie, each data set by its weight
        scatter = np.zeros((width, width))
        for part in seen:
            unit = part.rows @ whitening
            unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-9)
            scatter += part.weight / total * (unit.T @ unit) / len(unit)
        whitening = whitening @ np.linalg.eigh(scatter)[1][:, ::-1][:, :dim]
    weight, bias = before @ whitening, offset @ whitening
    with torch.no_grad():
        axes.weight.zero_()
        axes.bias.zero_()
        axes.weight[: weight.shape[1]].copy_(torch.from_numpy(weight.T))
        axes.bias[: len(bias)].copy_(torch.from_numpy(bias))


def _within(part: Rows) -> Matrix:
    """The mean scatter of rows about their product's mean; each product counts alike."""
    _, index, count = np.unique(part.product, return_inverse=True, return_counts=True)
    means = np.zeros((len(count), part.rows.shape[1]))
    np.add.at(means, index, part.rows)
    means /= count[:, None]
    off = (part.rows - means[index])[count[index] > 1]
    off = off / np.sqrt(count[index][count[index] > 1] - 1)[:, None]
    return np.asarray(off.T @ off / max(1, int((count > 1).sum())), np.float64)
