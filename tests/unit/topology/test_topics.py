"""The table of topics."""

import pytest

from topology import topics
from topology.schemas.documents import RECORDS
from topology.settings import Settings
from topology.topics import TOPICS, dead_letter

SETTINGS = Settings(_env_file=None, stream_partitions=5, product_partitions=3)


def test_topics_keyed_alike_have_one_partition_count() -> None:
    assert TOPICS[topics.LIVE_FRAMES].partitions(SETTINGS) == TOPICS[topics.LIVE_KEYWORDS].partitions(SETTINGS) == 5
    assert TOPICS[topics.PRODUCT_PAGES].partitions(SETTINGS) == TOPICS[topics.PAGE_VECTORS].partitions(SETTINGS) == 3


def test_state_is_compacted_and_media_expires() -> None:
    for name in (topics.LIVE_STREAMS, topics.STREAM_STATUS, topics.RECOGNITION_STATE, topics.PRODUCT_PAGES):
        assert TOPICS[name].config()["cleanup.policy"] == "compact"
    assert TOPICS[topics.LIVE_FRAMES].config()["retention.ms"] == "600000"


def test_each_topic_is_stamped_by_the_broker() -> None:
    assert {spec.config()["message.timestamp.type"] for spec in TOPICS.values()} == {"LogAppendTime"}


@pytest.mark.parametrize("name", [topics.LIVE_FRAMES, topics.PRODUCT_PAGES])
def test_a_dead_letter_queue_takes_the_largest_record_with_its_cause(name: str) -> None:
    queue, source = TOPICS[dead_letter(name)], TOPICS[name]
    assert queue.max_message_bytes > source.max_message_bytes
    assert queue.partitions(SETTINGS) == source.partitions(SETTINGS)


def test_each_topic_has_a_record_in_the_documents() -> None:
    assert set(RECORDS) == {name for name in TOPICS if not name.endswith(topics.DEAD_LETTER_SUFFIX)}
