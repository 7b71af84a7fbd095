"""Makes the folder that workers load with COPE_MODEL, and checks one:

    python -m cope.export MODEL --out FOLDER                     as the model is
    python -m cope.export MODEL --out FOLDER --data DATA         in the precision that is fastest here, if it is as good
    python -m cope.export MODEL --out FOLDER --precision int8    in the one named
    python -m cope.export verify FOLDER                          a line per check; status 0 if all is well, else 2

MODEL is the folder of a run of `cope.train`, any artefact, or the name of one that ships. What lies in FOLDER:

    config.json model.safetensors calibration.json (vision/ text/)    the artefact, see cope.serving.artefact
    README.md        the model card, with a section on precision, and the scores of `--report`
    export.json      what was measured, where, and what was decided
    training.json    the run's, as it was

With `--data`, float32, bfloat16 and int8 are measured on one thread of this machine's CPU, and R@1 on products that
were not trained on. A lower precision is kept if it is faster by a tenth and loses no more than half a point of R@1.
Another precision is another version of the model, so the catalogue is indexed anew.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import torch

from cope.errors import UserError
from cope.evaluation.collecting import Sampling
from cope.evaluation.evaluating import Options
from cope.evaluation.precision import PRECISIONS, Measured, choose, measure
from cope.model.scoring import UNCALIBRATED
from cope.runtime.command import AT_LEAST_0, AT_LEAST_1, Command, run
from cope.serving import artefact
from cope.serving.artefact import KINDS, Precision
from cope.serving.card import precision_section, scores_section, with_section
from cope.serving.encoder import Encoder, PageInput
from cope.serving.identity import CALIBRATION, locate, read_config, sealed_calibration
from cope.training.run_record import RECORD, read_record, unfinished

Callback = Callable[..., Any]

OF_THE_ARTEFACT = ("model.safetensors", "calibration.json", "config.json")
BESIDE_IT = ("README.md", RECORD)
# Fewer products would make half a point of R@1 a matter of luck; these take some minutes in each precision.
MEASURED_ON = Options("val", Sampling(products=200, items=1, frames=4), device="cpu")
LEAST_PRODUCTS = 50  # of other data; 1 of 100 clips more or less is a point
UNIT = 0.01  # by which the length of a float16 vector may differ from 1


def export(
    model: str | Path,
    out: Path,
    precision: Precision | None = None,
    data: str = "",
    options: Options = MEASURED_ON,
    cache: Path | None = None,
    report: Path | None = None,
) -> dict[str, Any]:
    """Writes an artefact for workers and returns what `export.json` says.

    Nothing of `out` changes until all of it is made and checked. A model that is there already is replaced only if its
    weights are the same, so that its calibration, precision or card may be renewed.

    Args:
        model: Name or folder.
        out: The folder for workers.
        precision: In which the towers are to compute on a CPU; None for the best of those measured, or the model's own
            where there are no data.
        data: Folder or URL to measure on; "" measures nothing.
        options: Which part of the data.
        cache: Where descriptors are kept; None for nowhere.
        report: A `report.json` of `cope.evaluate` on this very version, whose scores go into the card.

    Raises:
        UserError: The model is unfinished, damaged or of another format; `out` holds something else or cannot be
            written; the data or the report cannot be read, or the report is of another version.
    """
    folder = _finished(model)
    loaded = artefact.verify(folder)
    _may_replace(out, folder)
    scores = "" if report is None else _scores(report, loaded.version)
    place = out.resolve()
    stage = place.with_name(f"{place.name}.{os.getpid()}.part")
    try:
        with _writing(out):
            _copy(folder, stage)
        own = (stage / "config.json").read_bytes()
        found: list[Measured] = []
        chosen, verdicts = precision or loaded.precision, dict[Precision, str]()
        content: dict[str, Any] = {"asked": precision or ("auto" if data else "as it is")}
        if data:
            with nullcontext(cache) if cache else tempfile.TemporaryDirectory() as kept:
                found, about = measure(stage, data, Path(str(kept)), options, _say)
            best, verdicts = choose(found)
            chosen = precision or best
            content["data"] = about
        if chosen == loaded.precision:  # the very same version
            with _writing(out):
                (stage / "config.json").write_bytes(own)
        else:
            artefact.update(stage, precision=chosen)
        content |= {
            "model": artefact.verify(stage).version,
            "exported_from": loaded.version,
            "precision": chosen,
            "measured": [_row(one, verdicts[one.precision]) for one in found],
            "machine": machine(),
            "torch": torch.__version__,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with _writing(out):
            (stage / "export.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            card = stage / "README.md"
            text = card.read_text(encoding="utf-8") if card.is_file() else f"# {loaded.name}\n"
            text = with_section(text, precision_section(content))
            card.write_text(with_section(text, scores) if scores else text, encoding="utf-8")
            _install(stage, out)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return content


def verify(folder: Path) -> Iterator[str]:
    """Checks a folder as a worker will use it; a line for each check that it passes.

    Raises:
        UserError: The first that it does not pass.
    """
    where = locate(folder)
    yield f"format     version {read_config(where)['format_version']}"
    loaded = artefact.verify(where)
    yield f"content    {loaded.version}, SHA-256 {loaded.digest}"
    names = ", ".join(
        f"{kind} {'in this folder' if loaded.carried(kind) else loaded.tower_name(kind)}" for kind in KINDS
    )
    yield f"towers     {names}: as the model was made on"
    yield f"weights    {sum(w.numel() for w in loaded.weights.values()):,} numbers fit the configuration"
    yield f"scores     {'not calibrated: run cope.calibrate' if loaded.calibration == UNCALIBRATED else 'calibrated'}"
    encoder = Encoder(where, device="cpu")
    yield f"loads      on the CPU in {loaded.precision}"
    picture = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)
    frame = encoder.encode_frames([picture])[0]
    _unit(where, "picture", frame.regions)
    yield f"picture    {len(frame.regions)} regions of {encoder.dim} numbers"
    if encoder.modalities == "vision":
        yield "text       not read: the model was trained on pictures alone"
    else:
        _unit(where, "text", encoder.encode_pages([PageInput("red bag", [])])[0].fused[None])
        yield f"text       {encoder.dim} numbers"


def _unit(folder: Path, what: str, vectors: np.ndarray) -> None:
    length = np.linalg.norm(vectors.astype(np.float32), axis=1)
    if not len(length) or not bool((np.abs(length - 1) < UNIT).all()):
        raise UserError(f"the model {folder} makes no vectors of length 1 of a {what}; train it again")


def _finished(model: str | Path) -> Path:
    """The artefact's folder."""
    folder = Path(model)
    lost = not read_record(folder) and (folder / "checkpoints").is_dir() and not (folder / "config.json").is_file()
    if lost or unfinished(folder):
        raise UserError(
            f"the training in {folder} has not ended, so there is no model yet; start its command again to end it"
        )
    return locate(model)


