"""Chooses the frames that are kept of a sighting, and prepares them."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from cope.vision.decoding import decode
from topology.evidence import Box, KeptFrame
from topology.records import EvidenceFrame, Frame
from workers.faces import FaceBlur
from workers.pages import jpeg

_JPEG_QUALITY = 90  # quality of frames that are encoded anew, as in capture
_CROP_MARGIN = 0.05  # share of the box's size on each side


def wanted(kept: Sequence[KeptFrame], offered: Sequence[EvidenceFrame], most: int) -> list[EvidenceFrame]:
    """Returns the frames to fetch: at first the best ones, later only one that is better than all before.

    The frame of the highest score in all events of a sighting is always among what is kept.

    Args:
        kept: Frames that are kept already.
        offered: Frames of a new event.
        most: Number of frames to keep.
    """
    there = {frame.pts_ms for frame in kept}
    new = sorted(
        (frame for frame in offered if frame.offset >= 0 and frame.pts_ms not in there),
        key=lambda frame: (-frame.score, frame.pts_ms),
    )
    if not kept:
        return new[:most]
    best = max(frame.score for frame in kept)
    return [frame for frame in new[:1] if frame.score > best]


def joined(kept: Sequence[KeptFrame], new: Sequence[KeptFrame], most: int) -> tuple[KeptFrame, ...]:
    """Returns the best frames of both, by time."""
    best = sorted([*kept, *new], key=lambda frame: (-frame.score, frame.pts_ms))[:most]
    return tuple(sorted(best, key=lambda frame: frame.pts_ms))


def prepared(evidence: EvidenceFrame, frame: Frame, blur: FaceBlur | None) -> KeptFrame:
    """Returns a frame as it is kept.

    Raises:
        PictureError: It cannot be decoded.
    """
    pixels = decode(frame.jpeg)
    if blur is not None and not pixels.flags.writeable:
        pixels = pixels.copy()
    faces = blur(pixels) if blur is not None else 0
    return KeptFrame(
        pts_ms=frame.pts_ms,
        captured_at_ms=frame.captured_at_ms,
        box=evidence.box,
        score=evidence.score,
        page_image=evidence.page_image,
        jpeg=jpeg(pixels, _JPEG_QUALITY) if faces else frame.jpeg,
        crop=b"" if evidence.box is None else jpeg(cropped(pixels, evidence.box)),
    )


def cropped(pixels: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Returns what is in a box, with a little around it, at least 64 px a side."""
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = box
    dx, dy = (x1 - x0) * _CROP_MARGIN, (y1 - y0) * _CROP_MARGIN
    left, top = int(max(0.0, x0 - dx) * width), int(max(0.0, y0 - dy) * height)
    right, bottom = min(width, round((x1 + dx) * width)), min(height, round((y1 + dy) * height))
    crop = pixels[top : max(bottom, top + 1), left : max(right, left + 1)]
    scale = 64 / min(crop.shape[:2])
    if scale > 1:
        return np.asarray(cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), np.uint8)
    return np.ascontiguousarray(crop)
