"""What a stream's URL names: a file's path, or something on a network."""

import os
import re
import stat
from pathlib import Path

from topology import checks
from topology.addresses import Allowed
from topology.errors import BadInput, Unavailable
from topology.redact import redacted
from topology.settings import Settings
from workers.capture.media import BadSource, SourceDown

NETWORK_SCHEMES = checks.NETWORK_SCHEMES

_VIDEO_DEVICES = 81  # major number of video4linux's devices


def scheme_of(url: str) -> str:
    """Returns the URL's scheme in lower case; empty for a path."""
    match = re.match(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://", url)
    return "" if match is None or match[1].lower() == "file" else match[1].lower()


def local_path(url: str) -> Path:
    """Returns the path that a URL without a network scheme names."""
    return Path(re.sub(r"^file://", "", url, flags=re.IGNORECASE))


def check_allowed(url: str, settings: Settings) -> None:
    """Raises `BadSource` if the settings do not allow to open it, `SourceDown` if its host cannot be found now."""
    allowed = Allowed.of(settings)
    try:
        if not scheme_of(url):
            allowed.check_file(local_path(url))
        elif scheme_of(url) in NETWORK_SCHEMES:
            allowed.check_url(url)
    except BadInput as error:
        named = "" if str(error).startswith(f"{url}: ") else f"{url}: "
        raise BadSource(redacted(f"{named}{error}")) from error
    except Unavailable as error:
        raise SourceDown(redacted(f"{url}: {error}")) from error


def check_file(url: str) -> None:
    """Raises `BadSource` if the path names no file that can be read."""
    path = local_path(url)
    try:
        if not path.exists():
            raise BadSource(f"{url}: no such file: check the path")
        if path.is_dir():
            raise BadSource(f"{url}: is a folder: name a video file in it")
        if path.is_file() and path.stat().st_size == 0:
            raise BadSource(f"{url}: is empty (0 bytes): record or download it again")
        if not path.is_file():
            raise BadSource(f"{url}: is neither a file nor a camera: name a video file, a camera or a stream's address")
        with path.open("rb"):
            pass
    except OSError as error:
        raise BadSource(f"{url}: cannot be read ({error.strerror}): check its permissions") from error


def is_camera(url: str) -> bool:
    """Says whether a path names a video device of Linux."""
    try:
        status = local_path(url).stat()
    except OSError:
        return False
    return stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) == _VIDEO_DEVICES


def check_camera(url: str) -> None:
    """Raises `BadSource` if this process may not read the camera."""
    if not os.access(local_path(url), os.R_OK | os.W_OK):
        raise BadSource(f"{url}: cannot be read: join the group `video`, or run as a user who may")
