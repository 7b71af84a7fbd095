"""Reads a data set's files where they lie: in a local folder or behind any fsspec URL, as a stream."""

import codecs
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

import fsspec

from cope.data.items import Counts
from cope.errors import UserError

# Files up to this size are hashed whole: a second on any disk. Of larger ones, parts are.
_HASHED_WHOLE_BYTES = 64 << 20
_HASHED_PARTS = 64
_BLOCK_BYTES = 1 << 20
_HASHED_PART_BYTES = 64 << 10
# A longer line is not a row: a file without line ends would otherwise be read into memory as a whole.
_LONGEST_LINE_BYTES = 4 << 20
# Above this lie videos and archives; it bounds what one address can make a loader hold.
_LARGEST_PICTURE_BYTES = 64 << 20
# File systems that answer without another machine; zip and tar hold what another one has opened.
_NEAR = ("file", "local", "memory", "zip", "tar")
# What a single file of data ends in. A web server says of any address that it is a file.
_FILE_ENDS = (".jsonl", ".tsv", ".txt")
# An image server answers in milliseconds; a dead one must not hold up a batch for aiohttp's own five minutes.
_HTTP_TIMEOUT_S = 20.0

NOT_UTF8 = "rows with bytes that are not UTF-8"
CUT_OFF = "rows with half a character (a lone surrogate)"
# `json` joins the halves of whole characters, so what is left of them stands alone.
_SURROGATE = re.compile("[\ud800-\udfff]")


