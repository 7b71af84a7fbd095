"""Products without their background: what synthetic scenes are composed of."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

# Soft shadows and reflections on a table have less than half opacity in product photos.
_SOLID_ALPHA = 128
# Soft edges of the product itself are this wide; wider ones are shadow.
_EDGE_PX = 2
# Parts smaller than this share of the largest one are crumbs of a bad mask.
_CRUMB_SHARE = 0.02
# Grey levels within which a border counts as one colour: below, JPEG noise breaks plain backgrounds up; above,
# pale products on white vanish.
_PLAIN_TOLERANCE = 14
_PLAIN_BORDER_SHARE = 0.92
# A cut-out that fills less or more of its photo than this is a failed one.
_PLAUSIBLE_SHARE = (0.03, 0.95)
# A cut-out is never drawn larger than this in a live frame; smaller ones are faster to draw.
_MAX_SIDE_PX = 512


@dataclass(frozen=True, eq=False)
class Cutout:
    """A product, cut out of its photo.

    Attributes:
        id: Identifier of the product.
        rgba: (H, W, 4) uint8 RGBA, cropped to what is opaque.
        card: The photo could not be cut out: it is shown as a whole, like a printed card.
    """

    id: str
    rgba: Pixels
    card: bool = False


def cutout_of(image: Pixels, id: str = "") -> Cutout:
    """Cuts the product out of its photo.

    An alpha channel is used where there is one, else a plain background is removed by the colour of the photo's
    border, else the whole photo stays, as a card.

    Args:
        image: (H, W, 3) uint8 RGB or (H, W, 4) RGBA.
        id: Identifier of the product.
    """
    image = _shrunk(image)
    if image.shape[2] == 4:
        alpha = _without_shadow(image[..., 3])
    else:
        alpha = _foreground_of_plain_photo(image)
    low, high = _PLAUSIBLE_SHARE
    if not low <= float(np.mean(alpha >= _SOLID_ALPHA)) <= high:
        rgb = _on_white(image) if image.shape[2] == 4 else image
        return Cutout(id, np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]), card=True)
    rows = np.flatnonzero(alpha.max(axis=1))
    columns = np.flatnonzero(alpha.max(axis=0))
    rgba = np.dstack([image[..., :3], alpha])
    return Cutout(id, np.ascontiguousarray(rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]))


def thing(rng: np.random.Generator, id: str = "") -> Cutout:
    """Returns a made-up object that is in no catalogue: a textured shape of random outline, about 256 pixels large."""
    size = 256
    canvas = np.zeros((size, size, 3), np.uint8)
    canvas[:] = rng.integers(20, 236, 3)
    _paint_pattern(rng, canvas)
    alpha = np.zeros((size, size), np.uint8)
    kind = int(rng.integers(4))
    centre = size // 2
    if kind == 0:
        axes = (int(rng.integers(60, 120)), int(rng.integers(60, 120)))
        cv2.ellipse(alpha, (centre, centre), axes, 0, 0, 360, 255, -1, cv2.LINE_AA)
    elif kind == 1:
        half_width, half_height = int(rng.integers(45, 120)), int(rng.integers(45, 120))
        low, high = (centre - half_width, centre - half_height), (centre + half_width, centre + half_height)
        cv2.rectangle(alpha, low, high, 255, -1)
    elif kind == 2:  # A bottle: a body and a neck.
        half_width, neck = int(rng.integers(35, 60)), int(rng.integers(12, 24))
        cv2.rectangle(alpha, (centre - half_width, 90), (centre + half_width, 248), 255, -1)
        cv2.rectangle(alpha, (centre - neck, 10), (centre + neck, 92), 255, -1)
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(5, 10))))
        radii = rng.uniform(60, 125, len(angles))
        corners = np.stack([centre + radii * np.cos(angles), centre + radii * np.sin(angles)], axis=1)
        cv2.fillPoly(alpha, [corners.astype(np.int32)], 255, cv2.LINE_AA)
    # Light from one side gives the flat shape a body.
    light = np.linspace(rng.uniform(0.6, 1.0), rng.uniform(0.8, 1.25), size, dtype=np.float32)
    shaded = np.clip(canvas * light[None, :, None], 0, 255).astype(np.uint8)
    rows, columns = np.flatnonzero(alpha.max(axis=1)), np.flatnonzero(alpha.max(axis=0))
    rgba = np.dstack([shaded, alpha])
    return Cutout(id, np.ascontiguousarray(rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]))


def _paint_pattern(rng: np.random.Generator, canvas: Pixels) -> None:
    size = canvas.shape[0]
    for _ in range(int(rng.integers(2, 9))):
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        a = (int(rng.integers(size)), int(rng.integers(size)))
        b = (int(rng.integers(size)), int(rng.integers(size)))
        kind = int(rng.integers(4))
        if kind == 0:
            cv2.line(canvas, a, b, colour, int(rng.integers(3, 30)), cv2.LINE_AA)
        elif kind == 1:
            cv2.circle(canvas, a, int(rng.integers(8, 60)), colour, -1, cv2.LINE_AA)
        elif kind == 2:
            cv2.rectangle(canvas, a, b, colour, -1)
        else:
            letters = "".join(chr(int(c)) for c in rng.integers(65, 91, int(rng.integers(2, 7))))
            font_scale, width = float(rng.uniform(1, 2.5)), int(rng.integers(2, 6))
            cv2.putText(canvas, letters, a, cv2.FONT_HERSHEY_SIMPLEX, font_scale, colour, width, cv2.LINE_AA)


def _shrunk(image: Pixels) -> Pixels:
    height, width = image.shape[:2]
    ratio = _MAX_SIDE_PX / max(height, width)
    if ratio >= 1:
        return image
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _on_white(rgba: Pixels) -> Pixels:
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha)) // 255).astype(np.uint8)


def _without_shadow(alpha: Pixels) -> Pixels:
    """Keeps the solid parts with their edges: (H, W) uint8."""
    solid = _main_parts(alpha >= _SOLID_ALPHA)
    kernel = np.ones((2 * _EDGE_PX + 1, 2 * _EDGE_PX + 1), np.uint8)
    return np.where(cv2.dilate(solid.astype(np.uint8), kernel) > 0, alpha, 0).astype(np.uint8)


def _foreground_of_plain_photo(image: Pixels) -> Pixels:
    """Returns the alpha of what differs from the border's colour; all opaque if the border is not plain."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]).astype(np.int16)
    colour = np.median(border, axis=0)
    near = np.abs(border - colour).max(axis=1) <= _PLAIN_TOLERANCE
    height, width = image.shape[:2]
    if float(near.mean()) < _PLAIN_BORDER_SHARE:
        return np.full((height, width), 255, np.uint8)
    # Only what is joined to the border is background: a white label in the product's middle is not.
    alike = (np.abs(image.astype(np.int16) - colour.astype(np.int16)).max(axis=2) <= _PLAIN_TOLERANCE).astype(np.uint8)
    framed = cv2.copyMakeBorder(alike, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    _, labels = cv2.connectedComponents(framed, connectivity=4)
    foreground = _main_parts(labels[1:-1, 1:-1] != labels[0, 0])
    # One pixel off the edge, where the background's colour has mixed in.
    alpha = cv2.erode(foreground.astype(np.uint8) * 255, np.ones((3, 3), np.uint8))
    return cv2.blur(alpha, (3, 3)).astype(np.uint8, copy=False)


def _main_parts(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 1:
        return mask
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    kept = areas >= _CRUMB_SHARE * areas.max()
    kept[0] = False
    return np.asarray(kept[labels], np.bool_)
