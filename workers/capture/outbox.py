"""The bounded queue between a stream's decoding thread and the event loop that sends."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from topology import metrics
from topology.records import Frame, Speech

T = TypeVar("T")


class Closed(Exception):
    """The other side has left."""


class Backlog:
    """Live records that wait to be sent: at most `capacity`, the oldest dropped first.

    Frames are dropped before speech. Speech is never dropped as a stretch, only as sound: stretches are joined to
    silent ones, so that they still cover the epoch. Ends of epochs stay.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[object] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def push(self, item: object) -> None:
        """Adds an item at the end, and makes room if there are too many."""
        self._items.append(item)
        if len(self._items) > self._capacity:
            self._make_room()

    def pop(self) -> object:
        """Takes the oldest item."""
        return self._items.popleft()

    def _make_room(self) -> None:
        for index, item in enumerate(self._items):
            if isinstance(item, Frame) and not item.end_of_epoch:
                del self._items[index]
                metrics.FRAMES_DROPPED.labels("slow_broker").inc()
                return
        if not self._join(lambda stretch: not stretch.audio):
            self._join(lambda _: True)

    def _join(self, wanted: Callable[[Speech], bool]) -> bool:
        """Joins the oldest two wanted stretches that follow each other into a silent one; says whether there were."""
        for index in range(len(self._items) - 1):
            first, second = self._items[index], self._items[index + 1]
            if (
                isinstance(first, Speech)
                and isinstance(second, Speech)
                and not (first.end_of_epoch or second.end_of_epoch)
                and first.epoch == second.epoch
                and wanted(first)
                and wanted(second)
            ):
                for stretch in (first, second):
                    if stretch.audio:
                        seconds = (stretch.end_ms - stretch.start_ms) / 1000
                        metrics.SPEECH_DROPPED.labels("slow_broker").inc(seconds)
                self._items[index] = msgspec.structs.replace(first, end_ms=second.end_ms, audio=b"")
                del self._items[index + 1]
                return True
        return False


class Outbox(Generic[T]):
    """Hands items from one thread to one task.

    Args:
        loop: Where the task runs.
        capacity: Most items that wait.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, capacity: int) -> None:
        self._loop = loop
        self._capacity = capacity
        self._drops = False
        self._backlog = Backlog(capacity)
        self._room = threading.Condition()
        self._ready = asyncio.Event()
        self._ended = False
        self._left = False
        self._error: BaseException | None = None

    def drop_oldest(self) -> None:
        """From now on, drops the oldest item when full instead of letting the thread wait."""
        self._drops = True

    def put(self, item: T) -> None:
        """Adds an item; called by the thread.

        Raises:
            Closed: The task has left.
        """
        with self._room:
            while not self._left and not self._drops and len(self._backlog) >= self._capacity:
                self._room.wait()
            if self._left:
                raise Closed
            self._backlog.push(item)
        self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """Says that nothing more comes; called by the thread. The error is raised where the task has taken all."""
        with self._room:
            self._ended, self._error = True, error
        self._wake()

    def leave(self) -> None:
        """Says that nothing more is taken; called by the task."""
        with self._room:
            self._left = True
            self._room.notify_all()

    @property
    def left(self) -> bool:
        """The task has left."""
        return self._left

    async def get(self) -> T | None:
        """Returns the next item, or None at the end; called by the task. Raises the thread's error."""
        while True:
            with self._room:
                if len(self._backlog):
                    item: T = self._backlog.pop()  # type: ignore[assignment]
                    self._room.notify_all()
                    return item
                if self._ended:
                    if self._error is not None:
                        raise self._error
                    return None
                self._ready.clear()
            await self._ready.wait()

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ready.set)
