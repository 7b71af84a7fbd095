"""The sample catalogue as shops photograph: each picture pasted on a part of a photograph."""

import json
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images  # type: ignore[import-untyped]

from cope.vision.cutouts import cutout_of

SAMPLES = Path(__file__).parents[1] / "samples"
SIDE = 640


def catalogue_on_scenes(folder: Path, left_out: Collection[str] = ()) -> Path:
    """Writes the catalogue and its pictures into a folder, always the same; returns its path.

    Args:
        folder: Must be there.
        left_out: Products that are not in it.
    """
    rng = np.random.default_rng(3)
    photos = load_sample_images().images
    pages = [json.loads(line) for line in (SAMPLES / "catalog.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [page for page in pages if page["product_id"] not in left_out]
    for page in kept:
        page["images"] = [_on_scene(rng, SAMPLES / name, photos, folder) for name in page["images"]]
    path = folder / "catalog.jsonl"
    path.write_text("".join(json.dumps(page) + "\n" for page in kept), encoding="utf-8")
    return path


def _on_scene(rng: np.random.Generator, image: Path, photos: list[np.ndarray], folder: Path) -> str:
    with Image.open(image) as opened:
        shown = np.array(opened.convert("RGBA"))
    cutout = cutout_of(shown if (shown[..., 3] < 255).any() else shown[..., :3].copy()).rgba
    photo = photos[int(rng.integers(len(photos)))]
    side = int(rng.uniform(0.5, 1) * min(photo.shape[:2]))
    y, x = (int(rng.integers(0, size - side + 1)) for size in photo.shape[:2])
    scene = cv2.resize(photo[y : y + side, x : x + side], (SIDE, SIDE)).astype(np.float32)
    scale = SIDE * float(rng.uniform(0.55, 0.85)) / max(cutout.shape[:2])
    thing = cv2.resize(cutout, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = thing.shape[:2]
    top, left = ((SIDE - size) // 2 + int(rng.uniform(-0.2, 0.2) * (SIDE - size)) for size in (height, width))
    alpha = thing[..., 3:] / 255
    part = scene[top : top + height, left : left + width]
    part[:] = part * (1 - alpha) + thing[..., :3] * alpha
    name = f"{image.stem}.jpg"
    Image.fromarray(scene.astype(np.uint8)).save(folder / name, quality=90)
    return name
