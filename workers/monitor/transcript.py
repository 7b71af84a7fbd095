"""What was said in a stream: read from `live_keywords` when it is asked for, and never followed."""

from datetime import UTC, datetime

from topology.records import Keywords
from topology.settings import Settings
from topology.topic_log import end_offsets, partition_of, read_partition
from topology.topics import LIVE_KEYWORDS
from workers.monitor.answers import EpochView, Gap, Segment, Transcript

# Stretches of an epoch follow each other; a hole of rounding is none.
_LEAST_GAP_MS = 500
# Segments of one answer: two hours of talk.
_MOST_SEGMENTS = 1_200


async def read_transcript(settings: Settings, stream_id: str, from_ms: int | None, to_ms: int | None) -> Transcript:
    """Reads what `live_keywords` still has of a stream (an hour), between two media times of any epoch.

    Raises:
        Unavailable: The broker does not answer.
    """
    ends = await end_offsets(settings, LIVE_KEYWORDS)
    partition = partition_of(stream_id, len(ends))
    segments: list[Segment] = []
    epochs: dict[int, tuple[str, list[Gap]]] = {}
    reached_ms: dict[int, int] = {}
    async for record in read_partition(settings, LIVE_KEYWORDS, partition, Keywords):
        said = record.value
        if said is None or said.stream_id != stream_id or said.end_of_epoch:
            continue
        if said.epoch not in epochs:
            epochs[said.epoch] = _iso(said.captured_at_ms), []
        before_ms = reached_ms.get(said.epoch)
        if before_ms is not None and said.start_ms <= before_ms - _LEAST_GAP_MS:
            continue  # a copy of a crash
        if before_ms is not None and said.start_ms - before_ms >= _LEAST_GAP_MS:
            epochs[said.epoch][1].append(Gap(start_ms=before_ms, end_ms=said.start_ms, reason="no sound came"))
        reached_ms[said.epoch] = said.end_ms
        is_wanted = (from_ms is None or said.end_ms > from_ms) and (to_ms is None or said.start_ms < to_ms)
        if said.text and is_wanted:
            segments.append(
                Segment(
                    epoch=said.epoch,
                    start_ms=said.start_ms,
                    end_ms=said.end_ms,
                    text=said.text,
                    keywords=[keyword.text for keyword in said.keywords],
                )
            )
    return Transcript(
        segments=segments[-_MOST_SEGMENTS:],
        epochs=[EpochView(epoch=one, started_at=began, gaps=gaps) for one, (began, gaps) in sorted(epochs.items())],
    )


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
