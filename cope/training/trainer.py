"""The training loop, and the one type of what it trains: a `Stage`.

`Trainer.run` reads from top to bottom: go on where a killed run has left off, take the steps, hand back the best
weights. Data, model and losses are the stage's affair (`cope.training.frozen`, `cope.training.pixels`).
"""

import contextlib
import hashlib
import math
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from cope.config import TrainConfig
from cope.data.items import Counts
from cope.errors import UserError
from cope.runtime.distributed import each_rank, rank, world
from cope.runtime.files import full_disk, whole
from cope.runtime.interruptions import Stopped, asked_to_stop, explained, out_of_memory
from cope.training.averaging import Average
from cope.training.checkpoint import Checkpoints, identity
from cope.training.log import Pending, TrainingLog

NORM = "norm/"  # before the names of gradient norms among the figures of a step


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate.

    Attributes:
        name: Groups of one name are clipped together, and their gradient norm is reported under it.
        parameters: Each in one group only. What is in none of a stage's groups is not optimised.
        rate: Peak learning rate.
        weight_decay: Weight decay of AdamW.
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
            its own device, names the same losses in all processes, and its `train()` leaves frozen towers in
            evaluation mode.
        groups: Parameters with their learning rates.
        batches: From the number of a batch on (0 at the start), an endless iterator that gives batch n the same way
            wherever it began: a resumed run sees what the killed one would have seen.
        steps: Optimiser steps.
        batch_size: Products (or scenes, ...) in a batch, for the throughput that is shown.
        accumulate: Batches whose gradients are averaged before a step.
        after_step: Called after each step with the current share of the peak rates in [0, 1].
        evaluate: `evaluate(module)` -> figures, larger is better; the first one decides which checkpoint is best.
            Called with the averaged weights in place where there are any. None, or never a figure: the last weights
            are the best.
        constant: Prefixes of names in the module's state that never change (frozen towers). A checkpoint leaves
            them out but for the parameters under them that require gradients.
        skipped: What this process's batches have left out so far; a resumed run goes on counting there.
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
    constant: tuple[str, ...] = ()
    skipped: Counts | None = None


def schedule(step: int, steps: int, warm_up: float = 0.05) -> float:
    """Share of the peak learning rate: linear warm-up, then cosine to zero."""
    start = max(1, int(warm_up * steps))
    if step < start:
        return (step + 1) / start
    return 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, steps - start)))


