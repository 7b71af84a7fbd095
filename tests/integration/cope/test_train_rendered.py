"""cope-mini from a folder of objects: rendered, described by the real packaged towers, trained, calibrated, loaded."""

import itertools
import json

import cv2
import numpy as np
import pytest

from cope.calibrate import main as calibrate
from cope.data.listing import NO_PICTURE, NOT_OBJECTS
from cope.data.objects import split_of
from cope.serving.encoder import Encoder, PageInput
from cope.train import main as train
from cope.vision.cutouts import thing

SMALL = {
    "model.frame_pixels": 128 * 224,
    "model.crop_pixels": 64,
    "steps": 3,
    "finder_steps": 3,
    "batch_products": 4,
    "scenes": 24,
    "live_views": 2,
    "video_views": 1,
    "page_views": 1,
}


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Made-up things to train on and others to validate with, and pictures of plain rooms."""
    folder = tmp_path_factory.mktemp("objects")
    (folder / "objects").mkdir()
    (folder / "backgrounds").mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):  # every fifth is for validation and test
        room = np.full((200, 320, 3), rng.integers(60, 200, 3), np.uint8)
        cv2.imwrite(str(folder / "backgrounds" / f"room-{i}.jpg"), room)
    rows = []
    for split, count in (("train", 24), ("val", 24)):
        groups = (f"g{i}" for i in itertools.count())
        for group in itertools.islice((g for g in groups if split_of(g) == split), count):
            image = f"objects/{group}.png"
            cv2.imwrite(str(folder / image), cv2.cvtColor(thing(rng).rgba, cv2.COLOR_RGBA2BGRA))
            rows.append({"id": group, "group": group, "name": f"gadget {group}", "image": image})
    rows += [{**row, "id": f"{row['id']} again", "image": "lost.png"} for row in rows[:2]]
    (folder / "objects.jsonl").write_text("{}\n" + "".join(json.dumps(row) + "\n" for row in rows))
    return folder


def command(objects, out):
    settings = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    return ["--preset", "cope-mini", "--data", objects.as_uri(), "--out", str(out), "--device", "cpu", *settings]


def test_a_folder_of_objects_becomes_a_model_that_workers_load(objects, tmp_path, capsys):
    out = tmp_path / "mini"
    assert train(command(objects, out)) == 0
    record = json.loads((out / "training.json").read_text())
    assert 0 < record["figures"]["mean R@1"] <= 1
    assert record["skipped"] == {NO_PICTURE: 2, NOT_OBJECTS: 1}
    assert f"2 {NO_PICTURE}, 1 {NOT_OBJECTS}" in "".join(capsys.readouterr())
    uncalibrated = Encoder(out)

    assert calibrate([str(out), "--data", objects.as_uri(), "--showings", "5"]) == 2
    assert "'--showings': 5 is not in the range x>=6" in capsys.readouterr().err
    assert calibrate([str(out), "--data", objects.as_uri(), "--showings", "6"]) == 0
    encoder = Encoder(out)
    assert encoder.version != uncalibrated.version
    assert encoder.calibration != uncalibrated.calibration
    page = encoder.encode_pages([PageInput("gadget", [np.full((80, 80, 3), 200, np.uint8)])])[0]
    assert np.linalg.norm(page.fused.astype(np.float32)) == pytest.approx(1, abs=1e-3)

    capsys.readouterr()
    assert train(command(objects, out)) == 0  # is there already: the calibration must survive
    assert "trained already" in "".join(capsys.readouterr())
    assert Encoder(out).version == encoder.version
