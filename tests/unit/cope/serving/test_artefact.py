import errno
import json
from dataclasses import replace

import pytest
import torch

from cope import export
from cope.errors import UserError
from cope.model.scoring import UNCALIBRATED
from cope.serving import artefact
from cope.serving.identity import content_hash, load_identity

CALIBRATED = replace(UNCALIBRATED, bias=-3.0)


def change(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_is_saved_is_loaded(tiny, folder):
    loaded = artefact.load(folder)
    assert loaded.config == tiny.config
    assert loaded.calibration == UNCALIBRATED
    assert set(loaded.weights) == set(tiny.model.state_dict())
    for name, weight in tiny.model.state_dict().items():
        assert torch.allclose(loaded.weights[name], weight, atol=1e-3)
    assert loaded.version == f"tiny@{loaded.digest[:8]}" == load_identity(folder).version


def test_the_version_is_that_of_the_content(tiny, folder, tmp_path):
    again = artefact.save(tmp_path / "again", "tiny", tiny.config, tiny.model.state_dict(), UNCALIBRATED)
    assert again == artefact.load(folder).digest
    with torch.no_grad():
        tiny.model.no_text.add_(1.0)
    assert artefact.save(tmp_path / "other", "tiny", tiny.config, tiny.model.state_dict(), UNCALIBRATED) != again


def test_another_format_version_is_refused(folder):
    change(folder, format_version=2)
    with pytest.raises(UserError, match="has format version 2, this release reads 4"):
        artefact.load(folder)


def test_another_format_version_is_named_whatever_else_it_has(folder):
    content = json.loads((folder / "config.json").read_text())
    for lost in ({"model"}, {"name", "sha256"}):
        other = {k: v for k, v in content.items() if k not in lost} | {"format_version": 2, "files": {}}
        (folder / "config.json").write_text(json.dumps(other))
        for read in (artefact.load, load_identity):
            with pytest.raises(UserError, match="has format version 2, this release reads 4"):
                read(folder)


def test_a_field_that_is_missing_is_named(folder):
    content = json.loads((folder / "config.json").read_text())
    del content["model"]
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"is no artefact's configuration \('model'\); export the model again"):
        artefact.load(folder)


def test_damage_is_noticed(folder):
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(UserError, match="damaged"):
        artefact.load(folder)


def test_a_missing_file_is_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        artefact.load(folder)


def test_other_tower_weights_are_refused(folder, monkeypatch):
    monkeypatch.setattr(artefact, "fingerprint", lambda name: "something else")
    with pytest.raises(UserError, match="made on other weights of the vision tower"):
        artefact.load(folder)


@pytest.mark.parametrize("content", ["", "{}", "[1]", "nonsense"])
def test_a_broken_configuration_is_named(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json is no artefact's configuration"):
        artefact.load(folder)


def test_no_such_model():
    with pytest.raises(UserError, match="no model at 'nowhere'"):
        artefact.load("nowhere")


def test_the_shipped_model_is_whole_and_small():
    folder = artefact.locate("cope-mini")
    loaded = artefact.load(folder)
    assert loaded.name == "cope-mini"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 30e6


@pytest.mark.parametrize("file", ["calibration.json.next", "config.json"])
def test_an_update_that_cannot_be_written_leaves_the_artefact_as_it_was(folder, monkeypatch, file):
    before = artefact.load(folder)

    def full(path, write):
        if path.name == file:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, write)

    whole = artefact.write_text_whole
    monkeypatch.setattr(artefact, "write_text_whole", full)
    with pytest.raises(UserError, match=r"cannot write the model to .*No space left"):
        artefact.update(folder, calibration=CALIBRATED)
    after = artefact.load(folder)
    assert (after.version, after.calibration) == (before.version, UNCALIBRATED)
    monkeypatch.undo()
    artefact.update(folder, calibration=CALIBRATED)
    assert artefact.load(folder).calibration == CALIBRATED


