"""Dead-letter queues: reading, sending, redriving and deleting dead letters."""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import KafkaError

from topology import metrics
from topology.codec import Headers
from topology.connection import client_options, full_name, start_client
from topology.errors import BadInput, UserError
from topology.redact import redacted
from topology.retry import describe
from topology.settings import Settings
from topology.topic_log import Producer, end_offsets, read_raw
from topology.topics import dead_letter

_log = logging.getLogger(__name__)

# Headers are read by people, and must fit beside the largest record.
_LONGEST_ERROR_MESSAGE = 1_000

# Header of a note in the queue: the letter at that offset was sent to its topic again.
_REDRIVEN = "redriven"


@dataclass(frozen=True)
class DeadLetter:
    """A record that could not be used.

    Attributes:
        topic: Where it came from, without the prefix.
        partition: Its partition there, and in the queue.
        offset: Its offset there; -1 if a letter was put into the queue by hand.
        queue_offset: Its offset in the queue.
        log_ms: When it was dead-lettered, Unix milliseconds.
        error: Class of the error.
        message: What was wrong.
        attempts: How often it was tried.
        key: Key of the record.
        value: Its original bytes; None for a tombstone, and where the queue did not take them.
        left_out: The record is too large for the queue: its bytes are only in the source topic.
    """

    topic: str
    partition: int
    offset: int
    queue_offset: int
    log_ms: int
    error: str
    message: str
    attempts: str
    key: bytes | None
    value: bytes | None
    left_out: bool

    @property
    def name(self) -> str:
        """The name that commands use: partition and offset in the queue."""
        return f"{self.partition}/{self.queue_offset}"


async def read_letters(settings: Settings, topic: str) -> AsyncIterator[DeadLetter]:
    """Yields the letters that a topic's queue holds now and that were not sent again, partition by partition."""
    queue = dead_letter(topic)
    for partition, end in sorted((await end_offsets(settings, queue)).items()):
        letters: dict[int, DeadLetter] = {}
        async for raw in read_raw(settings, queue, partition, 0, end):
            told = dict(raw.headers)
            if _REDRIVEN in told:
                letters.pop(int(told[_REDRIVEN]), None)
            else:
                letters[raw.offset] = _letter(topic, raw)
        for letter in letters.values():
            yield letter


async def send_letter(
    producer: Producer, topic: str, partition: int, raw: Any, error: Exception, attempts: int = 1
) -> None:
    """Sends a record's original bytes, with the cause in the headers, to `<topic>.dlq`.

    Args:
        producer: Sends the letter and waits until the broker has acknowledged it.
        topic: Where the record is, without the prefix.
        partition: Its partition.
        raw: The Kafka message.
        error: What was wrong with it.
        attempts: How often it was tried.
    """
    cause = {
        "topic": topic,
        "partition": partition,
        "offset": raw.offset,
        "error": type(error).__name__,
        "message": redacted(str(error))[:_LONGEST_ERROR_MESSAGE],
        "attempts": attempts,
    }
    headers: Headers = [(name, str(value).encode(errors="replace")) for name, value in cause.items()]
    queue = dead_letter(topic)
    # The same partition as the source, whatever the key is, so that records that belong together stay together.
    try:
        await producer.send_raw(queue, raw.key, raw.value, headers, partition=partition)
    except BadInput as too_large:
        # The queue has a lower limit than the one that we create it with. The flow must go on, and the cause must be
        # reported. The bytes stay in the source topic for as long as it keeps them.
        _log.error("a dead letter is sent without its bytes", extra={"topic": queue, "error": str(too_large)})
        headers.append(("bytes_left_out", str(len(raw.value or b"") + len(raw.key or b"")).encode()))
        await producer.send_raw(queue, None, None, headers, partition=partition)
    metrics.DEAD_LETTERS.labels(topic, type(error).__name__).inc()
    _log.warning(
        "dead-lettered a record",
        extra={
            "topic": topic,
            "partition": partition,
            "offset": raw.offset,
            "error": describe(error)[:_LONGEST_ERROR_MESSAGE],
        },
    )


async def redrive(producer: Producer, letter: DeadLetter) -> None:
    """Sends the original bytes to the topic that they came from, and notes that in the queue.

    A crash in between leaves the letter in the queue. If it is then sent twice, it has its effect once, as any record.
    """
    await producer.send_raw(letter.topic, letter.key, letter.value, [])
    note = [(_REDRIVEN, str(letter.queue_offset).encode())]
    await producer.send_raw(dead_letter(letter.topic), None, None, note, partition=letter.partition)


async def delete_letters(settings: Settings, topic: str) -> int:
    """Deletes all letters that a topic's queue holds now; returns their number.

    Raises:
        UserError: The broker cannot delete records.
    """
    queue = dead_letter(topic)
    count = len([one async for one in read_letters(settings, topic)])
    ends = {partition: end for partition, end in (await end_offsets(settings, queue)).items() if end}
    name = full_name(settings, queue)
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        await start_client(admin)
        await admin.delete_records({TopicPartition(name, one): RecordsToDelete(end) for one, end in ends.items()})
    except (KafkaError, OSError) as error:
        raise UserError(
            f"the broker does not delete records of {name} ({describe(error)}): its retention does, or delete the topic"
        ) from error
    finally:
        await admin.close()
    return count


class LogRefusals:
    """Dead-letters bad records of a log that every process reads from its beginning, each record once."""

    def __init__(self, settings: Settings, topic: str, producer: Producer) -> None:
        self._settings = settings
        self._topic = topic
        self._producer = producer
        self._known: set[tuple[int, int]] | None = None  # by partition and offset

    async def tell(self, partition: int, offset: int, error: BadInput) -> None:
        """Sends the record at an offset to the queue, unless it is there."""
        if self._known is None:
            self._known = {(one.partition, one.offset) async for one in read_letters(self._settings, self._topic)}
        if (partition, offset) in self._known:
            return
        self._known.add((partition, offset))
        async for raw in read_raw(self._settings, self._topic, partition, offset, offset + 1):
            await send_letter(self._producer, self._topic, partition, raw, error)


def _letter(topic: str, raw: Any) -> DeadLetter:
    told = {name: value.decode(errors="replace") for name, value in raw.headers}
    offset = told.get("offset", "")
    return DeadLetter(
        topic=topic,
        partition=raw.partition,
        offset=int(offset) if offset.isdecimal() else -1,
        queue_offset=raw.offset,
        log_ms=raw.timestamp,
        error=told.get("error", ""),
        message=told.get("message", ""),
        attempts=told.get("attempts", ""),
        key=raw.key,
        value=raw.value,
        left_out="bytes_left_out" in told,
    )
