"""The sliding windows of one partition: which frames and keywords make up a window, and when it closes.

A window depends on the content of the log only, never on the order in which its two topics are read. So
every decision uses the order within a topic, and append times (`log_ms`) across topics.

- Windows lie on the grid [k * hop, k * hop + length) of an epoch's media time. They come in order.
- A window is *passed* at the append time T of the first frame at or after its end. Where no such frame comes, T is
  when the epoch ended: its last record, the first record of a newer epoch, or a silence (`idle_ms`) in the log.
- Its keywords are those of [start - look_back, end) that were appended between T - patience and T + grace. A file
  has patience for a grace.
- It closes when it is passed, and the keywords have passed its end, or have ended, or their topic has been
  delivered up to T + grace. All three give the same window.
- Frames and keywords that go back in time are repetitions after a crash of their sender, and are left out.

A reader that begins in mid-log (after a restart) makes only windows that begin after the first frame it saw, unless
that frame says that it is the epoch's first. So no window lacks frames, and no window is lost either, because an
input is released no sooner than the windows that need it have been sent, and of the frames before the next window
the last one is kept. A window that was sent before the restart may be sent again, then perhaps with fewer keywords:
of windows with the same (stream, epoch, start), the first in the log counts.

A window without frames or keywords is a window too: time has passed there, and nothing was shown.

Plain Python, which does not look into frames and keywords.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, Self

from topology.settings import Settings
from topology.topics import LIVE_SPEECH, TOPICS
from workers.embed.parts import F, FrameIn, K, KeywordsIn, Step, Window

Topic = Literal["frames", "keywords"]

# How far append times of one partition may go backwards. Kafka stamps them as it appends; Tansu keeps the stamp of
# the producer, which is older by a send. Larger delays windows that wait in vain for keywords, smaller may close
# them before a keyword that was stamped in time.
_SKEW_MS = 500


@dataclass(frozen=True)
class WindowRules:
    """The grid, and how long to wait for what.

    Attributes:
        length_ms: Media time that a window covers.
        hop_ms: Media time between two starts.
        look_back_ms: Keywords so long before a window may join it.
        grace_ms: Log time that a live window waits for its keywords.
        idle_ms: Log time without a frame after which a live epoch has ended.
        patience_ms: As long as the log keeps speech: how long files are waited for, in place of grace and idle
            time; and how much older keywords may be than the frame that passed their window. Also the longest
            jump in media time within an epoch; at a longer one the stream begins anew.
        skew_ms: Append times of a partition go back by no more than this.
    """

    length_ms: int = 8_000
    hop_ms: int = 2_000
    look_back_ms: int = 20_000
    grace_ms: int = 4_000
    idle_ms: int = 120_000
    patience_ms: int = 600_000
    skew_ms: int = _SKEW_MS

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Returns the rules that the settings name."""
        return cls(
            length_ms=settings.window_ms,
            hop_ms=settings.hop_ms,
            look_back_ms=settings.look_back_ms,
            grace_ms=settings.grace_ms,
            idle_ms=round(settings.idle_timeout_s * 1000),
            patience_ms=TOPICS[LIVE_SPEECH].retention_ms or cls.patience_ms,
        )


@dataclass(slots=True)
class _Segment(Generic[F]):
    """An unbroken run of frames of one epoch: all of them, unless the stream fell silent or reading began later."""

    epoch: int
    live: bool
    next_start_ms: int
    frames: list[FrameIn[F]] = field(default_factory=list)
    last: FrameIn[F] | None = None  # the newest record, the epoch's end included
    closed_ms: int | None = None  # append time at which it ended
    end_ms: int = 0  # media time at which it ended


@dataclass(slots=True)
class _Speech(Generic[K]):
    """The keywords of one epoch."""

    waiting: deque[KeywordsIn[K]] = field(default_factory=deque)  # by time; those that a window may still need
    until_ms: int = -1  # media time up to which all is known
    log_ms: int = 0  # append time of the newest
    end: KeywordsIn[K] | None = None


@dataclass(slots=True)
class _Stream(Generic[F, K]):
    """One stream. `newest` is None before its first frame and after a silence."""

    newest: FrameIn[F] | None = None
    segments: deque[_Segment[F]] = field(default_factory=deque)
    speech: dict[int, _Speech[K]] = field(default_factory=dict)


