"""Measures a model on data that it was not trained on, and writes one report that can be sent around:

    python -m cope.evaluate MODEL --data DATA [--split test] --out OUT

    OUT/report.html       tables and pictures
    OUT/report.json       all figures
    OUT/sheets/*.png      queries beside their first results
    OUT/cache             what the towers saw; found there again, unless pictures have come or gone

MODEL is an artefact, DATA anything that `cope.train` takes: a folder of objects, ROPE, LPR4M, a manifest. What is
measured, and how, stands in the report beside each table.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cope.data.items import Counts
from cope.errors import UserError
from cope.evaluation.collecting import Sampling
from cope.evaluation.evaluating import Options, evaluate
from cope.evaluation.measures import OWN_ROOMS
from cope.evaluation.suite import Protocol
from cope.runtime.command import at_least, ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m cope.evaluate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", help="an artefact's folder, or the name of one that ships")
    parser.add_argument("--out", type=Path, required=True, help="the report's folder")
    parser.add_argument("--text", choices=("keywords", "raw", "none"), default="", help="what a clip's speech becomes")
    parser.add_argument("--ways", type=int, default=50, help="products of a few-shot episode (default: 50)")
    parser.add_argument("--episodes", type=int, default=200, help="of few-shot classification (default: 200)")
    parser.add_argument(
        "--room-size", type=int, help="products of a synthetic room, where the data have no rooms (default: 20)"
    )
    parser.add_argument("--no-pictures", action="store_true", help="no map and no sheets")
    add_data_options(parser)
    args = parser.parse_args(arguments)
    stopped = "stopped, and no report was written; start the same command again"
    return ended("cope.evaluate", lambda: _evaluate(args), stopped)


def _evaluate(args: argparse.Namespace) -> int:
    room_size = Protocol.room_size if args.room_size is None else args.room_size
    protocol = Protocol(args.ways, args.episodes, room_size, args.seed, not args.no_pictures)
    figures = evaluate(args.model, args.data, args.out, options_of(args, protocol, args.text))
    if args.room_size is not None and figures["rooms"]["rooms"]["name"] == OWN_ROOMS:
        print(f"--room-size {args.room_size} is not used: the data have rooms of their own", file=sys.stderr)
    print(f"data: {Counts(figures['about']['skipped'])}", file=sys.stderr)
    for kind in ("fused", "vision", "frozen_fused", "frozen_vision"):
        mean = figures["retrieval"][kind]["mean"]
        print(f"{kind:14s} R@1 {mean['r1']:.3f}  R@5 {mean['r5']:.3f}  R@10 {mean['r10']:.3f}  mAP {mean['map']:.3f}")
    print(args.out / "report.html")
    return 0


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """What `cope.evaluate` and `cope.ablations` are both told of the data."""
    parser.add_argument("--data", required=True, help="a folder or URL: objects, ROPE, LPR4M or a manifest")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="(default: test)")
    parser.add_argument("--products", type=int, default=0, help="products that are looked at, drawn by seed; 0 for all")
    parser.add_argument(
        "--items", type=int, default=0, help="of a product in each domain; 0 for all (rendered: 4, and 8 for 8 shots)"
    )
    parser.add_argument("--frames", type=int, default=8, help="of a clip, spread over it (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument("--workers", type=int, default=1, help="processes that read pictures (default: 1)")
    parser.add_argument("--cache", type=Path, help="where descriptors are kept (default: OUT/cache)")


def options_of(args: argparse.Namespace, protocol: Protocol, text: str = "") -> Options:
    """The options of `add_data_options`.

    Raises:
        UserError: A number is out of range.
    """
    at_least(args, products=0, items=0, frames=1, workers=0, seed=0)
    if protocol.ways < 2 or protocol.episodes < 2 or protocol.room_size < 2:
        raise UserError("--ways, --episodes and --room-size must be 2 or more")
    sampling = Sampling(args.products, args.items, args.frames, args.seed)
    return Options(args.split, sampling, protocol, text, args.device, args.workers, args.cache)


if __name__ == "__main__":
    sys.exit(main())
