"""The artefact: the folder in which a trained model travels from `cope.train` to the workers.

    config.json         format version, name, model configuration, fingerprints of the towers, content hash
    model.safetensors   what was learned, float16
    calibration.json    see cope.scoring.Calibration
    README.md           the model card

The content hash covers configuration, weights and calibration. Its first digits are part of the version that
every vector and event carries, so vectors of two models are never mixed up.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cope.backbones import fingerprint
from cope.config import FORMAT_VERSION, ModelConfig, from_dict
from cope.errors import UserError
from cope.identity import VERSION_DIGITS, read_config
from cope.identity import locate as locate
from cope.scoring import Calibration


@dataclass(frozen=True)
class Artefact:
    """What an artefact folder holds.

    Attributes:
        name: Of the model, as in "cope-mini@3fa1c2d4".
        config: What the model is built of.
        weights: Of `cope.modeling.CopeModel`, float32.
        calibration: Of the scores.
        digest: SHA-256 over configuration, weights and calibration, hexadecimal.
    """

    name: str
    config: ModelConfig
    weights: dict[str, Tensor]
    calibration: Calibration
    digest: str

    @property
    def version(self) -> str:
        """Name and content hash."""
        return f"{self.name}@{self.digest[:VERSION_DIGITS]}"


def save(folder: Path, name: str, config: ModelConfig, weights: dict[str, Tensor], calibration: Calibration) -> str:
    """Writes an artefact (but for its model card) and returns its content hash."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {k: v.detach().cpu().to(torch.float16).contiguous() for k, v in weights.items()}
    save_file(half, str(folder / "model.safetensors"))
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes for its owner only; workers run as another user
    calibration.save(folder / "calibration.json")
    content: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "model": asdict(config),
        "towers": {"vision": fingerprint(config.vision), "text": fingerprint(config.text)},
    }
    content["sha256"] = _digest(folder, content)
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return str(content["sha256"])


def load(path_or_name: str | Path) -> Artefact:
    """Reads an artefact and checks it.

    Raises:
        UserError: It is missing, of another format version, damaged, or made on other towers.
    """
    folder = locate(path_or_name)
    content = read_config(folder)
    if "sha256" not in content or _digest(folder, content) != content["sha256"]:
        raise UserError(f"the model {folder} is damaged: its content does not match its hash; copy it again")
    config = from_dict(ModelConfig, content["model"], str(folder / "config.json"))
    for kind, name in (("vision", config.vision), ("text", config.text)):
        if fingerprint(name) != content["towers"][kind]:
            raise UserError(
                f"the model {folder} was made on other weights of the {kind} tower {name}; "
                f"install the versions named in constraints.txt"
            )
    try:
        weights = load_file(str(folder / "model.safetensors"))
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {folder / 'model.safetensors'}: {error}; copy the model again") from None
    return Artefact(
        name=str(content["name"]),
        config=config,
        weights={k: v.float() for k, v in weights.items()},
        calibration=Calibration.load(folder / "calibration.json"),
        digest=str(content["sha256"]),
    )


def _digest(folder: Path, content: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    described = {k: v for k, v in content.items() if k != "sha256"}
    digest.update(json.dumps(described, sort_keys=True).encode())
    for name in ("model.safetensors", "calibration.json"):
        path = folder / name
        if not path.is_file():
            raise UserError(f"the model {folder} has no {name}; copy the whole folder")
        digest.update(path.read_bytes())
    return digest.hexdigest()
