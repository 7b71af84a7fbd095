"""Topics as others make and fill them: every codec of Kafka, JSON, dead-letter queues of another size or none."""

from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete

from topology import metrics, topics
from topology.admin import create_topics, other_settings
from topology.connection import client_options, full_name
from topology.dead_letters import read_letters
from topology.delivery import Message
from topology.records import Frame, ProductPage, StreamAnnounced
from topology.settings import Settings
from topology.topic_log import Producer, end_offsets, read_partition
from topology.worker import Worker
from workers.cli.publish import list_streams

JSON = b' {"stream_id": "room-json", "url": "rtmp://host/room", "language": "zh-CN"}'


def collecting(settings: Settings, topic: str = topics.LIVE_STREAMS, kind: type = StreamAnnounced) -> tuple:
    """A worker that takes records of a topic, and the list of those that it took."""
    worker = Worker("capture", settings)
    seen: list = []

    async def handle(messages: AsyncIterator[Message]) -> None:
        async for message in messages:
            seen.append(message.value)
            message.done()

    worker.delivery.agent(topic, kind, handle)
    return worker, seen


async def letters_of(settings: Settings, topic: str) -> list:
    return [one async for one in read_letters(settings, topic)]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_compressed_records_are_read(any_broker, running, until, codec: str) -> None:
    await create_topics(any_broker)
    producer = AIOKafkaProducer(**client_options(any_broker), compression_type=codec)
    await producer.start()
    try:
        for topic in (topics.LIVE_STREAMS, topics.dead_letter(topics.LIVE_STREAMS)):
            await producer.send_and_wait(full_name(any_broker, topic), JSON, key=b"room-json")
    finally:
        await producer.stop()
    worker, seen = collecting(any_broker)
    async with running(worker):
        await until(lambda: bool(seen))
    assert seen[0].url == "rtmp://host/room"
    held = [
        record.value
        for partition in await end_offsets(any_broker, topics.LIVE_STREAMS)
        async for record in read_partition(any_broker, topics.LIVE_STREAMS, partition, StreamAnnounced)
    ]
    assert held == seen
    assert [letter.value for letter in await letters_of(any_broker, topics.LIVE_STREAMS)] == [JSON]
    (line,) = await list_streams(any_broker, as_json=False)
    assert "rtmp://host/room" in line


async def test_what_cannot_be_used_is_dead_lettered_with_what_was_expected(broker, running, until) -> None:
    worker, seen = collecting(broker)
    bad = {
        b'{"stream_id": "s", "url": "gopher://host/a"}': "unknown scheme 'gopher': expected one of rtmp",
        b'{"stream_id": "s", "url": "a.mp4", "language": "klingon"}': "unknown language 'klingon'",
        b'{"stream_id": "", "url": "a.mp4"}': "length >= 1 - at `$.stream_id`",
        b'{"stream_id": " ", "url": "a.mp4"}': "empty stream_id",
        b'{"stream_id": "s"}': "no url",
        b'{"url": "a.mp4"}': "missing required field `stream_id`",
        b'{"stream_id": "s", "url": "a.mp4", "language": "\xff"}': "not a StreamAnnounced",
        b'{"a":' * 3_000: "nested too deeply",
        b"\x81\xa1a" * 3_000: "nested too deeply",
        b'{"stream_id": "s", "url": "a.mp4", "product_ids": ["%s"]}' % (b"x" * 400_000): "its shopping bag of 1",
    }
    async with running(worker):
        async with Producer(broker) as producer:
            for value in bad:
                await producer.send_raw(topics.LIVE_STREAMS, b"s", value, [])
            await producer.send_raw(topics.LIVE_STREAMS, None, None, [])
            await producer.send_raw(topics.LIVE_STREAMS, b"s", b'{"stream_id": "s", "url": "a.mp4"}', [])
        await until(lambda: bool(seen))
    assert seen == [StreamAnnounced(stream_id="s", url="a.mp4")]
    found = {one.value: one.message for one in await letters_of(broker, topics.LIVE_STREAMS)}
    for value, said in bad.items():
        assert said in found[value]
    assert max(map(len, found.values())) < 1_100


