"""The artefact: the folder in which a trained model travels from `cope.train` to the workers.

    config.json         format version, name, model configuration, precision, what it hears and sees, fingerprints of
                        the towers, content hash
    model.safetensors   what was learned, float16: the model's own weights, and what of the towers was tuned
                        (`towers.vision.…`, `towers.text.…`); frozen towers are not in it
    vision/ text/       for hub towers tuned in full: their configuration, tokenizer and processor, so that
                        nothing is fetched
    calibration.json    see cope.model.scoring.Calibration
    README.md           the model card

The content hash covers all but the model card. Its first digits are part of the version that every vector and event
carries, so vectors of two models are never mixed up.

A file is written beside its place and renamed over the old one. Two cannot change at one moment, so a new calibration
is first written as `calibration.json.next`, then `config.json` with its hash, then it gets its name. Whatever ends the
process, the hash is that of the calibration before or of the one after, and both are there.
"""

import filecmp
import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cope.config import FORMAT_VERSION, LiveText, Modalities, ModelConfig, from_dict
from cope.errors import UserError
from cope.model.modeling import CopeModel
from cope.model.scoring import UNCALIBRATED, Calibration
from cope.runtime.files import write_text_whole
from cope.serving.identity import (
    CALIBRATION,
    NEXT_CALIBRATION,
    VERSION_DIGITS,
    WEIGHTS,
    content_hash,
    read_config,
    sealed_calibration,
)
from cope.serving.identity import locate as locate
from cope.towers.hub import HubTower
from cope.towers.packaged import TextTower, VisionTower, fingerprint

Precision = Literal["float32", "bfloat16", "int8"]
Kind = Literal["vision", "text"]
KINDS: tuple[Kind, ...] = ("vision", "text")


@dataclass(frozen=True)
class Artefact:
    """What an artefact folder holds.

    Attributes:
        name: Name of the model, the first part of "cope-mini@3fa1c2d4".
        config: What the model is built of.
        weights: All that is in `model.safetensors`, float32.
        calibration: Calibration of the scores.
        digest: SHA-256 of the content, hexadecimal.
        folder: Where it lies.
        precision: In which the towers compute on a CPU.
        live_text: What of speech it was trained to hear, see `cope.config.TrainConfig`.
        modalities: What it was trained on, likewise.
    """

    name: str
    config: ModelConfig
    weights: dict[str, Tensor]
    calibration: Calibration
    digest: str
    folder: Path
    precision: Precision = "float32"
    live_text: LiveText = "keywords"
    modalities: Modalities = "both"

    @property
    def version(self) -> str:
        """Name and content hash."""
        return f"{self.name}@{self.digest[:VERSION_DIGITS]}"

    def tower(self, kind: Kind) -> dict[str, Tensor]:
        """What of a tower was tuned, as its `load_tuned` takes it; nothing for a frozen one."""
        prefix = f"towers.{kind}."
        return {k.removeprefix(prefix): v for k, v in self.weights.items() if k.startswith(prefix)}

    def tower_name(self, kind: Kind) -> str:
        """What to open a tower by: its name, or the folder of the one that travels in the artefact."""
        return str(self.folder / kind) if _carried(self.config, kind) else _named(self.config)[kind]

    def carried(self, kind: Kind) -> bool:
        """Whether all of a tower travels in the artefact."""
        return _carried(self.config, kind)

    def model(self) -> CopeModel:
        """The model with its weights, frozen and in evaluation mode.

        Raises:
            UserError: The weights do not fit the configuration.
        """
        heads = {k: v for k, v in self.weights.items() if not k.startswith("towers.")}
        try:
            channels = [heads[f"finder.laterals.{i}.weight"].shape[1] for i in range(_laterals(heads))]
            widths = [heads[f"{part}.axes.weight"].shape[1] for part in ("visual", "text")]
            widths[0] += heads["visual.colours"].shape[0] if "visual.colours" in heads else 0
            model = CopeModel(self.config, channels, *widths)
            model.load_state_dict(heads)
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"the weights in {self.folder} do not fit its configuration ({reason}); export the model again"
            ) from None
        return model.eval().requires_grad_(False)


