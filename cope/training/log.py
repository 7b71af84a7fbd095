"""Progress and figures of a training run: a bar on a terminal or plain lines in a log, JSON lines, and TensorBoard.

OUT/metrics.jsonl     a line per step: losses, gradient norms, throughput; and a line per evaluation
OUT/tensorboard/      the same for `tensorboard --logdir OUT`, where the package is installed
"""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from rich.console import Console
from torch import Tensor

from cope.runtime.files import write_text_whole
from cope.runtime.progress import Progress


class TrainingLog:
    """The one place where a run's figures go. In other processes than the first it says nothing."""

    def __init__(self, out: Path, chief: bool = True, console: Console | None = None) -> None:
        """Opens the files.

        Args:
            out: The run's folder.
            chief: Whether this process is the one that tells.
            console: Where to tell; None for standard error.
        """
        self._chief = chief
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._path = out / "metrics.jsonl"
        self._file: IO[str] | None = None
        self._board: Any = None
        self._progress = Progress(self._console, "step")
        self._name, self._steps, self._batch = "", 0, 0
        if chief:
            out.mkdir(parents=True, exist_ok=True)
            self._board = _board(out / "tensorboard")
            if self._board is None:
                self.say("no TensorBoard metrics: pip install 'cope-live[train]' brings them")

    def say(self, line: str) -> None:
        """Prints a line."""
        if self._chief:
            self._console.print(line, markup=False)

    def begin(self, name: str, step: int, steps: int, batch: int) -> None:
        """A stage begins or goes on.

        Args:
            name: Name of the stage.
            step: Steps that are done. What the metrics say of later ones is of a run that was killed, and is
                dropped: they come again.
            steps: Steps in all.
            batch: Products (or scenes) in a step, over all processes.
        """
        if not self._chief:
            return
        self._name, self._steps, self._batch = name, steps, batch
        _drop(self._path, name, step)
        self._file = self._path.open("a", encoding="utf-8")
        self._progress.begin(name, steps, step)

    def step(self, step: int, losses: dict[str, float], rest: dict[str, float], seconds: float) -> None:
        """A step is done.

        Args:
            step: Number of the step, from 0.
            losses: Their sum is what is minimised.
            rest: Other figures of the step.
            seconds: Time that the step took.
        """
        if not self._chief:
            return
        loss, speed = sum(losses.values()), self._batch / max(seconds, 1e-9)
        self._write({"stage": self._name, "step": step + 1, "loss": loss, "losses": losses, **rest, "per_s": speed})
        if self._board is not None:
            for key, value in {"loss": loss, "per_s": speed, **losses, **rest}.items():
                self._board.add_scalar(f"{self._name}/{key}", value, step + 1)
        wait = 100 * rest.get("data_wait", 0.0)
        parts = "" if len(losses) == 1 else "  " + "  ".join(f"{key} {value:.3f}" for key, value in losses.items())
        told = f"{speed:.0f}/s  {wait:.0f}% data wait  loss {loss:.3f}{parts}"
        self._progress(self._name, step + 1, self._steps, told)

    def figures(self, step: int, figures: dict[str, float]) -> None:
        """An evaluation is done, after `step` steps."""
        if not self._chief:
            return
        self._write({"stage": self._name, "step": step, "figures": figures})
        if self._board is not None:
            for key, value in figures.items():
                self._board.add_scalar(f"{self._name}/evaluation/{key}", value, step)
        shown = "  ".join(f"{key} {value:.3f}" for key, value in list(figures.items())[:4])
        self.say(f"{self._name}  step {step}  evaluated: {shown}")

    def end(self) -> None:
        """The stage is over, for whatever reason."""
        self._progress.close()
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """The run is over."""
        self.end()
        if self._board is not None:
            self._board.close()
            self._board = None

    def _write(self, values: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()


class Pending:
    """Figures of steps that were not read yet. They stay on the device, since reading them would stall the queue."""

    def __init__(self, step: int) -> None:
        """Starts the clock.

        Args:
            step: The first that will be added.
        """
        self._step = step
        self._rows: list[tuple[tuple[str, ...], Tensor]] = []
        self._wait_s, self._since = 0.0, time.perf_counter()

    def waited(self, batches: Iterator[Any]) -> Any:
        """The next batch; the time until it is there counts as data wait."""
        began = time.perf_counter()
        batch = next(batches)
        self._wait_s += time.perf_counter() - began
        return batch

    def add(self, figures: dict[str, Tensor]) -> None:
        """Scalars of a step."""
        self._rows.append((tuple(figures), torch.stack([value.detach().float() for value in figures.values()])))

    def values(self) -> Tensor:
        """All figures of all steps in one row, on the device."""
        return torch.cat([row for _, row in self._rows])

    def read(self, values: Sequence[float]) -> list[tuple[int, dict[str, float]]]:
        """Names what `values` gave: number and figures of each step. They are pending no more."""
        steps, at = [], 0
        for i, (names, _) in enumerate(self._rows):
            steps.append((self._step + i, dict(zip(names, values[at : at + len(names)], strict=True))))
            at += len(names)
        self._step, self._rows = self._step + len(self._rows), []
        return steps

    def clock(self) -> tuple[float, float]:
        """Seconds since the last reading or `restart`, and the share of it that was data wait."""
        seconds = time.perf_counter() - self._since
        wait = self._wait_s / max(seconds, 1e-9)
        self.restart()
        return seconds, wait

    def restart(self) -> None:
        """What was done since the last reading was no step: an evaluation, a checkpoint."""
        self._wait_s, self._since = 0.0, time.perf_counter()


def _drop(path: Path, stage: str, step: int) -> None:
    """Leaves out what the metrics say of a stage after `step`, and a last line that a kill has cut. Others stay."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        ours = isinstance(values, dict) and values.get("stage") == stage and "step" in values
        if not ours or values["step"] <= step:
            kept.append(line + "\n")
    write_text_whole(path, "".join(kept))


def _board(folder: Path) -> Any:
    """A TensorBoard writer; None where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
