"""Reading topics as a log."""

import asyncio
import contextlib
import gc
import warnings

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.structs import TopicPartition

from topology import topics
from topology.admin import create_topics
from topology.errors import UserError
from topology.records import Evidence, PageVectors, ProductDetected, StreamAnnounced
from topology.topic_log import (
    Follower,
    LogRecord,
    Producer,
    RecordReader,
    end_offsets,
    partition_of,
    read_partition,
    read_range,
)


def page(number: int) -> PageVectors:
    return PageVectors(product_id=f"p{number % 20}", source_partition=0, source_offset=number)


async def send_pages(settings, numbers: range) -> None:
    async with Producer(settings) as producer:
        for number in numbers:
            record = page(number)
            await producer.send(topics.PAGE_VECTORS, record.product_id, record)


async def follow(follower: Follower, seen: list) -> None:
    async for record in follower:
        assert record.topic == topics.PAGE_VECTORS
        seen.append(record)


def numbers(records: list[LogRecord[PageVectors]]) -> list[int]:
    return sorted(record.value.source_offset for record in records if record.value)


async def read_all(settings, topic, kind) -> list:
    ends = await end_offsets(settings, topic)
    return [record for partition in ends async for record in read_partition(settings, topic, partition, kind)]


async def test_a_partition_is_read_from_its_beginning_to_its_end(any_broker) -> None:
    await create_topics(any_broker)
    assert await read_all(any_broker, topics.PAGE_VECTORS, PageVectors) == []
    await send_pages(any_broker, range(40))
    async with Producer(any_broker) as producer:
        await producer.send(topics.PAGE_VECTORS, "p1", None)
        await producer.send_raw(topics.PAGE_VECTORS, b"p1", b"junk", [])
    records = await read_all(any_broker, topics.PAGE_VECTORS, PageVectors)
    assert sorted(r.value.source_offset for r in records if r.value is not None) == list(range(40))
    assert [(r.key, r.value) for r in records if r.value is None] == [("p1", None)]
    assert sum((await end_offsets(any_broker, topics.PAGE_VECTORS)).values()) == 42


async def test_a_range_may_begin_and_end_anywhere(broker) -> None:
    await create_topics(broker)
    async with Producer(broker) as producer:
        for number in range(10):
            await producer.send(topics.PAGE_VECTORS, "p", page(number))
    ends = await end_offsets(broker, topics.PAGE_VECTORS)
    partition = max(ends, key=lambda p: ends[p])
    records = [r async for r in read_range(broker, topics.PAGE_VECTORS, partition, PageVectors, 3, 7)]
    assert [r.value.source_offset for r in records if r.value] == [3, 4, 5, 6]


async def test_single_records_are_read_at_their_offsets_and_what_is_not_there_is_none(any_broker) -> None:
    await create_topics(any_broker)
    async with Producer(any_broker) as producer:
        for number in range(10):
            await producer.send(topics.PAGE_VECTORS, "p", page(number))
        await producer.send_raw(topics.PAGE_VECTORS, b"p", b"junk", [])
        await producer.send(topics.PAGE_VECTORS, "p", None)
    partition = partition_of("p", len(await end_offsets(any_broker, topics.PAGE_VECTORS)))
    reader = RecordReader(any_broker)
    try:

        async def read(offset: int) -> LogRecord[PageVectors] | None:
            return await reader.read(topics.PAGE_VECTORS, partition, offset, PageVectors)

        for offset in (7, 0, 9):
            found = await read(offset)
            assert found is not None and found.value == page(offset)
        gone = await read(11)
        assert gone is not None and gone.value is None
        assert [await read(offset) for offset in (10, 12, 10_000)] == [None] * 3
        again = await read(3)
        assert again is not None and again.value == page(3), "a miss does not break the connection"
    finally:
        await reader.stop()


async def test_events_are_read_as_json(broker) -> None:
    await create_topics(broker)
    event = ProductDetected(
        detection_id="d",
        stream_id="s",
        product_id="p",
        status="started",
        epoch=0,
        media_start_ms=0,
        media_end_ms=0,
        emitted_media_ms=0,
        detected_at="2026-01-01T00:00:00.000Z",
        latency_ms=1,
        confidence=0.9,
        evidence=Evidence(),
        model_version="m",
        index_version="i",
    )
    async with Producer(broker) as producer:
        await producer.send(topics.PRODUCT_DETECTED, "s", event)
    (record,) = await read_all(broker, topics.PRODUCT_DETECTED, ProductDetected)
    assert record.value == event


