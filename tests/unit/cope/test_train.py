"""What the training command refuses, what it writes, and what it keeps when it is started again."""

import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from cope import train as command
from cope.config import TrainConfig, preset
from cope.data.items import Counts
from cope.data.loader import batches
from cope.data.opening import open_source
from cope.errors import UserError
from cope.model.scoring import UNCALIBRATED
from cope.runtime.interruptions import Stopped
from cope.serving import artefact
from cope.serving.identity import load_identity
from cope.train import train
from cope.training import pixels
from cope.training.run_record import Record

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
CALIBRATED = replace(UNCALIBRATED, bias=-3.0)


def picture(path: Path, colour: int) -> None:
    cv2.imwrite(str(path), np.full((48, 64, 3), colour, np.uint8))


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A manifest of four products, one picture of each in every domain."""
    folder = tmp_path / "shop"
    folder.mkdir()
    rows: list[dict[str, Any]] = []
    for number in range(4):
        for domain in ("page", "video", "live"):
            picture(folder / f"{number}-{domain}.png", 50 * number)
            rows.append({"product_id": f"p{number}", "domain": domain, "id": f"{number}-{domain}", "split": "train"})
            rows[-1] |= {"images": [f"{number}-{domain}.png"], "text": f"red bag {number}"}
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    """Objects on a plain ground, and backgrounds for every side of the split."""
    folder = tmp_path / "objects"
    (folder / "backgrounds").mkdir(parents=True)
    for number in range(6):
        picture(folder / "backgrounds" / f"{number}.jpg", 200)
    picture(folder / "object.png", 90)
    rows = [{"id": f"o{i}", "group": f"g{i}", "name": f"thing {i}", "image": "object.png"} for i in range(30)]
    (folder / "objects.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture
def config(hub: dict[str, Path]) -> TrainConfig:
    base = preset("cope-paper")
    model = replace(base.model, vision=str(hub["x_clip"]), text=str(hub["bert"]), dim=8, crop_pixels=32)
    small: dict[str, Any] = {"steps": 1, "batch_products": 4, "clip_frames": 2, "classes_sampled": 4, "workers": 0}
    return replace(base, model=replace(model, tuning="frozen"), precision="float32", **small)


def test_a_calibration_is_kept_when_the_same_run_is_started_again(
    shop: Path, config: TrainConfig, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    train(config, "tiny", str(shop), out, CPU)
    artefact.update(out, calibration=CALIBRATED)
    calibrated = load_identity(out)

    same = replace(config, workers=1, save_every=3)
    train(same, "tiny", f"{tmp_path}/./shop/", out, CPU)
    assert load_identity(out) == calibrated
    assert "sha256" in json.loads((out / "training.json").read_text())

    (out / "training.json").unlink()  # the checkpoints say that all is trained
    train(same, "tiny", str(shop), out, CPU)
    assert load_identity(out) == calibrated


def test_an_artefact_that_has_lost_its_weights_is_written_again(
    shop: Path, config: TrainConfig, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    train(config, "tiny", str(shop), out, CPU)
    whole = artefact.verify(out).version
    (out / "model.safetensors").unlink()
    train(config, "tiny", str(shop), out, CPU)
    assert artefact.verify(out).version == whole


@pytest.mark.parametrize("name", ["config.json", "README.md", "model.safetensors"])
def test_what_no_run_here_has_made_is_not_written_over(
    shop: Path, config: TrainConfig, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(UserError, match=f"out holds a {name} that this run has not made; choose another --out"):
        train(config, "tiny", str(shop), out, CPU)
    assert {file.name: file.read_text() for file in out.iterdir()} == {name: "mine"}


def test_another_model_with_its_record_is_not_written_over(shop: Path, config: TrainConfig, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(config, "tiny", str(shop), out, CPU)
    shutil.rmtree(out / "checkpoints")  # as in a folder that cope.export has made
    before = load_identity(out)
    with pytest.raises(UserError, match=r"holds a config\.json that this run has not made"):
        train(replace(config, seed=8), "tiny", str(shop), out, CPU)
    assert load_identity(out) == before


def test_a_run_that_ended_before_its_first_checkpoint_goes_on(shop: Path, config: TrainConfig, tmp_path: Path) -> None:
    record = Record(tmp_path / "out", "tiny", config, CPU, 1)
    record.add()
    train(config, "tiny", str(shop), tmp_path / "out", CPU)
    assert (tmp_path / "out" / "config.json").is_file()


def test_a_record_of_other_fields_or_data_is_not_taken_for_this_run(
    shop: Path, config: TrainConfig, tmp_path: Path
) -> None:
    fingerprint = open_source(str(shop)).fingerprint
    record = Record(tmp_path, "tiny", config, CPU, 1)
    record.add(data={"sha256": fingerprint}, figures={"R@1": 0.5}, sha256="abc")
    assert record.figures_of(replace(config, evaluate_every=7), fingerprint) == {"R@1": 0.5}
    assert record.figures_of(replace(config, seed=8), fingerprint) is None
    assert record.figures_of(config, "other data") is None
    assert Record(tmp_path, "tiny", config, CPU, 2).figures_of(config, fingerprint) is None
    (tmp_path / "training.json").write_text('{"config": [], "sha256": ""}')
    assert record.figures_of(config, fingerprint) is None


def test_the_artefact_says_what_the_model_was_trained_to_hear(shop: Path, config: TrainConfig, tmp_path: Path) -> None:
    train(replace(config, modalities="vision"), "tiny", str(shop), tmp_path / "out", CPU)
    loaded = artefact.load(tmp_path / "out")
    assert (loaded.live_text, loaded.modalities) == ("none", "vision")


@pytest.mark.parametrize("setting", ["masked_language=0.5", "balance=0.5", "reweight=1", "gradient_checkpointing=true"])
def test_what_frozen_towers_on_objects_would_not_read_is_refused(
    objects: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str
) -> None:
    arguments = ["--data", str(objects), "--out", str(tmp_path / "out"), "--device", "cpu", "--set", setting]
    assert command.main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "does nothing for frozen towers; set " in line


def test_masked_language_that_teaches_no_tower_is_refused(shop: Path, config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"masked_language=0\.5 teaches the text tower.*model\.tuning=lora"):
        train(replace(config, masked_language=0.5), "tiny", str(shop), tmp_path / "out", CPU)


def test_what_every_process_skipped_is_recorded_and_rows_are_counted_once(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(str(shop))
    source.counts.add("broken rows", 2)
    opened = Counts(source.counts.as_dict())
    source.counts.add("missing pictures", 3)

    def gathered(own: dict[str, int]) -> list[dict[str, int]]:
        return [own, {"broken rows": 0, "missing pictures": 4, "broken pictures": 1}]

    assert command._skipped([source], [opened]).as_dict() == {"missing pictures": 3, "broken rows": 2}
    monkeypatch.setattr(command, "each_rank", gathered)
    skipped = command._skipped([source], [opened]).as_dict()
    assert skipped == {"missing pictures": 7, "broken rows": 2, "broken pictures": 1}


def test_a_stopped_run_tells_what_was_skipped_and_the_resumed_one_goes_on_counting(
    shop: Path, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (shop / "0-page.png").unlink()
    config = replace(config, steps=4)
    train(config, "tiny", str(shop), tmp_path / "whole", CPU)

    def asked_to_stop(*args: Any, **more: Any) -> Iterator[Any]:
        for number, batch in enumerate(batches(*args, **more)):
            if number == 2:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(pixels, "batches", asked_to_stop)
        capsys.readouterr()
        with pytest.raises(Stopped):
            train(config, "tiny", str(shop), tmp_path / "stopped", CPU)
    assert "data so far: 3 drawn items without a readable picture, 3 missing pictures" in capsys.readouterr().err

    train(config, "tiny", str(shop), tmp_path / "stopped", CPU)
    skipped = [json.loads((tmp_path / name / "training.json").read_text())["skipped"] for name in ("whole", "stopped")]
    assert skipped[0] == skipped[1]
    assert skipped[0]["missing pictures"] == 4


def test_pictures_of_the_other_side_that_are_lost_are_told_and_the_run_goes_on(
    shop: Path, config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (shop / "manifest.jsonl").read_text().splitlines()]
    lost = [
        {**row, "product_id": f"v{row['product_id']}", "id": f"v{row['id']}", "split": "val", "images": ["gone.png"]}
        for row in rows
    ]
    (shop / "manifest.jsonl").write_text("\n".join(map(json.dumps, [*rows, *lost])))
    assert train(config, "tiny", str(shop), tmp_path / "out", CPU) == {}
    told = " ".join(capsys.readouterr().err.split())
    assert "evaluated without 12 drawn items without a readable picture, 12 missing pictures" in told
    assert "step 1 nothing to evaluate: no product was seen in two domains" in told
    artefact.verify(tmp_path / "out")


def test_words_alone_without_words_in_clips_are_refused(shop: Path, config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="live_text=none takes those; set live_text=keywords"):
        train(replace(config, modalities="text", live_text="none"), "tiny", str(shop), tmp_path / "out", CPU)


def test_a_word_that_looks_like_a_number_is_a_word_where_the_field_is_one(tmp_path: Path) -> None:
    file = tmp_path / "from-windows.toml"
    file.write_bytes(b"\xef\xbb\xbfsteps = 7\r\n")
    found = command.configuration("cope-mini", file, ["finder_from=2024", 'model.text="7"', "model.dim=64"])
    assert (found.steps, found.finder_from, found.model.text, found.model.dim) == (7, "2024", "7", 64)
