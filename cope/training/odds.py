"""Fits a `Calibration`: from the features of windows' candidates to the odds that each is being shown.

The candidates of a window compete with each other and with "none of them", so that of two that look alike the one that
was named wins. Windows of few products give a logistic regression, those of more a hidden layer beside it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from cope.model.scoring import FEATURES, Calibration, MatchFeatures, Unit, feature_values, unheard

# Products that must have been shown for a hidden layer. In four folds over 28 things, each judged by fits that had not
# seen it, it was better than a logistic regression with 19 things to learn from, no better with 12, and worse with 8.
PRODUCTS_FOR_UNITS = 16
UNITS, NETWORKS = 8, 2  # a mean of networks of eight units each
STEPS, BATCH, LEARNING_RATE, DECAY = 600, 512, 0.02, 1e-3
# Recognition judges single frames too, as if nothing had been said: so is each third window, once more.
MUTED = 3


@dataclass(frozen=True)
class Sample:
    """One window and its candidates.

    Attributes:
        candidates: How well each fits.
        shown: Which of them is being shown; -1 for none of them.
        refused: Which of them is not being shown, where nothing is known of the others; -1 where it is.
        products: Their ids.
    """

    candidates: list[MatchFeatures]
    shown: int
    refused: int = -1
    products: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Windows:
    """Windows as tensors.

    Attributes:
        features: (N, C, F) float64; 0 where there is no candidate.
        real: (N, C) bool: where there is one.
        possible: (N, 1 + C) bool: what may be true, "none of them" first: the one thing that is known, or all but what
            is refused.
        counts: (N,) float64, how much each counts; in all 1.
    """

    features: Tensor
    real: Tensor
    possible: Tensor
    counts: Tensor

    def losses(self, scores: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """(N,): of the scores of candidates, (N, C), in these rows."""
        scores = scores.masked_fill(~self.real[rows], float("-inf"))
        logits = torch.cat([scores.new_zeros(len(scores), 1), scores], dim=1)
        return logits.logsumexp(dim=1) - logits.masked_fill(~self.possible[rows], float("-inf")).logsumexp(dim=1)


def fit(found: Sequence[Sample], counts: Sequence[float] | None = None, steps: int = 400) -> Calibration:
    """Fits what the filter over time weighs.

    The weights of a logistic regression are not negative: better evidence never lowers a probability. With a hidden
    layer it may: speech that resembles a page a little, and another page more, speaks against it.

    Args:
        found: Windows.
        counts: How much each counts; None: all the same.
        steps: Of the optimiser of a logistic regression, at most.
    """
    counts = [1.0] * len(found) if counts is None else counts
    shown = {sample.products[sample.shown] for sample in found if sample.shown >= 0 and sample.products}
    enough = len(shown) >= PRODUCTS_FOR_UNITS
    fitted = _hidden_layer(_with_muted(found, counts)) if enough else _logistic(_windows(found, counts), steps)
    listed = math.fsum(count for sample, count in zip(found, counts, strict=True) if sample.shown >= 0)
    pairs = math.fsum(count * len(sample.candidates) for sample, count in zip(found, counts, strict=True))
    return replace(fitted, prior=round(listed / pairs, 6))


def _windows(found: Sequence[Sample], counts: Sequence[float]) -> _Windows:
    most = max(len(sample.candidates) for sample in found)
    features = torch.zeros(len(found), most, len(FEATURES), dtype=torch.float64)
    real = torch.zeros(len(found), most, dtype=torch.bool)
    possible = functional.one_hot(torch.tensor([sample.shown for sample in found]) + 1, most + 1).bool()
    for row, sample in enumerate(found):
        values = [feature_values(candidate) for candidate in sample.candidates]
        features[row, : len(values)] = torch.tensor(values, dtype=torch.float64)
        real[row, : len(values)] = True
        if sample.refused >= 0:
            possible[row] = True
            possible[row, sample.refused + 1] = False
    each = torch.tensor(counts, dtype=torch.float64)
    return _Windows(features, real, possible, each / each.sum())


def _with_muted(found: Sequence[Sample], counts: Sequence[float]) -> _Windows:
    """The windows, and each third one once more."""
    muted = [replace(sample, candidates=[unheard(one) for one in sample.candidates]) for sample in found[::MUTED]]
    return _windows([*found, *muted], [*counts, *counts[::MUTED]])


def _logistic(windows: _Windows, steps: int) -> Calibration:
    x, real = windows.features.clone(), windows.real
    # Look-alikes that are in no catalogue carry most of the words of one that is: without the cosines beside it, as a
    # hidden layer has them, it says too little against them.
    x[..., FEATURES.index("read")] = 0.0
    varies = x[real].std(dim=0)
    spread = varies.clamp_min(1e-3)
    free = torch.full((x.shape[2],), -1.0, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([free, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        weights = functional.softplus(free)
        losses = windows.losses((x / spread) @ weights + bias)
        value = (windows.counts * losses).sum() + 1e-4 * (weights**2).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    weights = (functional.softplus(free) / spread).detach()
    # Nothing is known of a feature that never varies: say, words of a model that does not read.
    weights[varies == 0] = 0.0
    return Calibration(_named(weights), round(float(bias.detach()), 5), 0.5)


class _Network(nn.Module):
    """Features, (..., F) -> logits (...): a linear layer, and a hidden one that starts without a say."""

    def __init__(self, draws: torch.Generator) -> None:
        super().__init__()
        self.linear, self.inner = nn.Linear(len(FEATURES), 1), nn.Linear(len(FEATURES), UNITS)
        self.outer = nn.Linear(UNITS, 1)
        for parameter in (*self.linear.parameters(), *self.inner.parameters()):
            nn.init.uniform_(parameter, -(len(FEATURES) ** -0.5), len(FEATURES) ** -0.5, generator=draws)
        for parameter in self.outer.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = (self.linear(x) + self.outer(torch.tanh(self.inner(x)))).squeeze(-1)
        return found


def _hidden_layer(windows: _Windows) -> Calibration:
    """The mean of a few networks."""
    mean, varies = windows.features[windows.real].mean(dim=0), windows.features[windows.real].std(dim=0)
    # Nothing is known of a feature that never varies.
    scale = torch.where(varies > 0, 1.0 / varies.clamp_min(1e-3), 0.0)
    x = ((windows.features - mean) * scale).float()
    draws = torch.Generator().manual_seed(0)
    weights, bias, units = torch.zeros_like(mean), 0.0, list[Unit]()
    for _ in range(NETWORKS):
        network = _Network(draws)
        _descend(network, x, windows, draws)
        # Recognition takes features as they are, so their mean and scale go into the weights and biases.
        linear, inner = network.linear.weight[0].detach() * scale, network.inner.weight.detach() * scale
        weights += linear / NETWORKS
        bias += (network.linear.bias.item() + network.outer.bias.item() - float(linear @ mean)) / NETWORKS
        biases, shares = network.inner.bias.detach() - inner @ mean, network.outer.weight[0].detach() / NETWORKS
        units += [
            Unit(_named(row), round(float(base), 5), round(float(share), 5))
            for row, base, share in zip(inner, biases, shares, strict=True)
        ]
    return Calibration(_named(weights), round(bias, 5), 0.5, units=tuple(units))


def _descend(network: _Network, x: Tensor, windows: _Windows, draws: torch.Generator) -> None:
    parameters = list(network.parameters())
    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        rows = torch.multinomial(windows.counts, BATCH, replacement=True, generator=draws)
        loss = windows.losses(network(x[rows]), rows).mean()
        loss = loss + DECAY * torch.stack([one.square().sum() for one in parameters]).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()


def _named(weights: Tensor) -> dict[str, float]:
    return {name: round(float(weight), 5) for name, weight in zip(FEATURES, weights, strict=True)}
