"""Kept evidence: the pictures of detections, in a folder or at any fsspec URL, for as long as the settings say.

Each detection is one file. The evidence role writes; monitors and commands read.
"""

import logging
import os
import time
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec
import msgspec

from topology.errors import Unavailable, UserError
from topology.records import ProductDetected
from topology.retry import describe
from topology.settings import Settings

_log = logging.getLogger(__name__)

_SUFFIX = ".evidence"
_FULL = 0.9  # above the limit, files are deleted down to this share of it, so not at every write

Box = tuple[float, float, float, float]


class KeptFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A frame that shows the product.

    Attributes:
        box: x0, y0, x1, y1 of the product, relative to the frame; None if it is not known.
        jpeg: The frame, with faces blurred unless the settings say otherwise.
        crop: What is in the box; empty without one.
    """

    pts_ms: int
    captured_at_ms: int
    box: Box | None
    score: float
    page_image: str
    jpeg: bytes
    crop: bytes = b""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a detection.

    Attributes:
        events: Its first event and its newest one.
        title: Title of the product when it was detected.
        frames: By time.
        page: The page picture that the best frame matches, JPEG; empty if it could not be had.
    """

    detection_id: str
    stream_id: str
    product_id: str
    events: tuple[ProductDetected, ...]
    title: str = ""
    frames: tuple[KeptFrame, ...] = ()
    page: bytes = b""

    @property
    def event(self) -> ProductDetected:
        """The newest event."""
        return self.events[-1]

    def frame(self, pts_ms: int) -> KeptFrame | None:
        """Returns the frame of a media time; None if it is not kept."""
        return next((one for one in self.frames if one.pts_ms == pts_ms), None)


@dataclass(frozen=True)
class _File:
    path: str
    size: int
    at_s: float


class EvidenceStore:
    """Kept detections by id. All methods block: call them in a thread.

    Args:
        url: A folder, or an fsspec URL.

    Raises:
        UserError: The URL's scheme is not known, or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise UserError(f"COPE_EVIDENCE_URL: {error}") from None
        self._is_local = "file" in ([self._fs.protocol] if isinstance(self._fs.protocol, str) else self._fs.protocol)

    def get(self, detection_id: str) -> Kept | None:
        """Returns what is kept of a detection; None if nothing is.

        Raises:
            Unavailable: The store cannot be read now.
        """
        try:
            return msgspec.msgpack.decode(self._fs.cat_file(self._path(detection_id)), type=Kept)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            _log.warning("evidence cannot be read", extra={"detection_id": detection_id, "error": describe(error)})
            return None
        except OSError as error:
            raise Unavailable(f"read evidence: {describe(error)}") from error

    def put(self, kept: Kept) -> int:
        """Keeps a detection, whole or not at all; returns how many bytes that takes.

        Raises:
            Unavailable: The store cannot be written now.
        """
        data = msgspec.msgpack.encode(kept)
        path = self._path(kept.detection_id)
        try:
            if self._is_local:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                part = f"{path}.{uuid.uuid4().hex}.part"
                Path(part).write_bytes(data)
                os.replace(part, path)
            else:
                self._fs.pipe_file(path, data)
        except OSError as error:
            raise Unavailable(f"write evidence: {describe(error)}") from error
        return len(data)

    def sweep(self, keep_s: float, most_bytes: int) -> int:
        """Deletes what is older than `keep_s`, and of the rest the oldest while it is more; returns the bytes left.

        Raises:
            Unavailable: The store cannot be read now.
        """
        try:
            self._fs.invalidate_cache()
            found = self._fs.find(self._root, detail=True) if self._fs.exists(self._root) else {}
        except OSError as error:
            raise Unavailable(f"list evidence: {describe(error)}") from error
        files = sorted((_file(path, info) for path, info in found.items()), key=lambda one: (one.at_s, one.path))
        total = sum(one.size for one in files)
        target = most_bytes if total <= most_bytes else int(most_bytes * _FULL)
        oldest_s = time.time() - keep_s
        for one in files:
            if one.at_s >= oldest_s and total <= target:
                break
            try:
                self._fs.rm_file(one.path)
            except FileNotFoundError:  # another process was faster
                pass
            except OSError as error:
                _log.warning("evidence cannot be deleted", extra={"path": one.path, "error": describe(error)})
                continue
            total -= one.size
        return total

    def _path(self, detection_id: str) -> str:
        name = quote(detection_id, safe="")[:200].lstrip(".") or "_"
        return f"{self._root}/{name[:2]}/{name}{_SUFFIX}"


def evidence_url(settings: Settings) -> str:
    """Returns where evidence is kept: what the settings say, else a folder of this user."""
    if settings.evidence_url:
        return settings.evidence_url
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return str(Path(data) / "cope-live" / "evidence")


def _file(path: str, info: dict[str, Any]) -> _File:
    # Each file system has its own name for it.
    names = ("mtime", "LastModified", "last_modified", "updated", "created")
    at = next((info[name] for name in names if info.get(name)), 0)
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    return _File(path, int(info.get("size") or 0), at.timestamp() if isinstance(at, datetime) else float(at))