class Folder:
    """A folder of data, or a single file in one.

    Attributes:
        url: URL as the user named it, for messages.
        root: The folder's path in its file system.
        file: The name of the file, where the user named one; else "".
    """

    def __init__(self, url: str) -> None:
        if not url.strip():
            raise UserError("no training data are named; give a folder or an fsspec URL")
        self.url = str(url).rstrip("/") or "/"
        try:
            self._fs, self.root = _filesystem(self.url)
            self.file = ""
            if self._is_file():
                self.root, _, self.file = self.root.rpartition("/")
            names = [self.file] if self.file else [entry.rpartition("/")[2] for entry in self._listing()]
        except FileNotFoundError:
            raise UserError(f"{self.url}: no such folder of training data; name a folder or an fsspec URL") from None
        except Exception as error:  # each of fsspec's file systems has errors of its own
            raise UserError(
                f"{self.url}: cannot be read ({_first_line(error)}); name a folder or an fsspec URL"
            ) from error
        self.names: Sequence[str] = sorted(names)

    def _is_file(self) -> bool:
        on_the_web = self.root.lower().startswith(("http://", "https://"))
        return self.root.endswith(_FILE_ENDS) if on_the_web else bool(self._fs.isfile(self.root))

    def _listing(self) -> Iterator[str]:
        for entry in self._fs.ls(self.root, detail=False):
            yield str(entry).rstrip("/")

    @property
    def local(self) -> Path | None:
        """The folder as a path, if it lies on this machine."""
        return Path(self.root or "/") if _is_local(self._fs) else None

    def holds_folder(self, name: str) -> bool:
        """Whether a folder of this name lies in it, or beside the file that was named."""
        return bool(self._fs.isdir(self._path(name))) if self.file else name in self.names

    def unknown(self) -> UserError:
        """What to say of a folder that no reader knows."""
        found = ", ".join(self.names[:6]) + (", ..." if len(self.names) > 6 else "") if self.names else "nothing"
        return UserError(
            f"{self.url}: holds {found}: neither ROPE's nine files (training_product_pages_pair.txt, ...), nor "
            "LPR4M (*.tsv), a manifest (manifest.jsonl) or objects (objects.jsonl); docs/training.md says what each is"
        )

    def size(self, name: str) -> int:
        """Bytes of a file; 0 where a server does not tell."""
        return int(self._fs.size(self._path(name)) or 0)

    def open(self, name: str) -> IO[bytes]:
        """Opens a file for reading from its start."""
        return cast(IO[bytes], self._fs.open(self._path(name), "rb"))

    def lines(self, name: str, counts: Counts) -> Iterator[str]:
        """Yields the lines of a text file that are not blank, without their ends.

        A byte-order mark is dropped; bytes that are not UTF-8 become U+FFFD and the row is counted, since a title
        with one bad letter still says what the product is.
        """
        # Files behind URLs read no line of bounded length by themselves.
        with io.BufferedReader(cast(io.RawIOBase, self.open(name)), _BLOCK_BYTES) as file:
            first = True
            while line := file.readline(_LONGEST_LINE_BYTES):
                if len(line) == _LONGEST_LINE_BYTES and not line.endswith(b"\n"):
                    counts.add("rows longer than 4 MB")
                    while line and not line.endswith(b"\n"):
                        line = file.readline(_LONGEST_LINE_BYTES)
                    continue
                if first:
                    line, first = line.removeprefix(codecs.BOM_UTF8), False
                line = line.strip(b"\r\n")
                if not line.strip():
                    continue
                try:
                    yield line.decode("utf-8")
                except UnicodeDecodeError:
                    counts.add(NOT_UTF8)
                    yield line.decode("utf-8", "replace")

    def fingerprint(self, names: Sequence[str], *more: str) -> str:
        """A hash of files: their names, sizes and contents, of huge ones parts of the contents.

        Args:
            names: Names of the files.
            more: What else decides how they are read.
        """
        digest = hashlib.sha256(repr(more).encode())
        for name in sorted(names):
            size = self.size(name)
            digest.update(f"{name} {size} ".encode())
            with self.open(name) as file:
                if size <= _HASHED_WHOLE_BYTES:
                    while block := file.read(_BLOCK_BYTES):
                        digest.update(block)
                else:
                    for part in range(_HASHED_PARTS):
                        file.seek((size - _HASHED_PART_BYTES) * part // (_HASHED_PARTS - 1))
                        digest.update(file.read(_HASHED_PART_BYTES))
        return digest.hexdigest()

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"


class PictureFiles:
    """Finds and reads a data set's pictures, by path or URL, relative to its folder or not. Can be pickled.

    A folder may hold a mirror of pictures on the web in `images/HOST/PATH`, as `wget --force-directories
    --directory-prefix images --input-file URLS` makes it. Where that folder is there, http(s) addresses are looked
    up in it alone, so a training run never waits for somebody's server. An address may be escaped where the file's
    name is not: `wget` writes `a%20b.jpg` to `a b.jpg`.
    """

    def __init__(self, folder: Folder) -> None:
        self._url, self._root = folder.url, folder.root
        self._mirrored = folder.holds_folder("images")
        self._local = folder.local is not None
        self._opened: tuple[int, Any] | None = None  # process, and the folder's file system in it

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_opened": None}

    def places(self, image: str) -> list[str]:
        """Where a picture may lie, the likeliest first: fsspec URLs, or paths in the folder's file system.

        Empty if it can be nowhere.
        """
        if self._mirrored and image.lower().startswith(("http://", "https://")):
            try:
                parts = urlsplit(image)
            except ValueError:  # such as http://[
                return []
            names = dict.fromkeys((_as_written(parts), _as_wget_names_it(parts)))
            # No address leads out of the mirror.
            return [f"{self._root}/images/{name}" for name in names if ".." not in name.split("/")]
        if "://" in image or (self._local and image.startswith("/")):
            return [image]
        return [f"{self._root}/{image}"]

    def is_far(self, image: str) -> bool:
        """Whether reading it means waiting for another machine."""
        urls = [place if "://" in place else self._url for place in self.places(image)]
        links = [link.partition("://") for url in urls for link in url.split("::")]
        return any(rest and kind not in _NEAR for kind, _, rest in links)

    def read(self, image: str) -> bytes | None:
        """The file's bytes; None if there is no such file.

        Raises:
            OSError: It cannot be read now, or is larger than 64 MB.
        """
        try:
            found = (self._content(place) for place in self.places(image))
            return next((data for data in found if data is not None), None)
        except OSError:
            raise
        except Exception as error:  # each of fsspec's file systems has errors of its own, as have broken addresses
            raise OSError(_first_line(error)) from error

    def _content(self, place: str) -> bytes | None:
        """The bytes of a file; None if there is none."""
        try:
            with self._open(place) as file:
                data = file.read(_LARGEST_PICTURE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        if len(data) > _LARGEST_PICTURE_BYTES:
            raise OSError("larger than 64 MB")
        return data

    def _open(self, place: str) -> IO[bytes]:
        inside = "://" in self._root and place.startswith(self._root)  # on the web paths are addresses
        if "://" in place and not inside:
            fs, path = _filesystem(place)
            return cast(IO[bytes], fs.open(path, "rb"))
        if self._local:
            return open(place, "rb")
        # Kept, since an archive reads its table of contents when it is opened; but a fork must not use its parent's.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), _filesystem(self._url)[0]
        return cast(IO[bytes], self._opened[1].open(place, "rb"))


def json_row(line: str, counts: Counts) -> dict[str, Any] | None:
    """A line of JSON that is an object; None if it is not.

    Half a character, as is left where a text was cut in UTF-16 (`"\\ud83d"`), becomes U+FFFD and the row is counted:
    no database and no file name can hold it.
    """
    try:
        row = json.loads(line)
        if isinstance(row, dict) and "\\ud" in line.lower():
            whole, cut = _SURROGATE.subn("\ufffd", json.dumps(row, ensure_ascii=False))
            if cut:
                counts.add(CUT_OFF)
                row = json.loads(whole)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def cache_folder(folder: Folder) -> Path:
    """Where what was learned of a data set is kept: beside it if that can be written, else in the user's cache."""
    beside = folder.local
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cope-live"
    for place in ([beside / ".cope-live"] if beside else []) + [home]:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(place, os.W_OK):
            return place
    raise UserError(f"{home}: cannot be written, nor can {folder.url}; set XDG_CACHE_HOME to a folder that can")


def _as_written(address: SplitResult) -> str:
    query = f"?{address.query}" if address.query else ""
    return f"{address.netloc}{address.path}{query}"


def _as_wget_names_it(address: SplitResult) -> str:
    """`HOST/PATH?QUERY`, unescaped but for slashes that part no folders. Bytes that are not UTF-8 stay as they are."""
    path = "/".join(_unescaped(part) for part in address.path.split("/"))
    query = f"?{_unescaped(address.query)}" if address.query else ""
    return f"{address.netloc.rpartition('@')[2].lower()}{path}{query}"


def _unescaped(part: str) -> str:
    return os.fsdecode(unquote_to_bytes(part).replace(b"/", b"%2F"))


def _filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path in it. Asked for anew each time: fsspec itself keeps one per
    address and process, and a forked process must not use its parent's."""
    options: dict[str, Any] = {}
    if url.lower().startswith(("http://", "https://")):
        import aiohttp  # what fsspec reads the web with

        options["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(total=_HTTP_TIMEOUT_S)}
    fs, path = fsspec.core.url_to_fs(url, **options)
    return fs, str(path)


def _is_local(fs: Any) -> bool:
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
