"""The table of topics: name, partitions, retention, compaction.

Topics keyed by stream have one partition count, so that a worker sees a stream's frames and keywords together;
so do the two topics keyed by product.
"""

from dataclasses import dataclass
from typing import Literal

from topology.settings import Settings

_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS
_DAY_MS = 24 * _HOUR_MS

# Only closed segments are compacted, and by default one stays open for 7 days: a state that changes each second would
# fill a gigabyte that every start has to read. Much shorter, brokers keep too many small files.
_SEGMENT_MS = 10 * _MINUTE_MS

LIVE_STREAMS = "live_streams"
STREAM_STATUS = "stream_status"
LIVE_FRAMES = "live_frames"
LIVE_SPEECH = "live_speech"
LIVE_KEYWORDS = "live_keywords"
LIVE_WINDOWS = "live_windows"
RECOGNITION_STATE = "recognition_state"
PRODUCT_PAGES = "product_pages"
PAGE_VECTORS = "page_vectors"
PRODUCT_DETECTED = "product_detected"
DETECTION_VERDICTS = "detection_verdicts"

DEAD_LETTER_SUFFIX = ".dlq"


@dataclass(frozen=True)
class TopicSpec:
    """How a topic is created.

    Attributes:
        name: Without the prefix that `Settings.topic_prefix` adds.
        keyed_by: What the key is: decides the partition count.
        retention_ms: How long records are kept; None where the topic is compacted.
        max_message_bytes: Largest record.
    """

    name: str
    keyed_by: Literal["stream", "product", "detection"]
    retention_ms: int | None
    max_message_bytes: int = 1_048_576

    def partitions(self, settings: Settings) -> int:
        """Returns the partition count that the settings give this topic."""
        return settings.stream_partitions if self.keyed_by == "stream" else settings.product_partitions

    def config(self) -> dict[str, str]:
        """Returns Kafka's topic configuration."""
        config = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(self.max_message_bytes)}
        if self.retention_ms is None:
            return config | {"cleanup.policy": "compact", "segment.ms": str(_SEGMENT_MS)}
        return config | {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}


# Frames of 4K at high JPEG quality stay below 4 MiB, pages with inline images below 8 MiB.
_SOURCES = (
    TopicSpec(LIVE_STREAMS, "stream", None),
    TopicSpec(STREAM_STATUS, "stream", None),
    TopicSpec(LIVE_FRAMES, "stream", 10 * _MINUTE_MS, 4_194_304),
    TopicSpec(LIVE_SPEECH, "stream", 10 * _MINUTE_MS, 4_194_304),
    TopicSpec(LIVE_KEYWORDS, "stream", _HOUR_MS),
    TopicSpec(LIVE_WINDOWS, "stream", _HOUR_MS),
    TopicSpec(RECOGNITION_STATE, "stream", None),
    TopicSpec(PRODUCT_PAGES, "product", None, 8_388_608),
    TopicSpec(PAGE_VECTORS, "product", None),
    TopicSpec(PRODUCT_DETECTED, "stream", 7 * _DAY_MS),
    TopicSpec(DETECTION_VERDICTS, "detection", None),
)

# Each topic that a worker consumes has a dead-letter queue.
CONSUMED = (
    LIVE_STREAMS,
    LIVE_FRAMES,
    LIVE_SPEECH,
    LIVE_KEYWORDS,
    LIVE_WINDOWS,
    PRODUCT_PAGES,
    PAGE_VECTORS,
    PRODUCT_DETECTED,
)


def dead_letter(topic: str) -> str:
    """Returns the name of a topic's dead-letter queue."""
    return topic + DEAD_LETTER_SUFFIX


# Beside the largest record, a dead letter carries headers with its cause.
_CAUSE_BYTES = 16_384


def _dead_letter_spec(source: TopicSpec) -> TopicSpec:
    return TopicSpec(dead_letter(source.name), source.keyed_by, 14 * _DAY_MS, source.max_message_bytes + _CAUSE_BYTES)


TOPICS: dict[str, TopicSpec] = {
    spec.name: spec
    for spec in (*_SOURCES, *(_dead_letter_spec(source) for source in _SOURCES if source.name in CONSUMED))
}