def test_an_update_that_is_killed_between_its_files_is_done_and_can_be_done_again(folder, tmp_path, monkeypatch):
    def killed(path, write):
        whole(path, write)
        if path.name == "config.json":
            raise KeyboardInterrupt

    whole = artefact.write_text_whole
    monkeypatch.setattr(artefact, "write_text_whole", killed)
    for bias in (-3.0, -4.0):  # the second meets what the first has left
        calibration = replace(UNCALIBRATED, bias=bias)
        with pytest.raises(KeyboardInterrupt):
            artefact.update(folder, calibration=calibration)
        assert artefact.load(folder).calibration == load_identity(folder).calibration == calibration
    monkeypatch.undo()
    export.export(folder, tmp_path / "out")
    assert artefact.load(tmp_path / "out").version == artefact.load(folder).version
    artefact.update(folder, precision="bfloat16")
    assert artefact.load(folder).calibration == load_identity(folder).calibration == calibration
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "calibration.json"}


def test_a_first_artefact_that_is_killed_before_its_last_name_can_be_loaded(folder):
    (folder / "calibration.json").rename(folder / "calibration.json.next")
    assert artefact.load(folder).calibration == UNCALIBRATED


def test_the_calibration_of_the_same_weights_may_be_kept(tiny, folder):
    artefact.update(folder, calibration=CALIBRATED)
    artefact.save(folder, "tiny", tiny.config, tiny.model.state_dict(), None)
    assert artefact.load(folder).calibration == CALIBRATED
    artefact.save(folder, "tiny", tiny.config, tiny.model.state_dict(), None, live_text="none")  # it hears otherwise
    assert artefact.load(folder).calibration == UNCALIBRATED
    artefact.update(folder, calibration=CALIBRATED)
    with torch.no_grad():
        tiny.model.no_text.add_(1.0)
    artefact.save(folder, "tiny", tiny.config, tiny.model.state_dict(), None, live_text="none")
    assert artefact.load(folder).calibration == UNCALIBRATED


def test_what_a_model_was_trained_to_hear_and_see_travels_with_it(tiny, folder):
    artefact.save(folder, "tiny", tiny.config, tiny.model.state_dict(), None, live_text="none", modalities="text")
    artefact.update(folder, precision="bfloat16")
    loaded = artefact.load(folder)
    assert (loaded.live_text, loaded.modalities) == ("none", "text")


@pytest.mark.parametrize("field", ["live_text", "modalities", "precision"])
def test_an_artefact_says_what_it_hears_and_sees_and_how_it_computes(folder, field):
    content = json.loads((folder / "config.json").read_text())
    del content[field]
    content["sha256"] = content_hash(folder, content)
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"no artefact's configuration .'{field}'.; export the model again"):
        artefact.load(folder)


@pytest.mark.parametrize("files", [3, [3]])
def test_files_that_are_no_names_are_refused(folder, files):
    content = json.loads((folder / "config.json").read_text()) | {"files": files}
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="files must be a list of names; export the model again"):
        artefact.load(folder)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("towers", ["vision"], "towers must be an object"),
        ("model", [], "model must be an object"),
        ("towers", {"sound": "f00"}, "the model has no sound tower"),
    ],
)
def test_a_field_of_another_kind_is_refused(folder, field, value, told):
    content = json.loads((folder / "config.json").read_text()) | {field: value}
    content["sha256"] = content_hash(folder, content)
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"config\.json: {told}; export the model again"):
        artefact.load(folder)


def test_a_file_that_cannot_be_read_is_named(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read \(Is a directory\)"):
        artefact.load(folder)


def test_what_no_model_hears_is_refused(folder):
    content = json.loads((folder / "config.json").read_text()) | {"live_text": "songs"}
    content["sha256"] = content_hash(folder, content)
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="live_text must be one of keywords, raw, none"):
        artefact.load(folder)
