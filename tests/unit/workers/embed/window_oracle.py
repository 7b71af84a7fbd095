"""What the windows of two logs are, written down a second time: by looking at all of the logs at once."""

from dataclasses import dataclass, replace

from workers.embed.parts import FrameIn, KeywordsIn
from workers.embed.windows import WindowRules

Frame = FrameIn[int]
Keywords = KeywordsIn[int]


@dataclass(frozen=True)
class Expected:
    stream_id: str
    epoch: int
    start_ms: int
    frames: tuple[int, ...]
    keywords: tuple[int, ...]
    newest: int
    end_of_epoch: bool = False

    @property
    def key(self) -> tuple[str, int, int, bool]:
        return self.stream_id, self.epoch, self.start_ms, self.end_of_epoch


@dataclass
class Run:
    """An unbroken run of frames of one epoch."""

    frames: list[Frame]
    passed_ms: int = 0
    end: Frame | None = None
    end_ms: int = 0


def runs_of(frames: list[Frame], rules: WindowRules) -> list[Run]:
    """Splits the frames of one stream."""
    runs: list[Run] = []
    current: Run | None = None
    newest: Frame | None = None

    def close(log_ms: int) -> None:
        nonlocal current
        if current is not None:
            current.passed_ms, current.end_ms = log_ms, current.frames[-1].pts_ms + 1
            current = None

    for frame in frames:
        if newest is not None:
            silent_ms = newest.log_ms + (rules.idle_ms if newest.live else rules.patience_ms)
            if frame.log_ms > silent_ms:
                close(silent_ms)
                newest = None
        if newest is not None:
            if frame.epoch < newest.epoch or (frame.epoch == newest.epoch and newest.end):
                continue
            if frame.epoch == newest.epoch and frame.pts_ms <= newest.pts_ms and not frame.end:
                continue
            jumped = frame.pts_ms - newest.pts_ms > rules.patience_ms and not frame.end
            if frame.epoch > newest.epoch or jumped:
                close(frame.log_ms)
        if current is None:
            current = Run([])
            runs.append(current)
        if frame.end:
            far = bool(current.frames) and frame.pts_ms - current.frames[-1].pts_ms > rules.patience_ms
            last_ms = current.frames[-1].pts_ms + 1 if current.frames else 0
            current.end, current.passed_ms = frame, frame.log_ms
            current.end_ms = last_ms if far else max(frame.pts_ms, last_ms)
            current = None
        else:
            current.frames.append(frame)
        newest = frame
    if newest is not None:
        close(newest.log_ms + (rules.idle_ms if newest.live else rules.patience_ms))
    return runs


def windows_of(frames: list[Frame], keywords: list[Keywords], rules: WindowRules) -> list[Expected]:
    """Returns all windows of all streams, those of a stream in order."""
    out: list[Expected] = []
    for stream_id in sorted({frame.stream_id for frame in frames}):
        for run in runs_of([frame for frame in frames if frame.stream_id == stream_id], rules):
            begin = run.frames[0] if run.frames else run.end
            assert begin is not None
            said: list[Keywords] = []
            told: Keywords | None = None
            until = -1
            for one in keywords:
                if (one.stream_id, one.epoch) != (stream_id, begin.epoch) or told is not None:
                    continue
                if one.end:
                    told = one
                elif one.end_ms > until:
                    said.append(replace(one, start_ms=max(one.start_ms, until)))
                    until = one.end_ms
            whole = begin.first and not begin.end and begin.pts_ms <= rules.patience_ms
            start = 0 if whole else next(s for s in range(0, 1 << 30, rules.hop_ms) if s > begin.pts_ms)
            while start < run.end_ms:
                end = start + rules.length_ms
                passing = next((frame for frame in run.frames if frame.pts_ms >= end), None)
                passed_ms = passing.log_ms if passing is not None else run.passed_ms
                deadline = passed_ms + (rules.grace_ms if begin.live else rules.patience_ms)
                oldest = passed_ms - rules.patience_ms
                in_time = [one for one in said if oldest <= one.log_ms <= deadline]
                before = [frame for frame in run.frames if frame.pts_ms < end]
                closing = passing or run.end or run.frames[-1]
                out.append(
                    Expected(
                        stream_id,
                        begin.epoch,
                        start,
                        tuple(frame.item for frame in before if frame.pts_ms >= start),
                        tuple(
                            one.item
                            for one in in_time
                            if one.end_ms > start - rules.look_back_ms and one.start_ms < end
                        ),
                        (before[-1] if before else closing).item,
                    )
                )
                start += rules.hop_ms
            newest = run.end or run.frames[-1]
            out.append(Expected(stream_id, begin.epoch, run.end_ms, (), (), newest.item, end_of_epoch=True))
    return out
