"""Reads product pictures from untrusted sources: any size, and perhaps not pictures at all."""

import stat
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import numpy as np
from numpy.typing import NDArray

from cope.vision.decoding import PictureError, decode
from topology.addresses import ANYTHING, Allowed
from topology.errors import BadInput, Unavailable
from topology.records import PageImage
from topology.redact import redacted

Pixels = NDArray[np.uint8]

# Size of the file of the largest photo that is decoded; larger files are videos and archives. It also bounds what a
# server can make us read.
MAX_FILE_BYTES = 64 * 1024 * 1024
# A shop's image server answers in milliseconds. Beyond this, one slow server would hold up the whole catalogue.
URL_TIMEOUT_S = 10.0
URL_TOTAL_S = 60.0
# Browsers follow 20; a picture's server needs one or two.
_MOST_REDIRECTS = 5
# Answers that may be different next time: time-out, too early, too many requests.
_PASSING_STATUSES = {408, 425, 429}


def is_url(uri: str) -> bool:
    """Whether the image is fetched over HTTP, and not read from a file."""
    return uri.lower().startswith(("http://", "https://"))


def load_image(
    image: PageImage, allowed: Allowed = ANYTHING, *, longest: int = 0, transparency: bool = False
) -> Pixels:
    """Reads a page's picture upright, as a viewer would see it on white.

    Args:
        image: Inline bytes if it has them, else a path, file or http(s) URL.
        allowed: The networks and folders that it may be on.
        longest: Shrink to this longer side. 0: keep the size.
        transparency: Keep it: (H, W, 4) uint8 RGBA where there is any.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        BadInput: It is missing, broken, too large (50 megapixels), too small, not a picture, or not allowed.
        Unavailable: Its server does not answer now.
    """
    name = redacted(image.uri) or "inline image"
    if image.data:
        data = image.data
    elif is_url(image.uri):
        data = fetch(image.uri, allowed)
    else:
        data = _read(file_path(image.uri), name, allowed)
    try:
        return decode(data, longest=longest, transparency=transparency)
    except PictureError as error:
        raise BadInput(f"{name}: {error}") from error


def file_path(uri: str) -> Path:
    """Returns the path behind a path or file URL."""
    return Path(unquote(urlsplit(uri).path)) if uri.lower().startswith("file://") else Path(uri)


def fetch(url: str, allowed: Allowed, most_bytes: int | None = None) -> bytes:
    """Gets what is behind a URL.

    Each address is looked up once, checked, and connected to as it was checked, also those of redirects.

    Raises:
        BadInput: It is not there, too large, or not allowed.
        Unavailable: Its server does not answer now.
    """
    most = most_bytes or MAX_FILE_BYTES
    deadline = time.monotonic() + URL_TOTAL_S
    name = redacted(url)
    try:
        here = httpx.URL(url)
        with httpx.Client(timeout=URL_TIMEOUT_S) as client:
            for _ in range(_MOST_REDIRECTS + 1):
                response = client.send(_request(client, here, allowed), stream=True)
                try:
                    if response.has_redirect_location:
                        here = here.join(response.headers["Location"])
                        continue
                    return _body(response, name, most, deadline)
                finally:
                    response.close()
        raise BadInput(f"{name}: more than {_MOST_REDIRECTS} redirects")
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.DecodingError, UnicodeError) as error:
        raise BadInput(f"{name}: {redacted(str(error))}") from error
    except httpx.TransportError as error:
        raise Unavailable(f"{name}: no answer ({redacted(str(error)) or type(error).__name__})") from error


def _request(client: httpx.Client, url: httpx.URL, allowed: Allowed) -> httpx.Request:
    """The request to a checked address of the URL's host, under the host's own name."""
    if url.scheme not in ("http", "https") or not url.host:
        raise BadInput(f"{redacted(str(url))}: not an http(s) URL")
    address = allowed.addresses_of(url.host, url.port or (443 if url.scheme == "https" else 80))[0]
    return client.build_request(
        "GET",
        url.copy_with(host=address),
        headers={"Host": url.netloc.decode("ascii"), "User-Agent": "cope-live"},
        extensions={"sni_hostname": url.host},
    )


def _body(response: httpx.Response, name: str, most: int, deadline: float) -> bytes:
    status = response.status_code
    if status >= 500 or status in _PASSING_STATUSES:
        raise Unavailable(f"{name}: the server answers {status}")
    if status != 200:
        raise BadInput(f"{name}: the server answers {status}")
    data = bytearray()
    for chunk in response.iter_bytes():
        data += chunk
        if len(data) > most:
            raise BadInput(f"{name}: more than {most / 1e6:.0f} MB")
        if time.monotonic() > deadline:
            raise Unavailable(f"{name}: not received within {URL_TOTAL_S:.0f} s")
    return bytes(data)


def _read(path: Path, name: str, allowed: Allowed) -> bytes:
    allowed.check_file(path)
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise BadInput(f"{name}: not a file")
        if info.st_size > MAX_FILE_BYTES:
            raise BadInput(f"{name}: {info.st_size / 1e6:.0f} MB, more than {MAX_FILE_BYTES / 1e6:.0f} MB")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BadInput(f"{name}: no such image file") from error
    except OSError as error:
        raise BadInput(f"{name}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL byte
        raise BadInput(f"{name}: not a path") from error