async def test_a_follower_tells_when_it_has_caught_up_and_goes_on(any_broker, until) -> None:
    await create_topics(any_broker)
    await send_pages(any_broker, range(20))
    follower = Follower(any_broker, topics.PAGE_VECTORS, PageVectors)
    seen: list[LogRecord] = []
    task = asyncio.create_task(follow(follower, seen))
    await asyncio.wait_for(follower.caught_up.wait(), 30)
    assert numbers(seen) == list(range(20))
    await send_pages(any_broker, range(20, 25))
    await until(lambda: numbers(seen) == list(range(25)))
    follower.stop()
    await asyncio.wait_for(task, 10)


async def test_a_follower_may_begin_at_the_end(broker, until) -> None:
    await create_topics(broker)
    await send_pages(broker, range(10))
    follower = Follower(broker, topics.PAGE_VECTORS, PageVectors, from_beginning=False)
    seen: list[LogRecord] = []
    task = asyncio.create_task(follow(follower, seen))
    await asyncio.wait_for(follower.caught_up.wait(), 30)
    await send_pages(broker, range(10, 12))
    await until(lambda: len(seen) == 2)
    assert numbers(seen) == [10, 11]
    follower.stop()
    await task


async def test_followers_of_an_empty_topic_are_caught_up(broker) -> None:
    await create_topics(broker)
    follower = Follower(broker, topics.LIVE_STREAMS, StreamAnnounced)
    task = asyncio.ensure_future(anext(aiter(follower)))
    await asyncio.wait_for(follower.caught_up.wait(), 30)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.kafka
async def test_a_compacted_topic_whose_last_offsets_are_gone_still_ends(kafka) -> None:
    """Compaction and deletion leave offsets without records, also at both ends."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.broker)
    await admin.start()
    try:
        name = kafka.topic_prefix + topics.PAGE_VECTORS
        await admin.create_topics([NewTopic(name, 2, 1, topic_configs={"cleanup.policy": "compact,delete"})])
        await create_topics(kafka)
        await send_pages(kafka, range(30))
        ends = await end_offsets(kafka, topics.PAGE_VECTORS)
        await admin.delete_records(
            {
                TopicPartition(name, 0): RecordsToDelete(before_offset=ends[0]),
                TopicPartition(name, 1): RecordsToDelete(before_offset=ends[1] - 1),
            }
        )
    finally:
        await admin.close()
    assert [r async for r in read_partition(kafka, topics.PAGE_VECTORS, 0, PageVectors)] == []
    assert [r.offset async for r in read_partition(kafka, topics.PAGE_VECTORS, 1, PageVectors)] == [ends[1] - 1]
    reader = RecordReader(kafka)
    assert await reader.read(topics.PAGE_VECTORS, 1, 0, PageVectors) is None
    kept = await reader.read(topics.PAGE_VECTORS, 1, ends[1] - 1, PageVectors)
    assert kept is not None and kept.offset == ends[1] - 1
    await reader.stop()
    follower = Follower(kafka, topics.PAGE_VECTORS, PageVectors)
    seen: list[LogRecord] = []
    task = asyncio.create_task(follow(follower, seen))
    await asyncio.wait_for(follower.caught_up.wait(), 30)
    assert [record.offset for record in seen] == [ends[1] - 1]
    follower.stop()
    await task


@pytest.mark.kafka
async def test_reading_and_sending_outlive_a_broker_that_is_killed(kafka, kafka_server, until) -> None:
    await create_topics(kafka)
    follower = Follower(kafka, topics.PAGE_VECTORS, PageVectors)
    seen: list[LogRecord] = []
    task = asyncio.create_task(follow(follower, seen))
    async with Producer(kafka) as producer:
        await producer.send(topics.PAGE_VECTORS, "p", page(0))
        await until(lambda: numbers(seen) == [0])
        kafka_server.kill()
        sending = asyncio.create_task(producer.send(topics.PAGE_VECTORS, "p", page(1)))
        kafka_server.start()
        await asyncio.wait_for(sending, 90)
        await until(lambda: set(numbers(seen)) == {0, 1}, 90)
    follower.stop()
    await asyncio.wait_for(task, 20)


async def test_a_read_that_is_cancelled_at_any_time_leaves_no_connection(broker) -> None:
    await create_topics(broker)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for step in range(400):
            following = asyncio.ensure_future(follow(Follower(broker, topics.PAGE_VECTORS, PageVectors), []))
            await asyncio.sleep(step * 0.000_03)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        gc.collect()
    assert not [one for one in told if "Unclosed" in str(one.message)]


async def test_topics_are_created_once_and_keep_their_partition_count(any_broker) -> None:
    created = await create_topics(any_broker)
    assert set(created) == set(topics.TOPICS)
    assert await create_topics(any_broker) == []
    with pytest.raises(UserError, match="COPE_STREAM_PARTITIONS"):
        await create_topics(any_broker.model_copy(update={"stream_partitions": 7}))
