"""`cope-live dlq`, `events` and `streams add`, on a broker."""

import json

import pytest
from click.testing import CliRunner

from topology import topics
from topology.admin import create_topics
from topology.dead_letters import DeadLetter
from topology.delivery import Message
from topology.errors import BadInput, UserError
from topology.records import Evidence, ProductDetected, StreamAnnounced
from topology.settings import Settings
from topology.topic_log import Producer, end_offsets, read_raw
from topology.worker import Worker
from workers.cli import dlq, events
from workers.cli.publish import announce


async def _refused(settings: Settings, until, value: bytes) -> None:
    """Has a worker dead-letter a record."""
    worker = Worker("capture", settings, serve_http=False)
    taken = []

    async def handle(messages) -> None:
        message: Message[StreamAnnounced]
        async for message in messages:
            await message.dead_letter(BadInput("not now"))
            taken.append(message)

    worker.delivery.agent(topics.LIVE_STREAMS, StreamAnnounced, handle)
    try:
        await worker.start()
        await worker.delivery._producer.send_raw(topics.LIVE_STREAMS, b"s", value, [])
        await until(lambda: bool(taken))
    finally:
        await worker.stop()


async def _values(settings: Settings, topic: str) -> list[bytes]:
    ends = await end_offsets(settings, topic)
    return [one.value for number, end in ends.items() async for one in read_raw(settings, topic, number, 0, end)]


async def test_letters_are_listed_shown_and_sent_again(broker, until, capsys, tmp_path) -> None:
    value = b'{"stream_id": "s", "url": "a.mp4"}'
    await _refused(broker, until, value)
    await dlq._list(broker, topics.CONSUMED, as_json=True)
    (line,) = capsys.readouterr().out.splitlines()
    row = json.loads(line)
    assert (row["topic"], row["key"], row["offset"], row["message"]) == ("live_streams", "s", 0, "not now")
    await dlq._show(broker, topics.LIVE_STREAMS, row["letter"], None)
    assert value.decode() in capsys.readouterr().out
    await dlq._show(broker, topics.LIVE_STREAMS, row["letter"], tmp_path / "value")
    assert (tmp_path / "value").read_bytes() == value
    with pytest.raises(UserError, match="no letter 9/9"):
        await dlq._redrive(broker, topics.LIVE_STREAMS, ["9/9"])
    await dlq._redrive(broker, topics.LIVE_STREAMS, [row["letter"]])
    assert await _values(broker, topics.LIVE_STREAMS) == [value, value]
    capsys.readouterr()
    await dlq._list(broker, topics.CONSUMED, as_json=False)
    assert capsys.readouterr() == ("", "no letters\n"), "what was sent again is not listed"


@pytest.mark.kafka
async def test_letters_are_purged(kafka, until, capsys) -> None:
    await _refused(kafka, until, b'{"stream_id": "s", "url": "a.mp4"}')
    assert await dlq._purge(kafka, topics.LIVE_STREAMS) == 1
    await dlq._list(kafka, topics.CONSUMED, as_json=False)
    assert capsys.readouterr().out == ""


async def test_a_broker_that_deletes_no_records_is_told_in_a_line(broker) -> None:
    await create_topics(broker)
    async with Producer(broker) as producer:
        await producer.send_raw(topics.dead_letter(topics.LIVE_STREAMS), b"s", b"?", [])
    with pytest.raises(UserError, match=r"does not delete records of .*: its retention does, or delete the topic"):
        await dlq._purge(broker, topics.LIVE_STREAMS)


def test_keys_that_nobody_can_read_do_not_move_the_cursor() -> None:
    letter = DeadLetter("live_streams", 0, 1, 2, 0, "BadInput", "bad", "1", b"a\x1b[2J\n\xff", b"", left_out=False)
    assert dlq._line(letter).isprintable()


def test_a_topic_without_a_queue_is_named() -> None:
    result = CliRunner().invoke(dlq.dlq_command, ["list", "nonsense"])
    assert isinstance(result.exception, UserError)
    assert "nonsense: no topic with a dead-letter queue" in str(result.exception)


async def test_events_are_json_lines(broker, capsys) -> None:
    await create_topics(broker)
    event = ProductDetected(
        detection_id="d", stream_id="s", product_id="p", status="started", epoch=0, media_start_ms=0, media_end_ms=1,
        emitted_media_ms=2, detected_at="", latency_ms=3, confidence=0.9, evidence=Evidence(), model_version="m",
        index_version="i",
    )  # fmt: skip
    async with Producer(broker) as producer:
        await producer.send(topics.PRODUCT_DETECTED, "s", event)
    await events._events(broker, None, follow=False, new=False)
    assert json.loads(capsys.readouterr().out)["product_id"] == "p"
    await events._events(broker, "another", follow=False, new=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("stream_id", "url", "language", "said"),
    [
        ("s", "gopher://h/a", None, "unknown scheme 'gopher'"),
        ("", "rtmp://h/a", None, "stream_id"),
        ("s", "rtmp://h/a", "klingon", "unknown language 'klingon'"),
        ("s", "", None, "no url"),
    ],
)
async def test_what_capture_would_refuse_is_not_announced(stream_id, url, language, said) -> None:
    settings = Settings(_env_file=None, broker="127.0.0.1:1")
    with pytest.raises(UserError, match=said):
        await announce(settings, stream_id, url, language=language)
