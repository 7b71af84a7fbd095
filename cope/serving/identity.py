"""What is known of a model without loading it: where it lies, its version, its calibration.

Kept free of PyTorch: recognition compares vectors that others have made, and needs no towers.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from cope.config import FORMAT_VERSION
from cope.errors import UserError
from cope.model.scoring import Calibration

WEIGHTS, CALIBRATION, NEXT_CALIBRATION = "model.safetensors", "calibration.json", "calibration.json.next"
VERSION_DIGITS = 8  # of the hash in the version: 4 billion models before two are mixed up by chance


@dataclass(frozen=True)
class ModelIdentity:
    """A model as others see it.

    Attributes:
        version: Name and content hash, as in "cope-mini@3fa1c2d4"; the same as `Encoder.version`.
        calibration: Calibration of the model's scores.
    """

    version: str
    calibration: Calibration


def packaged(name: str) -> Path:
    """The folder of an artefact that ships in this package, whether it is there or not."""
    return Path(str(resources.files("cope"))) / "artefacts" / name


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

    Args:
        path_or_name: The artefact's folder, or the name of one that ships.

    Raises:
        UserError: There is no such artefact, it is of another format version, or its files cannot be read.
    """
    folder = locate(path_or_name)
    content = read_config(folder, "name", "sha256")
    version = f"{content['name']}@{str(content['sha256'])[:VERSION_DIGITS]}"
    cut_short = (folder / NEXT_CALIBRATION).is_file()  # a change of the calibration: the hash says which one counts
    calibration = sealed_calibration(folder, content) if cut_short else folder / CALIBRATION
    return ModelIdentity(version, Calibration.load(calibration))


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
    except OSError as error:
        raise UserError(f"{folder / 'config.json'} cannot be read ({error.strerror}); mend that") from None
    except (ValueError, KeyError, TypeError) as error:
        raise _no_configuration(folder, error) from None
    if found != FORMAT_VERSION:  # of which nothing else is known
        raise UserError(
            f"the model {folder} has format version {found}, this release reads {FORMAT_VERSION}; "
            f"export it with this release, or use the release that made it"
        )
    missing = next((name for name in required if name not in content), None)
    if missing is not None:
        raise _no_configuration(folder, repr(missing))
    files = content.get("files", [])
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise UserError(f"{folder / 'config.json'}: files must be a list of names; export the model again")
    return content


def _no_configuration(folder: Path, reason: object) -> UserError:
    return UserError(f"{folder / 'config.json'} is no artefact's configuration ({reason}); export the model again")


def sealed_calibration(folder: Path, content: dict[str, Any]) -> Path:
    """The calibration that the content hash is of: the file of that name, or the next one if a change was cut short.

    Args:
        folder: The artefact's.
        content: Content of its `config.json`.

    Raises:
        UserError: A file is missing, or the hash is of neither.
    """
    there = [name for name in (CALIBRATION, NEXT_CALIBRATION) if (folder / name).is_file()]
    for name in there or [CALIBRATION]:
        if content_hash(folder, content, name) == content.get("sha256"):
            return folder / name
    raise UserError(f"the model {folder} is damaged: its content does not match its hash; copy it again")


def content_hash(folder: Path, content: dict[str, Any], calibration: str = CALIBRATION) -> str:
    """SHA-256 of all of an artefact but its model card, hexadecimal.

    Args:
        folder: The artefact's.
        content: Content of its `config.json`.
        calibration: Name of the calibration's file.

    Raises:
        UserError: A file is missing or cannot be read.
    """
    digest = hashlib.sha256()
    described = {k: v for k, v in content.items() if k != "sha256"}
    digest.update(json.dumps(described, sort_keys=True).encode())
    for name in (WEIGHTS, calibration, *content.get("files", ())):
        try:
            with (folder / name).open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except FileNotFoundError:
            raise UserError(f"the model {folder} has no {name}; copy the whole folder") from None
        except OSError as error:
            raise UserError(f"{folder / name} cannot be read ({error.strerror}); mend that, or copy it again") from None
    return digest.hexdigest()
