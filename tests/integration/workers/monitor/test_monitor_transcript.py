"""What was said, without reading an hour of a partition at each question."""

import pytest

from topology import metrics
from topology.admin import create_topics
from topology.records import Keyword, Keywords
from topology.topic_log import Producer
from topology.topics import LIVE_KEYWORDS
from workers.monitor.transcript import Transcripts


@pytest.fixture
async def say(broker):
    """Sends a piece of speech of a stream."""
    broker = broker.model_copy(update={"stream_partitions": 1})
    await create_topics(broker)
    async with Producer(broker) as producer:

        async def send(stream_id, start_ms, epoch=0):
            said = Keywords(
                stream_id=stream_id,
                epoch=epoch,
                start_ms=start_ms,
                end_ms=start_ms + 6_000,
                captured_at_ms=1_800_000_000_000,
                text=f"{stream_id} at {start_ms}",
                keywords=(Keyword("red bag", 0.9),),
            )
            await producer.send(LIVE_KEYWORDS, stream_id, said)

        send.settings, send.producer = broker, producer
        yield send


def texts(transcript):
    return [one.text for one in transcript.segments]


async def test_the_first_question_reads_the_newest_records_and_later_ones_what_has_come_since(say):
    transcripts = Transcripts(say.settings, most_read=2)
    for start_ms in (0, 6_000, 12_000, 18_000):
        await say("room", start_ms)
    assert texts(await transcripts.read("room")) == ["room at 12000", "room at 18000"]
    for start_ms in (24_000, 30_000, 36_000):
        await say("room", start_ms)
    assert len(texts(await transcripts.read("room"))) == 5
    assert texts(await transcripts.read("room")) == texts(await transcripts.read("room")), "nothing comes twice"
    assert texts(await transcripts.read("room", 31_000, 40_000)) == ["room at 30000", "room at 36000"]
    assert [one.start_ms for one in await transcripts.said("room", 0, 31_000, 37_000)] == [30_000, 36_000]
    assert not await transcripts.said("room", 1, 0, 99_000)


async def test_records_of_other_streams_are_not_even_decoded(say):
    await say("room", 0)
    await say.producer.send_raw(LIVE_KEYWORDS, b"other", b"no record", [])
    await say("other", 6_000)
    await say("room", 6_000)
    skipped = metrics.RECORDS_SKIPPED.labels(LIVE_KEYWORDS)._value.get()
    assert texts(await Transcripts(say.settings).read("room")) == ["room at 0", "room at 6000"]
    assert metrics.RECORDS_SKIPPED.labels(LIVE_KEYWORDS)._value.get() == skipped


async def test_a_gap_between_two_questions_is_told_once(say):
    transcripts = Transcripts(say.settings)
    await say("room", 0)
    await transcripts.read("room")
    await say("room", 20_000)
    await say("room", 26_000)
    for _ in range(2):
        (epoch,) = (await transcripts.read("room")).epochs
        assert [(one.start_ms, one.end_ms) for one in epoch.gaps] == [(6_000, 20_000)]
