"""Trains COPE and writes an artefact:

    python -m cope.train --preset cope-mini --data DATA --out OUT
    python -m cope.train --preset cope-paper --data ROPE --out OUT --config mine.toml --set model.dim=256
    torchrun --nproc-per-node=4 -m cope.train --preset cope-base --data DATA --out OUT

DATA is a folder (or an fsspec URL of one) of objects, ROPE's nine files, LPR4M's rows or a manifest. The same command
goes on where it was stopped or killed, with the same losses. What lies in OUT:

    config.json model.safetensors calibration.json README.md    the artefact, at the end
    training.json         configuration, seed, versions, hashes of the data, figures
    metrics.jsonl         a line per step and per evaluation; the same in tensorboard/
    checkpoints/          last and best of each stage
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from cope.config import PRESETS, TrainConfig, described, from_dict, from_toml, preset
from cope.data.items import Counts, Source
from cope.data.opening import open_source
from cope.data.rendered import RenderedSource
from cope.errors import UserError
from cope.runtime.command import Command, run
from cope.runtime.device import processes
from cope.runtime.distributed import each_rank, rank, world
from cope.runtime.files import full_disk, write_text_whole
from cope.runtime.interruptions import Stopped
from cope.serving import artefact
from cope.serving.card import model_card
from cope.serving.identity import WEIGHTS
from cope.towers.packaged import TextTower, VisionTower
from cope.training import frozen
from cope.training.pixels import PixelObjective, pixel_stage
from cope.training.run_record import Record, unfinished
from cope.training.trainer import Trainer
from cope.training.validation import figures_on


def train(
    config: TrainConfig,
    name: str,
    data: str | Sequence[str],
    out: Path,
    device: torch.device,
    cache: Path | None = None,
) -> dict[str, float]:
    """Trains a model, writes its artefact and returns its figures.

    Args:
        config: Configuration of the training run.
        name: Name of the model.
        data: Folders or URLs, each with `@WEIGHT` behind it where it does not count 1.
        out: Folder of the artefact, and of the run's checkpoints and metrics.
        device: Device of this process.
        cache: Where features of frozen towers are kept, for runs that share them; None: in `out`.

    Raises:
        UserError: Anything that the user can mend.
        Stopped: By Ctrl-C or SIGTERM, after a checkpoint.
    """
    if config.modalities == "text" and config.live_text == "none":
        raise UserError(
            "modalities=text leaves clips nothing but words, and live_text=none takes those; set live_text=keywords or "
            "raw, or modalities=both"
        )
    torch.manual_seed(config.seed)
    if config.init_from:
        config = replace(config, model=artefact.load(config.init_from).config, finder_steps=0)
    mix = [_weighted(one) for one in ([data] if isinstance(data, str) else data)]
    sources = [open_source(path) for path, _ in mix]
    opened = [Counts(source.counts.as_dict()) for source in sources]
    content = _fingerprint(sources, [weight for _, weight in mix])
    names = " and ".join(source.name for source in sources)
    record = Record(out, name, config, device, world())
    done = record.figures_of(config, content)
    if done is None:
        _may_write(out)
    trainer = Trainer(config, out, device, content)  # refuses the checkpoints of another run
    products = sum(len(source) for source in sources)
    about = {"path": " ".join(path for path, _ in mix), "name": names, "products": products, "sha256": content}
    if done is not None and (out / "config.json").is_file() and (out / WEIGHTS).is_file():
        # The artefact may have been calibrated since; that is not to be lost.
        trainer.log.say(f"{out} is trained already; remove {trainer.checkpoints.folder.parent} to train it anew")
        return done
    if rank() == 0:
        record.add(data=about)

    towers: tuple[VisionTower, TextTower] | None = None
    if config.model.tuning == "frozen" and config.model.keywords == "mean":
        if world() > 1:
            raise UserError("frozen towers train in one process, in minutes; leave torchrun out")
        _check_frozen(config)
        weighted = [
            frozen.Weighted(source, None if isinstance(source, RenderedSource) else _unseen(path, trainer), weight)
            for source, (path, weight) in zip(sources, mix, strict=True)
        ]
        # Frozen towers see each picture once; what they see is kept in OUT/cache.
        model, figures = frozen.train_frozen(trainer, config, weighted, cache or out / "cache")
    else:
        if len(sources) > 1:
            raise UserError("data are mixed for frozen towers only; give one --data")
        source = sources[0]
        check(config)
        module = PixelObjective(config, len(source))
        unseen = _unseen(mix[0][0], trainer)
        evaluate = None if unseen is None else figures_on(unseen, config, trainer.log.say)
        try:
            figures = trainer.run(pixel_stage(module, source, config, evaluate))
        except (Stopped, UserError):
            trainer.log.say(f"data so far: {source.counts}")
            raise
        model, towers = module.model, module.towers
    trainer.log.close()

    skipped = _skipped(sources, opened)
    if rank() == 0:
        # The model may be there and calibrated, and only its record lost.
        digest = artefact.save(
            out,
            name,
            config.model,
            _on_cpu(model),
            calibration=None,
            towers=towers,
            live_text=config.live_text,
            modalities=config.modalities,
        )
        card = model_card(name, config, names, products, figures)
        with full_disk(out):
            write_text_whole(out / "README.md", card)
        record.add(figures=figures, sha256=digest, skipped=skipped.as_dict())
        trainer.log.say(f"data: {skipped}")
    return figures


def _may_write(out: Path) -> None:
    """Refuses a folder with files that a run would write over at its end, but that this one has not made.

    Raises:
        UserError: There are such files.
    """
    if unfinished(out) or any((out / "checkpoints").glob("*.pt")):  # which tell whose they are
        return
    there = next((name for name in ("config.json", WEIGHTS, "README.md") if (out / name).exists()), None)
    if there is not None:
        raise UserError(f"{out} holds a {there} that this run has not made; choose another --out, or remove it first")


def check(config: TrainConfig) -> None:
    """Refuses what only frozen towers on rendered products can do, and what would teach nothing."""
    if config.finder_steps:
        raise UserError(
            f"finder_steps={config.finder_steps}: a region finder learns from a folder of objects with frozen towers; "
            f"set finder_steps=0, and finder_from=cope-mini or model.regions=0"
        )
    if config.model.keywords != "joined" and config.live_text == "keywords":
        raise UserError("the loader of files reads a clip's keywords as one text; set model.keywords=joined")
    if config.masked_language and config.model.tuning == "frozen":
        raise UserError(
            f"masked_language={config.masked_language} teaches the text tower, and model.tuning=frozen leaves it as it "
            f"is; set masked_language=0, or model.tuning=lora or full"
        )


def _check_frozen(config: TrainConfig) -> None:
    """Refuses what frozen towers would leave unread."""
    default = TrainConfig()
    for name in ("masked_language", "balance", "reweight", "gradient_checkpointing"):
        value, unset = getattr(config, name), getattr(default, name)
        if value != unset:
            raise UserError(
                f"{name}={json.dumps(value)} does nothing for frozen towers; set {name}={json.dumps(unset)}, or take "
                f"towers of the hub and model.tuning=lora"
            )


def _weighted(data: str) -> tuple[str, float]:
    """`FOLDER@WEIGHT` as its two halves; the weight is 1 where none is given."""
    path, at, weight = data.rpartition("@")
    if not at or not re.fullmatch(r"\d+(\.\d+)?", weight):
        return data, 1.0
    if float(weight) <= 0:
        raise UserError(f"--data {data}: the weight behind @ must be more than 0")
    return path, float(weight)


def _fingerprint(sources: Sequence[Source], weights: Sequence[float]) -> str:
    if len(sources) == 1:
        return sources[0].fingerprint
    each = "".join(f"{source.fingerprint} {weight:g}\n" for source, weight in zip(sources, weights, strict=True))
    return hashlib.sha256(each.encode()).hexdigest()


def _skipped(sources: Sequence[Source], opened: Sequence[Counts]) -> Counts:
    """What was skipped in all processes: each has opened the same rows, and read pictures of its own."""
    whole = Counts()
    for source, before in zip(sources, opened, strict=True):
        whole.merge(before.as_dict())
        for one in each_rank({kind: times - before[kind] for kind, times in source.counts.as_dict().items()}):
            whole.merge(one)
    return whole


def _unseen(data: str, trainer: Trainer) -> Source | None:
    """Products to evaluate on during training, if the data have any that are not trained on."""
    try:
        return open_source(data, "val")
    except UserError as error:
        trainer.log.say(f"not evaluated during training: {error}")
        return None


def _on_cpu(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().cpu() for key, value in model.state_dict().items()}


def configuration(name: str, file: Path | None, settings: Sequence[str]) -> TrainConfig:
    """The configuration of a preset, changed by a TOML file and then by `FIELD=VALUE` settings.

    Raises:
        UserError: A name or a value is wrong.
    """
    config = preset(name)
    if file is not None:
        config = from_toml(file, config)
    for setting in settings:
        field, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting}: give FIELD=VALUE, such as steps=100 or model.dim=128")
        outer, _, inner = field.partition(".")
        before = getattr(config, outer, None)
        is_text = isinstance(getattr(before, inner, None) if inner else before, str)
        try:
            value = text if is_text and not text.startswith('"') else json.loads(text)
        except ValueError:
            value = text  # a word
        config = from_dict(TrainConfig, {outer: {inner: value} if inner else value}, f"--set {setting}", config)
    return config


def configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name a configuration; `configuration` takes their values."""
    for option in (
        click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="One field; may be repeated."),
        click.option(
            "--config",
            "file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="TOML file with fields that the preset has otherwise, those of the model in a table [model].",
        ),
        click.option(
            "--preset", type=click.Choice(list(PRESETS)), default="cope-mini", show_default=True, help="What to train."
        ),
    ):
        command = option(command)
    return command


FIELDS = {"Fields of --set and --config [range; default of cope-mini]": list(described())}


@click.command("train", cls=Command, help=__doc__, stopped="stopped; start the same command to go on", lists=FIELDS)
@configured
@click.option(
    "--data",
    required=True,
    multiple=True,
    metavar="FOLDER|URL",
    help="Training data. May be repeated, with @WEIGHT behind each, to mix several.",
)
@click.option("--name", default="", metavar="NAME", help="Of the model; that of the preset if not given.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The artefact's folder, and the run's.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
def train_command(
    preset: str, file: Path | None, settings: Sequence[str], data: Sequence[str], name: str, out: Path, device: str
) -> None:
    """Trains a model."""
    config = configuration(preset, file, settings)
    with processes(device) as own:
        figures = train(config, name or preset, data, out, own)
        chief = rank() == 0
    for key, value in figures.items() if chief else ():
        print(f"{key:40s} {value:.3f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return run(train_command, "cope.train", arguments)


if __name__ == "__main__":
    sys.exit(main())
