"""Checkpoints: written whole or not at all, and never read by a run of another configuration.

    OUT/checkpoints/STAGE.last.pt    where a stage goes on: weights, optimiser, averaged weights, steps done
    OUT/checkpoints/STAGE.best.pt    the weights that did best in evaluation (the averaged ones where there are any)

A file is written beside its place, brought to the disk and renamed over the old one. Whatever ends the process,
there is always one that is whole.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from pickle import PickleError
from typing import IO, Any, BinaryIO, cast

import torch

from cope.config import TrainConfig
from cope.errors import UserError
from cope.interruptions import out_of_memory

# Fields that change no weight, or only by rounding: a run may go on with other values of them.
FREE = ("workers", "save_every", "evaluate_every", "gradient_checkpointing")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def identity(config: TrainConfig, data: str, processes: int) -> dict[str, Any]:
    """What must be equal for a run to go on where another one stopped.

    Args:
        config: Its fields, but for `FREE` ones; those of the model as `model.NAME`.
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


def _claim(folder: Path) -> IO[str]:
    """Locks a folder for this process until the file is closed or the process ends."""
    file = (folder / "lock").open("w")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, children do not inherit it
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise UserError(
                f"another training writes to {folder.parent}; wait until it has ended, or choose another --out"
            ) from None
        # Some network file systems have no locks: then nobody is kept away.
    return file


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file so that its place holds either the old content or the whole new one, at any moment.

    Args:
        path: The place.
        write: Writes to an open file.

    Raises:
        OSError: It cannot be written; the old content stays.
    """
    beside = path.with_name(path.name + ".part")
    try:
        with beside.open("wb") as file:
            guarded = _Guarded(file)
            try:
                write(cast(BinaryIO, guarded))
            except RuntimeError:  # what PyTorch's writer makes of an OSError
                if guarded.error is None:
                    raise
                raise guarded.error from None
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)  # the new name is on the disk only when the folder is
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text_whole(path: Path, text: str) -> None:
    """The same with a text, as UTF-8."""
    write_whole(path, lambda file: file.write(text.encode()))


class _Guarded:
    """A file that remembers why writing to it failed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[None]:
    """Turns the errors of reading a damaged file into one line that names it.

    Raises:
        UserError: It is damaged.
        OSError: It is not there, or may not be read.
    """
    try:
        yield
    except (RuntimeError, ValueError, EOFError, LookupError, AttributeError, TypeError, PickleError) as error:
        if out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is damaged ({reason}); remove it and start the same command again") from None


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Turns the errors of a full disk into one line that names what was being written."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise UserError(
            f"cannot write {path}: {os.strerror(error.errno or 0).lower()}; what lay there before is kept, "
            f"so free some space and start the same command again"
        ) from None
