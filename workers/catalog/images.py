"""Reads product pictures, of which nothing is known: neither their size nor that they are pictures at all."""

import io
import stat
import time
import warnings
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from topology.errors import BadInput, Unavailable
from topology.records import PageImage

Pixels = NDArray[np.uint8]

# Decoded, this is 150 MB: two of them fit next to the model on a small machine. Shops' photos have 1 to 12 megapixels.
MAX_PIXELS = 50_000_000
# The file of the largest such photo; above it lie videos and archives. It also bounds what a server can make us read.
MAX_FILE_BYTES = 64 * 1024 * 1024
# A shop's image server answers in milliseconds. Beyond this, one slow server would hold up the whole catalogue.
URL_TIMEOUT_S = 10.0
URL_TOTAL_S = 60.0
# Pictures smaller than this show nothing: tracking pixels and placeholders.
MIN_SIDE_PX = 8
# Answers that may be different next time: time-out, too early, too many requests.
_PASSING_STATUSES = {408, 425, 429}


def is_url(uri: str) -> bool:
    """Whether the image is fetched over HTTP, and not read from a file."""
    return uri.lower().startswith(("http://", "https://"))


def load_image(image: PageImage) -> Pixels:
    """Reads a page's picture upright, as a viewer would see it on white.

    Args:
        image: Inline bytes if it has them, else a path, file or http(s) URL.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        BadInput: It is missing, broken, too large (50 megapixels), too small, or not a picture.
        Unavailable: Its server does not answer now.
    """
    rgba = load_rgba(image)
    if rgba.shape[2] == 3:
        return rgba
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def load_rgba(image: PageImage) -> Pixels:
    """Like `load_image`, but keeps transparency: (H, W, 3) uint8 RGB, or (H, W, 4) RGBA where there is any."""
    if image.data:
        return _decode(io.BytesIO(image.data), image.uri or "inline image")
    if is_url(image.uri):
        return _decode(io.BytesIO(_fetch(image.uri)), image.uri)
    path = file_path(image.uri)
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise BadInput(f"{path}: not a file")
        if info.st_size > MAX_FILE_BYTES:
            raise BadInput(f"{path}: {info.st_size / 1e6:.0f} MB, more than {MAX_FILE_BYTES / 1e6:.0f} MB")
        with path.open("rb") as file:
            return _decode(file, str(path))
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such image file") from error
    except (OSError, ValueError) as error:  # A path with a NUL byte is a ValueError.
        raise BadInput(f"{path}: cannot be read: {error}") from error


def file_path(uri: str) -> Path:
    """Returns the path behind a path or file URL."""
    return Path(unquote(urlsplit(uri).path)) if uri.lower().startswith("file://") else Path(uri)


def _decode(file: IO[bytes], name: str) -> Pixels:
    try:
        with warnings.catch_warnings():
            # Pillow only warns of bombs up to twice its limit.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # A broken EXIF block is no reason to refuse a picture.
            warnings.simplefilter("ignore", UserWarning)
            return _pixels(file, name)
    except BadInput:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadInput(_too_large(name)) from error
    except UnidentifiedImageError as error:
        raise BadInput(f"{name}: not an image, or of an unknown format") from error
    except Exception as error:  # Decoders raise whatever broken data leads them to.
        raise BadInput(f"{name}: corrupt or truncated image ({error or type(error).__name__})") from error


def _pixels(file: IO[bytes], name: str) -> Pixels:
    with Image.open(file) as picture:
        width, height = picture.size
        # By its header, before any pixel is decoded.
        if width * height > MAX_PIXELS:
            raise BadInput(f"{_too_large(name)} (it has {width} × {height})")
        if min(width, height) < MIN_SIDE_PX:
            raise BadInput(f"{name}: only {width} × {height} pixels")
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith("I") or upright.mode == "F":
            return _from_deep_grey(np.asarray(upright))
        transparent = upright.has_transparency_data
        return np.array(upright.convert("RGBA" if transparent else "RGB"), np.uint8)


def _from_deep_grey(values: NDArray[np.generic]) -> Pixels:
    """Scales 16-bit, 32-bit and floating-point grey to 8 bits, by the range that such files use: (H, W, 3)."""
    grey = np.nan_to_num(values.astype(np.float64))
    top = 65535.0 if grey.max() > 255 else 255.0 if grey.max() > 1 else 1.0
    if values.dtype == np.uint16:
        top = 65535.0
    eight = np.clip(grey * (255 / top), 0, 255).astype(np.uint8)
    return np.repeat(eight[..., None], 3, axis=2)


def _too_large(name: str) -> str:
    return f"{name}: more than {MAX_PIXELS // 1_000_000} megapixels; shrink it"


def _fetch(url: str) -> bytes:
    deadline = time.monotonic() + URL_TOTAL_S
    try:
        with httpx.stream("GET", url, timeout=URL_TIMEOUT_S, follow_redirects=True) as response:
            status = response.status_code
            if status >= 500 or status in _PASSING_STATUSES:
                raise Unavailable(f"{url}: the server answers {status}")
            if status != 200:
                raise BadInput(f"{url}: the server answers {status}")
            data = bytearray()
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > MAX_FILE_BYTES:
                    raise BadInput(f"{url}: more than {MAX_FILE_BYTES / 1e6:.0f} MB")
                if time.monotonic() > deadline:
                    raise Unavailable(f"{url}: not received within {URL_TOTAL_S:.0f} s")
            return bytes(data)
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects, httpx.DecodingError) as error:
        raise BadInput(f"{url}: {error}") from error
    except httpx.TransportError as error:
        raise Unavailable(f"{url}: no answer ({error or type(error).__name__})") from error