def _may_replace(out: Path, folder: Path) -> None:
    """Refuses to write over anything but the same model.

    Raises:
        UserError: Something else is there.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    try:
        there = read_config(out, "name", "model", "towers")
        ours = read_config(folder)
        same = all(there[key] == ours[key] for key in ("name", "model", "towers"))
        same = same and _hash(out / "model.safetensors") == _hash(folder / "model.safetensors")
    except (UserError, OSError):
        raise UserError(f"{out} is not empty and holds no model that can be read; name another --out") from None
    if not same:
        raise UserError(
            f"{out} holds another model, {there['name']}@{str(there.get('sha256', ''))[:8]}; name another --out, or "
            f"remove it first"
        )


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(folder: Path, stage: Path) -> None:
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    content = read_config(folder)
    names = [*OF_THE_ARTEFACT, *content.get("files", ())]
    for name in [*names, *(name for name in BESIDE_IT if (folder / name).is_file())]:
        place = stage / name
        if not place.resolve().is_relative_to(stage.resolve()):
            raise UserError(f"{folder / 'config.json'} names a file outside the model ({name}); do not use it")
        place.parent.mkdir(parents=True, exist_ok=True)
        source = folder / name
        if name == CALIBRATION:  # whose change may have been cut short
            source = sealed_calibration(folder, content)
        shutil.copyfile(source, place)  # readable for the workers' user, whatever the run's files are


def _install(stage: Path, out: Path) -> None:
    """Puts what was made in its place; `config.json`, which names the version, comes last."""
    if not out.exists():
        stage.rename(out)
        return
    files = sorted(path for path in stage.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path.name == "config.json" and path.parent == stage):
        place = out / path.relative_to(stage)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)


def _scores(report: Path, version: str) -> str:
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
        section, measured = scores_section(content), content["model"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{report} is no report.json of cope.evaluate ({error}); leave --report out") from None
    if measured != version:  # a calibration or a precision makes another version too, with other scores
        raise UserError(f"{report} is of {measured}, and the model is {version}; evaluate it, or leave --report out")
    return section


def _row(one: Measured, verdict: str) -> dict[str, Any]:
    rest = {"r1": dict(one.r1), "mean_r1": one.mean_r1, "verdict": verdict}
    return {"precision": one.precision, **asdict(one.speed), **rest}


def machine() -> str:
    """The processor, by name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the model to {out} ({error.strerror or error}); free space or name another --out"
        ) from None


