import json

import pytest
import torch

from cope import artefact
from cope.errors import UserError
from cope.identity import load_identity
from cope.scoring import UNCALIBRATED


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
    with pytest.raises(UserError, match="has format version 2, this release reads 1"):
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
