"""Draws live-commerce frames and product pages from cut-outs: training data, test data, simulated streams.

Everything is a function of its arguments and the random generator handed in: the same seed gives the same pixels.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cope.errors import UserError
from cope.vision.cutouts import Cutout, Pixels, cutout_of, thing
from cope.vision.decoding import SUFFIXES, PictureError, decode

__all__ = [
    "Box",
    "Camera",
    "Cutout",
    "Pixels",
    "Placement",
    "backgrounds",
    "cutout_of",
    "random_background",
    "random_camera",
    "random_placement",
    "render_frame",
    "render_page",
    "thing",
]

# The viewer's distance in units of the thing's long side: nearer, perspective becomes grotesque; farther, it vanishes.
_VIEW_DISTANCE = 3.0
_SKIN = ((224, 172, 138), (198, 134, 96), (141, 85, 54), (255, 205, 178), (90, 56, 37))


@dataclass(frozen=True)
class Placement:
    """Where and how a cut-out lies in a frame.

    Attributes:
        x: Centre, as a share of the frame's width.
        y: Centre, as a share of the frame's height.
        scale: Long side of the cut-out as a share of the frame's height.
        rotation_deg: In the picture's plane, counter-clockwise.
        tilt_deg: Around the horizontal axis: the top leans away.
        turn_deg: Around the vertical axis: the right side moves away.
        cover: Share of the cut-out, in [0, 1), that a hand or another thing hides.
        cover_from_deg: Direction that the cover comes from; 0 is right, 90 is below.
        cover_rgb: The cover's colour.
        gain: Brightness of the thing; 1 leaves it as photographed.
    """

    x: float = 0.5
    y: float = 0.5
    scale: float = 0.5
    rotation_deg: float = 0.0
    tilt_deg: float = 0.0
    turn_deg: float = 0.0
    cover: float = 0.0
    cover_from_deg: float = 90.0
    cover_rgb: tuple[int, int, int] = _SKIN[0]
    gain: float = 1.0


class Box(NamedTuple):
    """The visible pixels of a cut-out in a frame: left, top, right, bottom, the last two exclusive."""

    id: str
    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True)
class Camera:
    """What the camera and the encoder do to a picture.

    Attributes:
        gain: Per channel, RGB.
        blur_px: Sigma of the blur.
        noise: Sigma of the noise, in grey levels.
        jpeg_quality: 1 to 100; 0 leaves it out.
    """

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur_px: float = 0.0
    noise: float = 0.0
    jpeg_quality: int = 0


def render_frame(
    rng: np.random.Generator,
    background: Pixels,
    items: Sequence[tuple[Cutout, Placement]],
    size: tuple[int, int] = (640, 360),
    camera: Camera | None = None,
) -> tuple[Pixels, list[Box]]:
    """Draws the items over the background, the last one in front.

    Args:
        rng: Source of the camera's noise; nothing else is random.
        background: (H, W, 3) uint8 RGB; its middle is cut to the frame's aspect and scaled.
        items: What is shown, back to front.
        size: Width and height of the frame.
        camera: Distortions of the whole picture; None for none.

    Returns:
        The frame, (H, W, 3) uint8 RGB, and a box for each item of which anything is visible, in the order of `items`.
    """
    frame = _fill(background, size)
    visible: list[NDArray[np.bool_]] = []
    for cutout, placement in items:
        mask = _draw(frame, cutout, placement)
        cover = _draw_cover(frame, mask, placement)
        for earlier in visible:
            earlier &= ~(mask | cover)
        visible.append(mask & ~cover)
    boxes: list[Box] = []
    for (cutout, _), mask in zip(items, visible, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            boxes.append(Box(cutout.id, int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
    return (frame if camera is None else _photographed(rng, frame, camera)), boxes


def render_page(rng: np.random.Generator, cutout: Cutout, side: int = 320) -> Pixels:
    """Draws a product photo as shops show it: (side, side, 3) uint8 RGB.

    Mostly on white, sometimes on a plain colour or a gradient; seen from about the front; now and then as a close-up.
    """
    kind = rng.random()
    if kind < 0.6:
        canvas = np.full((side, side, 3), 255, np.uint8)
    elif kind < 0.8:
        canvas = np.empty((side, side, 3), np.uint8)
        canvas[:] = rng.integers(150, 256, 3)
    else:
        ends = rng.integers(120, 256, (2, 3)).astype(np.float32)
        ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None]
        canvas = np.repeat((ends[0] * (1 - ramp) + ends[1] * ramp).astype(np.uint8)[:, None], side, axis=1)
    close_up = rng.random() < 0.15
    placement = Placement(
        x=0.5 + float(rng.normal(0, 0.1 if close_up else 0.015)),
        y=0.5 + float(rng.normal(0, 0.1 if close_up else 0.015)),
        scale=float(rng.uniform(1.2, 1.8) if close_up else rng.uniform(0.6, 0.95)),
        rotation_deg=float(rng.normal(0, 3)),
        tilt_deg=float(rng.normal(0, 5)),
        turn_deg=float(rng.normal(0, 12)),
        gain=float(rng.uniform(0.9, 1.1)),
    )
    return render_frame(rng, canvas, [(cutout, placement)], (side, side))[0]


def random_placement(
    rng: np.random.Generator, scale: tuple[float, float] = (0.2, 0.95), cover: float = 0.45
) -> Placement:
    """Returns a placement as a host's hand might make it.

    Args:
        rng: Source of the choice.
        scale: Range of `Placement.scale`; small ones are as likely as large ones by ratio.
        cover: The most of the thing that may be hidden; in half of the placements nothing is.
    """
    low, high = np.log(scale[0]), np.log(scale[1])
    if rng.random() < 0.7:
        cover_rgb = _SKIN[int(rng.integers(len(_SKIN)))]
    else:
        red, green, blue = (int(c) for c in rng.integers(0, 256, 3))
        cover_rgb = (red, green, blue)
    return Placement(
        x=float(rng.uniform(0.15, 0.85)),
        y=float(rng.uniform(0.2, 0.8)),
        scale=float(np.exp(rng.uniform(low, high))),
        rotation_deg=float(rng.normal(0, 14)),
        tilt_deg=float(rng.normal(0, 14)),
        turn_deg=float(rng.normal(0, 24)),
        cover=float(rng.uniform(0.05, cover)) if rng.random() < 0.5 else 0.0,
        cover_from_deg=float(rng.uniform(0, 360)),
        cover_rgb=cover_rgb,
        gain=float(rng.uniform(0.7, 1.25)),
    )


def random_camera(rng: np.random.Generator) -> Camera:
    """Returns the camera of a live room: a phone, some light, a lossy encoder."""
    gain = rng.uniform(0.75, 1.2) * rng.uniform(0.92, 1.08, 3)
    return Camera(
        gain=(float(gain[0]), float(gain[1]), float(gain[2])),
        blur_px=float(rng.uniform(0.4, 1.6)) if rng.random() < 0.5 else 0.0,
        noise=float(rng.uniform(0, 6)),
        jpeg_quality=int(rng.integers(35, 95)),
    )


def random_background(rng: np.random.Generator, photos: Sequence[Pixels], size: tuple[int, int] = (640, 360)) -> Pixels:
    """Returns a random part of a random photo, flipped, tinted and out of focus at random: (height, width, 3) uint8."""
    width, height = size
    photo = photos[int(rng.integers(len(photos)))]
    photo_height, photo_width = photo.shape[:2]
    part = float(rng.uniform(0.4, 1.0))
    crop_height = max(2, int(min(photo_height, photo_width * height / width) * part))
    crop_width = max(2, min(photo_width, int(crop_height * width / height)))
    top = int(rng.integers(photo_height - crop_height + 1))
    left = int(rng.integers(photo_width - crop_width + 1))
    view = cv2.resize(photo[top : top + crop_height, left : left + crop_width], size, interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        view = cv2.flip(view, 1)
    if rng.random() < 0.6:
        view = cv2.GaussianBlur(view, (0, 0), float(rng.uniform(0.8, 5)))
    tint = rng.uniform(0.6, 1.15) * rng.uniform(0.85, 1.15, 3)
    # A table per channel: a fifth of the time of multiplying pixels.
    table = np.clip(np.arange(256)[:, None] * tint, 0, 255).astype(np.uint8)[:, None]
    return np.asarray(cv2.LUT(np.asarray(view, np.uint8), table), np.uint8)


def backgrounds(folder: str | Path | None = None) -> list[Pixels]:
    """Returns background photographs, (H, W, 3) uint8 RGB each, by file name.

    Args:
        folder: Folder of JPEG, PNG or WebP files; None for the nine photographs of the package.

    Raises:
        UserError: The folder does not exist or holds no readable picture.
    """
    if folder is None:
        return list(_packaged_backgrounds())
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder of background photos; name a folder with JPEG, PNG or WebP files")
    photos = [_read_rgb(file.read_bytes()) for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES]
    readable = [photo for photo in photos if photo is not None]
    if not readable:
        raise UserError(f"{path}: no readable background photo; put JPEG, PNG or WebP files into it")
    return readable


@functools.cache
def _packaged_backgrounds() -> tuple[Pixels, ...]:
    folder = resources.files("cope.render") / "backgrounds"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".jpg")), key=lambda file: file.name)
    photos = (_read_rgb(file.read_bytes()) for file in files)
    return tuple(photo for photo in photos if photo is not None)


def _read_rgb(data: bytes) -> Pixels | None:
    try:
        return decode(data)
    except PictureError:
        return None


def _fill(photo: Pixels, size: tuple[int, int]) -> Pixels:
    """Cuts the photo's middle to the aspect of `size` and scales it; always a new array."""
    width, height = size
    photo_height, photo_width = photo.shape[:2]
    if (photo_width, photo_height) == size:
        return photo.copy()
    ratio = max(width / photo_width, height / photo_height)
    part_width, part_height = min(photo_width, round(width / ratio)), min(photo_height, round(height / ratio))
    left, top = (photo_width - part_width) // 2, (photo_height - part_height) // 2
    part = photo[top : top + part_height, left : left + part_width]
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR), np.uint8)


