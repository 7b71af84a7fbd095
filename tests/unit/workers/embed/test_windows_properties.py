"""Whatever the order of reading, and wherever it is cut off and taken up again, the windows are the same."""

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from window_oracle import Expected, Frame, Keywords, windows_of

from workers.embed.parts import FrameIn, KeywordsIn, Step, Window
from workers.embed.windows import WindowCore, WindowRules

RULES = WindowRules(
    length_ms=800, hop_ms=200, look_back_ms=1_500, grace_ms=400, idle_ms=3_000, patience_ms=6_000, skew_ms=0
)
FOREVER = 1 << 40

# ------------------------------------------------------------------ logs


@st.composite
def stream_frames(draw: st.DrawFn, stream_id: str) -> list[tuple[int, Frame]]:
    """The frames of one stream with the append time of each; items are filled in later."""
    out: list[tuple[int, Frame]] = []
    log_ms = draw(st.integers(0, 3_000))
    live = draw(st.booleans())
    epoch = draw(st.integers(0, 2))

    def append(pts_ms: int, first: bool = False, end: bool = False) -> None:
        nonlocal log_ms
        log_ms += draw(st.sampled_from([0, 1, 30, 100, 100, 100, 100, 700] + [2_999, 3_001, 7_000] * (not out)))
        out.append((log_ms, FrameIn(stream_id, epoch, pts_ms, log_ms, 0, live, first, end)))

    for _ in range(draw(st.integers(1, 2))):
        sent: list[tuple[int, bool, bool]] = []
        pts_ms = draw(st.sampled_from([0, 0, 33, 450]))
        lost_first = draw(st.integers(0, 9)) == 0
        for number in range(draw(st.integers(0, 25))):
            sent.append((pts_ms, number == 0 and not lost_first, False))
            pts_ms += draw(st.sampled_from([100, 100, 100, 101, 250, 1_000]))
        ends = draw(st.booleans())
        if ends:
            sent.append((pts_ms, False, True))
        repeated = draw(st.one_of(st.none(), st.integers(0, len(sent))))
        again_from = draw(st.integers(0, repeated)) if repeated is not None else 0
        for index, (at_ms, first, end) in enumerate(sent):
            append(at_ms, first, end)
            if index + 1 == repeated:  # its capture crashed and takes up again a little earlier
                for at_again_ms, first_again, end_again in sent[again_from:repeated]:
                    append(at_again_ms, first_again, end_again)
        if not ends and draw(st.integers(0, 5)) == 0:  # it falls silent, and goes on
            log_ms += draw(st.sampled_from([3_500, 6_500]))
            append(pts_ms + 100)
        epoch += 1 if ends else draw(st.integers(0, 1))
    return out


@st.composite
def stream_keywords(draw: st.DrawFn, stream_id: str) -> list[tuple[int, Keywords]]:
    out: list[tuple[int, Keywords]] = []
    log_ms = draw(st.integers(0, 5_000))
    for epoch in sorted(draw(st.sets(st.integers(0, 3), max_size=3))):
        sent: list[tuple[int, int, bool]] = []
        at_ms = 0
        for _ in range(draw(st.integers(0, 10))):
            end_ms = at_ms + draw(st.sampled_from([100, 300, 300, 600]))
            sent.append((at_ms, end_ms, False))
            at_ms = end_ms
        if draw(st.booleans()):
            sent.append((at_ms, at_ms, True))
        repeated = draw(st.one_of(st.none(), st.integers(0, len(sent))))
        for index, one in enumerate(sent):
            again = sent[max(0, index - 2) : index + 1] if index + 1 == repeated else []
            for start_ms, end_ms, end in [one, *again]:
                log_ms += draw(st.sampled_from([0, 10, 200, 300, 300, 600]))
                out.append((log_ms, KeywordsIn(stream_id, epoch, start_ms, end_ms, log_ms, 0, end)))
    return out


def merged(parts: list[list[tuple[int, object]]]) -> list[object]:
    """The partition's log: by append time, each stream's records in their own order, items are offsets."""
    return [record for _, record in sorted((one for part in parts for one in part), key=lambda one: one[0])]


@dataclass
class Logs:
    frames: list[Frame]
    keywords: list[Keywords]


@st.composite
def logs(draw: st.DrawFn) -> Logs:
    streams = [f"s{number}" for number in range(draw(st.integers(1, 3)))]
    frames = merged([draw(stream_frames(stream)) for stream in streams])
    keywords = merged([draw(stream_keywords(stream)) for stream in streams])
    return Logs(
        [FrameIn(f.stream_id, f.epoch, f.pts_ms, f.log_ms, i, f.live, f.first, f.end) for i, f in enumerate(frames)],
        [KeywordsIn(k.stream_id, k.epoch, k.start_ms, k.end_ms, k.log_ms, i, k.end) for i, k in enumerate(keywords)],
    )


# ------------------------------------------------------------------ readers


def low_water(done: set[int], position: int) -> int:
    return next((offset for offset in range(position) if offset not in done), position)


