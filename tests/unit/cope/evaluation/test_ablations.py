"""Ablations on the tiny model; training only writes down a model of the configuration, its weights as they start."""

import json
from dataclasses import replace

import pytest
import torch
from shop import Shop

from cope import ablations, artefact
from cope import evaluate as command
from cope.ablations import ABLATIONS, ablate, chosen, table
from cope.backbones import vision_tower
from cope.config import TrainConfig
from cope.errors import UserError
from cope.evaluate import Options
from cope.evaluation.collecting import Sampling
from cope.evaluation.suite import Protocol
from cope.modeling import CopeModel
from cope.scoring import UNCALIBRATED

OPTIONS = Options(
    sampling=Sampling(items=2, frames=2), protocol=Protocol(4, 5, 3, pictures=False), device="cpu", workers=0
)


@pytest.fixture
def base(tiny, monkeypatch):
    monkeypatch.setattr(command, "open_source", lambda data, split: Shop())
    return TrainConfig(model=replace(tiny.config, guided=False))


class Learner:
    def __init__(self):
        self.configs = []

    def __call__(self, config, data, folder):
        if (folder / "config.json").is_file():
            return
        self.configs.append(config)
        torch.manual_seed(config.seed)
        tower = vision_tower(config.model.vision)
        model = CopeModel(config.model, tower.map_channels, tower.descriptor_width, 16)
        artefact.save(folder, "tiny", config.model, model.state_dict(), UNCALIBRATED)


def test_all_leaves_out_what_changes_nothing(base):
    names = chosen("all", base)
    assert "no-classification" not in names and "classification" in names
    assert "no-classification" in chosen("all", replace(base, classification=1.0))
    assert {"full", "frozen", "frozen-whole-frame", "vision-only", "whole-frame"} <= set(names)
    assert chosen("raw-text", base) == ["full", "raw-text"]
    with pytest.raises(UserError, match="no ablation 'nonsense'; choose all or one of full"):
        chosen("nonsense", base)


def test_each_ablation_changes_the_configuration(base):
    base = replace(base, classification=0.5)
    for name, ablation in ABLATIONS.items():
        changed = ablation.change(base)
        assert (changed == base) == (
            name == "full" or (ablation.standard in ("all", "raw", "domain") and "whole" not in name)
        )


def test_what_is_there_is_not_done_again(base, tmp_path):
    learner = Learner()
    rows = ablate("vision-only", base, 1, "data", tmp_path, OPTIONS, learner)
    assert [row["name"] for row in rows] == ["full", "vision-only"]
    assert [config.modalities for config in learner.configs] == ["both", "vision"]
    again = ablate("no-live-text", base, 1, "data", tmp_path, OPTIONS, learner)
    assert [row["name"] for row in again] == ["full", "vision-only", "no-live-text"]
    assert again[:2] == rows
    assert len(learner.configs) == 3


def test_another_configuration_is_trained_anew_and_not_mixed_with_the_old(base, tmp_path):
    learner = Learner()
    ablate("vision-only", base, 1, "data", tmp_path, OPTIONS, learner)
    rows = ablate("full", replace(base, steps=7), 1, "data", tmp_path, OPTIONS, learner)
    assert [row["name"] for row in rows] == ["full"]
    assert [config.steps for config in learner.configs] == [base.steps, base.steps, 7]


def test_the_frozen_towers_need_no_training_of_their_own(base, tmp_path):
    learner = Learner()
    rows = ablate("frozen", base, 1, "data", tmp_path, OPTIONS, learner)
    assert len(learner.configs) == 1
    assert rows[1]["name"] == "frozen" and rows[1]["train_s"] == 0.0
    assert rows[1]["r1"] > 0.5  # plain colours


def test_items_of_which_a_model_is_given_nothing_are_not_found(base, tmp_path):
    rows = ablate("text-only", base, 1, "data", tmp_path, OPTIONS, Learner())
    assert rows[1]["directions"]["V→P"] == 0.0  # the shop's videos are silent
    assert rows[1]["vision_r1"] is None


def test_the_report_holds_the_table_beside_the_full_models_figures(base, tmp_path):
    rows = ablate("whole-frame", base, 2, "data", tmp_path, OPTIONS, Learner())
    assert rows[0]["seeds"] == rows[1]["seeds"] == [base.seed, base.seed + 1]
    assert rows[0]["over_full"] == 0.0 and rows[1]["r1_spread"] is not None
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["ablations"] == rows
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Baselines and ablations" in html and "whole frame in place of regions" in html
    assert "Cross-domain retrieval" in html


def test_differences_are_taken_seed_by_seed():
    def one(name, seed, r1):
        shares = {"L→P": r1, "mean": r1}
        return {"name": name, "seed": seed, "train_s": 1.0, "r1": {"fused": shares, "vision": shares}}

    runs = [one("full", 1, 0.5), one("full", 2, 0.7), one("no-fusion", 1, 0.4), one("no-fusion", 2, 0.6)]
    rows = table([*runs, one("no-fusion", 3, 0.0)])  # no full model has the third seed
    assert rows[1]["over_full"] == pytest.approx(-0.1) and rows[1]["over_full_spread"] == pytest.approx(0.0)
    assert rows[1]["r1"] == pytest.approx(0.5) and rows[1]["directions"] == {"L→P": pytest.approx(0.5)}


def test_a_users_mistake_is_one_line_and_status_2(capsys):
    assert ablations.main(["nonsense", "--data", "d", "--out", "o"]) == 2
    assert command.main(["cope-mini", "--data", "d", "--out", "o", "--frames", "0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("cope.ablations: no ablation 'nonsense'")
    assert lines[1:] == ["cope.evaluate: --frames 0: give 1 or more"]
