"""A tiny training run as a process of its own, for tests that kill one: `python trainer_run.py OUT [STEP SIGNAL]`.

The process sends itself the signal as soon as it is asked for the batch of STEP.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cope.config import TrainConfig
from cope.errors import UserError
from cope.runtime.device import processes
from cope.runtime.interruptions import Stopped
from cope.training.trainer import Group, Stage, Trainer

CONFIG = replace(TrainConfig(), steps=12, save_every=5, evaluate_every=4, ema=0.9, learning_rate=1e-2, batch_products=8)


class Line(nn.Module):
    """Fits a line. Dropout makes its losses depend on the random state."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)
        self.layer = nn.Linear(4, 1)
        nn.init.constant_(self.layer.weight, 0.3)
        nn.init.zeros_(self.layer.bias)
        self.tower = nn.Linear(4, 4).requires_grad_(False)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        x, y = batch
        missed = self.layer(self.drop(x)).squeeze(1) - y
        return {"square": missed.square().mean(), "straight": 0.1 * missed.abs().mean()}


def batches(size: int = 8, before: Callable[[int], None] = lambda number: None) -> Callable[[int], Iterator[Any]]:
    def begin(start: int) -> Iterator[Any]:
        number = start
        while True:
            before(number)
            x = torch.randn(size, 4, generator=torch.Generator().manual_seed(number))
            yield x, x.sum(dim=1)
            number += 1

    return begin


def closeness(module: nn.Module) -> dict[str, float]:
    assert isinstance(module, Line)
    return {"closeness": -float((module.layer.weight - 1).abs().sum())}


def stage(module: nn.Module, config: TrainConfig = CONFIG, **changes: Any) -> Stage:
    learned = [p for p in module.parameters() if p.requires_grad]
    values: dict[str, Any] = {
        "name": "line",
        "module": module,
        "groups": [Group("heads", learned, config.learning_rate, config.weight_decay)],
        "batches": batches(config.batch_products),
        "steps": config.steps,
        "batch_size": config.batch_products,
        "accumulate": config.accumulate,
        "evaluate": closeness if isinstance(module, Line) else None,
        "constant": ("tower.",),
    }
    return Stage(**{**values, **changes})


def main() -> None:
    def end(number: int) -> None:
        if len(sys.argv) > 2 and number == int(sys.argv[2]):
            os.kill(os.getpid(), signal.Signals[sys.argv[3]])

    with processes("cpu") as device:
        try:
            Trainer(CONFIG, Path(sys.argv[1]), device, "data").run(stage(Line(), batches=batches(8, end)))
        except Stopped as stopped:
            print(stopped, file=sys.stderr)
            sys.exit(128 + stopped.signum)
        except UserError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
