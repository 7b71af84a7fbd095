"""What can end a run before its time, and what its user is told."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch

from cope.errors import CopeError


class Stopped(CopeError):
    """Somebody asked the run to stop, and its checkpoint is written."""

    def __init__(self, signum: int, line: str) -> None:
        super().__init__(line)
        self.signum = signum


@contextlib.contextmanager
def asked_to_stop(asked: list[int]) -> Iterator[None]:
    """Notes SIGINT and SIGTERM, so that a step can be finished; a second one ends the process at once.

    Args:
        asked: Gets the number of the signal.
    """

    def ask(signum: int, _frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(signum)

    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    before = {signum: signal.signal(signum, ask) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out, of a device or of the machine."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    # CUDA itself, and PyTorch's allocator on a CPU, say so in words alone.
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("CUDA error: out of memory", "can't allocate memory")
    )


def reader_died(error: BaseException) -> bool:
    """Whether an error says that a process of a data loader was killed."""
    return "DataLoader worker" in str(error) and ("exited unexpectedly" in str(error) or "killed" in str(error))


def explained(error: BaseException, device: torch.device, where: str) -> str | None:
    """The line that a user can act on, where memory has run out; None for any other error.

    Args:
        error: What was raised.
        device: Device of the run.
        where: The step, and what is kept.
    """
    if out_of_memory(error):
        return (
            f"out of memory on {device} in {where}. Where towers are tuned, set gradient_checkpointing=true and start "
            f"again; else, with another --out, a smaller batch_products and a larger accumulate"
        )
    if reader_died(error):
        return (
            f"a loader process died, most often for lack of memory or of /dev/shm, in {where}. "
            f"Set fewer workers (0: none) and start again"
        )
    return None