def _corners(cutout: Cutout, placement: Placement, size: tuple[int, int]) -> NDArray[np.float32]:
    """Where the cut-out's corners fall in the frame: (4, 2), clockwise from the top left."""
    width, height = size
    cut_height, cut_width = cutout.rgba.shape[:2]
    long_side = max(cut_height, cut_width)
    half = np.array([cut_width, cut_height]) / (2 * long_side)
    points = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * np.array([*half, 0.0])
    tilt, turn, roll = np.deg2rad([placement.tilt_deg, placement.turn_deg, -placement.rotation_deg])
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    about_y = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    turned = points @ (about_z @ about_y @ about_x).T
    # z points to the viewer, who looks from `_VIEW_DISTANCE`.
    projected = turned[:, :2] * (_VIEW_DISTANCE / (_VIEW_DISTANCE - turned[:, 2:]))
    centre = np.array([placement.x * width, placement.y * height])
    return np.asarray(centre + projected * placement.scale * height, np.float32)


def _draw(frame: Pixels, cutout: Cutout, placement: Placement) -> NDArray[np.bool_]:
    """Draws the cut-out into the frame and returns where it is opaque: (H, W)."""
    height, width = frame.shape[:2]
    mask = np.zeros((height, width), np.bool_)
    target = _corners(cutout, placement, (width, height))
    left, top = np.maximum(np.floor(target.min(axis=0)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(target.max(axis=0)).astype(int) + 1, (width, height))
    if right <= left or bottom <= top:
        return mask
    source = cutout.rgba
    # Bilinear warping aliases below half size: shrink first, to about the drawn size.
    ratio = placement.scale * height / max(source.shape[:2])
    if ratio < 0.6:
        small = (max(1, round(source.shape[1] * ratio)), max(1, round(source.shape[0] * ratio)))
        source = np.asarray(cv2.resize(source, small, interpolation=cv2.INTER_AREA), np.uint8)
    source_height, source_width = source.shape[:2]
    corners = np.array([[0, 0], [source_width, 0], [source_width, source_height], [0, source_height]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, target - np.array([left, top], np.float32))
    drawn = cv2.warpPerspective(source, matrix, (int(right - left), int(bottom - top)), flags=cv2.INTER_LINEAR)
    alpha = drawn[..., 3:].astype(np.float32) / 255
    region = frame[top:bottom, left:right]
    colour = np.minimum(drawn[..., :3] * np.float32(placement.gain), 255)
    region[:] = (region * (1 - alpha) + colour * alpha + 0.5).astype(np.uint8)
    mask[top:bottom, left:right] = drawn[..., 3] >= 128
    return mask


def _draw_cover(frame: Pixels, mask: NDArray[np.bool_], placement: Placement) -> NDArray[np.bool_]:
    """Draws what hides a share of the item: a hand's fingers, and the arm behind them. Returns where: (H, W)."""
    covered = np.zeros_like(mask)
    rows, columns = np.nonzero(mask)
    if placement.cover <= 0 or not len(rows):
        return covered
    angle = np.deg2rad(placement.cover_from_deg)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along = columns * cos + rows * sin
    across = rows * cos - columns * sin
    edge = float(np.quantile(along, 1 - placement.cover))
    extent = float(along.max() - along.min()) + 1
    middle, half = float(across.mean()), float(across.max() - across.min()) / 2 + 1
    reach = int(extent + half)
    height, width = mask.shape
    top, bottom = max(0, int(rows.min()) - reach), min(height, int(rows.max()) + reach)
    left, right = max(0, int(columns.min()) - reach), min(width, int(columns.max()) + reach)
    x = np.arange(left, right, dtype=np.float32)[None]
    y = np.arange(top, bottom, dtype=np.float32)[:, None]
    depth = (x * cos + y * sin - edge) / extent  # 0 at the fingertips, 1 an item's length behind them
    side = (y * cos - x * sin - middle) / half  # -1 to 1 over the item's breadth
    hand = np.abs(side) < 1 - np.clip(depth - 0.9 * placement.cover, 0, 0.25) * 2.2
    fingers = np.abs(np.sin(side * 5.5)) * np.float32(0.07)
    part = hand & (depth > -fingers) & (depth < placement.cover + 0.6)
    covered[top:bottom, left:right] = part
    # Darker to the sides: round, not a sheet of paper.
    shade = (0.75 + 0.25 * np.sqrt(np.clip(1 - side**2, 0, 1)) - 0.12 * (fingers < 0.012))[part][:, None]
    frame[covered] = (np.array(placement.cover_rgb, np.float32) * shade).astype(np.uint8)
    return covered


def _photographed(rng: np.random.Generator, frame: Pixels, camera: Camera) -> Pixels:
    if camera.blur_px > 0:
        frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), camera.blur_px), np.uint8)
    if camera.gain != (1.0, 1.0, 1.0):
        table = np.clip(np.arange(256)[:, None] * np.array(camera.gain), 0, 255).astype(np.uint8)[:, None]
        frame = np.asarray(cv2.LUT(frame, table), np.uint8)
    if camera.noise > 0:
        # Half-size noise, enlarged: sensors' noise is not independent between pixels after demosaicing.
        height, width = frame.shape[:2]
        grain = rng.standard_normal(((height + 1) // 2, (width + 1) // 2), np.float32) * np.float32(camera.noise)
        enlarged = np.asarray(cv2.resize(grain, (width, height), interpolation=cv2.INTER_LINEAR))
        layer = np.repeat(enlarged.astype(np.int16)[..., None], 3, axis=2)
        frame = np.asarray(cv2.add(frame, layer, dtype=cv2.CV_8U), np.uint8)
    if camera.jpeg_quality > 0:
        parameters = [cv2.IMWRITE_JPEG_QUALITY, camera.jpeg_quality]
        # The encoder takes the channels for BGR; encoding RGB as such would mix colour and brightness wrongly.
        data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), parameters)[1]
        frame = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)
    return frame
