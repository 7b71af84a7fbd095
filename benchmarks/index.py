"""Searches of large catalogues by the embedded engine: time, memory and what they miss.

    python -m benchmarks.index [--pages 100000] [--views 4] [--windows 200] [--checked 50]

It prints a table and writes build/benchmark-index.json.

Pages are random. Their vectors spread as those of photos do (`../shared/real` by cope-mini: a share of each direction
that falls as 1 / its rank, and a common mean), each with several views that have a cosine of about 0.65 with each
other. A window has eight regions, as two new frames do: two show the same product, with a cosine of about 0.6 to its
page, six show other things. It is searched as the recognizer does, with its embedding and four pieces of speech, of
which the window before had three.

* build: filling the index, then the graph, in seconds, with all cores
* disk, memory: of the folder; the process's own after the searches, without pages of files that the kernel may drop
* p50, p99: of one window's search on one core, without and with fetching the pages that are scored
* recall: of the products that an exact search would have scored, the share that is; of the first windows only
  (`--checked`), as an exact search of a million pages takes seconds
* shown: of these windows, those among whose scored products the right one is, and the same by exact search
"""

import argparse
import asyncio
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from cope.model.scoring import CANDIDATES
from topology.index import Candidate, PageEntry, Query
from topology.index import edge as engine
from topology.index.edge import EdgeIndex

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "build/benchmark-index.json"
DIM = 768
MEAN = 0.39  # length of the mean of normalised vectors
LIMIT = 20  # as `candidates` has it
SHOWING, OTHERS, SAID, SAID_BEFORE = 2, 6, 4, 3
AT_ONCE = 2_000

Array = NDArray[np.float32]


class Vectors:
    """Draws vectors that spread as those of photos do."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        spread = (1 + np.arange(DIM)) ** -0.5
        turned = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
        self._axes = (spread / np.linalg.norm(spread) * turned).T.astype(np.float32)
        self._mean = (MEAN / (1 - MEAN**2) ** 0.5 * np.linalg.qr(rng.standard_normal((DIM, 1)))[0][:, 0]).astype("f4")

    def __call__(self, count: int, rng: np.random.Generator) -> Array:
        """(count, D) float32, not normalised."""
        drawn: Array = self._mean + rng.standard_normal((count, DIM), np.float32) @ self._axes
        return drawn


def products(vectors: Vectors, count: int, at: int) -> Array:
    """What the products of one block look like, (count, D)."""
    return vectors(count, np.random.default_rng([1, at]))


def pages(vectors: Vectors, count: int, views: int) -> Iterator[list[PageEntry]]:
    """The pages, block by block."""
    for at in range(0, count, AT_ONCE):
        some = min(AT_ONCE, count - at)
        what, rng = products(vectors, some, at), np.random.default_rng([2, at])
        looks = np.stack([normed(what + 0.7 * vectors(some, rng)) for _ in range(views)], axis=1).astype(np.float16)
        fused = normed(looks.mean(axis=1, dtype=np.float32)).astype(np.float16)
        text = normed(vectors(some, rng)).astype(np.float16)
        yield [
            PageEntry(f"p-{at + row:07}", "random@00000000", looks[row], fused[row], text=text[row])
            for row in range(some)
        ]


def windows(vectors: Vectors, count: int, pages_count: int) -> list[tuple[str, Query]]:
    """Windows, and the product that each shows."""
    rng = np.random.default_rng(3)
    made = []
    for number in rng.choice(pages_count, count):
        at = number // AT_ONCE * AT_ONCE
        shown = products(vectors, min(AT_ONCE, pages_count - at), at)[number - at]
        regions = normed(np.concatenate([shown + vectors(SHOWING, rng), vectors(OTHERS, rng)]))
        embedding = normed(regions[:SHOWING].mean(axis=0, keepdims=True))[0]
        made.append((f"p-{number:07}", Query(regions, embedding, speech=normed(vectors(SAID, rng)))))
    return made


def normed(rows: Array) -> Array:
    """Rows of length 1."""
    unit: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def scored(found: list[Candidate]) -> list[str]:
    """The products that the recognizer would score."""
    return [one.product_id for one in found[:CANDIDATES]]


async def measure(count: int, views: int, windows_count: int, checked: int, folder: Path) -> dict[str, Any]:
    """Fills an index and searches it."""
    vectors = Vectors()
    index = EdgeIndex(folder, "random@00000000")
    began = time.perf_counter()
    for some in pages(vectors, count, views):
        await index.upsert(some)
    filled = time.perf_counter()
    await index.optimize()
    built = time.perf_counter()
    asked = windows(vectors, windows_count, count)
    os.sched_setaffinity(0, {0})
    await index.search(asked[0][1], LIMIT)
    search_ms, fetch_ms, found = [], [], []
    for _, query in asked:
        assert query.speech is not None
        await index.search(Query(speech=query.speech[:SAID_BEFORE]), LIMIT)
        start = time.perf_counter()
        found.append(scored(await index.search(query, LIMIT)))
        searched = time.perf_counter()
        await index.vectors(found[-1])
        search_ms.append((searched - start) * 1000)
        fetch_ms.append((time.perf_counter() - start) * 1000)
    resident = psutil.Process().memory_info()
    engine.EXACT_UP_TO = count * views  # from here on every search is exact
    asked, found = asked[:checked], found[:checked]
    exact = [scored(await index.search(query, LIMIT)) for _, query in asked]
    await index.close()
    return {
        "pages": count,
        "views": views,
        "fill_s": filled - began,
        "graph_s": built - filled,
        "memory_bytes": resident.rss - resident.shared,
        "search_ms": {"p50": np.percentile(search_ms, 50), "p99": np.percentile(search_ms, 99)},
        "with_pages_ms": {"p50": np.percentile(fetch_ms, 50), "p99": np.percentile(fetch_ms, 99)},
        "recall": np.mean([len({*some} & {*best}) / len(best) for some, best in zip(found, exact, strict=True)]),
        "shown": np.mean([shown in some for (shown, _), some in zip(asked, found, strict=True)]),
        "shown_exact": np.mean([shown in best for (shown, _), best in zip(asked, exact, strict=True)]),
    }


def main() -> None:
    """Prints the table and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=100_000, help="pages of the catalogue")
    parser.add_argument("--views", type=int, default=4, help="vectors of a page")
    parser.add_argument("--windows", type=int, default=200, help="windows that are searched for")
    parser.add_argument("--checked", type=int, default=50, help="windows that are searched for exactly, too")
    parser.add_argument("--folder", type=Path, default=None, help="where the index lies; default: a temporary folder")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.machine()}\n")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        row = asyncio.run(measure(options.pages, options.views, options.windows, options.checked, Path(folder)))
        row["disk_bytes"] = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    print("    pages  views  fill s  graph s  disk MB  memory MB  p50 ms  p99 ms  with pages  recall  shown  exact")
    print(
        f"{row['pages']:>9} {row['views']:>6} {row['fill_s']:>7.0f} {row['graph_s']:>8.0f} "
        f"{row['disk_bytes'] / 1e6:>8.0f} {row['memory_bytes'] / 1e6:>10.0f} {row['search_ms']['p50']:>7.1f} "
        f"{row['search_ms']['p99']:>7.1f} {row['with_pages_ms']['p99']:>11.1f} {row['recall']:>7.3f} "
        f"{row['shown']:>6.3f} {row['shown_exact']:>6.3f}"
    )
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    print(RESULT)


if __name__ == "__main__":
    main()
