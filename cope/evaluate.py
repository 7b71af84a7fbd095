"""Measures a model on data that it was not trained on, and writes one report that can be sent around:

    python -m cope.evaluate MODEL --data DATA [--split test] --out OUT

    OUT/report.html       tables and pictures
    OUT/report.json       all figures
    OUT/sheets/*.png      queries beside their first results
    OUT/cache             what the towers saw and what was read; found there again, unless pictures have come or gone

MODEL is an artefact, DATA anything that `cope.train` takes: a folder of objects, ROPE, LPR4M, a manifest. What is
measured, and how, stands in the report beside each table.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from cope.data.items import Counts
from cope.domains import Split
from cope.evaluation.collecting import Sampling
from cope.evaluation.evaluating import Options, evaluate
from cope.evaluation.measures import OWN_ROOMS
from cope.evaluation.suite import Protocol
from cope.runtime.command import AT_LEAST_0, AT_LEAST_1, AT_LEAST_2, Command, run

Callback = Callable[..., Any]


MODEL = click.argument("model")
FOLDER = click.Path(path_type=Path)
# What of speech is left, for the choices of `--text` that read words in pictures.
_READ = {"read": ("none", True), "keywords+read": ("keywords", True)}
SPLIT = click.Choice(("train", "val", "test"))
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")


def data_options(command: Callback) -> Callback:
    """What `cope.evaluate` and `cope.ablations` are both told of the data; `options_of` takes it."""
    for option in (
        click.option("--cache", type=FOLDER, help="Where descriptors are kept. [default: OUT/cache]"),
        click.option("--workers", type=AT_LEAST_0, default=1, show_default=True, help="Processes that read pictures."),
        DEVICE,
        click.option("--seed", type=AT_LEAST_0, default=0, show_default=True, help="Seed of all draws."),
        click.option("--frames", type=AT_LEAST_1, default=8, show_default=True, help="Frames of a clip."),
        click.option(
            "--items",
            type=AT_LEAST_0,
            default=0,
            help="Items of a product in each domain. [default: all; rendered: 4, and 8 for 8 shots]",
        ),
        click.option("--products", type=AT_LEAST_0, default=0, help="Products, drawn by seed. [default: all]"),
        click.option("--split", type=SPLIT, default="test", show_default=True, help="Side of the split."),
        click.option("--data", required=True, metavar="FOLDER|URL", help="Objects, ROPE, LPR4M or a manifest."),
    ):
        command = option(command)
    return command


def options_of(
    protocol: Protocol,
    text: str = "",
    read: bool = False,
    *,
    split: Split,
    products: int,
    items: int,
    frames: int,
    seed: int,
    device: str,
    workers: int,
    cache: Path | None,
) -> Options:
    """What `data_options` were given, but for the data themselves."""
    return Options(split, Sampling(products, items, frames, seed), protocol, text, read, device, workers, cache)


@click.command(
    "evaluate", cls=Command, help=__doc__, stopped="stopped, and no report was written; start the same command again"
)
@MODEL
@click.option("--out", type=FOLDER, required=True, help="The report's folder.")
@click.option(
    "--text",
    type=click.Choice(("keywords", "raw", "none", "read", "keywords+read")),
    help="What a clip's speech becomes, and whether words in pictures are read: `read` reads them and hears nothing. "
    "[default: as the model was trained]",
)
@click.option("--ways", type=AT_LEAST_2, default=50, show_default=True, help="Products of a few-shot episode.")
@click.option("--episodes", type=AT_LEAST_2, default=200, show_default=True, help="Episodes, for few shots.")
@click.option(
    "--room-size",
    type=AT_LEAST_2,
    help=f"Products of a synthetic room, where the data have no rooms. [default: {Protocol.room_size}]",
)
@click.option("--no-pictures", is_flag=True, help="Draw no map and no sheets.")
@data_options
def evaluate_command(
    model: str,
    out: Path,
    text: str | None,
    ways: int,
    episodes: int,
    room_size: int | None,
    no_pictures: bool,
    data: str,
    **given: Any,
) -> None:
    """Measures a model."""
    protocol = Protocol(ways, episodes, room_size or Protocol.room_size, given["seed"], not no_pictures)
    said, read = _READ.get(text or "", (text or "", False))
    figures = evaluate(model, data, out, options_of(protocol, said, read, **given))
    if room_size is not None and figures["rooms"]["rooms"]["name"] == OWN_ROOMS:
        print(f"--room-size {room_size} is not used: the data have rooms of their own", file=sys.stderr)
    print(f"data: {Counts(figures['about']['skipped'])}", file=sys.stderr)
    for kind in ("fused", "vision", "frozen_fused", "frozen_vision"):
        mean = figures["retrieval"][kind]["mean"]
        print(f"{kind:14s} R@1 {mean['r1']:.3f}  R@5 {mean['r5']:.3f}  R@10 {mean['r10']:.3f}  mAP {mean['map']:.3f}")
    for named, found in figures["reading"].get("kinds", {}).items():
        print(f"{named:20s} R@1 " + "  ".join(f"{way} {one['r1']:.3f}" for way, one in found.items()))
    print(out / "report.html")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return run(evaluate_command, "cope.evaluate", arguments)


if __name__ == "__main__":
    sys.exit(main())
