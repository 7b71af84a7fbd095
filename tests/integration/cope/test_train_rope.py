"""`python -m cope.train` on a folder in ROPE's released format, with towers of the paper's architecture but tiny."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cope.data.objects import split_of
from cope.train import main
from tests.unit.cope.towers.tiny_hub import build

PRODUCTS, FRAMES = 36, 3
STEPS = 8
NAMES = ("red bag", "blue shoe", "black cup", "white hat", "green box", "old lamp")


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(tmp_path_factory.mktemp("hub"), ("x_clip", "bert"))


@pytest.fixture(scope="module")
def rope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine files and real JPEGs: each product is a coloured shape, on a page, in a video and in a live clip."""
    folder = tmp_path_factory.mktemp("rope")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(5)
    rows: dict[str, list[str]] = {}

    def add(file: str, *columns: object) -> None:
        rows.setdefault(file, []).append(",".join(map(str, columns)))

    def picture(name: str, colour: np.ndarray, size: int, background: int) -> str:
        canvas = np.full((64, 80, 3), background, np.uint8)
        cv2.circle(canvas, (int(rng.integers(24, 56)), 32), size, colour.tolist(), -1)
        cv2.imwrite(str(folder / "pictures" / name), canvas)
        return f"pictures/{name}"

    for number in range(PRODUCTS):
        product, name, colour = f"p{number}", NAMES[number % len(NAMES)], rng.integers(0, 256, 3)
        add("training_product_pages_pair.txt", product, f"page{number}")
        add("training_page_titles.txt", f"page{number}", f"{name}, new, {number}")
        add("training_page_images.txt", f"page{number}", picture(f"page{number}.jpg", colour, 20, 255))
        for domain, pairs, texts, images in (
            ("video", "training_product_videos_pair.txt", "training_video_asrs.txt", "training_video_frames.txt"),
            ("live", "training_product_lives_pair.txt", "training_live_asrs.txt", "training_live_clips.txt"),
        ):
            add(pairs, product, f"{domain}{number}")
            add(texts, f"{domain}{number}", f"look at this {name}")
            for at in range(FRAMES):
                path = picture(f"{domain}{number}-{at}.jpg", colour, 12, int(rng.integers(60, 200)))
                add(images, f"{domain}{number}", at * 1000, path)
    add("training_page_images.txt", "page0", "pictures/gone.jpg")
    for file, lines in rows.items():
        (folder / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


class Command:
    """The command of one run, which may be started again and again."""

    def __init__(self, rope: Path, towers: dict[str, Path], out: Path, *settings: str) -> None:
        fields = {
            "model.vision": towers["x_clip"],
            "model.text": towers["bert"],
            "model.dim": 16,
            "model.crop_pixels": 32,
            "steps": STEPS,
            "batch_products": 8,
            "clip_frames": 4,
            "classes_sampled": 16,
            "workers": 0,
            "save_every": 2,
            "precision": "float32",
        }
        self.out = out
        self.arguments = ["--preset", "cope-paper", "--data", str(rope), "--out", str(out), "--device", "cpu"]
        for setting in (*(f"{key}={value}" for key, value in fields.items()), *settings):
            self.arguments += ["--set", setting]

    def start(self, launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, *launcher, "-m", "cope.train", *self.arguments]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, launcher: Sequence[str] = ()) -> tuple[int, str, str]:
        process = self.start(launcher)
        try:
            out, err = process.communicate(timeout=150)
        finally:
            process.kill()
        return process.returncode, out, err

    def metrics(self) -> list[dict[str, Any]]:
        path = self.out / "metrics.jsonl"
        found = []
        for line in path.read_text().splitlines() if path.is_file() else ():
            try:
                found.append(json.loads(line))
            except ValueError:  # being written
                continue
        return found

    def losses(self) -> list[tuple[int, dict[str, float]]]:
        return [(line["step"], line["losses"]) for line in self.metrics() if "losses" in line]


def test_the_paper_preset_trains_on_rope_resumes_exactly_after_a_kill_and_refuses_another_configuration(
    rope: Path, towers: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Command(rope, towers, tmp_path / "whole")
    status, told, log = whole.run()
    assert status == 0, log
    assert [step for step, _ in whole.losses()] == list(range(1, STEPS + 1))
    assert {"visual page-live", "fused page-video", "classification"} <= set(whole.losses()[0][1])
    assert "mean R@1" in told
    for file in ("config.json", "model.safetensors", "calibration.json", "README.md"):
        assert (tmp_path / "whole" / file).is_file()
    record = json.loads((tmp_path / "whole" / "training.json").read_text())
    assert record["config"]["batch_products"] == 8
    assert record["data"]["products"] == sum(split_of(f"p{i}") == "train" for i in range(PRODUCTS))
    assert record["versions"]["torch"]
    assert len(record["data"]["sha256"]) >= 16

    (tmp_path / "whole" / "calibration.json").touch()
    before = (tmp_path / "whole" / "calibration.json").stat().st_mtime_ns
    assert main(whole.arguments) == 0
    assert "is trained already" in capsys.readouterr().err
    assert (tmp_path / "whole" / "calibration.json").stat().st_mtime_ns == before

    killed = Command(rope, towers, tmp_path / "killed")
    process = killed.start()
    deadline = time.monotonic() + 100
    while len(killed.losses()) < 3:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model.safetensors").exists()

    status, _, log = killed.run()
    assert status == 0, log
    assert "goes on after step" in log
    assert killed.losses() == whole.losses()
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "killed")]
    assert weights[0] == weights[1]

    other = Command(rope, towers, tmp_path / "whole", "model.dim=8")
    assert main(other.arguments) == 2
    assert "model.dim=16 (now 8)" in capsys.readouterr().err


def test_data_that_are_no_data_set_and_settings_that_need_others_are_one_line(
    rope: Path, towers: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for setting, told in (
        ("finder_steps=10", "set finder_steps=0"),
        ("live_text=keywords model.keywords=mean", "set model.keywords=joined"),
        ("model.regions=2", "set finder_from"),
        ("model.vision=nowhere", "nowhere"),
    ):
        command = Command(rope, towers, tmp_path / setting, *setting.split())
        assert main(command.arguments) == 2
        assert told in capsys.readouterr().err.splitlines()[-1]


def test_two_processes_train_together(rope: Path, towers: dict[str, Path], tmp_path: Path) -> None:
    settings = ("steps=3", "accumulate=2", "batch_products=4", "gradient_checkpointing=true", "ema=0.9")
    command = Command(rope, towers, tmp_path, *settings)
    status, _, log = command.run(("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"))
    assert status == 0, log
    assert [step for step, _ in command.losses()] == [1, 2, 3]
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["processes"] == 2
    assert (tmp_path / "model.safetensors").is_file()
