"""The decoding thread of one connection: source in, records out."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from topology.settings import Settings
from workers.capture.media import BadSource, MediaItem, MediaSource, NewEpoch, OpenSource, Picture, Sound, SourceDown
from workers.capture.outbox import Closed, Outbox
from workers.capture.pipeline import EpochCutter, OutRecord, StreamFacts
from workers.capture.repeats import PacketMemory
from workers.capture.speech import Detector, SileroDetector

_log = logging.getLogger(__name__)

# Records between decoder and sender. At one frame a second and speech besides, some 40 s of a stream and 3 MB:
# outlasts a broker's restart; more would only be sent too late to be of use.
CAPACITY = 64

_EVERYTHING = 1 << 62


@dataclass(frozen=True)
class Opened:
    """The source is open and has given something; if it is live, a picture."""

    source: MediaSource


@dataclass(frozen=True)
class Played:
    """The source has come to its end.

    Attributes:
        over: It will not go on later: a file, or a live stream that has become a recording.
        detail: What was wrong with it on the way; empty if nothing was.
    """

    over: bool
    detail: str = ""


PlayerItem = Opened | Played | OutRecord


@dataclass(frozen=True)
class Plan:
    """The source to play, and the position to start from.

    Attributes:
        facts: Facts of the stream; `live` and `has_audio` are filled in when the source is open.
        live_epoch: Epoch of a network stream that opens now.
        first_epoch: Epoch in which a file begins.
        resume_epoch: Epochs of a file before this one were sent.
        resume_ms: And of this one, what is before this media time.
        was_live: Earlier connections found a network stream.
        seen: What they have read: see `MediaSource`.
    """

    url: str
    facts: StreamFacts
    live_epoch: int
    first_epoch: int
    resume_epoch: int
    resume_ms: int
    was_live: bool
    seen: PacketMemory | None = None


def start_player(
    plan: Plan,
    settings: Settings,
    opener: OpenSource,
    outbox: Outbox[PlayerItem],
    detector: Callable[[], Detector] = SileroDetector,
) -> threading.Thread:
    """Plays the source into the outbox, in a thread of its own. What goes wrong is raised by `outbox.get()`."""

    def run() -> None:
        error: BaseException | None = None
        try:
            source = opener(plan.url, plan.seen)
            try:
                _play(source, plan, settings, outbox, detector)
            finally:
                source.close()
        except Closed:
            pass
        except BaseException as caught:  # noqa: BLE001 - handed to the task
            error = caught
        outbox.end(error)

    # A daemon: a read that blocks until its time-out must not hold up the end of the process.
    thread = threading.Thread(target=run, name=f"player-{plan.facts.stream_id}", daemon=True)
    thread.start()
    return thread


def _play(
    source: MediaSource,
    plan: Plan,
    settings: Settings,
    outbox: Outbox[PlayerItem],
    detector: Callable[[], Detector],
) -> None:
    info = source.info
    if plan.was_live and not info.live:
        outbox.put(Played(over=True))  # an HLS playlist that was closed: all of it has been seen, live
        return
    facts = replace(plan.facts, live=info.live, has_audio=info.has_audio)
    if info.live:
        outbox.drop_oldest()
    epoch = plan.live_epoch if info.live else plan.first_epoch

    def new_cutter() -> EpochCutter:
        skip_ms = 0
        if not info.live and epoch <= plan.resume_epoch:
            skip_ms = plan.resume_ms if epoch == plan.resume_epoch else _EVERYTHING
        return EpochCutter(facts, epoch, settings, skip_ms=skip_ms, now_ms=_now_ms, detector=detector)

    def finish(cutter: EpochCutter) -> None:
        for record in cutter.finish():
            if epoch >= plan.resume_epoch or info.live:
                outbox.put(record)

    cutter: EpochCutter | None = None
    broken: SourceDown | None = None
    has_picture = False
    try:
        for item in _from_first_picture(source) if info.live else source:
            if outbox.left:
                return
            if cutter is None:
                cutter = new_cutter()
                outbox.put(Opened(source))
            if isinstance(item, NewEpoch):
                finish(cutter)
                epoch += 1
                cutter = new_cutter()
            elif isinstance(item, Picture):
                has_picture = True
                for record in cutter.picture(item):
                    outbox.put(record)
            elif isinstance(item, Sound):
                for record in cutter.sound(item):
                    outbox.put(record)
    except SourceDown as error:
        if not info.live:
            raise  # a recording is read again from its beginning, what was sent is skipped
        broken = error
    if not has_picture and not info.live:
        raise BadSource(f"{plan.url}: none of its pictures can be decoded: convert or download it again")
    if cutter is not None:
        finish(cutter)
    if broken is not None:
        raise broken
    outbox.put(Played(over=not info.live or source.over, detail=source.detail))


def _from_first_picture(source: MediaSource) -> Iterator[MediaItem]:
    """Holds back sound until there is a picture: a live stream without pictures counts as down."""
    held: list[MediaItem] = []
    items = iter(source)
    for item in items:
        if isinstance(item, NewEpoch):
            held.clear()
            continue
        held.append(item)
        if isinstance(item, Picture):
            break
    else:
        return
    yield from held
    yield from items


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