def save(
    folder: Path,
    name: str,
    config: ModelConfig,
    weights: dict[str, Tensor],
    calibration: Calibration | None,
    precision: Precision = "float32",
    towers: tuple[VisionTower, TextTower] | None = None,
    live_text: LiveText = "keywords",
    modalities: Modalities = "both",
) -> str:
    """Writes an artefact (but for its model card) and returns its content hash.

    Args:
        folder: Made if it is not there.
        name: Name of the model.
        config: What it is built of.
        weights: Weights of a `CopeModel`, or all of another artefact.
        calibration: Calibration of its scores; None keeps that of the folder if these weights lie there already.
        precision: In which the towers are to compute on a CPU.
        towers: Vision and text; what of them was tuned is saved with the weights. Not needed if nothing was, or if
            `weights` hold it and the folder is that of the other artefact.
        live_text: What of speech it was trained to hear, see `cope.config.TrainConfig`.
        modalities: What it was trained on, likewise.

    Raises:
        UserError: The folder cannot be written.
    """
    weights = dict(weights)
    before = _there(folder) if calibration is None else None
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for kind, tower in zip(KINDS, towers or (), strict=False):
            if config.tuning != "frozen":
                weights |= {f"towers.{kind}.{k}": v for k, v in tower.tuned_state().items()}
            if _carried(config, kind) and isinstance(tower, HubTower):
                shutil.rmtree(folder / kind, ignore_errors=True)  # of another tower, perhaps
                tower.save_files(folder / kind)
        part = folder / f"{WEIGHTS}.part"
        save_file({k: _half(v) for k, v in weights.items()}, str(part))
        part.chmod(0o644)  # safetensors writes for its owner only; workers run as another user
        if before is not None:
            same = (before.config, before.live_text, before.modalities) == (config, live_text, modalities)
            if same and filecmp.cmp(folder / WEIGHTS, part, shallow=False):
                calibration = before.calibration
        part.rename(folder / WEIGHTS)
        named = _named(config)
        content: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "name": name,
            "model": asdict(config),
            "precision": precision,
            "live_text": live_text,
            "modalities": modalities,
            "towers": {kind: fingerprint(n) for kind, n in named.items() if not _carried(config, kind)},
            "files": _files(folder, config),
        }
        return _seal(folder, content, calibration or UNCALIBRATED)


def update(
    path_or_name: str | Path,
    calibration: Calibration | None = None,
    precision: Precision | None = None,
    reading: str | None = None,
) -> str:
    """Changes what an artefact says beside its weights, and returns its new content hash.

    Args:
        path_or_name: The artefact.
        calibration: New one.
        precision: New one.
        reading: Its reader of words from now on, as `ModelConfig.reading`; "" for none.

    Raises:
        UserError: There is no whole artefact, or it cannot be written.
    """
    loaded = load(path_or_name)
    content = read_config(loaded.folder)
    with _writing(loaded.folder):
        sealed_calibration(loaded.folder, content).replace(loaded.folder / CALIBRATION)  # ends a change cut short
        content["precision"] = precision or loaded.precision
        if reading is not None:
            content["model"] = {**content["model"], "reading": reading}
        return _seal(loaded.folder, content, calibration or loaded.calibration)


