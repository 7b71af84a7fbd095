"""The inputs and outputs of the window core."""

from dataclasses import dataclass
from typing import Generic, TypeVar

F = TypeVar("F")
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class FrameIn(Generic[F]):
    """A frame, or the end of an epoch's frames.

    Attributes:
        log_ms: When the broker appended it.
        item: What the caller wants back.
        live: From a network stream.
        first: The epoch's first.
        end: The epoch ends at `pts_ms`; no picture.
    """

    stream_id: str
    epoch: int
    pts_ms: int
    log_ms: int
    item: F
    live: bool = False
    first: bool = False
    end: bool = False


@dataclass(frozen=True, slots=True)
class KeywordsIn(Generic[K]):
    """The keywords of a stretch of speech, perhaps none, or the end of an epoch's."""

    stream_id: str
    epoch: int
    start_ms: int
    end_ms: int
    log_ms: int
    item: K
    end: bool = False


@dataclass(frozen=True, slots=True)
class Window(Generic[F, K]):
    """A closed window.

    Attributes:
        frames: The items of its frames, by time.
        keywords: Its keywords and those of its look-back, by time.
        newest: The newest frame before its end, or, without one, the record that went past its end.
        heard: It closed because its keywords were there, not because time ran out. For metrics only: no other field
            depends on when the logs were read.
        end_of_epoch: This is not a window but the end of the epoch. Start and end are the end of the media.
    """

    stream_id: str
    epoch: int
    start_ms: int
    end_ms: int
    live: bool
    newest: F
    frames: tuple[F, ...] = ()
    keywords: tuple[KeywordsIn[K], ...] = ()
    heard: bool = True
    end_of_epoch: bool = False


@dataclass(frozen=True, slots=True)
class Step(Generic[F, K]):
    """What to do next, in this order: send the window, if there is one; then release the inputs."""

    window: Window[F, K] | None = None
    frames: tuple[F, ...] = ()
    keywords: tuple[K, ...] = ()
