"""Checkpoints: written whole or not at all, and never read by a run of another configuration.

    OUT/checkpoints/STAGE.last.pt    where a stage goes on: weights, optimiser, averaged weights, steps done
    OUT/checkpoints/STAGE.best.pt    the weights that did best in evaluation (the averaged ones where there are any)

They are written by `cope.runtime.files`: whatever ends the process, there is always one that is whole.
"""

from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from cope.config import TrainConfig
from cope.errors import UserError
from cope.runtime.files import full_disk, whole, write_whole

# Fields that change no weight, or only by rounding: a run may go on with other values of them.
FREE = ("workers", "save_every", "evaluate_every", "gradient_checkpointing")


def identity(config: TrainConfig, data: str, processes: int) -> dict[str, Any]:
    """What must be equal for a run to go on where another one stopped.

    Args:
        config: Configuration of the run. Its `FREE` fields are left out; those of the model become `model.NAME`.
        data: Hash of the training data.
        processes: Each draws products of its own, so another number sees other batches.
    """
    values: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value) and not isinstance(value, type):
            values |= {f"{f.name}.{name}": inner for name, inner in asdict(value).items()}
        elif f.name not in FREE:
            values[f.name] = value
    return {**values, "data": data, "processes": processes}


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, of: dict[str, Any], first: bool = True) -> None:
        """Looks at what is there, and keeps other runs away while this object lives.

        Args:
            folder: Made if it is missing.
            of: The run's `identity`.
            first: Whether this is the process of the run that writes.

        Raises:
            UserError: There are checkpoints of another run, one is under way, or the folder cannot be made.
        """
        self.folder = folder
        self._identity = of
        with full_disk(folder):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError, PermissionError) as error:
                raise UserError(f"cannot make {folder} ({error.strerror}); choose another --out") from None
        self._claim = _claim(folder) if first else None
        for path in sorted(folder.glob("*.pt")):
            self._read(path, torch.device("cpu"), mmap=True)  # their identity alone is touched

    def path(self, name: str) -> Path:
        """Where the checkpoint of a name lies or would lie."""
        return self.folder / f"{name}.pt"

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Writes a checkpoint: tensors and plain values.

        Raises:
            UserError: The disk is full. The checkpoint before stays.
        """
        path = self.path(name)
        with full_disk(path):
            write_whole(path, lambda file: torch.save({"identity": self._identity, **state}, file))

    def load(self, name: str, device: torch.device) -> dict[str, Any] | None:
        """Reads what `save` wrote; None if there is nothing of that name.

        Raises:
            UserError: It is damaged, or of another run.
        """
        path = self.path(name)
        return self._read(path, device) if path.exists() else None

    def _read(self, path: Path, device: torch.device, mmap: bool = False) -> dict[str, Any]:
        with whole(path):
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
            found = dict(state.pop("identity"))
        ours = self._identity
        differing = [
            f"{key}={found.get(key)} (now {ours.get(key)})"
            for key in dict.fromkeys([*found, *ours])
            if found.get(key) != ours.get(key)
        ]
        if differing:
            raise UserError(
                f"{path} was made with {', '.join(differing)}; set this back, choose another --out, "
                f"or remove {self.folder} to start anew"
            )
        return state


def _claim(folder: Path) -> FileLock:
    """Locks a folder for this process until the lock is dropped or the process ends."""
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another training writes to {folder.parent}; wait until it has ended, or choose another --out"
        ) from None
    return lock
