"""From pictures to what a batch holds: square crops of pages, frames on a canvas, light augmentation.

Nothing is mirrored: labels on packs would read backwards, which no stream shows, and left and right shoes, cups
and prints would become one. Colour is moved little, since it tells variants of a product apart.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from cope.config import ModelConfig
from cope.data.items import RelativeBox
from cope.vision.cutouts import Pixels
from cope.vision.pictures import fit_area, page_crop, square_crop

# The finder's towers have strides up to 32: the picture's edge on the canvas then is an edge of a cell.
_STRIDE = 32
# What towers take for nothing: the middle of their range, as behind the products of pages.
_GREY = 127
_WHOLE = np.array([0.0, 0.0, 1.0, 1.0], np.float32)

# A phone's zoom and aim: at most so much of each side of a frame is cut away. More would cut products off.
_CROP = 0.12
# Light and exposure differ between rooms by more than the channels between phones.
_GAIN, _TINT = 0.2, 0.04


def canvas_side(config: ModelConfig) -> int:
    """Side C of the square on which clips' frames lie: holds `frame_pixels` at 16:9 either way up."""
    return math.ceil(math.sqrt(config.frame_pixels * 16 / 9) / _STRIDE) * _STRIDE


def enough(config: ModelConfig, page: bool) -> int:
    """Longer side in pixels that a file need not exceed to be seen as well as its transforms can show it."""
    # A page's product may fill half of the photo only; more than 512 its cut-out never has.
    if page:
        return max(512, 2 * config.crop_pixels)
    return canvas_side(config) if config.regions else 2 * config.crop_pixels


def page_picture(config: ModelConfig, image: Pixels, rng: np.random.Generator | None) -> Pixels:
    """A page's picture: (S, S, 3) uint8, S = `crop_pixels`.

    Args:
        config: For sizes.
        image: (H, W, 3) uint8 RGB.
        rng: Augments; None does not.
    """
    margin = config.crop_margin
    if rng is not None:
        margin += float(rng.uniform(-0.05, 0.1))
    square = page_crop(image, config.crop_pixels, max(0.0, margin))
    return square if rng is None else _lit(square, rng)


def frame_picture(
    config: ModelConfig, image: Pixels, box: RelativeBox | None, window: RelativeBox, light: NDArray[np.float64] | None
) -> tuple[Pixels, NDArray[np.float32], NDArray[np.float32]]:
    """A clip's frame as the towers see it.

    Args:
        config: For sizes. With regions the frame lies at the top left of a grey canvas, resized as in service, or
            smaller if its aspect is wider than 16:9; without, the whole of it becomes a square, its edges repeated.
        image: (H, W, 3) uint8 RGB.
        box: Box of the product, relative to the image.
        window: The part of the image that is seen, relative x0, y0, x1, y1.
        light: (3,) gains of the channels; None leaves them.

    Returns:
        Pixels (C, C, 3) or (S, S, 3) uint8; content (4,), the part of them that is picture; and the box (4,) relative
        to them, zeros if unknown or out of sight.
    """
    height, width = image.shape[:2]
    left, top = round(window[0] * width), round(window[1] * height)
    right, bottom = max(left + 1, round(window[2] * width)), max(top + 1, round(window[3] * height))
    part = image[top:bottom, left:right]
    seen = _within(box, (left / width, top / height, right / width, bottom / height))
    if config.regions:
        side = canvas_side(config)
        small = fit_area(part, config.frame_pixels, _STRIDE)
        if max(small.shape[:2]) > side:
            small = fit_area(part, _area(part, side), _STRIDE)
        height, width = (min(side, extent) for extent in small.shape[:2])
        canvas = np.full((side, side, 3), _GREY, np.uint8)
        canvas[:height, :width] = small[:height, :width]
        content = np.array([0.0, 0.0, width / side, height / side], np.float32)
        seen = seen * np.tile(content[2:], 2)
    else:
        canvas = square_crop(part, _WHOLE, config.crop_pixels, 0.0)
        content = _WHOLE.copy()
        height, width = part.shape[:2]
        share = np.array([width, height], np.float32) / max(height, width)
        seen = seen * np.tile(share, 2) + np.tile((1 - share) / 2, 2) * (seen.any())
    return (canvas if light is None else _with_light(canvas, light)), content, seen.astype(np.float32)


def window(rng: np.random.Generator) -> RelativeBox:
    """What is seen of the frames of a clip in training: one window for all, since a camera does not jump."""
    cut = rng.uniform(0, _CROP, 4)
    return float(cut[0]), float(cut[1]), float(1 - cut[2]), float(1 - cut[3])


def light(rng: np.random.Generator) -> NDArray[np.float64]:
    """The light on the frames of a clip in training: (3,) gains."""
    gains = rng.uniform(1 - _GAIN, 1 + _GAIN) * rng.uniform(1 - _TINT, 1 + _TINT, 3)
    return np.asarray(gains, np.float64)


def _lit(image: Pixels, rng: np.random.Generator) -> Pixels:
    return _with_light(image, light(rng))


def _with_light(image: Pixels, gains: NDArray[np.float64]) -> Pixels:
    table = np.clip(np.arange(256)[:, None] * gains, 0, 255).astype(np.uint8)[:, None]
    return np.asarray(cv2.LUT(image, table), np.uint8)


def _area(image: Pixels, side: int) -> int:
    """Pixels of the image when its longer side is `side`."""
    height, width = image.shape[:2]
    return max(1, int(side * side * min(height, width) / max(height, width)))


def _within(box: RelativeBox | None, part: RelativeBox) -> NDArray[np.float32]:
    """A box relative to a part of the picture, cut at its edges; zeros if there is none or nothing of it is left."""
    if box is None:
        return np.zeros(4, np.float32)
    size = np.array([part[2] - part[0], part[3] - part[1]])
    moved = np.clip((np.array(box) - np.tile(np.array(part[:2]), 2)) / np.tile(size, 2), 0.0, 1.0)
    return np.asarray(moved if (moved[2:] > moved[:2]).all() else np.zeros(4), np.float32)
