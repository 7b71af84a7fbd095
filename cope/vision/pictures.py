"""Pictures made ready for the towers: resized frames, square crops of regions, tight crops of page pictures."""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cope.vision.cutouts import cutout_of

Pixels = NDArray[np.uint8]

# Views of a page picture that need no region finder: the whole, and its central 80 % and 60 % (of each side).
CENTRES = tuple(np.array([rim, rim, 1 - rim, 1 - rim], np.float32) for rim in (0.0, 0.1, 0.2))


def fit_area(image: Pixels, pixels: int, stride: int) -> Pixels:
    """Resizes to about `pixels` in area, each side a multiple of `stride`, the aspect kept but for the rounding."""
    height, width = image.shape[:2]
    zoom = math.sqrt(pixels / (height * width))
    size = (max(1, round(width * zoom / stride)) * stride, max(1, round(height * zoom / stride)) * stride)
    return _resize(image, size)


def square_crop(image: Pixels, box: NDArray[Any], side: int, margin: float) -> Pixels:
    """Cuts the square around a box and resizes it.

    Args:
        image: (H, W, 3) uint8.
        box: (4,) relative x0, y0, x1, y1.
        side: Side of the result, in pixels.
        margin: Share of the box's longer side added on each side.

    Returns:
        (side, side, 3) uint8. What lies beyond the picture repeats its edge.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (float(v) for v in box * np.array([width, height, width, height]))
    half = max(max(x1 - x0, y1 - y0) * (0.5 + margin), 4.0)
    left, top = round((x0 + x1) / 2 - half), round((y0 + y1) / 2 - half)
    length = max(8, round(2 * half))
    beyond = (max(0, -top), max(0, top + length - height), max(0, -left), max(0, left + length - width))
    part = image[max(0, top) : top + length, max(0, left) : left + length]
    if any(beyond):
        part = np.asarray(cv2.copyMakeBorder(part, *beyond, cv2.BORDER_REPLICATE), np.uint8)
    return _resize(part, (side, side))


def page_crop(image: Pixels, side: int, margin: float, background: int = 127) -> Pixels:
    """Returns the product of a page picture for the towers: tightly framed, on a neutral background.

    A plain background (white, mostly) is taken away, since in a stream the product stands before anything else
    than white. A picture without a plain background is taken as it is.

    Args:
        image: (H, W, 3) uint8 RGB.
        side: Side of the result, in pixels.
        margin: As for the regions of a frame, so that both are framed alike.
        background: Grey level put behind the product.

    Returns:
        (side, side, 3) uint8.
    """
    cutout = cutout_of(image)
    if cutout.card:
        return square_crop(image, np.array([0.0, 0.0, 1.0, 1.0]), side, 0.0)
    alpha = cutout.rgba[..., 3:].astype(np.float32) / 255
    solid = (cutout.rgba[..., :3] * alpha + background * (1 - alpha)).astype(np.uint8)
    height, width = solid.shape[:2]
    length = round(max(height, width) * (1 + 2 * margin))
    top, left = (length - height) // 2, (length - width) // 2
    canvas = np.full((length, length, 3), background, np.uint8)
    canvas[top : top + height, left : left + width] = solid
    return _resize(canvas, (side, side))


def page_crops(
    image: Pixels, side: int, margin: float, views: bool = True, box: NDArray[Any] | None = None
) -> list[Pixels]:
    """Returns the views of a page picture; the best one counts, since catalogue pictures often show a whole scene.

    Args:
        image: (H, W, 3) uint8 RGB.
        side: Side of each view, in pixels.
        margin: As for the regions of a frame.
        views: Else only the first view.
        box: Relative x0, y0, x1, y1 of what the region finder takes for the product; None without a finder.

    Returns:
        (side, side, 3) uint8 each: cut out where its ground is plain (else all of it), its centres, and the box.
    """
    crops = [page_crop(image, side, margin)]
    if views:
        crops += [square_crop(image, centre, side, 0.0) for centre in CENTRES[1:]]
        crops += [] if box is None else [square_crop(image, box, side, margin)]
    return crops


def _resize(image: Pixels, size: tuple[int, int]) -> Pixels:
    """`size` is (width, height). Shrinking averages, so that fine texture does not turn into noise."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    shrink = image.shape[0] > size[1]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR), np.uint8)
