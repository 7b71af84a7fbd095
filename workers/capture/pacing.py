"""How fast a stream is sent: a network stream as it comes, a file by its clock or as fast as consumers follow."""

import asyncio
import time
from typing import Protocol

from topology.records import Record
from topology.settings import Settings
from topology.topic_log import Follower
from topology.topics import LIVE_WINDOWS
from workers.capture.clock import AUDIO_OFFSET_US


class Pace(Protocol):
    """Says when a record may be sent."""

    async def wait(self, epoch: int, position_ms: int) -> None:
        """Returns when media of this time may be sent."""
        ...

    async def close(self) -> None:
        """Releases what it holds."""
        ...


class Unpaced:
    """Network streams: their source is the clock."""

    async def wait(self, epoch: int, position_ms: int) -> None:
        """Returns at once."""

    async def close(self) -> None:
        """Nothing to release."""


class RealTime:
    """A file at the speed of its clock, from the first record on that it is asked for."""

    def __init__(self) -> None:
        self._epoch = -1
        self._start_s = 0.0
        self._start_ms = 0

    async def wait(self, epoch: int, position_ms: int) -> None:
        """Returns when as much wall time has passed as media time."""
        if epoch != self._epoch:
            self._epoch, self._start_s, self._start_ms = epoch, time.monotonic(), position_ms
        due = self._start_s + (position_ms - self._start_ms) / 1000
        delay = due - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)

    async def close(self) -> None:
        """Nothing to release."""


class WindowEnd(Record, frozen=True, kw_only=True):
    """The part of a `WindowEmbedding` that pacing reads; the rest is skipped."""

    stream_id: str
    epoch: int
    end_ms: int


class Ahead:
    """A file as fast as its windows close, at most a limited time ahead of the newest one.

    Args:
        settings: `file_ahead_s`, and what else bounds how far a window may need to look ahead.
        stream_id: Whose windows count.
        partition: Where they are.
        epoch: Epoch at the start.
        position_ms: Media time at which sending (re)starts.
    """

    def __init__(self, settings: Settings, stream_id: str, partition: int, epoch: int, position_ms: int) -> None:
        self._stream_id = stream_id
        self._allowed_ms = allowance_ms(settings)
        self._reached = (epoch, position_ms)
        self._moved = asyncio.Event()
        # From the log's end: windows that closed earlier do not count, like those before the resume position.
        self._follower = Follower(settings, LIVE_WINDOWS, WindowEnd, partitions=[partition], from_beginning=False)
        self._task = asyncio.create_task(self._follow(), name=f"windows of {stream_id}")

    async def wait(self, epoch: int, position_ms: int) -> None:
        """Returns when the windows have come near enough."""
        await self._first_of(self._follower.caught_up)  # a window that closes before that would be missed
        if epoch > self._reached[0]:
            self._reached = (epoch, 0)
        while epoch == self._reached[0] and position_ms > self._reached[1] + self._allowed_ms:
            self._moved.clear()
            await self._first_of(self._moved)

    async def close(self) -> None:
        """Stops following."""
        self._follower.stop()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _first_of(self, event: asyncio.Event) -> None:
        """Waits for the event; raises if the follower ends before it."""
        if event.is_set():
            return
        waiting = asyncio.create_task(event.wait())
        try:
            await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._task.done():
            self._task.result()
            raise RuntimeError("the follower of live_windows ended")

    async def _follow(self) -> None:
        async for record in self._follower:
            window = record.value
            if window is not None and window.stream_id == self._stream_id:
                reached = (window.epoch, window.end_ms)
                if reached > self._reached:
                    self._reached = reached
                    self._moved.set()


def allowance_ms(settings: Settings) -> int:
    """Returns how far a file may be ahead. Below what one window needs, file and window would wait for each other."""
    window_needs = (
        settings.window_ms + settings.hop_ms + round(settings.speech_chunk_s * 1000) + AUDIO_OFFSET_US // 1000
    )
    return max(round(settings.file_ahead_s * 1000), window_needs)
