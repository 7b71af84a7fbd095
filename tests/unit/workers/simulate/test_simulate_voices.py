"""The Mandarin voice, with stand-ins for what it is made of: its packages are large, and optional."""

import importlib
import importlib.resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from topology.errors import UserError
from workers.cli.simulate.voices import voice_of

ROWS, WIDTH = 510, 256


class Session:
    """Answers with as many samples as it got tokens, and keeps what it was given."""

    def __init__(self, weights: bytes, providers: list[str]) -> None:
        self.weights = weights
        self.given: dict[str, Any] = {}

    def run(self, outputs: None, inputs: dict[str, Any]) -> list[Any]:
        self.given = inputs
        return [np.zeros((1, inputs["tokens"].shape[1]), np.float64)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = np.repeat(np.arange(ROWS, dtype=np.float32), WIDTH)  # each row holds its own number
    rows.tofile(tmp_path / "zf_xiaoxiao.bin")
    return tmp_path


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime, misaki, and four packages with a part of the weights each."""

    def files(package: str) -> Path:
        part = tmp_path / package
        part.mkdir(exist_ok=True)
        (part / "part.bin").write_bytes(package[-1].encode())
        return part

    modules = {
        "onnxruntime": SimpleNamespace(InferenceSession=Session),
        "misaki.zh": SimpleNamespace(ZHG2P=lambda: lambda text: (text, None)),
    }
    monkeypatch.setattr(importlib, "import_module", lambda name: modules[name])
    monkeypatch.setattr(importlib.resources, "files", files)


def test_sounds_become_tokens_between_two_pauses_in_the_style_of_their_number(folder: Path, packages: None) -> None:
    voice: Any = voice_of("zh", "default", folder)
    samples = voice.say("a☃b", seed=0)  # the snowman is no sound
    given = voice._session.given
    assert given["tokens"].tolist() == [[0, 43, 44, 0]]
    assert given["style"].tolist() == [[2.0] * WIDTH]
    assert samples.dtype == np.float32 and samples.shape == (4,)


def test_a_long_sentence_is_cut_to_what_the_voice_has_styles_for(folder: Path, packages: None) -> None:
    voice: Any = voice_of("zh", "zf_xiaoxiao", folder)
    voice.say("a" * 1_000, seed=0)
    assert voice._session.given["tokens"].shape == (1, ROWS + 1)


def test_the_weights_are_joined_from_their_four_packages(folder: Path, packages: None) -> None:
    voice: Any = voice_of("zh", "default", folder)
    assert voice._session.weights == b"1234"


def test_a_file_that_is_no_voice_is_named(folder: Path, packages: None) -> None:
    (folder / "zf_xiaoxiao.bin").write_bytes(b"\0" * 400)
    with pytest.raises(UserError, match=r"zf_xiaoxiao.bin: not a Kokoro voice; take the one of"):
        voice_of("zh", "default", folder)


@pytest.mark.parametrize(("language", "mend"), [("en", "pip install hibari-tts"), ("zh", r"cope-live\[voices\]")])
def test_a_voice_that_is_not_installed_names_its_package(
    folder: Path, monkeypatch: pytest.MonkeyPatch, language: str, mend: str
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match=mend):
        voice_of(language, "default", folder)