def _say(text: str) -> None:
    print(f"export  {text}", file=sys.stderr, flush=True)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """What was measured, for a terminal."""
    lines = [f"{'precision':10s} {'ms/frame':>9s} {'ms/text':>8s} {'R@1':>6s}"]
    lines += [
        f"{one['precision']:10s} {one['frame_ms']:9.1f} {one['text_ms']:8.1f} {one['mean_r1']:6.3f}  {one['verdict']}"
        for one in rows
    ]
    return "\n".join(lines)


def _remarks(out: Path, record: dict[str, Any]) -> Iterator[str]:
    """What its user should know."""
    loaded = artefact.load(out)
    products = record.get("data", {}).get("products", LEAST_PRODUCTS)
    if products < LEAST_PRODUCTS:
        yield f"measured on {products} products: with fewer than {LEAST_PRODUCTS}, half a point of R@1 is luck"
    if record["model"] != record["exported_from"]:
        yield f"another version than {record['exported_from']}: index the catalogue anew before workers use it"
    if loaded.calibration == UNCALIBRATED:
        yield f"not calibrated yet: python -m cope.calibrate {out} --data DATA"
    for kind in KINDS:
        if not loaded.carried(kind) and not loaded.tower_name(kind).startswith("packaged:"):
            yield f"workers need the {kind} tower {loaded.tower_name(kind)} too"


class _Export(Command):
    """`export MODEL ...`, and `export verify FOLDER`."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parses the arguments; those after `verify` are of another command."""
        if args[:1] == ["verify"]:
            return verify_command.make_context(f"{info_name} verify", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> int:
        """Runs the command whose arguments were parsed."""
        status: int = super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)
        return status


@click.command("verify", cls=Command)
@click.argument("folder", type=click.Path(path_type=Path))
def verify_command(folder: Path) -> None:
    """Checks FOLDER, a model as workers get it in COPE_MODEL."""
    for line in verify(folder):
        print(f"ok  {line}", flush=True)


def _measured(name: str, kind: click.ParamType, says: str, default: object) -> Callable[[Callback], Callback]:
    return click.option(f"--{name}", type=kind, help=f"{says} [default: {default}]")


@click.command("export", cls=_Export, help=__doc__, stopped="stopped; nothing was written")
@click.argument("model")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="The folder for workers.")
@click.option(
    "--precision",
    type=click.Choice(("auto", *PRECISIONS)),
    help="Of the towers on a CPU. [default: auto with --data, else as the model has it]",
)
@click.option("--data", default="", metavar="FOLDER|URL", help="Data to measure on, as cope.evaluate takes them.")
@_measured("split", click.Choice(("val", "test")), "Side of the split.", MEASURED_ON.split)
@_measured("products", AT_LEAST_0, "Products to measure on, drawn by seed; 0: all.", MEASURED_ON.sampling.products)
@_measured("items", AT_LEAST_0, "Items of a product in each domain; 0: all.", MEASURED_ON.sampling.items)
@_measured("frames", AT_LEAST_1, "Frames of a clip.", MEASURED_ON.sampling.frames)
@_measured("seed", AT_LEAST_0, "Seed of the draw.", MEASURED_ON.sampling.seed)
@_measured("workers", AT_LEAST_0, "Processes that read pictures.", MEASURED_ON.workers)
@click.option("--cache", type=click.Path(path_type=Path), help="Keep descriptors here, for another time.")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="report.json of cope.evaluate, whose scores go into the model card.",
)
def export_command(
    model: str,
    out: Path,
    precision: Literal["auto"] | Precision | None,
    data: str,
    cache: Path | None,
    report: Path | None,
    **given: Any,
) -> None:
    """Makes the folder that workers load, and tells what its user should know."""
    if precision == "auto" and not data:
        raise UserError("--precision auto measures R@1: add --data DATA, or name a precision")
    given = {name: value for name, value in given.items() if value is not None}
    if not data and (unread := [f"--{name}" for name in (*given, *(["cache"] if cache else []))]):
        raise UserError(f"{', '.join(unread)}: nothing is measured; add --data DATA, or leave that out")
    ours = {name: given.pop(name) for name in ("split", "workers") if name in given}
    options = replace(MEASURED_ON, sampling=replace(MEASURED_ON.sampling, **given), **ours)
    record = export(model, out, None if precision == "auto" else precision, data, options, cache, report)
    if record["measured"]:
        print(table(record["measured"]))
    print(f"{out}: {record['model']}, towers in {record['precision']} on a CPU")
    for line in _remarks(out, record):
        print(line, file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return run(export_command, "cope.export", arguments)


if __name__ == "__main__":
    sys.exit(main())
