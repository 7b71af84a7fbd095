"""Processes that end with the one that started them, however that ends: by an error, Ctrl-C, SIGTERM or SIGKILL."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import TypeVar

import cv2
import torch
from torch.utils.data import Dataset

from cope.errors import UserError

T = TypeVar("T")


def follow_parent() -> None:
    """Called first in a child: it leaves Ctrl-C to its parent, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a parent that finishes a step first was forked with its handler
    parent = multiprocessing.parent_process()
    if parent is not None:

        def leave_with_it() -> None:
            parent.join()
            os._exit(1)  # whatever the other threads wait for will not come

        threading.Thread(target=leave_with_it, daemon=True).start()


def begin_reading(_worker: int) -> None:
    """Called first in a loader's process that reads pictures: such processes share the processors."""
    follow_parent()
    cv2.setNumThreads(0)  # its pool does not survive a fork
    torch.set_num_threads(1)


class Caught(Dataset[T | UserError]):
    """A data set whose `UserError`s come back as values. One that leaves a loader process becomes a traceback."""

    def __init__(self, data: Dataset[T]) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)  # type: ignore[arg-type]

    def __getitem__(self, at: int) -> T | UserError:
        try:
            return self._data[at]
        except UserError as error:
            return error


def received(loaded: Iterable[T | UserError]) -> Iterator[T]:
    """What a loader of a `Caught` data set gives; raises the first error among it."""
    for one in loaded:
        if isinstance(one, UserError):
            raise one
        yield one


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def pool(count: int, context: BaseContext, start: Callable[[], None]) -> Iterator[ProcessPoolExecutor]:
    """Processes for a piece of work. An error in it, and Ctrl-C, end them at once and drop what waits.

    Args:
        count: Number of processes.
        context: How they are started.
        start: Called first in each of them.

    Raises:
        UserError: One of them died.
    """
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(count, context, _begin, (start,)) as made:
        try:
            yield made
        except BaseException as error:
            for child in multiprocessing.active_children():
                if child not in others:
                    child.terminate()
            if isinstance(error, BrokenProcessPool | MemoryError):
                raise UserError(
                    f"one of {count} rendering processes died, most often for lack of memory; free some memory, or "
                    f"give the command fewer cores (taskset -c 0: one process), and start it again"
                ) from None
            raise


def _begin(start: Callable[[], None]) -> None:
    follow_parent()
    start()
