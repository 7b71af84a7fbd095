"""Reading and writing topics as a log, with plain Kafka clients and no consumer group.

It serves what Faust's agents do not: reading a whole compacted topic to rebuild state, following a topic in
every process, and sending from the command line.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    RecordListTooLargeError,
    RecordTooLargeError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.partitioner import murmur2

from topology import metrics
from topology.admin import PATIENCE_S, create_topics
from topology.codec import Headers, Value, decode_key, decode_value, encode_key, encode_value
from topology.connection import bootstrap_servers, client_options, full_name, start_client
from topology.errors import BadInput, Unavailable, UserError
from topology.records import ProductDetected, Record
from topology.retry import describe, retrying
from topology.settings import Settings
from topology.topics import TOPICS

_log = logging.getLogger(__name__)

R = TypeVar("R", bound=Record | ProductDetected)
T = TypeVar("T")

REQUEST_TIMEOUT_MS = 30_000  # a send that takes longer is tried anew; a broker restart takes up to 10 s
# How long a read of a whole partition looks past its end. After two producers have written to it at once, Tansu reports
# an end that is one too low until the next record: state that is read back would lack its newest record. A
# broker on the same machine answers in a few ms; longer would slow the start of a worker, which reads all partitions.
PAST_MS = 100
# How long the broker may hold back the answer to a follower that has read everything. Apache Kafka answers at once when
# something comes; Tansu looks again after an eighth of it. A process has a dozen followers: with 200 ms each, asking in
# vain was a quarter of what `watch` did beside its models.
IDLE_FETCH_MS = 1_000
POLL_MS = 200  # how long a read waits for records: bounds how late a stop is noticed
LARGEST_RECORD_BYTES = max(spec.max_message_bytes for spec in TOPICS.values())
LINGER_MS = 5  # how long a batch waits for more records; larger values would show in the latency of live events
# A fetch for a single record brings its neighbours along up to this size; a larger record still comes, alone (KIP-74).
_ONE_RECORD_BYTES = 65_536
_PARTITION_BYTES = 1_048_576  # as Kafka's own consumers

# Errors of the broker's state or the network pass by themselves; these do not.
_PERMANENT = (TopicAuthorizationFailedError, GroupAuthorizationFailedError, SaslAuthenticationFailed)

_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError, RecordTooLargeError)

# What Kafka's record format adds to key, value and headers: a batch header of 61 bytes and some lengths.
_ENVELOPE_BYTES = 200


@dataclass(frozen=True)
class LogRecord(Generic[R]):
    """One record of a topic.

    Attributes:
        value: None for a tombstone.
        topic: Without the prefix.
        log_ms: When the broker appended it, Unix milliseconds.
    """

    value: R | None
    key: str
    topic: str
    partition: int
    offset: int
    log_ms: int


async def end_offsets(settings: Settings, topic: str) -> dict[int, int]:
    """Returns, per partition, the offset that the next record will get."""

    async def attempt() -> dict[int, int]:
        async with _consumer(settings) as consumer:
            partitions = await _partitions(consumer, settings, topic)
            ends = await consumer.end_offsets(partitions)
            return {partition.partition: offset for partition, offset in ends.items()}

    ends: dict[int, int] = await _retrying(attempt, f"read the end of {topic}")
    return ends


async def read_partition(settings: Settings, topic: str, partition: int, kind: type[R]) -> AsyncIterator[LogRecord[R]]:
    """Yields the records of a partition, from its beginning to its end as of now.

    Tombstones have the value None; unreadable records are skipped, logged and counted. When the broker goes
    away in between, reading goes on where it was.
    """
    ends = await end_offsets(settings, topic)
    end = ends.get(partition, 0)
    # If the partition is not empty, look once past its reported end: see `PAST_MS`.
    async for message in read_raw(settings, topic, partition, 0, end, past=end > 0):
        record = _decode(message, topic, kind)
        if isinstance(record, LogRecord):
            yield record


async def read_range(
    settings: Settings,
    topic: str,
    partition: int,
    kind: type[R],
    start: int,
    end: int,
    *,
    key: str | None = None,
    past: bool = False,
) -> AsyncIterator[LogRecord[R]]:
    """Yields the records of a partition with start <= offset < end, as `read_partition` does.

    With a `key`, those of other keys are left out, and cost little: they are not decoded. With `past`, it looks once
    past the end: see `PAST_MS`.
    """
    wanted = None if key is None else encode_key(key)
    async for message in read_raw(settings, topic, partition, start, end, past=past):
        if wanted is not None and message.key != wanted:
            continue
        record = _decode(message, topic, kind)
        if isinstance(record, LogRecord):
            yield record


async def read_raw(
    settings: Settings, topic: str, partition: int, start: int, end: int, past: bool = False
) -> AsyncIterator[Any]:
    """Yields aiokafka's `ConsumerRecord`s of a partition with start <= offset < end; with `past`, what follows too."""
    target = TopicPartition(full_name(settings, topic), partition)
    position = start

    async def connect() -> AIOKafkaConsumer:
        consumer = _new_consumer(settings)
        try:
            await start_client(consumer)
            consumer.assign([target])
            consumer.seek(target, position)
        except BaseException:
            await consumer.stop()
            raise
        return consumer

    while position < end or past:
        consumer = await _retrying(connect, f"read {topic}")
        try:
            while position < end or past:
                batches = await consumer.getmany(target, timeout_ms=POLL_MS if position < end else PAST_MS)
                found = batches.get(target, ())
                if position >= end and not found:
                    return
                for message in found:
                    if message.offset >= end and not past:
                        return
                    position = message.offset + 1
                    yield message
                # The last offsets of a compacted partition may not exist: the consumer's own position passes them.
                position = max(position, await consumer.position(target))
        except KafkaError as error:
            _raise_permanent(error, topic)
            _log.warning("reading was interrupted", extra={"topic": topic, "error": describe(error)})
        finally:
            await consumer.stop()