class Trainer:
    """Runs the stages of a run, one after the other, from where an earlier run of the same folder stopped."""

    def __init__(self, config: TrainConfig, out: Path, device: torch.device, data: str = "") -> None:
        """Opens the run's folder.

        Args:
            config: Configuration of the training run.
            out: Folder of the run.
            device: Device on which the stages' modules compute.
            data: Hash of the training data. A checkpoint of other data is refused.

        Raises:
            UserError: The folder holds checkpoints of another run, or cannot be written.
        """
        self.config, self.device = config, device
        self.checkpoints = Checkpoints(out / "checkpoints", identity(config, data, world()), rank() == 0)
        with full_disk(out):
            self.log = TrainingLog(out, chief=rank() == 0)
        # Reading a value from a GPU waits for all work before it, so there the losses are read every ten steps only.
        self._look_every = 1 if device.type == "cpu" else 10

    def run(self, stage: Stage) -> dict[str, float]:
        """Trains a stage to its end, and leaves its best weights in its module.

        Returns:
            The figures of the best evaluation; none if the stage has no evaluation.

        Raises:
            UserError: A loss is not a number, memory or disk are full. The last checkpoint is kept.
            Stopped: By Ctrl-C or SIGTERM, after a checkpoint.
        """
        # 1. Go on where a killed run has left off.
        with self._fitting(stage):
            stage.module.to(self.device)
            optimiser = _optimiser(stage.groups, self.device)
            average = Average(optimiser, self.config.ema) if self.config.ema else None
            progress = _Progress()
            found = self.checkpoints.load(f"{stage.name}.last", self.device)
            if found is not None:
                with whole(self.checkpoints.path(f"{stage.name}.last")):
                    _restore(stage, found["module"])
                    optimiser.load_state_dict(found["optimiser"])
                    if average is not None:
                        average.load(found["average"])
                    progress = _Progress(found["step"], found["best"], found["figures"], saved=found["step"])
                    if stage.skipped is not None:
                        stage.skipped.go_on(found["skipped"][rank()])
                self.log.say(f"{stage.name}  goes on after step {progress.step} of {stage.steps}")

        # 2. The steps.
        if progress.step < stage.steps:
            asked: list[int] = []
            try:
                with asked_to_stop(asked), full_disk(self.checkpoints.folder):
                    self._steps(stage, optimiser, average, progress, asked)
            except (RuntimeError, MemoryError) as error:
                where = f"step {progress.step + 1} of {stage.name}; {progress.kept()}"
                if asked:  # loader processes were asked too, and are gone
                    raise Stopped(asked[0], f"stopped in {where}; start the same command to go on") from None
                line = explained(error, self.device, where)
                if line is None:
                    raise
                raise UserError(line) from None
            finally:
                self.log.end()

        # 3. The best weights.
        with self._fitting(stage):
            best = self.checkpoints.load(f"{stage.name}.best", self.device)
            if best is not None:
                with whole(self.checkpoints.path(f"{stage.name}.best")):
                    _restore(stage, best["module"])
        stage.module.eval()
        return progress.figures

    @contextlib.contextmanager
    def _fitting(self, stage: Stage) -> Iterator[None]:
        """Says so in one line where weights and checkpoints, without any batch, do not fit into memory."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise UserError(
                f"out of memory on {self.device}: it cannot hold the weights and the checkpoint of {stage.name}; end "
                f"what else runs there, or choose another --device, and start the same command again"
            ) from None

    def _steps(
        self, stage: Stage, optimiser: Optimizer, average: Average | None, progress: "_Progress", asked: list[int]
    ) -> None:
        config = self.config
        module: nn.Module = stage.module
        held_back: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
        if world() > 1:
            # A batch without words or pictures leaves parameters unused.
            module = shared = DistributedDataParallel(module, find_unused_parameters=True)
            held_back = shared.no_sync
        module.train()
        self.log.begin(stage.name, progress.step, stage.steps, stage.batch_size * stage.accumulate * world())
        batches = stage.batches(progress.step * stage.accumulate)
        clipped = _by_name(stage.groups)
        pending = Pending(progress.step)

        for step in range(progress.step, stage.steps):
            _seed(config.seed, stage.name, step)
            share = schedule(step, stage.steps, config.warm_up)
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * share

            # Forward and backward: gradients of all batches of the step add up, and ranks exchange them once.
            figures: dict[str, Tensor] = {}
            for i in range(stage.accumulate):
                batch = pending.waited(batches)
                with held_back() if i < stage.accumulate - 1 else contextlib.nullcontext():
                    losses: dict[str, Tensor] = module(batch)
                    (torch.stack(list(losses.values())).sum() / stage.accumulate).backward()  # type: ignore[no-untyped-call]
                for key, loss in losses.items():
                    figures[key] = figures.get(key, 0.0) + loss.detach() / stage.accumulate

            # The step.
            for name, parameters in clipped.items():
                norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm)
                figures[NORM + name] = norm.to(self.device)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if average is not None:
                average.update(step)
            if stage.after_step is not None:
                stage.after_step(share)
            pending.add(figures)

            # What it came to. Nothing is evaluated or saved before the losses are known to be numbers.
            done = step + 1
            last = done == stage.steps
            evaluates = stage.evaluate is not None and (last or _every(config.evaluate_every, done))
            saves = last or _every(config.save_every, done)
            stops = False
            if evaluates or saves or _every(self._look_every, done):
                stops = self._look(stage, pending, progress, asked)
            progress.step = done
            if rank() == 0 and evaluates:
                self._evaluate(stage, average, progress)
            if rank() == 0 and last and progress.best is None:
                self._save_best(stage, average, progress)
            if saves or stops:
                skipped = each_rank({} if stage.skipped is None else stage.skipped.as_dict())
                if rank() == 0:
                    self._save_last(stage, optimiser, average, progress, skipped)
                progress.saved = done
            if evaluates or saves or stops:
                _wait()
                pending.restart()
            if stops:
                signum = asked[0] if asked else signal.SIGTERM  # another rank was asked
                raise Stopped(signum, f"stopped after step {done} of {stage.name}; start the same command to go on")

    def _look(self, stage: Stage, pending: Pending, progress: "_Progress", asked: list[int]) -> bool:
        """Reads and tells the figures of the steps since the last look; whether any process was asked to stop."""
        values = pending.values()
        told = torch.cat([values, torch.full_like(values[:1], float(bool(asked)))])
        if world() > 1:
            distributed.all_reduce(told)  # a figure that is not finite in one process is not finite in all
            told /= world()
        *numbers, stop = told.tolist()
        seconds, wait = pending.clock()
        steps = pending.read(numbers)
        for step, figures in steps:
            bad = next((name for name, value in figures.items() if not math.isfinite(value)), None)
            if bad is not None:
                what = f"the gradient of {bad.removeprefix(NORM)}" if bad.startswith(NORM) else f"the loss {bad!r}"
                raise UserError(
                    f"{what} is {figures[bad]} in step {step + 1} of {stage.name}; {progress.kept()}. Learn more "
                    f"slowly, with another --out: lower learning_rate, vision_rate and text_rate, a longer warm_up, or "
                    f"precision=float32"
                )
            losses = {name: value for name, value in figures.items() if not name.startswith(NORM)}
            rest = {name: value for name, value in figures.items() if name.startswith(NORM)}
            rest |= {"rate": schedule(step, stage.steps, self.config.warm_up), "data_wait": wait}
            self.log.step(step, losses, rest, seconds / len(steps))
        return bool(stop)

    def _evaluate(self, stage: Stage, average: Average | None, progress: "_Progress") -> None:
        if stage.evaluate is not None:
            stage.module.eval()
            with _averaged(average), torch.no_grad():
                figures = stage.evaluate(stage.module)
            stage.module.train()
            if not figures:
                at = f"{stage.name}  step {progress.step}"
                self.log.say(f"{at}  nothing to evaluate: no product was seen in two domains")
                return
            self.log.figures(progress.step, figures)
            first = next(iter(figures.values()))
            if progress.best is None or first > progress.best:
                progress.best, progress.figures = first, figures
                self._save_best(stage, average, progress)

    def _save_best(self, stage: Stage, average: Average | None, progress: "_Progress") -> None:
        with _averaged(average):
            state = {"module": _state(stage), "step": progress.step, "figures": progress.figures}
            self.checkpoints.save(f"{stage.name}.best", state)

    def _save_last(
        self,
        stage: Stage,
        optimiser: Optimizer,
        average: Average | None,
        progress: "_Progress",
        skipped: list[dict[str, int]],
    ) -> None:
        state = {
            "module": _state(stage),
            "optimiser": optimiser.state_dict(),
            "average": None if average is None else average.shadow,
            "step": progress.step,
            "best": progress.best,
            "figures": progress.figures,
            "skipped": skipped,
        }
        self.checkpoints.save(f"{stage.name}.last", state)


@dataclass
class _Progress:
    """How far a stage is: steps done, the best first figure and its evaluation, and the step last saved."""

    step: int = 0
    best: float | None = None
    figures: dict[str, float] = field(default_factory=dict)
    saved: int = 0

    def kept(self) -> str:
        return f"the checkpoint of step {self.saved} is kept" if self.saved else "there is no checkpoint yet"


def _every(count: int, done: int) -> bool:
    return count > 0 and done % count == 0


def _averaged(average: Average | None) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if average is None else average.in_place()


def _wait() -> None:
    """The first process writes and evaluates alone; the others must not run ahead of it."""
    if world() > 1:
        distributed.barrier()


def _optimiser(groups: Sequence[Group], device: torch.device) -> Optimizer:
    return torch.optim.AdamW(
        [
            {"params": list(g.parameters), "lr": g.rate, "peak": g.rate, "weight_decay": g.weight_decay}
            for g in groups
            if len(g.parameters)
        ],
        fused=device.type == "cuda",
    )


def _by_name(groups: Sequence[Group]) -> dict[str, list[nn.Parameter]]:
    named: dict[str, list[nn.Parameter]] = {}
    for group in groups:
        named.setdefault(group.name, []).extend(group.parameters)
    return named


def _state(stage: Stage) -> dict[str, Tensor]:
    learned = {name for name, p in stage.module.named_parameters() if p.requires_grad}
    state = stage.module.state_dict()
    return {k: v for k, v in state.items() if not k.startswith(stage.constant) or k in learned}


def _restore(stage: Stage, state: dict[str, Tensor]) -> None:
    stage.module.load_state_dict({**stage.module.state_dict(), **state})


def _seed(seed: int, stage: str, step: int) -> None:
    """All that is random in a step depends on its number alone, so a resumed run repeats a killed one."""
    digest = hashlib.sha256(f"{seed} {stage} {step} {rank()}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    np.random.seed(int.from_bytes(digest[8:12], "little"))
    random.seed(digest)
