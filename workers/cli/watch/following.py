"""Follows the states and detections of the watched streams on the topics."""

import asyncio
from collections.abc import Awaitable
from typing import Self, TextIO

import msgspec

from topology.records import ProductDetected, RecognitionState, StreamStatus
from topology.settings import Settings
from topology.topic_log import Follower
from topology.topics import PRODUCT_DETECTED, RECOGNITION_STATE, STREAM_STATUS
from workers.cli.watch.progress import WatchProgress
from workers.cli.watch.view import View

# Detections are sent before the state that says "ended", but on another topic: the follower of detections may be this
# much behind the one of states. Larger: the command takes visibly longer to end.
_LAST_EVENTS_S = 1.0


class Following:
    """Feeds a `WatchProgress`, a view and an events file from the topics; an async context manager."""

    def __init__(self, settings: Settings, progress: WatchProgress, view: View, events: TextIO | None) -> None:
        self._progress = progress
        self._view = view
        self._events = events
        self._finished = asyncio.Event()
        # Older records of a server's topics are not about this watch.
        self._detections = Follower(settings, PRODUCT_DETECTED, ProductDetected, from_beginning=False)
        self._states = Follower(settings, RECOGNITION_STATE, RecognitionState, from_beginning=False)
        self._statuses = Follower(settings, STREAM_STATUS, StreamStatus, from_beginning=False)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        follow = (self._follow_detections(), self._follow_states(), self._follow_statuses())
        self._tasks = [asyncio.create_task(work) for work in follow]
        await asyncio.gather(
            self._detections.caught_up.wait(), self._states.caught_up.wait(), self._statuses.caught_up.wait()
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until_finished(self, *failures: Awaitable[None]) -> None:
        """Returns when all streams are finished and their events are in.

        Args:
            failures: Raise when a worker fails; that error is raised here.
        """
        ours = [asyncio.ensure_future(work) for work in (self._wait_finished(), *failures)]
        try:
            done, _ = await asyncio.wait([*ours, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in ours:
                task.cancel()
            await asyncio.gather(*ours, return_exceptions=True)

    async def _wait_finished(self) -> None:
        await self._finished.wait()
        await asyncio.sleep(_LAST_EVENTS_S)

    async def _follow_detections(self) -> None:
        async for record in self._detections:
            if record.value is None or not self._progress.on_event(record.value):
                continue
            if self._events is not None:
                self._events.write(msgspec.json.encode(record.value).decode() + "\n")
                self._events.flush()
            self._view.event(record.value)

    async def _follow_states(self) -> None:
        async for record in self._states:
            if record.value is not None:
                self._progress.on_recognition(record.value)
                self._check_finished()

    async def _follow_statuses(self) -> None:
        async for record in self._statuses:
            if record.value is None:
                continue
            stream = self._progress.on_status(record.value)
            if stream is not None and (stream.detail or stream.state in ("stalled", "failed", "ended")):
                self._view.say(f"{stream.stream_id}: {stream.state}{': ' * bool(stream.detail)}{stream.detail}")
            self._check_finished()

    def _check_finished(self) -> None:
        if self._progress.finished:
            self._finished.set()