def load(path_or_name: str | Path) -> Artefact:
    """Reads an artefact and checks it.

    Raises:
        UserError: It is missing, of another format version, damaged, or made on other towers; or there are files in
            the folders of its towers that are not its own.
    """
    folder = locate(path_or_name)
    content = read_config(folder, "name", "model", "towers", "precision", "live_text", "modalities")
    calibration = sealed_calibration(folder, content)
    for field in ("model", "towers"):
        if not isinstance(content[field], dict):
            raise UserError(f"{folder / 'config.json'}: {field} must be an object; export the model again")
    config = from_dict(ModelConfig, content["model"], str(folder / "config.json"))
    _check_files(folder, config, content.get("files", ()))
    named = _named(config)
    for kind, made_on in content["towers"].items():
        if kind not in named:
            raise UserError(f"{folder / 'config.json'}: the model has no {kind} tower; export the model again")
        if fingerprint(named[kind]) != made_on:
            raise UserError(
                f"the model {folder} was made on other weights of the {kind} tower {named[kind]}, or with another "
                f"tokenizer or processor, or they are not there; install the versions named in constraints.txt, or put "
                f"the tower's folder back"
            )
    precision = _one_of(Precision, folder, content, "precision")
    live_text = _one_of(LiveText, folder, content, "live_text")
    modalities = _one_of(Modalities, folder, content, "modalities")
    try:
        weights = load_file(str(folder / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {folder / WEIGHTS}: {error}; copy the model again") from None
    return Artefact(
        name=str(content["name"]),
        config=config,
        weights={k: v.float() if v.is_floating_point() else v for k, v in weights.items()},
        calibration=Calibration.load(calibration),
        digest=str(content["sha256"]),
        folder=folder,
        precision=precision,
        live_text=live_text,
        modalities=modalities,
    )


def verify(path_or_name: str | Path) -> Artefact:
    """Reads an artefact and checks it as thoroughly as can be done without its towers.

    Raises:
        UserError: As `load`; or the weights do not fit the configuration, or are not all numbers.
    """
    loaded = load(path_or_name)
    loaded.model()
    broken = next((k for k, v in loaded.weights.items() if not torch.isfinite(v).all()), None)
    if broken is not None:
        raise UserError(f"the model {loaded.folder} has weights that are no numbers ({broken}); train it again")
    if loaded.config.tuning != "frozen":
        for kind in KINDS:
            if not loaded.tower(kind):
                raise UserError(f"the model {loaded.folder} lacks its tuned {kind} tower; export it again")
    return loaded


def _named(config: ModelConfig) -> dict[str, str]:
    """The towers by kind; the finder's where it is one of its own."""
    finder = {"finder": config.finder} if config.regions and config.finder != config.vision else {}
    return {"vision": config.vision, "text": config.text} | finder


def _carried(config: ModelConfig, kind: str) -> bool:
    return config.tuning == "full" and kind in KINDS and not _named(config)[kind].startswith("packaged:")


def _files(folder: Path, config: ModelConfig) -> list[str]:
    """What lies in the folders of the towers that travel along, by name in the artefact."""
    kinds = [kind for kind in KINDS if _carried(config, kind)]
    return sorted(str(p.relative_to(folder)) for kind in kinds for p in (folder / kind).rglob("*") if p.is_file())


def _check_files(folder: Path, config: ModelConfig, own: Collection[str]) -> None:
    """Refuses files that `transformers` may read and the content hash does not cover."""
    strange = next((name for name in _files(folder, config) if name not in own), None)
    if strange is not None:
        raise UserError(f"{folder / strange} is no part of the model; remove it, or copy the whole folder again")


def _laterals(heads: dict[str, Tensor]) -> int:
    return sum(k.startswith("finder.laterals.") and k.endswith(".weight") for k in heads)


def _half(weight: Tensor) -> Tensor:
    """Converts to float16 where that holds the values; other types stay."""
    weight = weight.detach().cpu().contiguous()
    half = weight.to(torch.float16) if weight.is_floating_point() else weight
    return half if bool((half.isfinite() == weight.isfinite()).all()) else weight.float()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"cannot write the model to {folder} ({reason}); free space or name another folder") from None


def _there(folder: Path) -> Artefact | None:
    """The whole artefact that lies in a folder, if any."""
    with suppress(UserError):
        if (folder / "config.json").is_file():
            return load(folder)
    return None


def _one_of(kind: Any, folder: Path, content: dict[str, Any], name: str) -> Any:
    value = content[name]
    if value not in get_args(kind):
        raise UserError(f"{folder / 'config.json'}: {name} must be one of {', '.join(get_args(kind))}")
    return value


def _seal(folder: Path, content: dict[str, Any], calibration: Calibration) -> str:
    """Writes calibration and configuration in the order that the module's docstring says; returns the content hash."""
    _write(folder / NEXT_CALIBRATION, asdict(calibration))
    content["sha256"] = content_hash(folder, content, NEXT_CALIBRATION)
    _write(folder / "config.json", content)
    (folder / NEXT_CALIBRATION).replace(folder / CALIBRATION)
    return str(content["sha256"])


def _write(path: Path, content: dict[str, Any]) -> None:
    write_text_whole(path, json.dumps(content, indent=2) + "\n")
