"""A sample stream with its catalogue as shops photograph: on scenes. And with look-alikes that no catalogue holds."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images  # type: ignore[import-untyped]

from cope.vision.cutouts import cutout_of
from tests.e2e.flow_processes import CATALOG, SAMPLES, run_cli

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SIDE = 640
UNLISTED = {"saleor-73", "saleor-112"}  # the host shows them, and the catalogue has what looks alike
FOUND = 5  # of the six that are listed


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """The sample catalogue without the unlisted ones, each picture pasted on a part of a photograph."""
    rng = np.random.default_rng(3)
    photos = load_sample_images().images
    pages = [json.loads(line) for line in Path(CATALOG).read_text().splitlines()]
    kept = [page for page in pages if page["product_id"] not in UNLISTED]
    for page in kept:
        page["images"] = [_on_scene(rng, SAMPLES / name, photos, tmp_path) for name in page["images"]]
    path = tmp_path / "catalog.jsonl"
    path.write_text("".join(json.dumps(page) + "\n" for page in kept))
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


def test_products_on_scenes_are_found_and_look_alikes_that_no_page_shows_are_not(
    catalogue: Path, tmp_path: Path
) -> None:
    events, listed, unlisted = tmp_path / "events.jsonl", tmp_path / "listed.jsonl", tmp_path / "unlisted.jsonl"
    stream = SAMPLES / "streams" / "room-en"
    lines = stream.with_suffix(".truth.jsonl").read_text().splitlines(keepends=True)
    listed.write_text("".join(line for line in lines if json.loads(line).get("product_id") not in UNLISTED))
    told = [json.loads(line) for line in lines if json.loads(line).get("product_id") in UNLISTED]
    unlisted.write_text("".join(json.dumps(one | {"title": one.pop("product_id")}) + "\n" for one in told))
    done = run_cli("watch", f"{stream}.mp4", "--catalog", str(catalogue), "--events", str(events))
    assert done.returncode == 0, done.stdout + done.stderr
    score = run_cli("score", str(events), str(listed), str(unlisted))
    row = next(line.split() for line in score.stdout.splitlines() if line.startswith("room-en"))
    showings, found, false = int(row[1]), int(row[2]), int(row[3])
    assert (showings, false) == (6, 0), score.stdout
    assert found >= FOUND, score.stdout
