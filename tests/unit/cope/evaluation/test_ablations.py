"""Ablations on the tiny model; training only writes down a model of the configuration, its weights as they start."""

import json
from dataclasses import replace

import pytest
import torch

from cope import ablations, calibrate
from cope import evaluate as command
from cope.ablations import ABLATIONS, ablate, chosen, table
from cope.config import TrainConfig, preset
from cope.errors import UserError
from cope.evaluation import evaluating
from cope.evaluation.collecting import Sampling
from cope.evaluation.evaluating import Options
from cope.evaluation.suite import Protocol
from cope.model.modeling import CopeModel
from cope.model.scoring import UNCALIBRATED
from cope.serving import artefact
from cope.towers.packaged import vision_tower
from tests.unit.cope.evaluation.shop import Shop

pytestmark = pytest.mark.slow

OPTIONS = Options(
    sampling=Sampling(items=2, frames=2), protocol=Protocol(4, 5, 3, pictures=False), device="cpu", workers=0
)


@pytest.fixture
def base(tiny, monkeypatch):
    for module in (evaluating, ablations):
        monkeypatch.setattr(module, "open_source", lambda data, split="train": Shop())
    # One view of a page: with several, words add nothing to what the tiny towers see.
    return TrainConfig(model=replace(tiny.config, multi_view=False))


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
    whole = replace(base, model=replace(base.model, regions=0))
    assert not {"whole-frame", "frozen-whole-frame"} & set(chosen("all", whole))


TUNINGS = {"towers-frozen", "towers-lora", "towers-full"}


@pytest.mark.parametrize("name", ["cope-base", "cope-paper"])
def test_towers_of_the_hub_are_frozen_tuned_by_low_rank_steps_or_in_full(name):
    base = preset(name)
    names = chosen("all", base)
    tunings = {n.removeprefix("towers-") for n in TUNINGS.intersection(names)}
    assert tunings == {"frozen", "lora", "full"} - {base.model.tuning}
    assert [ABLATIONS[f"towers-{one}"].change(base).model.tuning for one in sorted(tunings)] == sorted(tunings)


def test_towers_that_cannot_be_tuned_are_left_out_of_all_and_refused_by_name():
    mini = preset("cope-mini")
    assert not TUNINGS.intersection(chosen("all", mini))
    with pytest.raises(
        UserError, match="no towers-lora of this configuration: the tower 'packaged:efficientnet-lite0'"
    ):
        chosen("towers-lora", mini)
    with pytest.raises(UserError, match=r"no towers-full of this configuration: .*set finder_steps=0"):
        chosen("towers-full", mini)
    tuned = replace(
        mini, finder_steps=0, masked_language=0.1, model=replace(mini.model, keywords="joined", tuning="full")
    )
    assert TUNINGS.intersection(chosen("all", tuned)) == {"towers-frozen"}
    assert ABLATIONS["towers-frozen"].change(tuned).masked_language == 0  # which frozen towers cannot learn from


