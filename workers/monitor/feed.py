"""The change feed: the newest changes in a ring, read by any number of clients at their own pace.

A client is no more than a position in the ring, so a slow one costs no memory: the ring runs over it.
"""

import asyncio
import uuid
from collections import deque
from typing import Literal

Kind = Literal["detection", "stream", "verdict", "reset"]

# How many changes can be resumed after a broken connection. A thousand streams make about 200 a second, so this is
# 40 s for them and hours for a few; at about 1 kB each, 8 MB.
CAPACITY = 8_192

# Most changes that are written at once: a client that is far behind must not fill the socket's buffer.
_BATCH = 256


class TooOldError(Exception):
    """The ring has run over the position."""


class Feed:
    """A ring of changes.

    Ids are `<process>-<number>`, since the same number means another change in another process.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.closed = False
        self._process = uuid.uuid4().hex[:8]
        self._ring: deque[bytes] = deque(maxlen=capacity)
        self._end = 0  # number of the newest change, from 1
        self._changed = asyncio.Event()

    @property
    def end(self) -> int:
        """The position of the newest change."""
        return self._end

    @property
    def last_id(self) -> str:
        """The id of the newest change."""
        return self._id(self._end)

    def publish(self, kind: Kind, data: bytes) -> None:
        """Adds a change. `data` is JSON in one line."""
        self._end += 1
        self._ring.append(message(kind, self.last_id, data))
        self._wake()

    def position(self, change_id: str) -> int | None:
        """Returns the position of an id from which reading can go on; None if it cannot."""
        process, _, number = change_id.rpartition("-")
        if process != self._process or not (number.isascii() and number.isdigit()):
            return None
        position = int(number)
        return position if self._begin - 1 <= position <= self._end else None

    async def after(self, position: int) -> list[bytes]:
        """Returns the changes after a position, as messages; waits for one. None are left when it was closed.

        Raises:
            TooOldError: Some of them are gone already.
        """
        while position >= self._end and not self.closed:
            await self._changed.wait()
        first = position + 1 - self._begin
        if first < 0:
            raise TooOldError
        return [self._ring[index] for index in range(first, min(len(self._ring), first + _BATCH))]

    def close(self) -> None:
        """Lets all readers end."""
        self.closed = True
        self._wake()

    @property
    def _begin(self) -> int:
        """The number of the oldest change in the ring."""
        return self._end - len(self._ring) + 1

    def _id(self, number: int) -> str:
        return f"{self._process}-{number}"

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def message(kind: Kind, change_id: str, data: bytes) -> bytes:
    """Returns a server-sent event (HTML standard, 9.2.5)."""
    return f"id: {change_id}\nevent: {kind}\ndata: ".encode() + data + b"\n\n"