class WindowCore(Generic[F, K]):
    """Makes the windows of all streams of one partition.

    Frames and keywords are given each in the order of their log, the two interleaved in any way.
    """

    def __init__(self, rules: WindowRules) -> None:
        self._rules = rules
        self._streams: dict[str, _Stream[F, K]] = {}
        # Append times up to which each topic has been delivered completely.
        self._frames_to = self._keywords_to = -(1 << 62)

    def frame(self, frame: FrameIn[F]) -> list[Step[F, K]]:
        """Takes the next frame of the log."""
        self._frames_to = max(self._frames_to, frame.log_ms - 1 - self._rules.skew_ms)
        stream = self._streams.setdefault(frame.stream_id, _Stream())
        self._end_silent(stream, frame.log_ms - 1)
        if not self._accept(stream, frame):
            return [Step(frames=(frame.item,))]
        return self._proceed(frame.stream_id, stream)

    def keywords(self, keywords: KeywordsIn[K]) -> list[Step[F, K]]:
        """Takes the next keywords of the log."""
        self._keywords_to = max(self._keywords_to, keywords.log_ms - 1 - self._rules.skew_ms)
        stream = self._streams.setdefault(keywords.stream_id, _Stream())
        speech = stream.speech.setdefault(keywords.epoch, _Speech())
        if speech.end is not None or (not keywords.end and keywords.end_ms <= speech.until_ms):
            return [Step(keywords=(keywords.item,))]
        speech.log_ms = keywords.log_ms
        if keywords.end:
            speech.end = keywords
        else:
            # Only the part after earlier keywords counts, so that none reach into a window that was passed.
            speech.waiting.append(replace(keywords, start_ms=max(keywords.start_ms, speech.until_ms)))
            speech.until_ms = keywords.end_ms
        return self._proceed(keywords.stream_id, stream)

    def advance(self, topic: Topic, log_ms: int) -> list[Step[F, K]]:
        """Notes that all that was appended to a topic up to `log_ms` has been given."""
        if topic == "frames":
            self._frames_to = max(self._frames_to, log_ms - self._rules.skew_ms)
        else:
            self._keywords_to = max(self._keywords_to, log_ms - self._rules.skew_ms)
        steps: list[Step[F, K]] = []
        for stream_id, stream in list(self._streams.items()):
            self._end_silent(stream, self._frames_to)
            steps += self._proceed(stream_id, stream)
            if stream.newest is None and not stream.segments and not stream.speech:
                del self._streams[stream_id]
        return steps

    @property
    def waits(self) -> bool:
        """Whether a window is passed and only waits for keywords or `advance`."""
        return any(
            segment.closed_ms is not None or self._passed_by(segment) is not None
            for stream in self._streams.values()
            for segment in stream.segments
        )

    @property
    def held(self) -> int:
        """How many inputs are held."""
        return sum(
            sum(len(segment.frames) + 1 for segment in stream.segments)
            + sum(len(speech.waiting) + 1 for speech in stream.speech.values())
            for stream in self._streams.values()
        )

    # ------------------------------------------------------------------ frames

    def _accept(self, stream: _Stream[F, K], frame: FrameIn[F]) -> bool:
        """Takes a frame into its segment; returns whether it is used."""
        newest = stream.newest
        if newest is not None and frame.epoch <= newest.epoch:
            if frame.epoch < newest.epoch or newest.end or (frame.pts_ms <= newest.pts_ms and not frame.end):
                return False
        segment = stream.segments[-1] if stream.segments else None
        if segment is not None and segment.closed_ms is None and segment.last is not None:
            jump_ms = frame.pts_ms - segment.last.pts_ms
            if frame.epoch > segment.epoch or (jump_ms > self._rules.patience_ms and not frame.end):
                _close(segment, frame.log_ms)
        if segment is None or segment.closed_ms is not None:
            segment = _Segment(frame.epoch, frame.live, self._first_start_ms(frame))
            stream.segments.append(segment)
        if frame.end:
            jump_ms = frame.pts_ms - (segment.last or frame).pts_ms
            _close(segment, frame.log_ms, frame.pts_ms if jump_ms <= self._rules.patience_ms else 0)
        else:
            segment.frames.append(frame)
        segment.last = stream.newest = frame
        return True

    def _first_start_ms(self, frame: FrameIn[F]) -> int:
        """Returns where the first window begins that lacks no frame, when reading begins with this one."""
        if frame.first and not frame.end and frame.pts_ms <= self._rules.patience_ms:
            return 0
        return max(0, frame.pts_ms // self._rules.hop_ms + 1) * self._rules.hop_ms

    def _end_silent(self, stream: _Stream[F, K], frames_to_ms: int) -> None:
        """Ends the epoch of a stream that has had no frame for too long, and forgets that it was there."""
        newest = stream.newest
        if newest is None:
            return
        silent_ms = newest.log_ms + (self._rules.idle_ms if newest.live else self._rules.patience_ms)
        if frames_to_ms >= silent_ms:
            if stream.segments and stream.segments[-1].closed_ms is None:
                _close(stream.segments[-1], silent_ms)
            stream.newest = None

    # ------------------------------------------------------------------ windows

    def _proceed(self, stream_id: str, stream: _Stream[F, K]) -> list[Step[F, K]]:
        """Closes the windows that can be closed, oldest first, and releases inputs that are no longer needed."""
        steps: list[Step[F, K]] = []
        while stream.segments:
            segment = stream.segments[0]
            while (window := self._next_window(stream_id, stream, segment)) is not None:
                segment.next_start_ms += self._rules.hop_ms
                steps.append(Step(window, tuple(_release_frames(segment)), tuple(self._release_keywords(stream))))
            if segment.closed_ms is None or segment.next_start_ms < segment.end_ms:
                break
            stream.segments.popleft()
            steps.append(self._finish(stream_id, stream, segment))
        if released := tuple(self._release_keywords(stream)):
            steps.append(Step(keywords=released))
        return steps

    def _finish(self, stream_id: str, stream: _Stream[F, K], segment: _Segment[F]) -> Step[F, K]:
        assert segment.last is not None  # noqa: S101 - a segment begins with a frame
        items = [frame.item for frame in segment.frames]
        if segment.last.end:
            items.append(segment.last.item)
        end: Window[F, K] = Window(
            stream_id=stream_id,
            epoch=segment.epoch,
            start_ms=segment.end_ms,
            end_ms=segment.end_ms,
            live=segment.live,
            newest=segment.last.item,
            end_of_epoch=True,
        )
        return Step(end, tuple(items), tuple(self._release_keywords(stream)))

    def _next_window(self, stream_id: str, stream: _Stream[F, K], segment: _Segment[F]) -> Window[F, K] | None:
        """Returns the segment's next window if it may close."""
        rules = self._rules
        passed = self._passed_by(segment)
        if passed is not None:
            passed_ms = passed.log_ms
        elif segment.closed_ms is not None and segment.next_start_ms < segment.end_ms:
            passed, passed_ms = segment.last, segment.closed_ms
        else:
            return None
        assert passed is not None  # noqa: S101 - a segment begins with a frame
        start_ms, end_ms = segment.next_start_ms, segment.next_start_ms + rules.length_ms
        deadline_ms = passed_ms + (rules.grace_ms if segment.live else rules.patience_ms)
        speech: _Speech[K] = stream.speech.get(segment.epoch) or _Speech()
        heard = speech.end is not None or speech.until_ms >= end_ms
        if not heard and self._keywords_to < deadline_ms:
            return None
        before = [frame for frame in segment.frames if frame.pts_ms < end_ms]
        in_time = [one for one in speech.waiting if passed_ms - rules.patience_ms <= one.log_ms <= deadline_ms]
        reach_ms = start_ms - rules.look_back_ms
        return Window(
            stream_id=stream_id,
            epoch=segment.epoch,
            start_ms=start_ms,
            end_ms=end_ms,
            live=segment.live,
            newest=before[-1].item if before else passed.item,
            frames=tuple(frame.item for frame in before if frame.pts_ms >= start_ms),
            keywords=tuple(one for one in in_time if one.end_ms > reach_ms and one.start_ms < end_ms),
            heard=heard,
        )

    def _passed_by(self, segment: _Segment[F]) -> FrameIn[F] | None:
        """Returns the first frame at or after the end of the segment's next window."""
        end_ms = segment.next_start_ms + self._rules.length_ms
        if not segment.frames or segment.frames[-1].pts_ms < end_ms:
            return None
        return next(frame for frame in segment.frames if frame.pts_ms >= end_ms)

    # ------------------------------------------------------------------ release

    def _release_keywords(self, stream: _Stream[F, K]) -> Iterator[K]:
        for epoch, speech in list(stream.speech.items()):
            starts = [segment.next_start_ms for segment in stream.segments if segment.epoch == epoch]
            newest = stream.newest
            if starts:
                needed_from_ms = min(starts) - self._rules.look_back_ms
                while speech.waiting and speech.waiting[0].end_ms <= needed_from_ms:
                    yield speech.waiting.popleft().item
            elif newest is not None and (epoch < newest.epoch or (epoch == newest.epoch and newest.end)):
                yield from _items(stream.speech.pop(epoch))
            else:
                # No frame has come yet. Once patience has run out, none that comes can take them.
                stale_ms = self._frames_to - self._rules.patience_ms
                while speech.waiting and speech.waiting[0].log_ms <= stale_ms:
                    yield speech.waiting.popleft().item
                # How far they had come is remembered for as long again: until no repetition can come either.
                if not speech.waiting and speech.log_ms <= min(stale_ms, self._keywords_to - self._rules.patience_ms):
                    yield from _items(stream.speech.pop(epoch))


def _close(segment: _Segment[F], log_ms: int, end_ms: int = 0) -> None:
    """Ends a segment. Its media ends at `end_ms`, not before its last frame."""
    segment.closed_ms = log_ms
    last_ms = segment.frames[-1].pts_ms + 1 if segment.frames else 0
    segment.end_ms = max(end_ms, last_ms)


def _release_frames(segment: _Segment[F]) -> Iterator[F]:
    """Yields the frames before the next window except the last, which proves that the next window is complete."""
    count = 0
    while count + 1 < len(segment.frames) and segment.frames[count + 1].pts_ms < segment.next_start_ms:
        count += 1
    released = segment.frames[:count]
    del segment.frames[:count]
    return (frame.item for frame in released)


def _items(speech: _Speech[K]) -> Iterator[K]:
    yield from (one.item for one in speech.waiting)
    if speech.end is not None:
        yield speech.end.item
