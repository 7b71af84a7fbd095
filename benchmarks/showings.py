"""How many showings of products that were not trained on are found in rendered streams. Compares models, not speed.

    python -m benchmarks.showings cope-mini build/mini-8 --data build/data   # table, build/benchmark-showings.json

Of the named objects on the `val` side of the split it makes four catalogues of 30, and from each two English streams of
180 s, in which 12 more objects stand and are shown though they are not for sale: some 150 showings in all. They are
kept in `build/showings`, so another model is measured on the same files. Each model watches all streams as `cope-live
watch` does, and is scored as `cope-live score` does.

What is chosen by these figures (a default, a seed) is chosen on validation products: the sample streams stay a test.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cope.data.items import Counts
from cope.data.listing import Listed, read_objects
from cope.data.objects import split_of
from cope.serving.identity import load_identity
from topology.errors import UserError
from workers.cli.score import Score, read_events, score, total
from workers.cli.simulate.recipe import Recipe
from workers.cli.simulate.stream import simulate
from workers.cli.truth import StreamTruth, read_truths

BUILD = Path(__file__).parents[1] / "build"
RESULT = BUILD / "benchmark-showings.json"
CATALOGUES, STREAMS, PRODUCTS, OTHERS = 4, 2, 30, 12
DURATION_S = 180.0


@dataclass(frozen=True)
class Shop:
    """A catalogue and its streams, each an .mp4 file with its truth beside it."""

    catalog: Path
    streams: tuple[Path, ...]

    def truth(self) -> dict[str, StreamTruth]:
        """Of all streams, by id."""
        return read_truths(_truth_of(stream) for stream in self.streams)


def main() -> None:
    """Prints the table and writes the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.showings", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", nargs="+", help="artefacts, by name or folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of objects, as cope.data.collect makes it")
    args = parser.parse_args()
    shops = made(args.data, BUILD / "showings")
    rows = {}
    print(f"{'model':30} {'showings':>8} {'found':>5} {'false':>5} {'in gaps':>7} {'F1':>6} {'delay median':>12}")
    for model in args.models:
        found = total(part for shop in shops for part in watched(model, shop))
        name = load_identity(model).version
        rows[name] = {"model": model, **found.as_dict()}
        showings, delay = len(found.matches) + len(found.missed), found.delay_median_ms or 0
        print(
            f"{name:30} {showings:8} {len(found.matches):5} {len(found.false):5} {len(found.false_in_gaps):7} "
            f"{found.f1:6.3f} {delay / 1000:10.1f} s",
            flush=True,
        )
    RESULT.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def made(data: Path, out: Path) -> list[Shop]:
    """The catalogues and streams; rendered where they are not there yet, which takes a minute a stream.

    Raises:
        UserError: There are too few objects.
    """
    known = [one for one in read_objects(data, Counts()) if one.name and split_of(one.group) == "val"]
    each = PRODUCTS + OTHERS
    if len(known) < CATALOGUES * each:
        raise UserError(f"{data}: {len(known)} named objects on the val side, {CATALOGUES * each} are needed")
    order = np.random.default_rng(0).permutation(len(known))
    drawn = [[known[int(i)] for i in order[at * each : (at + 1) * each]] for at in range(CATALOGUES)]
    return [_shop(data.resolve(), out / str(at), objects, at) for at, objects in enumerate(drawn)]


def _shop(data: Path, folder: Path, objects: Sequence[Listed], number: int) -> Shop:
    others = folder / "others"
    others.mkdir(parents=True, exist_ok=True)
    for one in objects[PRODUCTS:]:
        shutil.copy(data / one.image, others)
    pages = [
        {"product_id": one.id, "title": one.name.title(), "images": [str(data / one.image)]}
        for one in objects[:PRODUCTS]
    ]
    shop = Shop(folder / "catalog.jsonl", tuple(folder / f"{number}-{at}.mp4" for at in range(STREAMS)))
    shop.catalog.write_text("".join(json.dumps(page) + "\n" for page in pages), encoding="utf-8")
    for at, stream in enumerate(shop.streams):
        if not _truth_of(stream).exists():  # which is written last
            print(f"rendering {stream}", file=sys.stderr)
            recipe = Recipe(seed=10 * number + at, duration_s=DURATION_S, distractors=others)
            simulate(shop.catalog, str(stream), recipe, truth=_truth_of(stream))
    return shop


def watched(model: str, shop: Shop) -> list[Score]:
    """What a model finds in the streams of a catalogue, in a process of its own."""
    command = [sys.executable, "-m", "workers", "watch", *map(str, shop.streams), "--catalog", str(shop.catalog)]
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "events.jsonl"
        environment = {**os.environ, "COPE_MODEL": model}
        subprocess.run([*command, "--events", str(events)], env=environment, check=True, stdout=subprocess.DEVNULL)
        return list(score(read_events(events), shop.truth()).values())


def _truth_of(stream: Path) -> Path:
    return stream.with_suffix(".truth.jsonl")


if __name__ == "__main__":
    main()