class Follower(Generic[R]):
    """Follows a topic for ever: `async for record in follower`.

    It begins with the first record, or, if not `from_beginning`, with the newest `tail` offsets of each partition.
    What cannot be read is skipped, logged and counted; `refuse(partition, offset, error)` may do more about it.

    Attributes:
        caught_up: Set once all that the topic held at the start has been yielded and taken.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        kind: type[R],
        partitions: Iterable[int] | None = None,
        from_beginning: bool = True,
        tail: int = 0,
        refuse: Callable[[int, int, BadInput], Awaitable[None]] | None = None,
    ) -> None:
        self.caught_up = asyncio.Event()
        self._settings = settings
        self._topic = topic
        self._kind = kind
        self._wanted = None if partitions is None else set(partitions)
        self._from_beginning = from_beginning
        self._tail = tail
        self._refuse = refuse
        self._positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._moved = asyncio.Event()
        self._stopped = False

    async def reach(self, ends: Mapping[int, int]) -> None:
        """Returns when all records below these offsets, one a partition, were yielded and taken."""
        while True:
            positions = {partition.partition: position for partition, position in self._positions.items()}
            if all(positions.get(partition, 0) >= end for partition, end in ends.items()):
                return
            await self._moved.wait()

    def stop(self) -> None:
        """Ends the iteration, within `POLL_MS`."""
        self._stopped = True

    async def __aiter__(self) -> AsyncIterator[LogRecord[R]]:
        while not self._stopped:
            consumer = await _retrying(self._connect, f"follow {self._topic}")
            try:
                while not self._stopped:
                    self._note_progress()
                    batches = await consumer.getmany(timeout_ms=POLL_MS)
                    for partition, messages in batches.items():
                        for message in messages:
                            record = _decode(message, self._topic, self._kind)
                            if isinstance(record, LogRecord):
                                yield record
                            elif self._refuse is not None:
                                await self._refuse(message.partition, message.offset, record)
                            self._positions[partition] = message.offset + 1
                            if self._stopped:
                                return
                    for partition in self._positions:
                        position = await consumer.position(partition)
                        self._positions[partition] = max(self._positions[partition], position)
            except KafkaError as error:
                _raise_permanent(error, self._topic)
                _log.warning("following was interrupted", extra={"topic": self._topic, "error": describe(error)})
            finally:
                await consumer.stop()

    async def _connect(self) -> AIOKafkaConsumer:
        consumer = _new_consumer(self._settings, IDLE_FETCH_MS)
        try:
            await start_client(consumer)
            partitions = await _partitions(consumer, self._settings, self._topic)
            partitions = [p for p in partitions if self._wanted is None or p.partition in self._wanted]
            consumer.assign(partitions)
            if not self._ends:
                self._ends = dict(await consumer.end_offsets(partitions))
                tail = self._tail
                self._positions = {
                    p: 0 if self._from_beginning else max(0, end - tail) for p, end in self._ends.items()
                }
            for partition, position in self._positions.items():
                consumer.seek(partition, position)
        except BaseException:
            await consumer.stop()
            raise
        return consumer

    def _note_progress(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
        if all(self._positions[partition] >= end for partition, end in self._ends.items()):
            self.caught_up.set()


class Producer:
    """Sends records, each acknowledged by all in-sync replicas of the broker.

    It connects with its first send. Use it as an async context manager, or call `stop`.
    """

    def __init__(self, settings: Settings) -> None:
        bootstrap_servers(settings)  # a wrong address is reported here, not at the first send
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._troubles: dict[str, str] = {}

    @property
    def trouble(self) -> str:
        """Sends that are being retried now, and why; empty when everything that was sent has arrived."""
        return "; ".join(self._troubles.values())

    async def send(self, topic: str, key: str, record: Value | None, *, headers: Headers | None = None) -> int:
        """Returns the record's offset when the broker has acknowledged it; tries again while it is down.

        Args:
            topic: Without the prefix.
            key: Decides the partition.
            record: None is a tombstone.
            headers: Joined to those that the record has by itself.

        Raises:
            BadInput: The record is larger than the topic takes.
            UserError: The broker refuses the user.
        """
        value, own_headers = (None, []) if record is None else encode_value(record)
        return await self.send_raw(topic, encode_key(key), value, [*own_headers, *(headers or [])])

    async def send_raw(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int | None = None
    ) -> int:
        """As `send`, for bytes."""
        size = check_size(topic, key, value, headers)
        if key is None and value is None:
            key = b""  # aiokafka sends no record without both

        async def attempt() -> int:
            producer = await self._connected()
            name = full_name(self._settings, topic)
            try:
                sent = await producer.send_and_wait(name, value, key=key, partition=partition, headers=headers)
                return int(sent.offset)
            except _TOO_LARGE as error:  # the broker's own limit is lower than ours
                raise BadInput(f"a record of {size} bytes is larger than the broker takes on {name}") from error
            except (UnknownTopicOrPartitionError, KafkaTimeoutError):  # also what a deleted topic gives
                await _create_missing(self._settings)
                raise

        what = f"send to {topic}"

        async def told() -> int:
            try:
                offset: int = await _once(attempt, what)
            except Unavailable as error:
                self._troubles[topic] = str(error)
                raise
            self._troubles.pop(topic, None)
            return offset

        return await retrying(told, what)

    async def stop(self) -> None:
        """Closes the connection."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _connected(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **client_options(self._settings),
                    acks="all",
                    enable_idempotence=self._settings.idempotent_producer,
                    linger_ms=LINGER_MS,
                    request_timeout_ms=REQUEST_TIMEOUT_MS,
                    max_request_size=LARGEST_RECORD_BYTES,
                    metadata_max_age_ms=60_000,
                )
                try:
                    await start_client(producer)
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer


