"""Chooses the pictures that are sent, and makes them small: fixed rate, keyframes, or when something changes."""

from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
import numpy.typing as npt

from topology.settings import Settings
from workers.capture.media import Picture

# With "change", a picture is sent at least this often: half of the default window, so that no window is empty and
# windows go on closing while nothing moves.
QUIET_MS = 4_000

# A picture is a near-duplicate if no cell of its thumbnail has changed by more than CHANGE grey levels. A cell is
# 1/32 of the width: a hand that moves changes several. Below 4, coding noise counts as change; far above, a small
# product on a plain table goes unseen.
THUMB = (32, 18)
CHANGE = 6


@dataclass(frozen=True)
class Sample:
    """A chosen picture.

    Attributes:
        image: (H, W, 3) uint8 BGR, upright, square pixels, at most the set height.
        duplicate: Nearly the same as the last sample that was not a duplicate.
    """

    pts_ms: int
    image: npt.NDArray[np.uint8]
    duplicate: bool

    def jpeg(self, quality: int) -> bytes:
        """Returns the picture as JPEG."""
        done, data = cv2.imencode(".jpg", self.image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not done:
            raise ValueError(f"OpenCV could not encode a picture of shape {self.image.shape}")
        return data.tobytes()


class Sampler:
    """Chooses among the pictures of one epoch, given in order.

    The choice depends on the pictures and their media time alone: each slot of a grid of 1/frames_per_second takes
    at most one picture, the first in it that the policy wants.
    """

    def __init__(self, settings: Settings) -> None:
        self._policy = settings.sampling
        self._height = settings.frame_height
        # A rate such as 29.97 is meant as 30000/1001; a float would drift off the grid over a day.
        self._rate = Fraction(settings.frames_per_second).limit_denominator(1001)
        self._slot = -1
        self._last_ms = -1
        self._reference: npt.NDArray[np.int16] | None = None  # thumbnail of the last sample that is not a duplicate

    def take(self, picture: Picture) -> Sample | None:
        """Returns the sample that this picture makes, or None if it is not wanted."""
        slot = picture.pts_ms * self._rate // 1000
        if slot <= self._slot or picture.pts_ms <= self._last_ms:
            return None
        if self._policy == "keyframes" and not picture.keyframe:
            return None
        image = upright(picture, self._height)
        thumb = _thumbnail(image)
        duplicate = self._reference is not None and int(np.abs(thumb - self._reference).max()) <= CHANGE
        if self._policy == "change" and duplicate and picture.pts_ms - self._last_ms < QUIET_MS:
            self._slot = slot  # this slot's picture has been taken; the next one comes from a later slot
            return None
        self._slot, self._last_ms = slot, picture.pts_ms
        if not duplicate:
            self._reference = thumb
        return Sample(picture.pts_ms, image, duplicate)


def upright(picture: Picture, height: int) -> npt.NDArray[np.uint8]:
    """Renders a picture upright, with square pixels, at most `height` high and never enlarged: (H, W, 3) uint8 BGR."""
    image = picture.render()
    rows, columns = image.shape[:2]
    if picture.pixel_aspect > 1:
        rows = max(1, round(rows / picture.pixel_aspect))
    else:
        columns = max(1, round(columns * picture.pixel_aspect))
    sideways = picture.rotation % 180 != 0
    scale = min(1.0, height / (columns if sideways else rows))
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    if size != (image.shape[1], image.shape[0]):
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    turns = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _thumbnail(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    small = cv2.resize(image, THUMB, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.int16)
