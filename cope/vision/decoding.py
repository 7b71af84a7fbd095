"""The decoder of all pictures (pages, frames, training data), with the same formats and limits everywhere."""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cope.vision.cutouts import Pixels

MISSING = "missing pictures"
UNREADABLE = "pictures that could not be read"
BROKEN = "broken pictures"
TOO_LARGE = "pictures of more than 50 megapixels"
TOO_SMALL = "pictures smaller than 8 pixels"

# What shops publish and browsers show. Pillow knows more; some of these start other programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp"})
# Decoded, this is 150 MB. Shops' photos have 1 to 12 megapixels.
MAX_PIXELS = 50_000_000
# Pictures smaller than this show nothing: tracking pixels and placeholders.
MIN_SIDE_PX = 8
# Rows of a deep grey picture that are scaled at once: a whole picture in floating point would take ten times its size.
_STRIP_PIXELS = 1 << 18

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112  # EXIF


class PictureError(Exception):
    """A picture that cannot be used.

    Attributes:
        kind: One of the constants of this module, to count by.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Room:
    """Bounds what the threads of a process hold at once. An amount above the whole bound is let in alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, amount: int) -> Iterator[None]:
        """Waits until there is room for `amount`, and gives it back at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + amount <= self._size)
            self._used += amount
        try:
            yield
        finally:
            with self._changed:
                self._used -= amount
                self._changed.notify_all()


# Pixels that are decoded at once. While it is decoded a pixel takes up to 12 bytes: sixteen pictures of 50 megapixels
# in sixteen threads would take 10 GB.
_room = Room(MAX_PIXELS)
# Changing the warnings' filter is not safe in threads.
_opening = threading.Lock()


def decode(data: bytes, *, enough: int = 0, longest: int = 0, transparency: bool = False) -> Pixels:
    """Decodes a picture as a viewer sees it: upright, and on white where it is transparent.

    Args:
        data: The file, in one of `FORMATS`. Of an animation the first picture counts.
        enough: A longer side that is enough; a JPEG is decoded at 1/2, 1/4 or 1/8 where that is no less. 0: in full.
        longest: Shrink to this longer side. 0: keep the size.
        transparency: Keep it.

    Returns:
        (H, W, 3) uint8 RGB; with `transparency` (H, W, 4) RGBA where there is any.

    Raises:
        PictureError: It is not a picture, broken, too large or too small.
    """
    try:
        with _opened(data) as (picture, orientation):
            width, height = picture.size
            # By its header, before any pixel is decoded.
            if width * height > MAX_PIXELS:
                raise _too_large(f" (it has {width} × {height})")
            if min(width, height) < MIN_SIDE_PX:
                raise PictureError(TOO_SMALL, f"only {width} × {height} pixels")
            if enough and max(width, height) > enough:
                zoom = enough / max(width, height)
                picture.draft(None, (max(1, int(width * zoom)), max(1, int(height * zoom))))
            with _room.take(picture.width * picture.height):
                return _shrunk(_pixels(picture, orientation, transparency), longest)
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large() from error
    except UnidentifiedImageError as error:
        raise PictureError(BROKEN, "not an image, or of an unknown format") from error
    except Exception as error:  # decoders raise whatever broken data leads them to
        raise PictureError(
            BROKEN, f"corrupt or truncated image ({str(error)[:200] or type(error).__name__})"
        ) from error


@contextmanager
def _opened(data: bytes) -> Iterator[tuple[Image.Image, int]]:
    with _opening, warnings.catch_warnings():
        # Pillow only warns of bombs up to twice its limit.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # A broken EXIF block is no reason to refuse a picture.
        warnings.simplefilter("ignore", UserWarning)
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        try:
            orientation = picture.getexif().get(_ORIENTATION, 1)
        except Exception:  # noqa: BLE001 - a broken block raises whatever it leads to
            orientation = 1
    with picture:
        yield picture, orientation


def _pixels(picture: Image.Image, orientation: int, transparency: bool) -> Pixels:
    picture.load()
    if orientation in _UPRIGHT:
        picture = picture.transpose(_UPRIGHT[orientation])
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_deep_grey(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        if transparency:
            return np.array(picture, np.uint8)
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=picture)
        picture = white
    elif picture.mode != "RGB":
        picture = picture.convert("RGB")
    return np.array(picture, np.uint8)


def _from_deep_grey(picture: Image.Image) -> Pixels:
    """Scales 16-bit, 32-bit and floating-point grey to 8 bits, by the range that such files use: (H, W, 3)."""
    width, height = picture.size

    def strips() -> Iterator[tuple[int, NDArray[np.float32]]]:
        rows = max(1, _STRIP_PIXELS // width)
        for top in range(0, height, rows):
            strip = np.asarray(picture.crop((0, top, width, min(height, top + rows))))
            yield top, np.nan_to_num(strip.astype(np.float32))

    largest = max(float(strip.max()) for _, strip in strips())
    white = 65535.0 if largest > 255 or picture.mode.startswith("I;16") else 255.0 if largest > 1 else 1.0
    pixels = np.empty((height, width, 3), np.uint8)
    for top, strip in strips():
        pixels[top : top + len(strip)] = np.clip(strip * (255 / white), 0, 255).astype(np.uint8)[..., None]
    return pixels


def _shrunk(pixels: Pixels, longest: int) -> Pixels:
    zoom = longest / max(pixels.shape[:2])
    if not longest or zoom >= 1:
        return pixels
    size = (max(1, round(pixels.shape[1] * zoom)), max(1, round(pixels.shape[0] * zoom)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _too_large(more: str = "") -> PictureError:
    return PictureError(TOO_LARGE, f"more than {MAX_PIXELS // 1_000_000} megapixels{more}; shrink it")
