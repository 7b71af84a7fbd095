"""Recordings of several parts: joined by `cat`, or with a codec that changes.

Of FLV and MP4, FFmpeg reads only the first recording. Of other containers it reads all, but PyAV decodes all with the
codecs of the first. Where these give no more output, the rest of the file is opened anew. In FLV, each tag names its
codec, so that the places are known beforehand.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from workers.capture.media import BadSource, MediaItem, MediaSource, NewEpoch, SourceDown

Range = tuple[int, int]
"""Begin and end in a file, in bytes."""

Part = tuple[Range, ...]
"""The pieces of a file that make a recording, one after the other; one piece for most."""

OpenPart = Callable[[Part | None, Callable[[int], bool]], MediaSource]
"""Opens a part, or the whole. The source calls the second argument where a track begins to give nothing; if that says
that another codec begins there, the source ends."""

_FLV, _FLV_HEADER_BYTES, _FLV_SOUND, _FLV_PICTURE, _FLV_DATA = b"FLV\x01", 13, 8, 9, 18
# Tags in a row with another codec that make a change; fewer are damage.
_FLV_CHANGED = 3
# Picture and sound that change within this time change together.
_FLV_TOGETHER_MS = 1_000
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # how Matroska begins, and what follows
# The tables of MPEG-TS that name its tracks: a packet with the first of them comes several times a second.
_TABLES, _TABLES_WITHIN_BYTES = b"\x47\x40\x00", 1 << 18
_MOST_LOOKS = 100  # at places where a track gives nothing: each costs as much as opening the file


def parts_of(path: Path) -> list[Part]:
    """Returns the recordings in a file as far as they can be told apart; most files have one."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        read = partial(_read, file.fileno())
        head = read(0, 8)
        if head[:4] == _FLV:
            return _flv_parts(read, size)
        if head[4:] == b"ftyp":
            starts = list(_mp4_starts(read))
        elif head[:4] == _EBML:
            starts = list(_matroska_starts(read))
        else:
            starts = [0]
    return [(piece,) for piece in zip(starts, [*starts[1:], size], strict=True)]


def _read(descriptor: int, at: int, count: int) -> bytes:
    return os.pread(descriptor, count, at)


class _FlvTrack:
    """The tags of one kind, as they are read."""

    def __init__(self) -> None:
        self.codec = b""
        self.setup: Range | None = None  # the tag that sets the decoder up
        self._new, self._new_at, self._new_ms, self._count = b"", 0, 0, 0

    def tag(self, at: int, end: int, head: bytes) -> tuple[int, int] | None:
        """Takes the next tag. Returns where and when another codec began, once that is certain."""
        codec, is_setup = _flv_codec(head)
        if is_setup:
            self.setup = at, end
        if codec in (self.codec, b"") or not self.codec:
            self.codec, self._count = self.codec or codec, 0
            return None
        if codec != self._new or not self._count:
            self._new, self._new_at, self._count = codec, at, 0
            self._new_ms = int.from_bytes(head[4:7]) | head[7] << 24
        self._count += 1
        if self._count < _FLV_CHANGED:
            return None
        self.codec, self._count = codec, 0
        return self._new_at, self._new_ms


def _flv_codec(head: bytes) -> tuple[bytes, bool]:
    """Returns a tag's codec, empty if it has none, and whether the tag sets the decoder up."""
    if int.from_bytes(head[1:4]) < 5:
        return b"", False
    first, second = head[11], head[12]
    if head[0] & 0x1F == _FLV_PICTURE:
        if first & 0x80:  # enhanced: named by four letters
            return head[12:16], first & 0x0F == 0
        return (b"", False) if first >> 4 == 5 else (bytes([first & 0x0F]), first & 0x0F in (7, 12) and second == 0)
    if first >> 4 == 9:  # enhanced
        return head[12:16], first & 0x0F == 0
    return bytes([first >> 4]), first >> 4 == 10 and second == 0


