"""Recordings of several parts: joined by `cat`, or with a codec that changes.

Of FLV and MP4, FFmpeg reads only the first recording. Of other containers it reads all, but PyAV decodes all with the
codecs of the first. Where these give no more output, the rest of the file is opened anew.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from workers.capture.media import BadSource, MediaItem, MediaSource, NewEpoch, SourceDown

Part = tuple[int, int]
"""Where a recording begins and ends in its file, in bytes."""

OpenPart = Callable[[Part | None, Callable[[int], bool]], MediaSource]
"""Opens a part, or the whole. The source calls the second argument where a track begins to give nothing; if that says
that another codec begins there, the source ends."""

_FLV, _FLV_HEADER_BYTES, _FLV_TAGS = b"FLV\x01", 13, (8, 9, 18)
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
            starts = list(_flv_starts(read))
        elif head[4:] == b"ftyp":
            starts = list(_mp4_starts(read))
        elif head[:4] == _EBML:
            starts = list(_matroska_starts(read))
        else:
            starts = [0]
    return list(zip(starts, [*starts[1:], size], strict=True))


def _read(descriptor: int, at: int, count: int) -> bytes:
    return os.pread(descriptor, count, at)


def _flv_starts(read: Callable[[int, int], bytes]) -> Iterator[int]:
    """From tag to tag, as long as they are sound."""
    at = 0
    while len(head := read(at, _FLV_HEADER_BYTES)) == _FLV_HEADER_BYTES:
        if head[:4] == _FLV:
            yield at
            at += _FLV_HEADER_BYTES
        elif head[0] & 0x1F in _FLV_TAGS:
            at += 11 + int.from_bytes(head[1:4]) + 4
        else:
            return


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
        begin, end = self._part
        with self._path.open("rb") as file:
            start = max(0, at - _TABLES_WITHIN_BYTES)
            tables = _read(file.fileno(), begin + start, at - start).rfind(_TABLES)
        part = begin + (start + tables if tables >= 0 else at), end
        try:
            following = self._opened(part, self._has_changed)
        except (BadSource, SourceDown):
            return False
        if following.info.codecs == self._source.info.codecs:
            following.close()
            return False
        self._following = part, following
        return True
