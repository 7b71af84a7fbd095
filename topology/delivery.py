"""Delivery: decode a record, hand it to the core, wait until the broker has acknowledged the output, ack the input.

Faust's agents bring the records; the promises are kept here, because Faust 0.15.3 does not keep them
(`docs/delivery.md` tells how):

1. A handler gets the records of a partition in order, each once per assignment, none left out.
2. It calls `done()` when nothing needs the record any more, in any order.
3. What is committed is the low-water mark: all below it is done. Faust itself commits nothing.
4. A record that cannot be read or processed goes to `<topic>.dlq`, acknowledged by the broker, and is then done.
5. A handler that raises stops the worker; its records stay unacked.
6. When a partition is taken away, what is done is committed, its state is dropped, and what is done later
   about its records changes nothing.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import faust
from faust.types import TP, EventT, StreamT

from topology import metrics
from topology.codec import Headers, Value, decode_value
from topology.connection import full_name
from topology.dead_letters import LogRefusals, send_letter
from topology.errors import BadInput, Unavailable
from topology.group import Group
from topology.message import Message, Partition
from topology.retry import retrying
from topology.settings import Role, Settings
from topology.topic_log import Producer, read_raw
from topology.topics import TOPICS

__all__ = ["Delivery", "Handler", "Message"]

_log = logging.getLogger(__name__)

R = TypeVar("R")

_LOOK_AGAIN_S = 0.05  # how soon the end of a finite flow is noticed
COMMIT_EVERY_S = 1.0  # larger: a crash repeats more finished work; smaller: commits load the broker
LAG_EVERY_S = 5.0
_MISSES = 2  # answers in a row, some 15 s: a broker that is new, or elects, may owe one
QUIET_TRIES = 4  # 3 s: joining a group takes up to that on a machine that starts all roles at once


Handler = Callable[[AsyncIterator[Message[R]]], Awaitable[None]]


class Delivery:
    """The agents of a role and what they send.

    Attributes:
        failure: The error that a handler raised, which stops the worker.
    """

    def __init__(self, app: faust.App, role: Role, settings: Settings) -> None:
        self.app = app
        self.failure: BaseException | None = None
        self._lost = ""
        self.has_agents = False
        self.ready = False  # the group has assigned partitions (perhaps none) at least once
        self._role = role
        self._settings = settings
        self._producer = Producer(settings)
        self._group = Group(app)
        self._partitions: dict[TP, Partition] = {}
        self._idle: dict[str, StreamT[bytes]] = {}  # by topic: streams whose handler waits for a record
        self._on_revoked: list[Callable[[str, int], None]] = []
        self._on_assigned: list[Callable[[str, int], Awaitable[None]]] = []
        self._committing = asyncio.Lock()
        self._failed = asyncio.Event()
        self._started = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        app.on_partitions_revoked.connect(self._partitions_revoked)
        app.on_partitions_assigned.connect(self._partitions_assigned)

    def agent(self, topic: str, kind: type[R], handler: Handler[R], *, tombstones: bool = False) -> None:
        """Registers the handler of a topic.

        The handler gets one endless iterator over the records of all partitions that this process has, and
        runs for the worker's life. It may keep messages and end them later.

        Args:
            topic: Without the prefix.
            kind: The record's class. A record that cannot be decoded as one, or has a newer schema, is dead-lettered
                without being handed out.
            handler: Runs once; when it raises, the worker stops.
            tombstones: Hand out records without a value, as messages with value None. Otherwise they are
                dead-lettered.
        """
        self.has_agents = True
        metrics.RECORDS_LOST.labels(self._role, topic)  # at 0 from the start: an alert must see the first loss
        # acks=False: Faust commits nothing. (It commits past unacked records, also past ones that it skips
        # during a rebalance.)
        channel = self.app.topic(full_name(self._settings, topic), key_type=bytes, value_type=bytes, acks=False)

        async def run(stream: StreamT[bytes]) -> None:
            try:
                await self._started.wait()
                await handler(self._messages(stream, topic, kind, tombstones))
                raise RuntimeError(f"the handler of {topic} ended")
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the worker must not go on
                self.fail(error)
                await asyncio.Event().wait()  # Faust would restart an agent that ends

        self.app.agent(channel, name=f"{self._role}.{topic}", concurrency=1)(run)

    @property
    def trouble(self) -> str:
        """Why the broker cannot be reached now, or what it refuses; empty when all is well."""
        return self._lost or self._producer.trouble

    def on_revoked(self, fn: Callable[[str, int], None]) -> None:
        """Calls `fn(topic, partition)` when a partition was taken away: drop its state, at once."""
        self._on_revoked.append(fn)

    def on_assigned(self, fn: Callable[[str, int], Awaitable[None]]) -> None:
        """Awaits `fn(topic, partition)` after a partition was assigned, before its first record is handed out."""
        self._on_assigned.append(fn)

    def assigned(self, topic: str) -> list[int]:
        """Returns the partitions of a topic that this process has now."""
        return sorted(partition.number for partition in self._partitions.values() if partition.topic == topic)

    async def undelivered(self, topic: str) -> dict[int, int]:
        """Returns, by partition of this process, how many records at the broker were not handed out yet.

        At 0, all that was appended before this call has been handed out.

        Raises:
            Unavailable: The broker does not answer.
        """
        partitions = {tp: p for tp, p in self._partitions.items() if p.topic == topic and p.expected is not None}
        if not partitions:
            return {}
        ends = await self._group.end_offsets(partitions)
        # Records that retention has removed do not count.
        beginnings = await self._group.beginning_offsets(partitions)
        return {
            p.number: max(0, ends[tp] - max(p.expected or 0, beginnings[tp]))
            for tp, p in partitions.items()
            if not p.revoked
        }

    async def until_done(self, topic: str) -> None:
        """Returns when all records that this process's partitions of a topic hold now are done."""
        ends: dict[TP, int] | None = None
        while True:
            partitions = {tp: p for tp, p in self._partitions.items() if p.topic == topic}
            if ends is None and partitions and all(p.expected is not None for p in partitions.values()):
                with suppress(Unavailable):
                    ends = await self._group.end_offsets(partitions)
            if ends is not None and all((_position(p) or 0) >= ends.get(tp, 0) for tp, p in partitions.items()):
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def send(self, topic: str, key: str, record: Value | None, *, headers: Headers | None = None) -> int:
        """Returns the record's offset when the broker has acknowledged it; tries again while it is down.

        Args:
            topic: Without the prefix.
            key: Decides the partition.
            record: None is a tombstone.
            headers: Joined to those that the record has by itself.

        Raises:
            BadInput: The record is larger than the topic takes.
        """
        return await self._producer.send(topic, key, record, headers=headers)

    def refusals(self, topic: str) -> LogRefusals:
        """Returns where a reader of a log sends records that it cannot use."""
        return LogRefusals(self._settings, topic, self._producer)

    def start(self) -> None:
        """Begins to hand out records and to commit."""
        self._started.set()
        loops = (self._commit_for_ever, self._watch_lag) if self.has_agents else ()
        self._tasks = [asyncio.create_task(loop(), name=loop.__name__) for loop in loops]

    async def commit(self) -> None:
        """Commits what is done. Failures are logged and left to the next commit."""
        async with self._committing:
            await self._commit(dict(self._partitions))

    async def stop(self) -> None:
        """Ends the tasks and commits what is done. Sending still works until `close`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.has_agents and self.ready:
            await self.commit()

    async def close(self) -> None:
        """Ends what still prepares partitions, and closes the producer."""
        opening = [one.opening for one in self._partitions.values() if one.opening is not None]
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        await self._producer.stop()

    def fail(self, error: BaseException) -> None:
        """Stops the worker because of an error; only the first one counts."""
        if self.failure is None:
            self.failure = error
            self._failed.set()

    async def wait_failed(self) -> None:
        """Raises what stops the worker, when it happens."""
        await self._failed.wait()
        if self.failure is not None:
            raise self.failure

    # ------------------------------------------------------------------ records

    async def _messages(
        self, stream: StreamT[bytes], topic: str, kind: type[R], tombstones: bool
    ) -> AsyncIterator[Message[R]]:
        stream = stream.noack()
        self._idle[topic] = stream
        async for event in stream.events():
            del self._idle[topic]
            async for message in self._in_order(event, topic):
                try:
                    message.value = self._decode(message, kind, tombstones)
                except BadInput as error:
                    await message.dead_letter(error)
                    continue
                yield message
            self._idle[topic] = stream

    async def _in_order(self, event: EventT[bytes], topic: str) -> AsyncIterator[Message[Any]]:
        """Yields the event's message, after those that Faust has left out and unless it came before."""
        raw = event.message
        partition = await self._opened(raw.tp, topic)
        if partition is None:
            return
        expected = partition.expected
        if expected is not None and raw.offset < expected:
            return
        # Between two records of a compacted topic there may be anything; only where reading begins after a
        # (re)assignment has Faust been seen to lose records there.
        if expected is not None and raw.offset > expected and (partition.first or not _compacted(topic)):
            lost = raw.offset - expected
            async for missed in read_raw(self._settings, topic, partition.number, expected, raw.offset):
                lost -= 1
                if partition.revoked:
                    return
                metrics.RECORDS_RECOVERED.labels(topic).inc()
                _log.warning(
                    "recovered a record that Faust had left out",
                    extra={"topic": topic, "partition": partition.number, "offset": missed.offset},
                )
                yield self._hand_out(partition, missed)
            self._tell_lost(partition, lost)
        if not partition.revoked:
            yield self._hand_out(partition, raw)

    def _hand_out(self, partition: Partition, raw: Any) -> Message[Any]:
        partition.mark.add(raw.offset)
        partition.expected = raw.offset + 1
        partition.first = False
        return Message(partition, raw, self._dead_letter)

    def _decode(self, message: Message[Any], kind: type[R], tombstones: bool) -> R:
        if message.raw.value is None:
            if tombstones:
                return None  # type: ignore[return-value]
            raise BadInput(f"a record without a value, {message.topic} has none")
        value: R = decode_value(message.raw.value, kind)
        return value

    async def _dead_letter(self, message: Message[Any], error: Exception, attempts: int) -> None:
        await send_letter(self._producer, message.topic, message.partition, message.raw, error, attempts)

    # ------------------------------------------------------------------ partitions

    async def _partitions_assigned(self, _app: Any, assigned: set[TP], **_: Any) -> None:
        self.ready = True
        for tp in assigned:
            self._open(tp)

    async def _partitions_revoked(self, _app: Any, revoked: set[TP], **_: Any) -> None:
        async with self._committing:
            taken = {tp: self._partitions.pop(tp) for tp in revoked if tp in self._partitions}
            # Records that are done from now on must not be committed, nor those that a hook below ends.
            offsets = {tp: partition.to_commit for tp, partition in taken.items()}
            for partition in taken.values():
                partition.revoked = True
                if partition.opening is not None:
                    partition.opening.cancel()
                for fn in self._on_revoked:
                    try:
                        fn(partition.topic, partition.number)
                    except Exception as error:  # noqa: BLE001 - must not be lost in Faust's rebalance
                        self.fail(error)
            await self._group.commit({tp: offset for tp, offset in offsets.items() if offset is not None})

    def _open(self, tp: TP) -> Partition:
        partition = self._partitions.get(tp)
        if partition is None:
            topic = tp.topic.removeprefix(self._settings.topic_prefix)
            partition = self._partitions[tp] = Partition(topic, tp.partition)
            partition.opening = asyncio.create_task(self._prepare(tp, partition))
        return partition

    async def _opened(self, tp: TP, topic: str) -> Partition | None:
        """Returns the partition once its hooks have run, or None if it was taken away meanwhile."""
        partition = self._open(tp)
        if partition.opening is not None:
            await asyncio.wait([partition.opening])
        return None if partition.revoked else partition

    async def _prepare(self, tp: TP, partition: Partition) -> None:
        try:
            await self._started.wait()
            for fn in self._on_assigned:
                await fn(partition.topic, partition.number)
            # The group is being joined: the broker not answering yet is no reason for a warning.
            partition.expected, lost = await retrying(
                lambda: self._group.start_offset(tp), f"find where {tp.topic}/{tp.partition} begins", quiet=QUIET_TRIES
            )
            self._tell_lost(partition, lost)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a partition whose state is not there must not be worked on
            self.fail(error)
            await asyncio.Event().wait()

    # ------------------------------------------------------------------ offsets

    async def _commit_for_ever(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_EVERY_S)
            await self.commit()

    async def _commit(self, partitions: dict[TP, Partition]) -> None:
        offsets = {tp: partition.to_commit for tp, partition in partitions.items()}
        new = {tp: offset for tp, offset in offsets.items() if offset is not None}
        if await self._group.commit(new):
            for tp, offset in new.items():
                partitions[tp].committed = offset

    async def _watch_lag(self) -> None:
        before: dict[TP, tuple[Partition, int]] = {}
        missed = 0
        while True:
            await asyncio.sleep(LAG_EVERY_S)
            partitions = dict(self._partitions)
            if not partitions:
                continue
            try:
                ends = await self._group.end_offsets(partitions)
                self._tell_lag(partitions, ends)
                before = await self._unstick(partitions, ends, before)
            except Unavailable as error:
                missed += 1
                if missed == _MISSES:
                    _log.warning("lost the broker", extra={"error": str(error)})
                self._lost = str(error)
            else:
                self._lost, missed = "", 0

    def _tell_lost(self, partition: Partition, lost: int) -> None:
        """Reports records that retention deleted unread. Compaction deletes only superseded ones."""
        if lost and not _compacted(partition.topic):
            metrics.RECORDS_LOST.labels(self._role, partition.topic).inc(lost)
            _log.error(
                "retention deleted records before they were read: add workers, or lengthen the topic's retention.ms",
                extra={"topic": partition.topic, "partition": partition.number, "records": lost},
            )

    def _tell_lag(self, partitions: dict[TP, Partition], ends: dict[TP, int]) -> None:
        lag: dict[str, int] = {}
        for tp, partition in partitions.items():
            position = _position(partition)
            behind = 0 if position is None else max(0, ends[tp] - position)
            lag[partition.topic] = lag.get(partition.topic, 0) + behind
        for topic, records in lag.items():
            metrics.CONSUMER_LAG.labels(self._role, topic).set(records)

    async def _unstick(
        self, partitions: dict[TP, Partition], ends: dict[TP, int], before: dict[TP, tuple[Partition, int]]
    ) -> dict[TP, tuple[Partition, int]]:
        """Makes Faust read again partitions that stand still although they have more records.

        A record that Faust leaves out is noticed when its successor arrives, but the last record has no successor.

        Args:
            before: Where each suspicious partition stood one look ago.

        Returns:
            The partitions that are suspicious now.
        """
        waiting: dict[TP, tuple[Partition, int]] = {}
        for tp, partition in partitions.items():
            stream = self._idle.get(partition.topic)
            idle = stream is not None and stream.channel.queue.empty()
            if not idle or partition.revoked or partition.expected is None or partition.expected >= ends[tp]:
                continue
            waiting[tp] = (partition, partition.expected)
            if before.get(tp) != waiting[tp]:
                continue
            beginning = (await self._group.beginning_offsets([tp]))[tp]
            if beginning > partition.expected:  # retention has removed what was there
                self._tell_lost(partition, beginning - partition.expected)
                partition.expected = beginning
            else:
                _log.warning("reading a partition again", extra={"topic": tp.topic, "partition": tp.partition})
                await self._group.seek(tp, partition.expected)
        return waiting


def _position(partition: Partition) -> int | None:
    """Returns the offset below which everything is done; None if it is not known yet."""
    position = partition.mark.position
    return partition.expected if position is None else position


def _compacted(topic: str) -> bool:
    return TOPICS[topic].retention_ms is None
