"""Trains and measures baselines and ablations, one at a time or all, into one report:

    python -m cope.ablations all --data DATA --out OUT [--preset cope-mini] [--seeds 3] [--set steps=300 ...]
    python -m cope.ablations no-fusion --data DATA --out OUT

Each is the full configuration with one thing changed. What was trained and measured is kept in OUT/NAME/seed-N and is
not done again while its configuration and data stay the same, so a run can be stopped and goes on; the report is that
of all that is there. `full` is always among it: everything is compared with it.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from cope.config import TrainConfig
from cope.data.opening import open_source
from cope.errors import UserError
from cope.evaluate import data_options, options_of
from cope.evaluation.describing import Describer
from cope.evaluation.evaluating import Options, as_heard, evaluate, read_items
from cope.evaluation.measures import DIRECTIONS, Figures, label, retrieval_figures, six
from cope.evaluation.ranking import Ranks
from cope.evaluation.sets import EvaluationSet
from cope.evaluation.space import Standard, embedded, frozen
from cope.evaluation.suite import Protocol
from cope.runtime import device
from cope.runtime.command import AT_LEAST_1, Command
from cope.runtime.command import run as run_command
from cope.runtime.files import full_disk, write_text_whole
from cope.serving.encoder import Encoder
from cope.train import FIELDS, check, configuration, configured, train

Train = Callable[[TrainConfig, str, Path], None]  # configuration, data, folder of the artefact


@dataclass(frozen=True)
class Data:
    """What models are trained and measured on.

    Attributes:
        url: Folder or URL.
        trained_on: Fingerprint of the data, all sides of the split together, as they were when the training side was
            opened. What is at a path may change: only this says that it has not.
        measured_on: Fingerprint of the data when the side that is measured was opened.
    """

    url: str
    trained_on: str
    measured_on: str

    @classmethod
    def at(cls, url: str, options: Options) -> "Data":
        """Opens both sides; raises what `open_source` does."""
        return cls(url, open_source(url).fingerprint, open_source(url, options.split).fingerprint)


def _model(**changes: object) -> Callable[[TrainConfig], TrainConfig]:
    return lambda config: replace(config, model=replace(config.model, **changes))  # type: ignore[arg-type]


def _run(**changes: object) -> Callable[[TrainConfig], TrainConfig]:
    return lambda config: replace(config, **changes)  # type: ignore[arg-type]


def _frozen(config: TrainConfig) -> TrainConfig:
    """The towers frozen, and what is for tuned ones alone unset: training would refuse it."""
    if config.model.tuning == "frozen":
        return config
    model = replace(config.model, tuning="frozen")
    return replace(config, model=model, masked_language=0.0, gradient_checkpointing=False)


@dataclass(frozen=True)
class Ablation:
    """One change of the full configuration.

    Attributes:
        says: What is changed, for the table.
        change: The configuration that is trained.
        standard: For the towers without any training, on that configuration's regions; None for what is trained.
    """

    says: str
    change: Callable[[TrainConfig], TrainConfig]
    standard: Standard | None = None


FULL = "full"
ABLATIONS: dict[str, Ablation] = {
    FULL: Ablation("full model", _run()),
    "frozen": Ablation("frozen towers, standardised", _run(), "all"),
    "frozen-raw": Ablation("frozen towers, as they come", _run(), "raw"),
    "frozen-by-domain": Ablation("frozen towers, standardised domain by domain", _run(), "domain"),
    "frozen-whole-frame": Ablation("frozen towers, standardised, whole frames", _model(regions=0), "all"),
    "vision-only": Ablation("vision only", _run(modalities="vision")),
    "text-only": Ablation("text only", _run(modalities="text")),
    "no-domain-projections": Ablation("one projection for all domains", _model(domain_projections=False)),
    "no-fusion": Ablation("no fusion of picture and words", _model(fusion="none")),
    "no-classification": Ablation("no classification loss", _run(classification=0.0)),
    "classification": Ablation("with the classification loss", _run(classification=1.0)),
    "whole-frame": Ablation("whole frame in place of regions", _model(regions=0)),
    "no-region-contrast": Ablation("single regions are not compared with pages", _run(region_contrast=0.0)),
    "raw-text": Ablation("raw ASR text in place of keywords", _run(live_text="raw")),
    "no-live-text": Ablation(
        "no words in clips, live or video (the paper has none in live ones)", _run(live_text="none")
    ),
    "integration-transformer": Ablation(
        "integration transformer over the frames (the paper's)", _model(temporal="transformer")
    ),
    "fusion-transformer": Ablation(
        "fusion encoder in place of a weighted sum (the paper's)", _model(fusion="transformer")
    ),
    "towers-frozen": Ablation("frozen towers, all else learned", _frozen),
    "towers-lora": Ablation("low-rank steps in the towers (LoRA)", _model(tuning="lora")),
    "towers-full": Ablation("towers learn in full", _model(tuning="full")),
}


def chosen(name: str, base: TrainConfig) -> list[str]:
    """The ablations of a name, `full` first; for "all" those that change anything and can be trained.

    Raises:
        UserError: There is no such ablation, or it cannot be trained.
    """
    if name != "all":
        if name not in ABLATIONS:
            raise UserError(f"no ablation {name!r}; choose all or one of {', '.join(ABLATIONS)}")
        if refusal := _refusal(ABLATIONS[name].change(base), base):
            raise UserError(f"no {name} of this configuration: {refusal}")
        return list(dict.fromkeys([FULL, name]))
    different: dict[tuple[TrainConfig, Standard | None], str] = {}
    for n, one in ABLATIONS.items():
        config = one.change(base)
        if not _refusal(config, base):
            different.setdefault((config, one.standard), n)
    return list(different.values())


def _refusal(config: TrainConfig, base: TrainConfig) -> str:
    """Why towers cannot be tuned as an ablation wants it; "" if they can, or are not to be."""
    model = config.model
    if model.tuning in ("frozen", base.model.tuning):
        return ""
    if model.tuning == "lora" and model.vision.startswith("packaged:"):
        return f"the tower {model.vision!r} has no attention layers; set model.vision to a model of the hub"
    try:
        check(config)
    except UserError as error:
        return str(error)
    return ""


def run(name: str, base: TrainConfig, data: Data, out: Path, options: Options, learn: Train) -> Figures:
    """Trains and measures one ablation with one seed, or finds what an earlier call kept.

    Args:
        name: Name of an ablation, as in `ABLATIONS`.
        base: The full configuration; its seed counts.
        data: What is trained and measured on.
        out: Folder of all ablations.
        options: Which items are looked at.
        learn: Writes the artefact of a configuration into a folder, or finds it there.
    """
    ablation = ABLATIONS[name]
    config = ablation.change(base)
    # The frozen towers are measured on the regions of a model that has a finder, or needs none.
    owners = (name,) if ablation.standard is None else (FULL, "whole-frame")
    owner = next(n for n in owners if ABLATIONS[n].change(base) == config)
    folder = out / name / f"seed-{base.seed}"
    what = _identity(name, config, data, options)
    kept = folder / "figures.json"
    before: Figures | None = _read(kept)
    if before and before["what"] == what:
        return before
    artefact, seconds = trained(owner, base, data, out, learn)
    encoder = Encoder(artefact, options.device)
    describer = Describer(encoder, tuned=ablation.standard is None)
    items, _ = read_items(describer, data.url, options.cache or out / "cache", options)
    asked = _queries(items)
    items = as_heard(items, config.live_text, config.modalities)
    if ablation.standard is None:
        space = embedded(encoder.model, items, encoder.device)
    else:
        space = frozen(items, ablation.standard)
    found = {kind: six(space.of(kind), encoder.device) for kind in ("fused", "vision")}
    figures: Figures = {
        "what": what,
        "name": name,
        "seed": base.seed,
        "train_s": seconds if ablation.standard is None else 0.0,
        # A model that is given nothing finds nothing: 0. One without pictures has no figure by pictures.
        "r1": {kind: _shares(one, asked) for kind, one in found.items() if one or kind == "fused"},
        "retrieval": {kind: retrieval_figures(one, items) for kind, one in found.items()},
    }
    _write(kept, figures)
    return figures


def _queries(items: EvaluationSet) -> dict[str, int]:
    """By direction, the items of the first domain whose product has any in the second."""
    products = {domain: items.products(domain) for domain in items.views}
    counts = {}
    for one, other in DIRECTIONS:
        known = products[one][products[one] >= 0]
        counts[label((one, other))] = int(torch.isin(known, products[other]).sum())
    return counts


def _shares(found: Mapping[str, Ranks], asked: Mapping[str, int]) -> Figures:
    """R@1 by direction and its mean. Items of which a model sees nothing (text alone, and no text) are not found."""
    hits = {way: int((found[way].first == 1).sum()) if way in found else 0 for way in asked}
    shares: Figures = {way: hits[way] / count for way, count in asked.items() if count}
    return shares | {"mean": sum(shares.values()) / max(1, len(shares))}


def trained(name: str, base: TrainConfig, data: Data, out: Path, learn: Train) -> tuple[Path, float | None]:
    """The folder of an ablation's artefact; trained, or trained to its end, if it is not there yet.

    Returns:
        The folder, and the seconds that its training took, over all calls that were not killed; None if unknown.
    """
    config = ABLATIONS[name].change(base)
    folder = out / name / f"seed-{base.seed}" / "model"
    note, clock = folder.parent / "configuration.json", folder.parent / "seconds.json"
    what = json.loads(json.dumps([asdict(config), data.trained_on]))
    if (before := _read(note)) and before != what:
        shutil.rmtree(folder, ignore_errors=True)  # of another configuration or data: training would refuse them
        clock.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    _write(note, what)
    before_s: float | None = _read(clock)
    if (folder / "config.json").is_file():  # only looked up
        learn(config, data.url, folder)
        return folder, before_s
    began = time.monotonic()
    try:
        learn(config, data.url, folder)
    finally:  # a training that was stopped goes on another time
        _write(clock, (before_s or 0.0) + time.monotonic() - began)
    return folder, _read(clock)


def _identity(name: str, config: TrainConfig, data: Data, options: Options) -> list[Any]:
    """All that the figures of an ablation depend on, as it comes back from JSON."""
    sides = [data.trained_on, data.measured_on, options.split]
    what: list[Any] = json.loads(json.dumps([name, asdict(config), sides, asdict(options.sampling)]))
    return what


def learn_with(options: Options, cache: Path) -> Train:
    """Trains as `cope.train` does.

    Args:
        options: Say on which device.
        cache: Where what frozen towers see of rendered products is kept. All ablations share it: it is most of the
            time of a training.
    """

    def learn(config: TrainConfig, data: str, folder: Path) -> None:
        train(config, folder.parent.parent.name, data, folder, device.choose(options.device), cache)

    return learn


def table(runs: Sequence[Figures]) -> list[Figures]:
    """One row for each ablation, over its seeds, with the difference to the full model of the same seed."""
    full = {one["seed"]: one for one in runs if one["name"] == FULL}
    rows = []
    for name, ablation in ABLATIONS.items():
        mine = [one for one in runs if one["name"] == name and one["seed"] in full]
        if not mine:
            continue
        means = [one["r1"]["fused"]["mean"] for one in mine]
        over = [one["r1"]["fused"]["mean"] - full[one["seed"]]["r1"]["fused"]["mean"] for one in mine]
        ways = [way for way in mine[0]["r1"]["fused"] if way != "mean"]
        seconds = [one["train_s"] for one in mine if one["train_s"] is not None]
        by_pictures = [one["r1"]["vision"]["mean"] for one in mine if "vision" in one["r1"]]
        rows.append(
            {
                "name": name,
                "says": ablation.says,
                "seeds": [one["seed"] for one in mine],
                "r1": float(np.mean(means)),
                "r1_spread": float(np.std(means, ddof=1)) if len(means) > 1 else None,
                "over_full": float(np.mean(over)),
                "over_full_spread": float(np.std(over, ddof=1)) if len(over) > 1 else None,
                "vision_r1": float(np.mean(by_pictures)) if by_pictures else None,
                "directions": {way: float(np.mean([one["r1"]["fused"][way] for one in mine])) for way in ways},
                "train_s": float(np.mean(seconds)) if seconds else None,
            }
        )
    return rows


def ablate(
    name: str, base: TrainConfig, seeds: int, data: str, out: Path, options: Options, learn: Train
) -> list[Figures]:
    """Runs one ablation or all with some seeds, and writes the report on all that is in the folder."""
    names = chosen(name, base)
    sides = Data.at(data, options)
    configs = [replace(base, seed=base.seed + number) for number in range(seeds)]
    for config in configs:
        for one in names:
            figures = run(one, config, sides, out, options, learn)
            line = f"{one}, seed {config.seed}: mean R@1 {figures['r1']['fused']['mean']:.3f}"
            print(line, file=sys.stderr, flush=True)
    rows = table(_all_there(out, configs, sides, options))
    artefact, _ = trained(FULL, base, sides, out, learn)
    evaluate(artefact, data, out, options, ablations=rows)
    return rows


def _all_there(out: Path, configs: Sequence[TrainConfig], data: Data, options: Options) -> list[Figures]:
    """What this call and earlier ones measured of the same data and configuration."""
    found: list[Figures] = []
    for name, ablation in ABLATIONS.items():
        for config in configs:
            figures = _read(out / name / f"seed-{config.seed}" / "figures.json")
            if figures and figures["what"] == _identity(name, ablation.change(config), data, options):
                found.append(figures)
    return found


def _read(file: Path) -> Any:
    """What `_write` has kept; None if there is nothing, or it is damaged and to be made again."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _write(file: Path, content: Any) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    with full_disk(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text_whole(file, text)


@click.command(
    "ablations",
    cls=Command,
    help=__doc__,
    stopped="stopped; start the same command to go on",
    lists={"Names": [("all", "each of them"), *((name, one.says) for name, one in ABLATIONS.items())], **FIELDS},
)
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the runs and the report.")
@configured
@click.option(
    "--seeds", type=AT_LEAST_1, default=1, show_default=True, help="Trainings of each, from the preset's seed on."
)
@data_options
def ablations_command(
    name: str,
    out: Path,
    preset: str,
    file: Path | None,
    settings: Sequence[str],
    seeds: int,
    data: str,
    **given: Any,
) -> None:
    """Runs ablations."""
    options = options_of(Protocol(seed=given["seed"]), **given)
    base = configuration(preset, file, settings)
    rows = ablate(name, base, seeds, data, out, options, learn_with(options, options.cache or out / "cache"))
    for row in rows:
        print(f"{row['name']:26s} mean R@1 {row['r1']:.3f}  over full {row['over_full']:+.3f}")
    print(out / "report.html")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return run_command(ablations_command, "cope.ablations", arguments)


if __name__ == "__main__":
    sys.exit(main())
