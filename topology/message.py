"""A record in a handler's hands, and the partition that it came from."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from topology.codec import decode_key
from topology.lowwater import LowWaterMark

R = TypeVar("R")


class Partition:
    """One assigned partition, with its position and what was handed out of it.

    Attributes:
        topic: Without the prefix.
        expected: The next offset to hand out; None before it is known.
        first: Nothing was handed out yet.
        committed: What we committed last.
        revoked: It was taken away.
        opening: Runs what must happen before the first record.
    """

    def __init__(self, topic: str, number: int) -> None:
        self.topic = topic
        self.number = number
        self.mark = LowWaterMark()
        self.expected: int | None = None
        self.first = True
        self.committed: int | None = None
        self.revoked = False
        self.opening: asyncio.Task[None] | None = None

    @property
    def to_commit(self) -> int | None:
        """The offset to commit, None if there is nothing new."""
        position = self.mark.position
        return None if position == self.committed else position


DeadLetter = Callable[["Message[Any]", Exception, int], Awaitable[None]]


class Message(Generic[R]):
    """One record of a topic, to be ended by `done` or `dead_letter`.

    Attributes:
        value: The record (None for a tombstone, where the agent takes them).
        key: Its key.
        topic: Without the prefix.
        log_ms: When the broker appended it, Unix milliseconds: the order of the log across topics.
        raw: The Kafka message that it was.
    """

    __slots__ = ("_dead_letter", "_partition", "key", "log_ms", "offset", "partition", "raw", "topic", "value")

    value: R

    def __init__(self, partition: Partition, raw: Any, dead_letter: DeadLetter) -> None:
        self._partition = partition
        self._dead_letter = dead_letter
        self.raw = raw
        self.key = decode_key(raw.key)
        self.topic = partition.topic
        self.partition = partition.number
        self.offset: int = raw.offset
        self.log_ms: int = _append_time_ms(raw.timestamp)

    @property
    def revoked(self) -> bool:
        """Whether the partition was taken away since: another worker gets this record, and results here are useless."""
        return self._partition.revoked

    def done(self) -> None:
        """Acks the record. Offsets are committed in order, up to the first record that is not done."""
        self._partition.mark.done(self.offset)

    async def dead_letter(self, error: Exception, attempts: int = 1) -> None:
        """Sends the original bytes, with the cause in the headers, to `<topic>.dlq`; then the record is done."""
        await self._dead_letter(self, error, attempts)
        self.done()


def _append_time_ms(timestamp: float | int | None) -> int:
    """Returns a message's time stamp: Faust gives seconds (float), aiokafka milliseconds (int)."""
    return round(timestamp * 1000) if isinstance(timestamp, float) else int(timestamp or 0)
