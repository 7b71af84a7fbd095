"""The interface of media sources: pictures and sound in media time, epoch by epoch."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from topology.errors import Unavailable, UserError
from workers.capture.repeats import PacketMemory

SAMPLE_RATE = 16_000  # Hz, of all sound here: what Whisper and Silero take


class BadSource(UserError):
    """A source that stays unusable until somebody mends it: no such file, not a video, no video stream."""


class SourceDown(Unavailable):
    """A source that does not deliver now, but may later: unreachable, stalled, connection lost."""


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source once it is open.

    Attributes:
        duration_ms: Length; None if it has no known end.
        live: It runs by its own clock and what is not read in time is lost. False for files, also over HTTP.
        width: Pixels, before rotation; 0 if unknown.
        height: Pixels, before rotation; 0 if unknown.
        codecs: Names of those of picture and sound.
    """

    duration_ms: int | None
    has_audio: bool
    live: bool
    width: int = 0
    height: int = 0
    codecs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        pts_ms: Media time since the epoch's start.
        render: Converts it to (H, W, 3) uint8 BGR; called for few pictures, since it costs.
        keyframe: It was coded without reference to others.
        rotation: Degrees, counter-clockwise, by which it is to be turned for display; a multiple of 90.
        pixel_aspect: Width of a pixel over its height.
    """

    pts_ms: int
    render: Callable[[], npt.NDArray[np.uint8]]
    keyframe: bool = False
    rotation: int = 0
    pixel_aspect: float = 1.0


@dataclass(frozen=True)
class Sound:
    """A piece of the sound track.

    Attributes:
        start: Its first sample, counted from the epoch's start; may be negative or overlap what came before.
        samples: (N,) int16, mono, at `SAMPLE_RATE`.
    """

    start: int
    samples: npt.NDArray[np.int16]


@dataclass(frozen=True)
class NewEpoch:
    """The source's clock was reset or jumped: what follows is in a new epoch, from 0."""


MediaItem = Picture | Sound | NewEpoch


class MediaSource(Protocol):
    """An open source. Iterating blocks on input and output, so it belongs in a thread of its own.

    Attributes:
        over: It turned out to be a recording that was read to its end by the connection before.
        seen: What was read of it, over all connections.
    """

    info: SourceInfo
    over: bool
    seen: PacketMemory

    @property
    def detail(self) -> str:
        """What was wrong with it so far."""
        ...

    def __iter__(self) -> Iterator[MediaItem]:
        """Yields what the source holds until it ends. Raises `SourceDown` when it breaks off or stalls."""
        ...

    def close(self) -> None:
        """Releases the connection or file."""
        ...


OpenSource = Callable[[str, PacketMemory | None], MediaSource]
"""Opens a URL. The second argument is `seen` of the connection before: that is left out."""


@dataclass
class InMemorySource:
    """The twin of the real source for tests: plays given items.

    Attributes:
        breaks: Raised after the items, as a broken connection would be.
    """

    info: SourceInfo
    items: Iterable[MediaItem]
    breaks: Exception | None = None
    detail: str = ""
    over: bool = False
    seen: PacketMemory = field(default_factory=PacketMemory)
    closed: bool = field(default=False, init=False)

    def __iter__(self) -> Iterator[MediaItem]:
        yield from self.items
        if self.breaks is not None:
            raise self.breaks

    def close(self) -> None:
        """Marks it closed."""
        self.closed = True
