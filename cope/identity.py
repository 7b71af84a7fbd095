"""What is known of a model without loading it: where it lies, its version, its calibration.

Kept free of PyTorch: recognition compares vectors that others have made, and needs no towers.
"""

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from cope.config import FORMAT_VERSION
from cope.errors import UserError
from cope.scoring import Calibration

VERSION_DIGITS = 8  # of the hash in the version: 4 billion models before two are mixed up by chance


@dataclass(frozen=True)
class ModelIdentity:
    """A model as others see it.

    Attributes:
        version: Name and content hash, as in "cope-mini@3fa1c2d4"; the same as `Encoder.version`.
        calibration: Of its scores.
    """

    version: str
    calibration: Calibration


def packaged(name: str) -> Path:
    """The folder of an artefact that ships in this package, whether it is there or not."""
    return Path(str(files("cope"))) / "artefacts" / name


def locate(path_or_name: str | Path) -> Path:
    """The folder of an artefact: a path, or the name of one that ships.

    Raises:
        UserError: Neither.
    """
    for folder in (Path(path_or_name), packaged(str(path_or_name))):
        if (folder / "config.json").is_file():
            return folder
    raise UserError(f"no model at {str(path_or_name)!r}: name a folder with a config.json, or cope-mini")


def load_identity(path_or_name: str | Path) -> ModelIdentity:
    """Reads an artefact's version and calibration, and leaves its weights alone (and unchecked).

    Raises:
        UserError: There is no such artefact, it is of another format version, or its files cannot be read.
    """
    folder = locate(path_or_name)
    content = read_config(folder, "name", "sha256")
    version = f"{content['name']}@{str(content['sha256'])[:VERSION_DIGITS]}"
    return ModelIdentity(version, Calibration.load(folder / "calibration.json"))


def read_config(folder: Path, *required: str) -> dict[str, Any]:
    """Reads an artefact's `config.json`.

    Args:
        folder: The artefact's.
        required: Fields that must be in it besides the format version.

    Raises:
        UserError: It is missing or broken, lacks a field, or is of another format version.
    """
    try:
        content: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = content["format_version"]
        missing = next((name for name in required if name not in content), None)
        if missing is not None:
            raise KeyError(missing)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / 'config.json'} is no artefact's configuration ({error}); export the model again"
        ) from None
    if found != FORMAT_VERSION:
        raise UserError(
            f"the model {folder} has format version {found}, this release reads {FORMAT_VERSION}; "
            f"export it with this release, or use the release that made it"
        )
    return content
