"""The capture role: one capture for each announced stream of the partitions that this process has."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

import msgspec

from topology import metrics
from topology.delivery import Message
from topology.errors import BadInput, record_fault
from topology.records import Record, StreamAnnounced, StreamStatus
from topology.topic_log import read_partition
from topology.topics import LIVE_STREAMS, STREAM_STATUS
from topology.worker import Worker
from workers.capture.media import OpenSource
from workers.capture.source import open_source
from workers.capture.speech import Detector, SileroDetector
from workers.capture.stream import StreamCapture, close_epoch, is_epoch_open

_log = logging.getLogger(__name__)

_STATES = ("connecting", "live", "stalled")
_FINAL = ("ended", "failed")

# An error's text may repeat a server's answer. The detail is sent each second, and nobody reads more.
_LONGEST_DETAIL = 1_000


def build(worker: Worker, opener: OpenSource | None = None, detector: Callable[[], Detector] = SileroDetector) -> None:
    """Registers the role's agent.

    Args:
        worker: A worker of role capture.
        opener: Opens a source by its URL; PyAV by default.
        detector: Makes the speech detector of an epoch.
    """
    settings = worker.settings
    agent = CaptureAgent(worker, opener or (lambda url, seen: open_source(url, settings, seen)), detector)
    worker.delivery.on_assigned(agent.assigned)
    worker.delivery.on_revoked(agent.revoked)
    worker.delivery.agent(LIVE_STREAMS, StreamAnnounced, agent.handle, tombstones=True)
    worker.on_stop(agent.stop)
    metrics.LAST_FRAME_AGE.set_function(agent.oldest_frame_s)
    for state in _STATES:
        metrics.STREAMS.labels(state).set_function(partial(agent.count, state))


@dataclass
class _Running:
    capture: StreamCapture
    message: Message[StreamAnnounced]
    task: asyncio.Task[None]


class CaptureAgent:
    """Starts, replaces and ends captures as announcements say.

    An announcement is done when its stream has ended or failed: until then, a restarted process reads it again
    and goes on by the stream's status.
    """

    def __init__(self, worker: Worker, opener: OpenSource, detector: Callable[[], Detector]) -> None:
        self._worker = worker
        self._opener = opener
        self._detector = detector
        self._statuses: dict[str, StreamStatus] = {}
        self._partitions: dict[str, int] = {}
        self._running: dict[str, _Running] = {}

    async def assigned(self, topic: str, partition: int) -> None:
        """Reads where the streams of a partition stand."""
        if topic != LIVE_STREAMS:
            return
        async for record in read_partition(self._worker.settings, STREAM_STATUS, partition, StreamStatus):
            if record.value is not None:
                self._note(record.value, partition)

    def revoked(self, topic: str, partition: int) -> None:
        """Drops the captures of a partition: its next owner goes on with them."""
        if topic != LIVE_STREAMS:
            return
        for stream_id in [s for s, p in self._partitions.items() if p == partition]:
            del self._partitions[stream_id]
            self._statuses.pop(stream_id, None)
            running = self._running.pop(stream_id, None)
            if running is not None:
                running.task.cancel()

    async def handle(self, messages: AsyncIterator[Message[StreamAnnounced]]) -> None:
        """Takes announcements."""
        async for message in messages:
            try:
                await self._take(message)
            except Exception as error:  # noqa: BLE001 - whatever this announcement holds, the next one is taken
                await message.dead_letter(record_fault(error, "an announcement"))

    async def stop(self) -> None:
        """Stops all captures where they are; a restart goes on from there."""
        tasks = [running.task for running in self._running.values()]
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def count(self, state: str) -> float:
        """Returns how many streams are in a state."""
        return sum(running.capture.status.state == state for running in self._running.values())

    def oldest_frame_s(self) -> float:
        """Returns the age of the last frame of the stream that waits longest."""
        return max((time.monotonic() - r.capture.last_frame_s for r in self._running.values()), default=0.0)

    async def _take(self, message: Message[StreamAnnounced]) -> None:
        announced: StreamAnnounced | None = message.value
        stream_id = message.key
        if announced is not None and announced.stream_id != stream_id:
            raise BadInput(f"the announcement of {announced.stream_id} has another key: send it with its own stream_id")
        if announced is None and stream_id not in self._statuses and stream_id not in self._running:
            message.done()  # nothing of that name was ever captured
            return
        status = self._statuses.get(stream_id)
        if status is not None and (
            status.announced_offset > message.offset
            or (status.announced_offset == message.offset and status.state in _FINAL)
        ):
            message.done()
            return
        running = self._running.pop(stream_id, None)
        if running is not None:
            await self._cancel(running)
        if announced is None or announced.state == "ended":
            await self._end(stream_id, message, running)
        else:
            self._start(announced, message)

    def _start(self, announced: StreamAnnounced, message: Message[StreamAnnounced]) -> None:
        capture = StreamCapture(
            self._worker.settings,
            self._send,
            self._opener,
            announced,
            offset=message.offset,
            partition=message.partition,
            previous=self._statuses.get(announced.stream_id),
            detector=self._detector,
        )
        self._partitions[announced.stream_id] = message.partition
        task = asyncio.create_task(self._run(capture, message), name=f"capture {announced.stream_id}")
        self._running[announced.stream_id] = _Running(capture, message, task)

    async def _run(self, capture: StreamCapture, message: Message[StreamAnnounced]) -> None:
        stream_id = capture.status.stream_id
        try:
            try:
                await capture.run()
            except Exception as error:  # noqa: BLE001 - one stream's trouble must not stop the others
                _log.exception("capture broke down", extra={"stream_id": stream_id})
                await capture.fail(error)
        except Exception as error:  # noqa: BLE001 - nothing can be sent any more
            self._worker.delivery.fail(error)
            return
        message.done()
        running = self._running.get(stream_id)
        if running is not None and running.capture is capture:
            del self._running[stream_id]

    async def _cancel(self, running: _Running) -> None:
        running.task.cancel()
        await asyncio.gather(running.task, return_exceptions=True)
        running.message.done()

    async def _end(self, stream_id: str, message: Message[StreamAnnounced], running: _Running | None) -> None:
        if running is not None:
            await running.capture.stop(message.offset)
        else:
            status = self._statuses.get(stream_id) or StreamStatus(
                stream_id=stream_id, epoch=0, state="ended", announced_offset=message.offset
            )
            if is_epoch_open(status):
                await close_epoch(self._send, status)
            ended = msgspec.structs.replace(
                status, state="ended", announced_offset=message.offset, at_ms=time.time_ns() // 1_000_000
            )
            await self._send(STREAM_STATUS, stream_id, ended)
        message.done()

    async def _send(self, topic: str, key: str, record: Record) -> None:
        if isinstance(record, StreamStatus) and len(record.detail) > _LONGEST_DETAIL:
            record = msgspec.structs.replace(record, detail=record.detail[:_LONGEST_DETAIL] + "…")
        await self._worker.delivery.send(topic, key, record)
        if isinstance(record, StreamStatus):
            self._note(record, None)

    def _note(self, status: StreamStatus, partition: int | None) -> None:
        self._statuses[status.stream_id] = status
        if partition is not None:
            self._partitions[status.stream_id] = partition