def test_each_ablation_changes_the_configuration(base):
    base = replace(base, classification=0.5)
    for name, ablation in ABLATIONS.items():
        changed = ablation.change(base)
        assert (changed == base) == (
            name in ("full", "towers-frozen") or (ablation.standard in ("all", "raw", "domain") and "whole" not in name)
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


def test_frozen_towers_are_given_what_the_model_is(base, tmp_path):
    for text in ("keywords", "none"):
        deaf = replace(base, live_text=text)
        ablate("frozen", deaf, 1, "data", tmp_path / text, OPTIONS, Learner())
    heard, deaf = (
        json.loads((tmp_path / text / "frozen" / f"seed-{base.seed}" / "figures.json").read_text())["r1"]
        for text in ("keywords", "none")
    )
    assert heard["vision"] == deaf["vision"]
    assert heard["fused"] != deaf["fused"]


def test_what_a_kill_or_a_full_disk_has_cut_is_done_again(base, tmp_path):
    learner = Learner()
    rows = ablate("full", base, 1, "data", tmp_path, OPTIONS, learner)
    for name in ("figures.json", "configuration.json"):
        [file] = tmp_path.glob(f"full/*/{name}")
        file.write_text(file.read_text()[:40])
    [again] = ablate("full", base, 1, "data", tmp_path, OPTIONS, learner)
    assert again == rows[0]


def test_the_time_of_a_training_is_that_of_all_its_parts_and_not_of_looking_it_up(base, tmp_path, monkeypatch):
    learner, now = Learner(), [0.0]
    monkeypatch.setattr(ablations.time, "monotonic", lambda: now[0])

    def stopped(*_):
        now[0] += 100
        raise KeyboardInterrupt

    def slow(*arguments):
        now[0] += 20
        learner(*arguments)

    with pytest.raises(KeyboardInterrupt):
        ablate("full", base, 1, "data", tmp_path, OPTIONS, stopped)
    [first] = ablate("full", base, 1, "data", tmp_path, OPTIONS, slow)
    [again] = ablate("full", base, 1, "data", tmp_path, replace(OPTIONS, sampling=Sampling(items=1, frames=2)), slow)
    assert first["train_s"] == again["train_s"] == 120
    (tmp_path / "full" / f"seed-{base.seed}" / "seconds.json").unlink()  # as earlier releases have left it
    [unknown] = ablate("full", base, 1, "data", tmp_path, replace(OPTIONS, sampling=Sampling(items=3, frames=2)), slow)
    assert unknown["train_s"] is None
    [other] = ablate("full", replace(base, steps=7), 1, "data", tmp_path, OPTIONS, slow)
    assert other["train_s"] == 20


def test_another_configuration_is_trained_anew_and_not_mixed_with_the_old(base, tmp_path):
    learner = Learner()
    ablate("vision-only", base, 1, "data", tmp_path, OPTIONS, learner)
    rows = ablate("full", replace(base, steps=7), 1, "data", tmp_path, OPTIONS, learner)
    assert [row["name"] for row in rows] == ["full"]
    assert [config.steps for config in learner.configs] == [base.steps, base.steps, 7]


def test_other_data_at_the_same_path_are_trained_on_and_measured_anew(base, tmp_path, monkeypatch):
    learner = Learner()
    ablate("vision-only", base, 1, "data", tmp_path, OPTIONS, learner)
    for module in (evaluating, ablations):
        monkeypatch.setattr(module, "open_source", lambda data, split="train": Shop(fingerprint="f01"))
    rows = ablate("full", base, 1, "data", tmp_path, OPTIONS, learner)
    assert [row["name"] for row in rows] == ["full"]  # what was measured of the other data is not in the table
    assert len(learner.configs) == 3


def test_the_same_data_at_another_path_are_not_done_again(base, tmp_path):
    learner = Learner()
    rows = ablate("vision-only", base, 1, "data", tmp_path, OPTIONS, learner)
    assert ablate("vision-only", base, 1, "moved", tmp_path, OPTIONS, learner) == rows
    assert len(learner.configs) == 2


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


def test_a_model_of_which_no_item_is_given_anything_finds_nothing(base, tmp_path):
    # Without live text only pages say anything, and a page is a query in no direction between texts.
    rows = ablate("text-only", replace(base, live_text="none"), 1, "data", tmp_path, OPTIONS, Learner())
    assert rows[1]["r1"] == 0.0 and set(rows[1]["directions"].values()) == {0.0}
    assert len(rows[1]["directions"]) == 6


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
    assert lines[1:] == ["cope.evaluate: Invalid value for '--frames': 0 is not in the range x>=1. See --help."]


@pytest.mark.parametrize("module", [ablations, calibrate, command], ids=["ablations", "calibrate", "evaluate"])
def test_ctrl_c_is_one_line_and_status_130(module, monkeypatch, capsys):
    def pressed(*_arguments):
        raise KeyboardInterrupt

    # What each opens first.
    name = {ablations: "ablate", calibrate: "Encoder", command: "evaluate"}[module]
    monkeypatch.setattr(module, name, pressed)
    own = [] if module is ablations else ["model"]
    arguments = [*(own or ["all"]), "--data", "d", *([] if module is calibrate else ["--out", "o"])]
    monkeypatch.setattr("sys.argv", ["python", *arguments])
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(module.main())
    assert ended.value.code == 130
    line = capsys.readouterr().err
    assert line.startswith(f"{module.__name__}: stopped") and line.count("\n") == 1
