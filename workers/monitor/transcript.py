"""What was said in a stream: read from `live_keywords` when it is asked for, and never followed.

The first question about a stream reads its partition's newest records, and decodes those of the stream alone; what was
found is kept, and later questions read only what has come since.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from topology.records import Keywords
from topology.settings import Settings
from topology.topic_log import end_offsets, partition_of, read_range
from topology.topics import LIVE_KEYWORDS
from workers.monitor.answers import EpochView, Gap, Segment, Transcript

# Stretches of an epoch follow each other; a shorter hole comes from rounding and is not reported.
_LEAST_GAP_MS = 500
# Segments of one stream: two hours of talk.
_MOST_SEGMENTS = 1_200
# Records of a partition that the first question reads: an hour of 80 streams that talk, and about a second of work.
# More would hold up the monitor's other answers; with fewer, the transcript begins later.
_MOST_READ = 50_000
# By how much Tansu's end offset may be too low: see `topology.topic_log.PAST_MS`.
_TOO_LOW = 1
_LAST_MS = 253_402_300_799_000  # the end of the year 9999
# Streams whose transcripts are kept in memory, some 300 kB each.
_AT_HAND = 32


@dataclass
class _Heard:
    """The transcript of one stream.

    Attributes:
        next_offset: Offset of the first record that was not read; -1 before the first question.
        pieces: What was said.
        epochs: When each began, and its gaps.
        reached_ms: Per epoch the end of its newest record.
    """

    next_offset: int = -1
    pieces: deque[Keywords] = field(default_factory=lambda: deque(maxlen=_MOST_SEGMENTS))
    epochs: dict[int, tuple[str, list[Gap]]] = field(default_factory=dict)
    reached_ms: dict[int, int] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def take(self, said: Keywords) -> None:
        """Takes the next record."""
        if said.end_of_epoch:
            return
        if said.epoch not in self.epochs:
            self.epochs[said.epoch] = _iso(said.captured_at_ms), []
        before_ms = self.reached_ms.get(said.epoch)
        if before_ms is not None and said.start_ms <= before_ms - _LEAST_GAP_MS:
            return  # a copy of a crash
        if before_ms is not None and said.start_ms - before_ms >= _LEAST_GAP_MS:
            gap = Gap(start_ms=before_ms, end_ms=said.start_ms, reason="no sound came")
            self.epochs[said.epoch][1].append(gap)
        self.reached_ms[said.epoch] = said.end_ms
        if said.text:
            self.pieces.append(said)


class Transcripts:
    """Reads what `live_keywords` still has of streams (an hour), and keeps what it has read of those last asked for.

    Args:
        settings: Settings of the worker.
        most_read: Records of a partition that the first question about a stream reads.
    """

    def __init__(self, settings: Settings, most_read: int = _MOST_READ) -> None:
        self._settings = settings
        self._most_read = most_read
        self._heard: OrderedDict[str, _Heard] = OrderedDict()

    async def read(self, stream_id: str, from_ms: int | None = None, to_ms: int | None = None) -> Transcript:
        """Returns what was said between two media times of any epoch.

        Raises:
            Unavailable: The broker does not answer.
        """
        heard = await self._of(stream_id)
        segments = [
            Segment(
                epoch=one.epoch,
                start_ms=one.start_ms,
                end_ms=one.end_ms,
                text=one.text,
                keywords=[keyword.text for keyword in one.keywords],
            )
            for one in heard.pieces
            if (from_ms is None or one.end_ms > from_ms) and (to_ms is None or one.start_ms < to_ms)
        ]
        epochs = [
            EpochView(epoch=one, started_at=began, gaps=gaps) for one, (began, gaps) in sorted(heard.epochs.items())
        ]
        return Transcript(segments=segments, epochs=epochs)

    async def said(self, stream_id: str, epoch: int, from_ms: int, to_ms: int) -> Sequence[Keywords]:
        """Returns what was said in a stretch of one epoch, by time.

        Raises:
            Unavailable: The broker does not answer.
        """
        pieces = (await self._of(stream_id)).pieces
        return [one for one in pieces if one.epoch == epoch and one.end_ms > from_ms and one.start_ms < to_ms]

    async def _of(self, stream_id: str) -> _Heard:
        heard = self._heard.setdefault(stream_id, _Heard())
        self._heard.move_to_end(stream_id)
        while len(self._heard) > _AT_HAND:
            self._heard.popitem(last=False)
        async with heard.lock:  # pages that ask at once wait for one read
            await self._read_on(stream_id, heard)
        return heard

    async def _read_on(self, stream_id: str, heard: _Heard) -> None:
        ends = await end_offsets(self._settings, LIVE_KEYWORDS)
        partition = partition_of(stream_id, len(ends))
        end = ends[partition]
        start = heard.next_offset
        if not 0 <= start <= end + _TOO_LOW:  # the first question, or the topic was made anew
            start = max(0, end - self._most_read)
        async for record in read_range(
            self._settings, LIVE_KEYWORDS, partition, Keywords, start, end, key=stream_id, past=end > 0
        ):
            end = max(end, record.offset + 1)
            if record.value is not None and record.value.stream_id == stream_id:
                heard.take(record.value)
        heard.next_offset = end


def _iso(at_ms: int) -> str:
    at_ms = min(max(0, at_ms), _LAST_MS)  # a date has no more
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
