"""Averaged weights, which are evaluated and saved in place of the last ones."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer


class Average:
    """Exponential moving average of the weights that an optimiser moves, in float32."""

    def __init__(self, optimiser: Optimizer, decay: float) -> None:
        self._decay = decay
        self._weights = [p for group in optimiser.param_groups for p in group["params"]]
        self.shadow = [p.detach().float().clone() for p in self._weights]

    def update(self, step: int) -> None:
        """After step number `step`. Early averages look back less far, or the start would weigh for long."""
        decay = min(self._decay, (1 + step) / (10 + step))
        now = [p.detach().float() for p in self._weights]
        torch._foreach_lerp_(self.shadow, now, 1 - decay)

    def load(self, shadow: list[Tensor]) -> None:
        """Takes over what `shadow` was."""
        for mine, theirs in zip(self.shadow, shadow, strict=True):
            mine.copy_(theirs)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The module computes with the averaged weights."""
        now = [p.detach().clone() for p in self._weights]
        try:
            self._put(self.shadow)
            yield
        finally:
            self._put(now)

    def _put(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._weights, values, strict=True):
                parameter.copy_(value)
