"""A cache of encoded pages on this machine's disk, so that a catalogue is encoded once.

Its key is a hash of the page's texts, the pixels of its pictures, the model, and our own code.
"""

import hashlib
import sqlite3
from contextlib import suppress
from functools import cache
from pathlib import Path

import cope
from cope.runtime.cache import cache_folder
from topology.codec import decode_value, encode_value
from topology.errors import BadInput
from topology.records import PageVectors, ProductPage
from workers.catalog.encoding import Pictures

# Number of cache files that stay, one for each model and version of the code; some 5 kB a page.
_FILES = 4


class KeptPages:
    """Records by the content of their pages. What cannot be read or written is as if it had never been kept."""

    def __init__(self, about: str) -> None:
        """Opens the file.

        Args:
            about: All that decides what a page becomes, beside the page and our code.
        """
        self._file: sqlite3.Connection | None = None
        folder = cache_folder("pages")
        if folder is None:
            return
        path = folder / f"{hashlib.sha256(f'{about} {_code()}'.encode()).hexdigest()[:16]}.sqlite"
        try:
            self._file = self._opened(path)
        except sqlite3.DatabaseError:  # damaged
            path.unlink(missing_ok=True)
            with suppress(sqlite3.Error):
                self._file = self._opened(path)
        newest = sorted(folder.glob("*.sqlite"), key=lambda one: one.stat().st_mtime, reverse=True)
        for old in newest[_FILES:]:
            old.unlink(missing_ok=True)

    @staticmethod
    def _opened(path: Path) -> sqlite3.Connection:
        file = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
        file.execute("PRAGMA synchronous = OFF")  # a page that a power cut takes is encoded again
        file.execute("CREATE TABLE IF NOT EXISTS pages (content BLOB PRIMARY KEY, record BLOB) WITHOUT ROWID")
        path.touch()
        return file

    def find(self, content: bytes) -> PageVectors | None:
        """Returns the record of a page with this content, at the offset that it had then; None if it is not known."""
        if self._file is not None:
            with suppress(sqlite3.Error, BadInput):
                for (record,) in self._file.execute("SELECT record FROM pages WHERE content = ?", (content,)):
                    found: PageVectors = decode_value(record, PageVectors)
                    return found
        return None

    def keep(self, content: bytes, record: PageVectors) -> None:
        """Keeps a record."""
        if self._file is not None:
            with suppress(sqlite3.Error):
                self._file.execute("INSERT OR REPLACE INTO pages VALUES (?, ?)", (content, encode_value(record)[0]))

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def content_of(page: ProductPage, pictures: Pictures) -> bytes:
    """A hash of all that is encoded of a page."""
    digest = hashlib.sha256(encode_value(page)[0])
    for uri, image in zip(pictures.uris, pictures.images, strict=True):
        digest.update(f"{uri} {image.shape} ".encode())
        digest.update(image.tobytes())
    return digest.digest()


@cache
def _code() -> str:
    """A hash of the code that encodes pages."""
    digest = hashlib.sha256()
    for folder in (Path(cope.__file__).parent, Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
