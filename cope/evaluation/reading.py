"""Reads the words in the pictures of an evaluation set, and keeps them on disk by the content of the pictures."""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cope.data.items import Source
from cope.domains import Domain
from cope.errors import UserError
from cope.evaluation.collecting import Report, Sampling, read_pictures, rows_of, with_pixels
from cope.evaluation.describing import Describer
from cope.evaluation.sets import Read
from cope.towers.reading import PACKAGED, PAGE_PICTURES, open_reader

Pixels = NDArray[np.uint8]
Lines = list[tuple[str, float]]  # text and confidence

_CLIPS: tuple[Domain, ...] = ("video", "live")
_VERSION = 1  # of what is kept; another number where code that makes it changes


def read_words(
    describer: Describer,
    source: Source,
    cache: Path,
    sampling: Sampling,
    workers: int = 1,
    report: Report | None = None,
) -> Read:
    """Reads the items of `cope.evaluation.collecting.evaluation_set`, as service reads pages and frames.

    Each picture is read once: what was read is found again in whatever data it lies.

    Args:
        describer: Finds the region of a frame that is read enlarged.
        source: The data.
        cache: Folder.
        sampling: Which part of the data.
        workers: Processes that load pictures.
        report: Told of progress.

    Raises:
        UserError: The reader's package is not installed, or words cannot be kept in the cache.
    """
    rows = rows_of(source, sampling)
    total, done = sum(len(items) for items in rows.items.values()), 0
    name = describer.config.reading or PACKAGED
    found: dict[Domain, list[list[Lines]]] = {"page": [], "video": [], "live": []}
    with _Kept(describer, name, cache) as kept:
        for domain, of_items in found.items():
            for pictures in read_pictures(source, rows.items[domain], workers):
                images = [one.pixels for one in with_pixels(pictures) if one.pixels is not None]
                of_items.append(kept.pages(images) if domain == "page" else [kept.frame(one) for one in images])
                done += 1
                if report is not None:
                    report(f"words in {source.name}", done, total)
    pages = [list(dict.fromkeys(text for lines in pictures for text, _ in lines)) for pictures in found["page"]]
    return Read(pages, {domain: found[domain] for domain in _CLIPS}, name)


class _Kept:
    """A reader that remembers, in a file of the cache. Processes may share it."""

    def __init__(self, describer: Describer, name: str, cache: Path) -> None:
        self._describer, self._reader = describer, open_reader(name)
        what = json.dumps([_VERSION, name, version("rapidocr"), describer.key])
        self._path = cache / f"words-{hashlib.sha256(what.encode()).hexdigest()[:16]}.sqlite"
        try:
            cache.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self._path, timeout=60, isolation_level=None)
            self._database.execute("CREATE TABLE IF NOT EXISTS lines (picture TEXT PRIMARY KEY, found TEXT NOT NULL)")
        except (OSError, sqlite3.Error) as error:
            raise self._cannot(error) from None

    def __enter__(self) -> "_Kept":
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def frame(self, image: Pixels) -> Lines:
        """The lines of a frame, and of the region in it that most likely is the product."""
        key = _key("frame", image)
        found = self._find(key)
        if found is None:
            boxes, _ = self._describer.find(image)
            found = [(line.text, line.confidence) for line in self._reader.read_frame(image, boxes[:1])]
            self._keep(key, found)
        return found

    def pages(self, images: Sequence[Pixels]) -> list[Lines]:
        """The lines of a page's pictures."""
        each: list[Lines] = []
        for image in images[:PAGE_PICTURES]:
            key = _key("page", image)
            found = self._find(key)
            if found is None:
                found = [(text, 1.0) for text in self._reader.read_page([image])]
                self._keep(key, found)
            each.append(found)
        return each

    def _find(self, key: str) -> Lines | None:
        try:
            row = self._database.execute("SELECT found FROM lines WHERE picture = ?", (key,)).fetchone()
            return None if row is None else [(str(text), float(sure)) for text, sure in json.loads(row[0])]
        except (sqlite3.Error, ValueError) as error:
            raise UserError(f"{self._path} is damaged ({error}); remove it") from None

    def _keep(self, key: str, found: Lines) -> None:
        try:
            self._database.execute("INSERT OR REPLACE INTO lines VALUES (?, ?)", (key, json.dumps(found)))
        except sqlite3.Error as error:
            raise self._cannot(error) from None

    def _cannot(self, error: Exception) -> UserError:
        return UserError(f"cannot keep words in {self._path}: {error}; name another --cache")


def _key(what: str, image: Pixels) -> str:
    return hashlib.sha256(f"{what} {image.shape} ".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
