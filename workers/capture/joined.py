"""Recordings joined by `cat`. FFmpeg plays most containers on; of FLV and MP4 it reads the first recording alone."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from workers.capture.media import BadSource, MediaItem, MediaSource, NewEpoch

Part = tuple[int, int]
"""Where a recording begins and ends in its file, in bytes."""

_FLV, _FLV_HEADER_BYTES, _FLV_TAGS = b"FLV\x01", 13, (8, 9, 18)


def parts_of(path: Path) -> list[Part]:
    """Returns the recordings in a file, as far as it can be told; one for most."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        read = partial(_read, file.fileno())
        head = read(0, 8)
        if head[:4] == _FLV:
            starts = list(_flv_starts(read))
        elif head[4:] == b"ftyp":
            starts = list(_mp4_starts(read))
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


class JoinedSource:
    """Plays recordings one after the other, each in an epoch of its own. See `MediaSource`.

    Args:
        parts: Opens each of them; the first one is opened at once.
    """

    over = False

    def __init__(self, parts: list[Callable[[], MediaSource]]) -> None:
        self._parts = parts
        self._source = parts[0]()
        self._details: list[str] = []
        self.seen = self._source.seen
        self.info = replace(self._source.info, duration_ms=None)

    @property
    def detail(self) -> str:
        """What was wrong with the parts so far."""
        return "; ".join(filter(None, [*self._details, self._source.detail]))

    def __iter__(self) -> Iterator[MediaItem]:
        """Yields what the parts hold."""
        yield from self._source
        for number, part in enumerate(self._parts[1:], start=2):
            try:
                following = part()
            except BadSource as error:
                self._details.append(f"recording {number} of {len(self._parts)} in it cannot be read ({error})")
                continue
            self._details.append(self._source.detail)
            self._source.close()
            self._source = following
            yield NewEpoch()
            yield from following

    def close(self) -> None:
        """Closes the file."""
        self._source.close()
