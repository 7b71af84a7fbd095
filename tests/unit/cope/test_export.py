"""What export hands to workers, what it decides by measuring, and what it refuses."""

import errno
import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from cope import export
from cope.config import ModelConfig
from cope.errors import UserError
from cope.evaluation import precision
from cope.evaluation.precision import Measured, Speed, choose
from cope.model.modeling import CopeModel
from cope.model.scoring import UNCALIBRATED
from cope.serving import artefact
from cope.serving.card import PRECISION, with_section
from cope.serving.encoder import Encoder
from cope.serving.identity import content_hash
from cope.towers.packaged import text_tower, vision_tower
from tests.unit.cope.towers.test_tuning import stirred
from tests.unit.cope.towers.tiny_hub import SIDE

pytestmark = pytest.mark.slow


def measured(**rows):
    """Measured(...) by precision: ms per frame, ms per text, mean R@1."""
    return [Measured(name, Speed(frame, text), {"L→P": r1}, r1) for name, (frame, text, r1) in rows.items()]


def forced(monkeypatch, **rows):
    """Makes export measure what is wanted."""

    def measure(folder, data, cache, options, say):
        for name in rows:
            artefact.update(folder, precision=name)
        return measured(**rows), {"name": data, "fingerprint": "f", "split": options.split, "products": 5}

    monkeypatch.setattr(export, "measure", measure)


