"""Files that are written whole or not at all, and the errors of a disk or a damaged file in one line.

A file is written beside its place, brought to the disk and renamed over the old one. Whatever ends the process, there
is always one that is whole.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from pickle import PickleError
from typing import Any, BinaryIO, cast

from cope.errors import UserError
from cope.runtime.interruptions import out_of_memory

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
