"""Learning from anyone's photos, by the command of the docs."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cope.serving import artefact
from cope.train import main as train

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (200, 30, 200), (30, 200, 200)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six products with a page and four photos each."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = []
    for number, colour in enumerate(COLOURS):
        for at in range(5):
            image = (
                rng.integers(0, 255, (120, 160, 3)).astype(np.uint8) if at else np.full((120, 160, 3), 255, np.uint8)
            )
            image[30:90, 50:110] = colour
            cv2.imwrite(str(folder / f"{number}-{at}.jpg"), image)
        own = {"product_id": f"p{number}", "split": "train"}
        rows.append(
            {**own, "domain": "page", "id": f"{number}", "images": [f"{number}-0.jpg"], "text": f"Mug {number}"}
        )
        rows += [
            {**own, "domain": "live", "id": f"{number}/{at}", "images": [f"{number}-{at}.jpg"]} for at in (1, 2, 3, 4)
        ]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_photos_train_a_model_which_another_run_goes_on_from(photos, tmp_path, capsys):
    out, more = tmp_path / "model", tmp_path / "more"
    few = ["--set", "steps=2", "--set", "model.dim=130"]
    assert train(["--data", str(photos), "--out", str(out), "--name", "mugs", *few]) == 0
    told = capsys.readouterr().err
    assert "0 products of another side of the split: fewer than 20, so the last checkpoint is taken" in told
    assert artefact.load(out).version.startswith("mugs@")
    assert list((out / "cache").glob("seen-*.pt"))

    going_on = ["--set", f"init_from={out}", "--set", "steps=2"]
    assert train(["--data", f"{photos}@2", "--out", str(more), *going_on]) == 0
    before, after = artefact.load(out), artefact.load(more)
    assert after.config == before.config
    assert all((after.weights[name] == value).all() for name, value in before.weights.items() if "finder" in name)
    assert not (after.weights["visual.axes.weight"] == before.weights["visual.axes.weight"]).all()


def test_a_weight_of_nothing_is_one_line(photos, tmp_path, capsys):
    assert train(["--data", f"{photos}@0", "--out", str(tmp_path / "model")]) == 2
    assert "the weight behind @ must be more than 0" in capsys.readouterr().err