class RecordReader:
    """Reads single records by their offsets, with one connection for all of them.

    Records come one by one: a second caller waits for the first.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None
        self._one = asyncio.Lock()

    async def read(self, topic: str, partition: int, offset: int, kind: type[R]) -> LogRecord[R] | None:
        """Returns the record; None if it is not there any more, or cannot be read as one of that kind.

        Raises:
            Unavailable: The broker does not answer.
        """
        target = TopicPartition(full_name(self._settings, topic), partition)
        async with self._one:
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
                    message = await self._fetch(target, offset)
            except (KafkaError, OSError, TimeoutError) as error:
                await self._close()
                _raise_permanent(error, f"read {topic}")
                raise Unavailable(f"read {topic}: {describe(error)}") from error
        if message is None:
            return None
        record = _decode(message, topic, kind)
        return record if isinstance(record, LogRecord) else None

    async def stop(self) -> None:
        """Closes the connection."""
        async with self._one:
            await self._close()

    async def _fetch(self, target: TopicPartition, offset: int) -> Any:
        if self._consumer is None:
            consumer = _new_consumer(self._settings, max_bytes=_ONE_RECORD_BYTES, reset="none")
            try:
                await start_client(consumer)
            except BaseException:
                await consumer.stop()
                raise
            self._consumer = consumer
        consumer = self._consumer
        if target in consumer.assignment():
            consumer.resume(target)
        else:
            consumer.assign([target])  # asks the broker for metadata: a third of what a read costs
        consumer.seek(target, offset)
        try:
            while True:
                for message in (await consumer.getmany(target, timeout_ms=POLL_MS)).get(target, ()):
                    return message if message.offset == offset else None  # compacted away: the next one comes
                end = (await consumer.end_offsets([target]))[target]
                if offset >= end or await consumer.position(target) > offset:
                    return None
        except OffsetOutOfRangeError:  # deleted by retention
            return None
        finally:
            consumer.pause(target)  # it would go on to fetch what follows

    async def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()


def partition_of(key: str, partitions: int) -> int:
    """Returns the partition to which our producers send records of a key."""
    return int((murmur2(encode_key(key)) & 0x7FFFFFFF) % partitions)


def check_size(topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Returns the approximate size of a record in bytes.

    Raises:
        BadInput: The record is too large for the topic.
    """
    limit = TOPICS[topic].max_message_bytes
    size = _ENVELOPE_BYTES + len(value or b"") + len(key or b"") + sum(len(k) + len(v) for k, v in headers)
    if size > limit:
        raise BadInput(f"a record of {size} bytes is larger than {topic} takes ({limit})")
    return size