def _flv_parts(read: Callable[[int, int], bytes], size: int) -> list[Part]:
    """From tag to tag, as long as they are sound. Where a codec changes, the header and the other track's setup are
    put before the part."""
    at, header = 0, (0, 0)
    tracks: dict[int, _FlvTrack] = {}
    starts: list[tuple[int, list[Range]]] = []
    changed: tuple[int, set[int]] | None = None  # when a codec changed last, and of which tracks
    while len(head := read(at, 16)) >= _FLV_HEADER_BYTES:
        if head[:4] == _FLV:
            starts.append((at, []))
            header, at = (at, at + _FLV_HEADER_BYTES), at + _FLV_HEADER_BYTES
            tracks, changed = {_FLV_PICTURE: _FlvTrack(), _FLV_SOUND: _FlvTrack()}, None
            continue
        kind, end = head[0] & 0x1F, at + 11 + int.from_bytes(head[1:4]) + 4
        if kind not in (*tracks, _FLV_DATA):
            break
        found = tracks[kind].tag(at, end, head.ljust(16, b"\0")) if kind in tracks else None
        if found is not None:
            place, time_ms = found
            if changed is None or time_ms - changed[0] > _FLV_TOGETHER_MS:
                changed = time_ms, set()
                starts.append((place, []))
            changed[1].add(kind)
            place = min(place, starts[-1][0])
            setups = [one.setup for other, one in tracks.items() if other not in changed[1] and one.setup is not None]
            starts[-1] = place, [header, *setups]
        at = end
    ends = [start for start, _ in starts[1:]] + [size]
    return [(*before, (start, end)) for (start, before), end in zip(starts, ends, strict=True)]


def _mp4_starts(read: Callable[[int, int], bytes]) -> Iterator[int]:
    """From box to box: each recording begins with its type, and has an index."""
    at, start, has_index = 0, 0, False
    while len(head := read(at, 16)) == 16:
        length, kind = int.from_bytes(head[:4]), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:])
        if kind == b"ftyp" and has_index:
            yield start
            start, has_index = at, False
        has_index |= kind == b"moov"
        if length < 8:  # up to the end of the file, or damaged
            break
        at += length
    yield start


def _matroska_starts(read: Callable[[int, int], bytes]) -> Iterator[int]:
    """From header to header, as long as lengths are known."""
    at = 0
    while read(at, 4) == _EBML:
        yield at
        for name in (_EBML, _SEGMENT):
            head = read(at, 12)
            width = 9 - head[4].bit_length() if len(head) == 12 and head[:4] == name and head[4] else 0
            length = int.from_bytes(head[4 : 4 + width]) & ((1 << 7 * width) - 1)
            if not width or length == (1 << 7 * width) - 1:  # none, or unknown
                return
            at += 4 + width + length


class JoinedSource:
    """Plays the parts of a file one after the other, each in an epoch of its own. See `MediaSource`.

    Args:
        opened: Opens a part.
        path: The file.
    """

    over = False

    def __init__(self, opened: OpenPart, path: Path) -> None:
        self._opened = opened
        self._path = path
        first, *self._waiting = parts_of(path)
        self._part = first
        self._count = 1 + len(self._waiting)
        self._following: tuple[Part, MediaSource] | None = None  # has another codec
        self._looks = 0
        self._source = opened(first if self._waiting else None, self._has_changed)
        self._details: list[str] = []
        self.seen = self._source.seen
        self.info = replace(self._source.info, duration_ms=None) if self._waiting else self._source.info

    @property
    def detail(self) -> str:
        """What was wrong with the parts so far."""
        return "; ".join(filter(None, [*self._details, self._source.detail]))

    def __iter__(self) -> Iterator[MediaItem]:
        """Yields what the parts hold."""
        yield from self._source
        while following := self._next():
            self._details.append(self._source.detail)
            self._source.close()
            self._part, self._source = following
            self._following = None
            yield NewEpoch()
            yield from self._source

    def close(self) -> None:
        """Closes the file."""
        self._source.close()
        if self._following is not None:
            self._following[1].close()

    def _next(self) -> tuple[Part, MediaSource] | None:
        while self._following is None and self._waiting:
            part = self._waiting.pop(0)
            try:
                return part, self._opened(part, self._has_changed)
            except BadSource as error:
                number = self._count - len(self._waiting)
                self._details.append(f"recording {number} of {self._count} in it cannot be read ({error})")
        return self._following

    def _has_changed(self, at: int) -> bool:
        """Says whether codecs change at a place of the part that is played, and opens what follows."""
        self._looks += 1
        if self._looks > _MOST_LOOKS:
            return False
        begin, end = self._part[-1]
        with self._path.open("rb") as file:
            start = max(0, at - _TABLES_WITHIN_BYTES)
            tables = _read(file.fileno(), begin + start, at - start).rfind(_TABLES)
        part = ((begin + (start + tables if tables >= 0 else at), end),)
        try:
            following = self._opened(part, self._has_changed)
        except (BadSource, SourceDown):
            return False
        if following.info.codecs == self._source.info.codecs:
            following.close()
            return False
        self._following = part, following
        return True
