"""Small data sets of every kind, with real pictures."""

import json

import cv2
import numpy as np
import pytest

from cope.config import ModelConfig, TrainConfig
from tests.unit.cope.data.data_sets import rope_files, write_rope


@pytest.fixture
def rope(tmp_path):
    """A ROPE folder of 40 products."""
    folder = tmp_path / "rope"
    folder.mkdir()
    return write_rope(folder, rope_files())


@pytest.fixture
def objects(tmp_path):
    """A folder of 60 objects on a plain ground, with two backgrounds."""
    folder = tmp_path / "objects"
    (folder / "backgrounds").mkdir(parents=True)
    for number in range(2):
        cv2.imwrite(str(folder / "backgrounds" / f"{number}.jpg"), np.full((90, 160, 3), 60 + 90 * number, np.uint8))
    rows = []
    for number in range(60):
        image = np.full((80, 80, 3), 255, np.uint8)
        image[20:60, 15:65] = np.random.default_rng(number).integers(0, 200, 3)
        cv2.imwrite(str(folder / f"{number}.png"), image)
        name = f"velvet thing number{number}"
        rows.append({"id": f"o{number}", "group": f"g{number // 2}", "name": name, "image": f"{number}.png"})
    (folder / "objects.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture
def config():
    """A training run on small pictures, in this process."""
    model = ModelConfig(frame_pixels=64 * 96, crop_pixels=32, text_tokens=24)
    return TrainConfig(model=model, batch_products=4, clip_frames=2, workers=0, words=1.0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cope-live"
