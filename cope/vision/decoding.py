"""Bytes of a JPEG, PNG or WebP file to pixels, no larger than needed."""

import io

import cv2
import numpy as np
from PIL import Image

from cope.vision.cutouts import Pixels

MISSING = "missing pictures"
UNREADABLE = "pictures that could not be read"
BROKEN = "broken pictures"
TOO_LARGE = "pictures of more than 50 megapixels"
TOO_SMALL = "pictures smaller than 8 pixels"

# As in service (workers/catalog/images.py): decoded, the largest is 150 MB; the smallest are tracking pixels.
_MAX_PIXELS = 50_000_000
_MIN_SIDE_PX = 8

# A JPEG decoder can leave out the finest frequencies: half the size takes half the time, a quarter a third.
_REDUCED = ((8, cv2.IMREAD_REDUCED_COLOR_8), (4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2))


def decode(data: bytes, side: int = 0) -> tuple[Pixels | None, str]:
    """Decodes a picture as a viewer sees it: upright, and on white where it is transparent.

    Args:
        data: The file.
        side: A longer side that is enough; a JPEG is decoded at 1/2, 1/4 or 1/8 where that is no less. 0: in full.

    Returns:
        (H, W, 3) uint8 RGB and ""; or None and the kind of problem.
    """
    try:
        header = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP"))
        width, height = header.size
        transparent = header.format != "JPEG" and header.has_transparency_data
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None, TOO_LARGE
    except Exception:  # noqa: BLE001 - decoders raise whatever broken data leads them to
        return None, BROKEN
    if width * height > _MAX_PIXELS:
        return None, TOO_LARGE
    if min(width, height) < _MIN_SIDE_PX:
        return None, TOO_SMALL
    flag = cv2.IMREAD_UNCHANGED if transparent else cv2.IMREAD_COLOR
    if side and header.format == "JPEG":
        flag = next((reduced for part, reduced in _REDUCED if max(width, height) // part >= side), flag)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        image = None
    if image is None:
        return None, BROKEN
    if image.ndim == 3 and image.shape[2] == 4:
        return _on_white(np.asarray(image)), ""
    if image.ndim == 2 or image.dtype != np.uint8:  # transparent grey, or 16 bits with transparency
        image = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8), ""


def _on_white(bgra: Pixels) -> Pixels:
    if bgra.dtype != np.uint8:
        bgra = (bgra >> 8).astype(np.uint8)
    alpha = bgra[..., 3:].astype(np.uint16)
    rgb = bgra[..., 2::-1]
    return np.asarray((rgb * alpha + 255 * (255 - alpha) + 127) // 255, np.uint8)
