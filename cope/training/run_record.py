"""`training.json`: all that is needed to repeat a run, and what came of it."""

import json
import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cope.config import TrainConfig, from_dict
from cope.errors import UserError
from cope.runtime.files import full_disk, write_text_whole
from cope.training.checkpoint import identity

RECORD = "training.json"
PACKAGES = ("cope-live", "torch", "numpy", "transformers", "safetensors", "opencv-python-headless", "pillow")


class Record:
    """The record of one run, begun when it starts and completed when it ends. A resumed run adds its start."""

    def __init__(self, out: Path, name: str, config: TrainConfig, device: torch.device, processes: int) -> None:
        """Gathers what is known before the data are.

        Args:
            out: The run's folder.
            name: Name of the preset.
            config: Configuration of the training run.
            device: Device of this process.
            processes: Number of processes that train together.
        """
        self._path = out / RECORD
        self._content: dict[str, Any] = {
            "name": name,
            "config": asdict(config),
            "seed": config.seed,
            "started": [*self._starts(), datetime.now(UTC).isoformat(timespec="seconds")],
            "command": ["python", "-m", "cope.train", *sys.argv[1:]],
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
            "processes": processes,
            "versions": _versions(),
            "git": git_commit(),
        }

    def add(self, **values: Any) -> None:
        """Adds fields and writes the file.

        Raises:
            UserError: The disk is full.
        """
        self._content |= values
        with full_disk(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text_whole(self._path, json.dumps(self._content, indent=2) + "\n")

    def figures_of(self, config: TrainConfig, data: str) -> dict[str, float] | None:
        """The figures of the same run, if it was completed here before; else None.

        Args:
            config: Of the run. What a run may go on with other values of does not count
                (`cope.training.checkpoint.identity`).
            data: Hash of the training data, wherever they lie.
        """
        found = read_record(self._path.parent)
        try:
            before = from_dict(TrainConfig, found["config"], str(self._path))
            of = identity(before, found["data"]["sha256"], found["processes"])
            same = "sha256" in found and of == identity(config, data, self._content["processes"])
            return dict(found["figures"]) if same else None
        except (KeyError, TypeError, ValueError, AttributeError, UserError):  # none of this release's
            return None

    def _starts(self) -> list[str]:
        found = read_record(self._path.parent)
        return [] if "sha256" in found else [str(one) for one in found.get("started", ())]


def read_record(folder: Path) -> dict[str, Any]:
    """What a run has written of itself; nothing if there is no record, or it cannot be read."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def unfinished(folder: Path) -> bool:
    """Whether a run was begun in a folder that has not ended."""
    found = read_record(folder)
    return "started" in found and "sha256" not in found


def git_commit() -> str | None:
    """The commit of this code, with `+` behind it if the files have changed since; None outside a repository."""
    here = Path(__file__).parents[1]  # the whole package `cope`

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
