"""The training loop, and the one type of what it trains: a `Stage`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate.

    Attributes:
        name: Groups of one name are clipped together, and their gradient norm is reported under it.
        parameters: Each in one group only. What is in none of a stage's groups is not optimised.
        rate: Peak learning rate.
        weight_decay: Of AdamW.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    rate: float
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Stage:
    """One optimisation: a module, its data and its length.

    Attributes:
        name: In logs, metrics and the names of checkpoints.
        module: `forward(batch)` -> dict of losses, already weighted: their sum is minimised. It moves the batch to
            its own device, and its `train()` leaves frozen towers in evaluation mode.
        groups: What is optimised, and how fast.
        batches: From the number of a batch on (0 at the start), an endless iterator that gives batch n the same way
            wherever it began: a resumed run sees what the killed one would have seen.
        steps: Optimiser steps.
        batch_size: Products (or scenes, ...) in a batch, for the throughput that is shown.
        accumulate: Batches whose gradients are averaged before a step.
        after_step: Called after each step with the current share of the peak rates in [0, 1].
        evaluate: `evaluate(module)` -> figures, larger is better; the first one decides which checkpoint is best.
            Called with the averaged weights in place where there are any. None: the last weights are the best.
        constant: Prefixes of names in the module's state that never change (frozen towers). A checkpoint leaves
            them out but for the parameters under them that require gradients.
    """

    name: str
    module: nn.Module
    groups: Sequence[Group]
    batches: Callable[[int], Iterator[Any]]
    steps: int
    batch_size: int
    accumulate: int = 1
    after_step: Callable[[float], None] | None = None
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None
    constant: tuple[str, ...] = field(default=())