@dataclass
class Reader:
    """A worker that reads both logs; it can be killed and started again at what it had committed."""

    logs: Logs
    rules: WindowRules
    sent: list[Expected] = field(default_factory=list)
    positions: list[int] = field(default_factory=lambda: [0, 0])
    committed: list[int] = field(default_factory=lambda: [0, 0])
    done: tuple[set[int], set[int]] = field(default_factory=lambda: (set(), set()))
    starts: int = 0

    def __post_init__(self) -> None:
        self.core: WindowCore[int, int] = WindowCore(self.rules)

    def take(self, steps: list[Step[int, int]], budget: int | None = None) -> None:
        """Sends windows and acks inputs; with a budget, dies after so many of these."""
        for step in steps:
            for act in (lambda step=step: self.send(step.window), lambda step=step: self.ack(step)):
                if budget is not None:
                    if budget == 0:
                        return
                    budget -= 1
                act()

    def send(self, window: Window[int, int] | None) -> None:
        if window is not None:
            assert len(set(window.frames)) == len(window.frames)
            assert len({one.item for one in window.keywords}) == len(window.keywords)
            self.sent.append(
                Expected(
                    window.stream_id,
                    window.epoch,
                    window.start_ms,
                    window.frames,
                    tuple(one.item for one in window.keywords),
                    window.newest,
                    window.end_of_epoch,
                )
            )

    def ack(self, step: Step[int, int]) -> None:
        for done, items in zip(self.done, (step.frames, step.keywords), strict=True):
            assert len(set(items)) == len(items) and not done & set(items), "released twice"
            done.update(items)

    def read(self, topic: int) -> list[Step[int, int]]:
        log = (self.logs.frames, self.logs.keywords)[topic]
        if self.positions[topic] == len(log):
            return []
        record = log[self.positions[topic]]
        self.positions[topic] += 1
        return self.core.frame(record) if isinstance(record, FrameIn) else self.core.keywords(record)

    def advance(self, topic: int) -> list[Step[int, int]]:
        """Says how far the log has been read, as it would be known of a log that is still growing."""
        log = (self.logs.frames, self.logs.keywords)[topic]
        rest = log[self.positions[topic] :]
        return self.core.advance(
            "frames" if topic == 0 else "keywords", min((one.log_ms for one in rest), default=FOREVER) - 1
        )

    def commit(self) -> None:
        self.committed = [low_water(done, at) for done, at in zip(self.done, self.positions, strict=True)]

    def crash(self) -> None:
        self.core = WindowCore(self.rules)
        self.positions = list(self.committed)
        self.done = (set(range(self.committed[0])), set(range(self.committed[1])))
        self.starts += 1

    def finish(self) -> None:
        for topic, log in enumerate((self.logs.frames, self.logs.keywords)):
            while self.positions[topic] < len(log):
                self.take(self.read(topic))
        for _ in range(2):
            self.take(self.advance(0))
            self.take(self.advance(1))


def run(reader: Reader, draw: Callable[[st.SearchStrategy[int]], int], crashes: bool) -> None:
    # Actions: 0, 1 read; 2, 3 advance; 4 commit; 5 crash while the steps of a reading are being taken.
    total = len(reader.logs.frames) + len(reader.logs.keywords)
    bias = draw(st.sampled_from([0, 1, 2]))  # of the order: mixed, frames first, keywords first
    choice = {0: st.integers(0, 5), 1: st.sampled_from([0, 0, 0, 2, 4, 5]), 2: st.sampled_from([1, 1, 1, 3, 4, 5])}[
        bias
    ]
    for _ in range(draw(st.integers(0, 2 * total))):
        action = draw(choice)
        if action < 2:
            reader.take(reader.read(action))
        elif action < 4:
            reader.take(reader.advance(action - 2))
        elif action == 4:
            reader.commit()
        elif crashes and draw(st.integers(0, 3)) == 0:
            reader.take(reader.read(draw(st.integers(0, 1))), budget=draw(st.integers(0, 6)))
            reader.crash()
    reader.finish()


def first_of_each(windows: list[Expected]) -> list[Expected]:
    """What a reader of the windows goes by: of those with one key, the first."""
    seen: dict[tuple[str, int, int, bool], Expected] = {}
    for window in windows:
        seen.setdefault(window.key, window)
    return list(seen.values())


def by_stream(windows: list[Expected]) -> dict[str, list[Expected]]:
    out: dict[str, list[Expected]] = {}
    for window in windows:
        out.setdefault(window.stream_id, []).append(window)
    return out


PROPERTY = settings(
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@PROPERTY
@given(logs(), st.data())
def test_any_interleaving_gives_the_windows_that_the_logs_define(logs: Logs, data: st.DataObject) -> None:
    reader = Reader(logs, RULES)
    run(reader, data.draw, crashes=False)
    assert by_stream(reader.sent) == by_stream(windows_of(logs.frames, logs.keywords, RULES))


@PROPERTY
@given(logs(), st.data())
def test_restarts_change_no_window(logs: Logs, data: st.DataObject) -> None:
    reader = Reader(logs, RULES)
    run(reader, data.draw, crashes=True)
    expected = first_of_each(windows_of(logs.frames, logs.keywords, RULES))
    event(f"restarts: {min(reader.starts, 3)}")
    a, b = by_stream(first_of_each(reader.sent)), by_stream(expected)
    if a != b:
        for st_ in b:
            for x in a.get(st_, []):
                if x not in b[st_]:
                    print("GOT ", x)
            for x in b[st_]:
                if x not in a.get(st_, []):
                    print("WANT", x)
            if sorted(map(repr, a.get(st_, []))) == sorted(map(repr, b[st_])) and a.get(st_) != b[st_]:
                print("ORDER", [x.key for x in a[st_]], [x.key for x in b[st_]])
        print(reader.starts, reader.committed)
        raise AssertionError


@PROPERTY
@given(logs(), st.data())
def test_in_the_end_every_input_is_released(logs: Logs, data: st.DataObject) -> None:
    reader = Reader(logs, RULES)
    run(reader, data.draw, crashes=True)
    assert reader.core.held == 0
    assert reader.done == (set(range(len(logs.frames))), set(range(len(logs.keywords))))