def run(capsys, *arguments):
    status = export.main([str(a) for a in arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_fastest_that_is_as_good_is_kept():
    rows = measured(float32=(50, 10, 0.80), bfloat16=(30, 9, 0.80), int8=(20, 5, 0.797))
    assert choose(rows) == (
        "int8",
        {"float32": "slower than int8", "bfloat16": "slower than int8", "int8": "kept"},
    )


def test_one_that_is_not_faster_is_not_taken():
    rows = measured(float32=(50, 10, 0.80), bfloat16=(70, 9, 0.90), int8=(50, 9.9, 0.90))
    assert choose(rows) == ("float32", {"float32": "kept", "bfloat16": "not faster", "int8": "not faster"})


def test_one_that_loses_more_than_half_a_point_is_not_taken():
    rows = measured(float32=(50, 10, 0.80), bfloat16=(30, 9, 0.794), int8=(40, 5, 0.795))
    chosen, said = choose(rows)
    assert chosen == "int8"
    assert said["bfloat16"] == "loses 0.6 points"


def test_the_model_is_exported_as_it_is(folder, tmp_path, capsys):
    (folder / "README.md").write_text("# tiny\n\nMade for tests.\n")
    (folder / "training.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("not for workers")
    out = tmp_path / "models" / "tiny"
    status, said, _ = run(capsys, folder, "--out", out)
    assert status == 0
    assert artefact.load(out).version == artefact.load(folder).version
    assert f"{out}: {artefact.load(out).version}" in said
    names = {"config.json", "model.safetensors", "calibration.json", "README.md", "export.json", "training.json"}
    assert {path.name for path in out.iterdir()} == names
    assert (out / "README.md").read_text().startswith("# tiny\n\nMade for tests.\n\n## Precision\n")
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]


def test_a_precision_may_be_named(folder, tmp_path, capsys):
    status, _, remarks = run(capsys, folder, "--out", tmp_path / "out", "--precision", "bfloat16")
    assert status == 0
    assert artefact.load(tmp_path / "out").precision == "bfloat16"
    assert artefact.load(folder).precision == "float32"
    assert "index the catalogue anew" in remarks
    assert "not calibrated yet" in remarks


def test_what_was_measured_decides_and_is_told(folder, tmp_path, capsys, monkeypatch):
    forced(monkeypatch, float32=(50, 10, 0.80), bfloat16=(30, 9, 0.794), int8=(40, 5, 0.80))
    status, said, _ = run(capsys, folder, "--out", tmp_path / "out", "--data", "things")
    assert status == 0
    assert artefact.load(tmp_path / "out").precision == "int8"
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["model"] == artefact.load(tmp_path / "out").version
    assert [one["verdict"] for one in record["measured"]] == ["slower than int8", "loses 0.6 points", "kept"]
    assert "| bfloat16 | 30.0 | 9.0 | 0.794 | loses 0.6 points |" in (tmp_path / "out" / "README.md").read_text()
    assert "loses 0.6 points" in said


@pytest.fixture
def shop(tmp_path):
    """A manifest of six products of one colour each, two pictures of each in two domains."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(6):
        colour = rng.integers(0, 256, 3)
        for domain in ("page", "live"):
            names = [f"{number}-{domain}-{i}.png" for i in range(2)]
            for name in names:
                picture = np.clip(colour + rng.normal(0, 20, (90, 160, 3)), 0, 255).astype(np.uint8)
                cv2.imwrite(str(tmp_path / name), picture)
            row = {"product_id": f"p{number}", "domain": domain, "id": f"{number}/{domain}", "images": names}
            rows.append(json.dumps(row | {"text": f"thing {number}", "split": "val"}))
    (tmp_path / "manifest.jsonl").write_text("\n".join(rows))
    return tmp_path


def test_each_precision_is_measured_on_products_of_the_data(folder, shop, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(precision, "REPEATS", 2)
    threads = torch.get_num_threads()
    out = tmp_path / "out"
    status, said, _ = run(capsys, folder, "--out", out, "--data", shop, "--products", 5, "--workers", 0)
    assert status == 0
    record = json.loads((out / "export.json").read_text())
    assert [one["precision"] for one in record["measured"]] == list(precision.PRECISIONS)
    for one in record["measured"]:
        assert set(one["r1"]) == {"P→L", "L→P"}
        assert one["mean_r1"] == pytest.approx(sum(one["r1"].values()) / 2)
        assert one["frame_ms"] > 0
    assert (record["data"]["split"], record["data"]["products"]) == ("val", 5)
    assert [line.split()[0] for line in said.splitlines()[:4]] == ["precision", *precision.PRECISIONS]
    assert torch.get_num_threads() == threads
    assert not list(tmp_path.glob("*.part"))


def test_data_with_nothing_to_search_are_named(folder, shop, tmp_path, capsys):
    rows = (shop / "manifest.jsonl").read_text().splitlines()  # page, live, page, live, ...
    (shop / "manifest.jsonl").write_text("\n".join(rows[0::4] + rows[3::4]))
    status, _, error = run(capsys, folder, "--out", tmp_path / "out", "--data", shop, "--workers", 0)
    assert status == 2
    assert "no product on the val side has items in two domains" in error
    assert not (tmp_path / "out").exists()


def test_where_float32_is_best_the_version_stays(folder, tmp_path, capsys, monkeypatch):
    forced(monkeypatch, float32=(50, 10, 0.80), bfloat16=(60, 10, 0.80), int8=(50, 10, 0.80))
    run(capsys, folder, "--out", tmp_path / "out", "--data", "things")
    assert artefact.load(tmp_path / "out").version == artefact.load(folder).version


def test_the_precision_asked_for_is_taken_whatever_was_measured(folder, tmp_path, capsys, monkeypatch):
    forced(monkeypatch, float32=(50, 10, 0.80), bfloat16=(60, 10, 0.70), int8=(50, 10, 0.80))
    run(capsys, folder, "--out", tmp_path / "out", "--data", "things", "--precision", "bfloat16")
    assert artefact.load(tmp_path / "out").precision == "bfloat16"
    assert "bfloat16 as was asked for" in (tmp_path / "out" / "README.md").read_text()


def test_auto_without_data_is_refused(folder, tmp_path, capsys):
    status, _, error = run(capsys, folder, "--out", tmp_path / "out", "--precision", "auto")
    assert status == 2
    assert "add --data" in error


def test_options_of_a_measurement_without_data_are_refused(folder, tmp_path, capsys):
    given = {"split": "val", "products": 5, "items": 1, "frames": 4, "seed": 0, "workers": 1, "cache": tmp_path / "c"}
    for name, value in given.items():
        status, _, error = run(capsys, folder, "--out", tmp_path / "out", f"--{name}", value)
        assert status == 2
        assert error == f"cope.export: --{name}: nothing is measured; add --data DATA, or leave that out\n"
    assert not (tmp_path / "out").exists()


def test_options_that_are_given_change_the_part_that_is_measured(folder, tmp_path, monkeypatch, capsys):
    asked = []

    def made(model, out, precision, data, options, cache, report):
        asked.append(options)
        raise UserError("enough")

    monkeypatch.setattr(export, "export", made)
    for more in ([], ["--products", "5", "--split", "test", "--workers", "0"]):
        assert run(capsys, folder, "--out", tmp_path / "out", "--data", "d", *more)[0] == 2
    usual = export.MEASURED_ON
    sampling = replace(usual.sampling, products=5)
    assert asked == [usual, replace(usual, split="test", workers=0, sampling=sampling)]


def test_a_second_export_renews_the_first(folder, tmp_path, capsys):
    out = tmp_path / "out"
    run(capsys, folder, "--out", out, "--precision", "bfloat16")
    (out / "notes.txt").write_text("kept")
    status, _, _ = run(capsys, folder, "--out", out, "--precision", "float32")
    assert status == 0
    assert artefact.load(out).precision == "float32"
    assert (out / "README.md").read_text().count(PRECISION) == 1
    assert (out / "notes.txt").read_text() == "kept"


def test_the_folder_may_be_the_present_one(folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    assert run(capsys, folder, "--out", ".")[0] == 0
    assert artefact.load(tmp_path / "out").version == artefact.load(folder).version


def test_another_model_is_not_written_over(tiny, folder, tmp_path, capsys):
    other = tmp_path / "other"
    state = {name: value + 1 if name == "no_text" else value for name, value in tiny.model.state_dict().items()}
    artefact.save(other, "tiny", tiny.config, state, UNCALIBRATED)
    before = artefact.load(other).version
    status, _, error = run(capsys, folder, "--out", other)
    assert status == 2
    assert f"{other} holds another model, {before}; name another --out" in error
    assert artefact.load(other).version == before


def test_a_folder_of_other_things_is_not_written_into(folder, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("")
    status, _, error = run(capsys, folder, "--out", tmp_path / "photos")
    assert status == 2
    assert "is not empty and holds no model" in error
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["one.jpg"]


@pytest.mark.parametrize("again", [False, True])
def test_an_unfinished_training_is_named(folder, tmp_path, capsys, again):
    run_folder = tmp_path / "run"
    if again:
        shutil.copytree(folder, run_folder)  # of a training before this one
    (run_folder / "checkpoints").mkdir(parents=True)
    (run_folder / "training.json").write_text('{"started": ["now"]}')
    status, _, error = run(capsys, run_folder, "--out", tmp_path / "out")
    assert status == 2
    assert f"the training in {run_folder} has not ended" in error
    assert not (tmp_path / "out").exists()


def test_an_unknown_format_is_named(folder, tmp_path, capsys):
    content = json.loads((folder / "config.json").read_text()) | {"format_version": 9}
    (folder / "config.json").write_text(json.dumps(content))
    for arguments in ((folder, "--out", tmp_path / "out"), ("verify", folder)):
        status, _, error = run(capsys, *arguments)
        assert status == 2
        assert "format version 9, this release reads 4" in error
        assert error.count("\n") == 1


def test_a_damaged_file_is_named(folder, tmp_path, capsys):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    for arguments in ((folder, "--out", tmp_path / "out"), ("verify", folder)):
        status, _, error = run(capsys, *arguments)
        assert status == 2
        assert "is damaged" in error


def test_a_full_disk_leaves_nothing_behind(folder, tmp_path, capsys, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    status, _, error = run(capsys, folder, "--out", tmp_path / "out" / "model")
    assert status == 2
    assert "(No space left on device); free space or name another --out" in error
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_outside_the_model_is_not_copied(folder, tmp_path, capsys):
    content = json.loads((folder / "config.json").read_text()) | {"files": ["../secret"]}
    (tmp_path / "secret").write_text("")
    content["sha256"] = content_hash(folder, content)
    (folder / "config.json").write_text(json.dumps(content))
    status, _, error = run(capsys, folder, "--out", tmp_path / "a" / "b")
    assert status == 2
    assert "names a file outside the model (../secret)" in error
    assert not (tmp_path / "a" / "secret").exists()


def test_verify_says_a_line_for_each_check(folder, capsys):
    status, said, error = run(capsys, "verify", folder)
    assert (status, error) == (0, "")
    lines = [line.split()[1] for line in said.splitlines()]
    assert lines == ["format", "content", "towers", "weights", "scores", "loads", "picture", "text"]
    assert artefact.load(folder).digest in said


def test_verify_notices_towers_that_see_nothing(folder, capsys, monkeypatch):
    monkeypatch.setattr(Encoder, "_project", lambda self, crops, domain, frames=1: np.zeros((len(crops), 12)))
    status, said, error = run(capsys, "verify", folder)
    assert status == 2
    assert "no vectors of length 1 of a picture" in error
    assert said.splitlines()[-1].startswith("ok  loads")


def test_verify_names_what_is_no_model(tmp_path, capsys):
    status, _, error = run(capsys, "verify", tmp_path)
    assert status == 2
    assert error.startswith("cope.export verify: no model at")


def test_towers_tuned_in_full_travel_with_the_export(hub, tmp_path, capsys, pictures):
    names = {kind: str(hub["siglip"]) for kind in artefact.KINDS}
    config = ModelConfig(**names, dim=12, crop_pixels=SIDE, text_tokens=16, tuning="full", regions=0)
    see, read = stirred(vision_tower(names["vision"], "full")), stirred(text_tower(names["text"], "full"))
    torch.manual_seed(0)
    model = CopeModel(config, (), see.descriptor_width, read.width)
    artefact.save(tmp_path / "run", "tuned", config, model.state_dict(), UNCALIBRATED, towers=(see, read))
    before = Encoder(tmp_path / "run", device="cpu").encode_frames(pictures)
    assert run(capsys, tmp_path / "run", "--out", tmp_path / "out")[0] == 0
    shutil.rmtree(tmp_path / "run")
    after = Encoder(tmp_path / "out", device="cpu").encode_frames(pictures)
    assert all(np.array_equal(a.regions, b.regions) for a, b in zip(before, after, strict=True))


def test_frozen_towers_that_workers_need_are_named(hub, tmp_path, capsys):
    names = {"vision": str(hub["vit"]), "text": str(hub["bert"])}
    config = ModelConfig(**names, dim=12, crop_pixels=SIDE, regions=0)
    see, read = vision_tower(names["vision"]), text_tower(names["text"])
    model = CopeModel(config, (), see.descriptor_width, read.width)
    artefact.save(tmp_path / "run", "frozen", config, model.state_dict(), UNCALIBRATED)
    _, _, remarks = run(capsys, tmp_path / "run", "--out", tmp_path / "out")
    assert f"workers need the vision tower {hub['vit']} too" in remarks


def write_report(path, model):
    figures = {"r1": 0.7, "r5": 0.9, "map": 0.6}
    kinds = ("fused", "vision", "frozen_fused", "frozen_vision")
    report = {
        "model": model,
        "data": "things",
        "about": {"products": 40},
        "retrieval": {kind: {"L→P": figures, "mean": figures} for kind in kinds},
        "calibration": {"ece": 0.01},
    }
    path.write_text(json.dumps(report))
    return path


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_scores_of_a_report_go_into_the_card(folder, tmp_path, capsys, precision):
    version = artefact.load(folder).version
    report = write_report(tmp_path / "report.json", version)
    run(capsys, folder, "--out", tmp_path / "out", "--report", report, "--precision", precision)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"Of {version} on 40 products of things" in card
    assert "| pictures and words | 0.700 | 0.700 | 0.900 | 0.600 |" in card


def test_a_report_of_another_model_is_refused(folder, tmp_path, capsys):
    version = artefact.load(folder).version
    report = write_report(tmp_path / "report.json", "tiny@12345678")
    status, _, error = run(capsys, folder, "--out", tmp_path / "out", "--report", report)
    assert status == 2
    assert f"{report} is of tiny@12345678, and the model is {version}; evaluate it, or leave --report out" in error
    assert not (tmp_path / "out").exists()
    write_report(report, version)
    artefact.update(folder, calibration=replace(UNCALIBRATED, bias=-3.0))
    assert run(capsys, folder, "--out", tmp_path / "out", "--report", report)[0] == 2


def test_what_is_no_report_is_refused(folder, tmp_path, capsys):
    status, _, error = run(capsys, folder, "--out", tmp_path / "out", "--report", folder / "config.json")
    assert status == 2
    assert "is no report.json of cope.evaluate" in error


def test_a_section_takes_the_place_of_its_older_self():
    card = "# m\n\n## Precision\n\nold\n\n## Limits\n\nsome\n"
    assert with_section(card, "## Precision\n\nnew") == "# m\n\n## Limits\n\nsome\n\n## Precision\n\nnew\n"


@pytest.mark.parametrize("live_text", ["keywords", "none"])
def test_a_text_is_timed_by_a_title_which_every_model_that_reads_is_given(tiny, tmp_path, monkeypatch, live_text):
    folder, read = tmp_path / "m", []
    artefact.save(folder, "m", tiny.config, tiny.model.state_dict(), UNCALIBRATED, live_text=live_text)
    encoder = Encoder(folder, device="cpu")
    monkeypatch.setattr(encoder.text, "encode", lambda text, most: read.append(text) or torch.ones(16))
    precision.timings([encoder], 2)
    assert read == [f"soft red handbag {call}" for call in range(2 + precision.WARM_UP)]


def test_calls_are_clocked_in_turn_and_warm(monkeypatch):
    now, order = [0.0], []

    def call(name, ms):
        def spend(number):
            order.append((name, number))
            now[0] += (1000 if number < precision.WARM_UP else ms) / 1000

        return spend

    monkeypatch.setattr(precision.time, "thread_time", lambda: now[0])
    assert precision.clocked([call("a", 2), call("b", 3)], 5) == pytest.approx([2, 3])
    assert order[:4] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert len(order) == 2 * (5 + precision.WARM_UP)
