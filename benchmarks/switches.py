"""What each kind of evidence brings and costs in whole streams: `python -m benchmarks.switches --real ../shared/real`.

Watches real streams, and the sample streams with their catalogue pasted on photographs, with all evidence and then
without one kind of it, and prints found and false showings, F1 and CPU seconds per stream-minute (the indexing of the
catalogue by itself). Calibration is not fitted anew for any row. `speech by meaning` and `colours` are switched off by
weights of a copy of the model, which still computes them, so these rows say nothing of their cost. What is done is
kept in OUT/switches.json: the same command goes on.

The real folder has catalog/catalog.jsonl, streams/*.mp4, truth.jsonl and unlisted.jsonl.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from benchmarks.scenic import SAMPLES, catalogue_on_scenes
from benchmarks.watch import run, watched
from cope.serving import artefact
from cope.serving.artefact import Artefact
from workers.cli.score import read_events, score, total
from workers.cli.truth import read_truths

# So small a share that colours decide nothing; at 0 the model has no place for them, and its weights do not fit.
NEXT_TO_NOTHING = 1e-9


@dataclass(frozen=True)
class Switch:
    """One kind of evidence that is left out.

    Attributes:
        settings: `COPE_` settings that do it.
        changed: What it makes of the model; None: nothing.
    """

    settings: Mapping[str, str]
    changed: Callable[[Artefact], Artefact] | None = None


def _silent(model: Artefact) -> Artefact:
    return replace(model, calibration=model.calibration.without("speech", "margin_speech"))


def _model(**changes: Any) -> Callable[[Artefact], Artefact]:
    return lambda model: replace(model, config=replace(model.config, **changes))


SWITCHES = {
    "all evidence": Switch({}),
    "no read words": Switch({"COPE_READ_WORDS": "off"}),
    "no speech by meaning": Switch({}, _silent),
    "no colours": Switch({}, _model(colour=NEXT_TO_NOTHING)),
    "one view of a page picture": Switch({}, _model(multi_view=False)),
}


@dataclass(frozen=True)
class Streams:
    """What is watched, and what is right."""

    sources: list[str]
    catalog: Path
    truth: list[Path]


def _real(folder: Path) -> Streams:
    sources = [str(path) for path in sorted((folder / "streams").glob("*.mp4"))]
    return Streams(sources, folder / "catalog/catalog.jsonl", [folder / "truth.jsonl", folder / "unlisted.jsonl"])


def _scenic(out: Path) -> Streams:
    folder = out / "scenic"
    folder.mkdir(parents=True, exist_ok=True)
    streams = sorted((SAMPLES / "streams").glob("*.mp4"))
    return Streams(
        [str(path) for path in streams],
        catalogue_on_scenes(folder),
        [path.with_suffix(".truth.jsonl") for path in streams],
    )


def _measured(name: str, model: str, streams: Streams, out: Path) -> dict[str, Any]:
    switch, settings = SWITCHES[name], {"COPE_MODEL": model}
    if switch.changed is not None:
        folder = out / "models" / name.replace(" ", "-")
        shutil.rmtree(folder, ignore_errors=True)
        made = switch.changed(artefact.load(model))
        artefact.save(
            folder,
            made.name,
            made.config,
            made.weights,
            made.calibration,
            made.precision,
            live_text=made.live_text,
            modalities=made.modalities,
        )
        settings = {"COPE_MODEL": str(folder)}
    events = out / "events.jsonl"
    arguments = ["--watch", str(streams.catalog), "--events", str(events), *streams.sources]
    row = run("benchmarks.switches", *arguments, **settings, **switch.settings)
    found = total(score(read_events(events), read_truths(streams.truth)).values())
    cpu = row["cpu_s_per_stream_minute"]
    catalog = cpu.pop("catalog")
    figures = found.as_dict()
    return {key: figures[key] for key in ("matched", "showings", "false", "unlisted_hit", "unlisted", "f1")} | {
        "cpu_s_per_stream_minute": round(sum(cpu.values()), 1),
        "catalogue_cpu_s": round(catalog * row["media_s"] / 60, 1),
    }


def _table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| | found | false | on unlisted | F1 | CPU s per stream-minute | CPU s for the catalogue |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        unlisted = f"{row['unlisted_hit']} of {row['unlisted']}" if row["unlisted"] else "-"
        lines.append(
            f"| {name} | {row['matched']} of {row['showings']} | {row['false']} | {unlisted} | {row['f1']:.3f} "
            f"| {row['cpu_s_per_stream_minute']} | {row['catalogue_cpu_s']} |"
        )
    return "\n".join(lines)


@click.command(help=__doc__)
@click.argument("sources", nargs=-1)
@click.option("--real", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of real streams.")
@click.option("--model", default="cope-mini", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/switches"), show_default=True)
@click.option("--watch", type=click.Path(path_type=Path), hidden=True)
@click.option("--events", type=click.Path(path_type=Path), hidden=True)
def main(
    sources: tuple[str, ...], real: Path | None, model: str, out: Path, watch: Path | None, events: Path | None
) -> None:
    """Runs the benchmark."""
    if watch is not None and events is not None:  # one row, in a process of its own
        out.write_text(json.dumps(watched(list(sources), watch, events)))
        return
    out.mkdir(parents=True, exist_ok=True)
    version, kept = artefact.load(model).version, out / "switches.json"
    done: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    done = done if done.get("model") == version else {"model": version}
    for kind, streams in {**({"real": _real(real)} if real else {}), "scenic": _scenic(out)}.items():
        rows = done.setdefault(kind, {})
        for name in SWITCHES:
            if name not in rows:
                rows[name] = _measured(name, model, streams, out)
                kept.write_text(json.dumps(done, indent=1) + "\n")
        print(f"\n{version}, {kind}\n\n{_table(rows)}", flush=True)


if __name__ == "__main__":
    main()