async def _remake(settings: Settings, name: str, config: dict[str, str] | None) -> None:
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    try:
        if name in await admin.list_topics():
            await admin.delete_topics([name])
        if config is not None:
            await admin.create_topics([NewTopic(name, settings.product_partitions, 1, topic_configs=config)])
    finally:
        await admin.close()


@pytest.mark.kafka
async def test_a_queue_with_a_smaller_limit_takes_the_cause_without_the_bytes(kafka, running, until) -> None:
    queue = topics.dead_letter(topics.PRODUCT_PAGES)
    await _remake(kafka, full_name(kafka, queue), {"max.message.bytes": "100000"})
    await create_topics(kafka)
    worker = Worker("catalog", kafka)
    seen: list[str] = []

    async def handle(messages: AsyncIterator[Message[ProductPage]]) -> None:
        async for message in messages:
            seen.append(message.value.product_id)
            message.done()

    worker.delivery.agent(topics.PRODUCT_PAGES, ProductPage, handle)
    async with running(worker):
        async with Producer(kafka) as producer:
            await producer.send_raw(topics.PRODUCT_PAGES, b"p", b"\xc1" * 2_000_000, [])
            await producer.send(topics.PRODUCT_PAGES, "p", ProductPage(product_id="p", title="", images=()))
        await until(lambda: seen == ["p"])
    (letter,) = await letters_of(kafka, topics.PRODUCT_PAGES)
    assert (letter.value, letter.left_out, letter.offset) == (None, True, 0)
    assert "not a ProductPage" in letter.message


@pytest.mark.kafka
async def test_a_queue_that_was_deleted_is_made_again(kafka, running, until) -> None:
    worker, seen = collecting(kafka)
    async with running(worker):
        await until(lambda: worker.delivery.ready)
        await _remake(kafka, full_name(kafka, topics.dead_letter(topics.LIVE_STREAMS)), None)
        async with Producer(kafka) as producer:
            await producer.send_raw(topics.LIVE_STREAMS, b"s", b"\xc1", [])
            await producer.send_raw(topics.LIVE_STREAMS, b"s", JSON, [])
        await until(lambda: bool(seen))
        assert not worker.delivery.trouble
    assert [one.value for one in await letters_of(kafka, topics.LIVE_STREAMS)] == [b"\xc1"]


@pytest.mark.kafka
async def test_topics_with_other_settings_are_named_with_the_mend(kafka) -> None:
    name = full_name(kafka, topics.PRODUCT_PAGES)
    wrong = {"message.timestamp.type": "CreateTime", "cleanup.policy": "delete", "max.message.bytes": "1000"}
    await _remake(kafka, name, wrong)
    await create_topics(kafka)
    lines = await other_settings(kafka)
    assert len(lines) == 3
    assert all(f"--alter --topic {name} --add-config " in line for line in lines)
    assert any("has cleanup.policy=delete, the flow needs compact" in line for line in lines)


@pytest.mark.kafka
async def test_records_that_retention_deletes_unread_are_counted(kafka, running, until, caplog) -> None:
    worker, seen = collecting(kafka, topics.LIVE_FRAMES, Frame)
    one = Frame(stream_id="s", epoch=0, pts_ms=0, captured_at_ms=0)
    async with running(worker):
        await worker.delivery.send(topics.LIVE_FRAMES, "s", one)
        await until(lambda: bool(seen))
    async with Producer(kafka) as producer:
        for _ in range(5):
            await producer.send(topics.LIVE_FRAMES, "s", one)
    ends = await end_offsets(kafka, topics.LIVE_FRAMES)
    admin = AIOKafkaAdminClient(**client_options(kafka))
    await admin.start()
    name = full_name(kafka, topics.LIVE_FRAMES)
    await admin.delete_records({TopicPartition(name, n): RecordsToDelete(end) for n, end in ends.items() if end})
    await admin.close()
    again, seen_again = collecting(kafka, topics.LIVE_FRAMES, Frame)
    lost = metrics.RECORDS_LOST.labels("capture", topics.LIVE_FRAMES)._value
    before = lost.get()
    async with running(again):
        await again.delivery.send(topics.LIVE_FRAMES, "s", one)
        await until(lambda: bool(seen_again))
    assert lost.get() - before == 5
    assert "retention deleted records before they were read" in caplog.text