async def _create_missing(settings: Settings) -> None:
    """Makes topics that were deleted while this process runs, as its next start would."""
    with suppress(UserError):  # the next start reports it; the send that needs the topic names the missing topic
        await create_topics(settings, give_up_s=PATIENCE_S)


async def _retrying(fn: Callable[[], Any], what: str) -> Any:
    return await retrying(lambda: _once(fn, what), what)


async def _once(fn: Callable[[], Any], what: str) -> Any:
    try:
        return await fn()
    except (KafkaError, OSError) as error:
        _raise_permanent(error, what)
        raise Unavailable(f"{what}: {describe(error)}") from error


def _raise_permanent(error: BaseException, what: str) -> None:
    if isinstance(error, _PERMANENT):
        raise UserError(
            f"{what}: the broker refuses it ({describe(error)}): check COPE_BROKER_USERNAME, COPE_BROKER_PASSWORD "
            "and the user's rights"
        ) from error


def _new_consumer(
    settings: Settings, wait_ms: int = POLL_MS, max_bytes: int = _PARTITION_BYTES, reset: str = "earliest"
) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        **client_options(settings),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset=reset,
        fetch_max_wait_ms=wait_ms,
        max_partition_fetch_bytes=max_bytes,
    )


@asynccontextmanager
async def _consumer(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = _new_consumer(settings)
    try:
        await start_client(consumer)
        yield consumer
    finally:
        await consumer.stop()


async def _partitions(consumer: AIOKafkaConsumer, settings: Settings, topic: str) -> list[TopicPartition]:
    name = full_name(settings, topic)
    await consumer._client.force_metadata_update()  # a consumer without a topic knows no partitions
    partitions = consumer.partitions_for_topic(name)
    if not partitions:
        topics = await consumer.topics()
        partitions = consumer.partitions_for_topic(name) if name in topics else None
    if not partitions:
        raise Unavailable(f"topic {name} does not exist (`cope-live topics create` makes it)")
    return [TopicPartition(name, partition) for partition in sorted(partitions)]


def _decode(message: Any, topic: str, kind: type[R]) -> LogRecord[R] | BadInput:
    try:
        value = None if message.value is None else decode_value(message.value, kind)
    except BadInput as error:
        metrics.RECORDS_SKIPPED.labels(topic).inc()
        _log.warning(
            "skipped an unreadable record",
            extra={"topic": topic, "partition": message.partition, "offset": message.offset, "error": describe(error)},
        )
        return error
    return LogRecord(value, decode_key(message.key), topic, message.partition, message.offset, message.timestamp)
