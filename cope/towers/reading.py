"""The reader: finds and reads the text in pictures (OCR).

PP-OCRv6 small (Apache-2.0; Chinese and Latin letters) from the package `rapidocr`, run by OpenVINO. A model names it
as its `reading`. Its weights lie inside that package: nothing is fetched and nothing is written.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cope.errors import UserError

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]

PACKAGED = "packaged:ppocr"

# Longest side, in pixels, at which text is looked for. A frame of 640x360 costs 0.1 CPU s; at half the side titles on
# screen are lost, at twice the side the cost is three times that.
LONGEST_PX = 640

# Side to which a region or a page's picture is enlarged: print on a carton of 100 px is 6 px high and not read.
REGION_PX = 352
PAGE_PX = 480

# Pictures of a page that are read, and lines that are kept of each: the first views show the product's name, and
# long posters of text say little about it.
PAGE_PICTURES = 4
MOST_LINES = 24

# Lines that are read with less confidence are noise: patterns and edges.
_LEAST_CONFIDENCE = 0.6
_LONGEST_LINE = 80  # characters


@dataclass(frozen=True)
class Line:
    """A line of text in a picture.

    Attributes:
        text: As read.
        confidence: In [0, 1].
        box: x0, y0, x1, y1 relative to the picture.
    """

    text: str
    confidence: float
    box: Box


class Reader:
    """Reads pictures. The same picture always gives the same lines. Safe to share between threads.

    Args:
        threads: CPU threads; 0 leaves the choice to OpenVINO.

    Raises:
        UserError: The packages that it needs are not installed.
    """

    def __init__(self, threads: int = 0) -> None:
        from cope.runtime.openvino import core  # with PyTorch, which whoever only compares vectors does not need

        core()  # before any other import of OpenVINO, whose tools would report their use
        try:
            from rapidocr import EngineType, RapidOCR
        except ImportError:
            raise UserError(
                "this model reads words and needs the package rapidocr: pip install 'cope-live[offline]', or set "
                "COPE_READ_WORDS=off"
            ) from None
        models = resources.files("rapidocr") / "models"
        self._engine = RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.use_cls": False,  # upside-down print is not read, which halves the cost
                "Det.engine_type": EngineType.OPENVINO,
                "Rec.engine_type": EngineType.OPENVINO,
                "Det.model_path": str(models / "PP-OCRv6_det_small.onnx"),
                "Rec.model_path": str(models / "PP-OCRv6_rec_small.onnx"),
                "Det.limit_side_len": LONGEST_PX,
                "Det.limit_type": "max",
                # Lines one by one and no wider than they are: padded to the widest of six they take a quarter longer.
                "Rec.rec_batch_num": 1,
                "Rec.rec_img_shape": [3, 48, 48],
                "EngineConfig.openvino.inference_num_threads": threads or -1,
            }
        )
        self._lock = threading.Lock()

    def read(self, image: Pixels) -> list[Line]:
        """Returns the lines of a picture, from top to bottom.

        Args:
            image: (H, W, 3) uint8 RGB.
        """
        height, width = image.shape[:2]
        if min(height, width) < 8:
            return []
        with self._lock:
            found: Any = self._engine(np.ascontiguousarray(image[:, :, ::-1]))
        if found.boxes is None or found.txts is None:
            return []
        lines = []
        for corners, text, confidence in zip(found.boxes, found.txts, found.scores, strict=True):
            words = " ".join(text.split())[:_LONGEST_LINE]
            if words and confidence >= _LEAST_CONFIDENCE:
                (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
                box = (float(x0) / width, float(y0) / height, float(x1) / width, float(y1) / height)
                lines.append(Line(words, round(float(confidence), 3), _rounded(box)))
        return lines[:MOST_LINES]

    def read_frame(self, image: Pixels, boxes: Sequence[Sequence[float]] | NDArray[np.float32]) -> list[Line]:
        """Returns the lines of a whole frame, and of its small regions, enlarged.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: Regions, relative; one that is large already was read with the frame.
        """
        lines = self.read(_enlarged(image, LONGEST_PX))
        for box in boxes:
            crop, (x0, y0, x1, y1) = _cut(image, box)
            if max(crop.shape[:2]) >= REGION_PX:
                continue
            for line in self.read(_enlarged(crop, REGION_PX)):
                a, b, c, d = line.box
                box_there = (x0 + a * (x1 - x0), y0 + b * (y1 - y0), x0 + c * (x1 - x0), y0 + d * (y1 - y0))
                lines.append(Line(line.text, line.confidence, _rounded(box_there)))
        return lines

    def read_page(self, images: Sequence[Pixels]) -> list[str]:
        """Returns what stands on a page's first pictures, each line once."""
        lines: dict[str, None] = {}
        for image in images[:PAGE_PICTURES]:
            lines |= dict.fromkeys(line.text for line in self.read(_enlarged(image, PAGE_PX)))
        return list(lines)


@lru_cache(maxsize=2)
def open_reader(name: str, threads: int = 0) -> Reader:
    """Returns the reader of this name, one for all roles of a process.

    Raises:
        UserError: There is no reader of that name, or its package is not installed.
    """
    if name != PACKAGED:
        raise UserError(f"the model reads words with {name!r}, which this release does not know; it knows {PACKAGED}")
    return Reader(threads)


def _cut(image: Pixels, box: Sequence[float] | NDArray[np.float32]) -> tuple[Pixels, Box]:
    """Returns a region, a little wider, and its relative box."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (float(side) for side in box)
    grow_x, grow_y = 0.1 * (x1 - x0), 0.1 * (y1 - y0)
    left, right = max(0, int((x0 - grow_x) * width)), min(width, int((x1 + grow_x) * width) + 1)
    top, bottom = max(0, int((y0 - grow_y) * height)), min(height, int((y1 + grow_y) * height) + 1)
    return image[top:bottom, left:right], (left / width, top / height, right / width, bottom / height)


def _enlarged(image: Pixels, side_px: int) -> Pixels:
    """Returns the picture with its longer side at least `side_px`, enlarged at most three times."""
    zoom = min(3.0, side_px / max(1, *image.shape[:2]))
    if zoom <= 1:
        return image
    size = (round(image.shape[1] * zoom), round(image.shape[0] * zoom))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _rounded(box: Box) -> Box:
    x0, y0, x1, y1 = (round(min(1.0, max(0.0, side)), 4) for side in box)
    return x0, y0, x1, y1
