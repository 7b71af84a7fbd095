"""Memory of the ROPE reader by size of the data, and throughput of the loader by number of processes.

    python -m benchmarks.loader --objects /data/objects        # tables, and build/loader.json
    python -m benchmarks.loader                                # memory only

Memory: ROPE files of 10,000 to 3,000,000 rows, items in another order in each file; a process of its own builds the
index and reads every item. Throughput: batches of a preset, rendered on the fly and from JPEG files that were rendered
before; the first batches, which start the processes, are not counted. The processor time of a product says the same
on a busy machine: a core makes 1,000 / (ms of CPU) products a second.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil

from cope.config import PRESETS, preset
from cope.data.loader import batches
from cope.data.opening import open_source
from cope.data.rendered import RenderedSource
from cope.data.rope import IMAGES, PAIRS, TEXTS
from cope.data.writing import write
from cope.domains import DOMAINS

SIZES = (10_000, 100_000, 1_000_000, 3_000_000)
FRAMES = 4
# Rows about one page, one video and one live clip, in the nine files together.
ROWS_OF_THREE_ITEMS = 3 + 3 + 1 + 2 * FRAMES
ITEMS_OF_A_PRODUCT = 10
# Prime: stepping by it visits all items in an order that is not the files' own.
STRIDE = 7_919


def write_rows(folder: Path, rows: int) -> None:
    """Writes ROPE files with about so many rows; no pictures."""
    items = rows // ROWS_OF_THREE_ITEMS
    for offset, domain in enumerate(DOMAINS):
        numbers = [(at * STRIDE + offset) % items for at in range(items)]
        with (folder / PAIRS[domain]).open("w") as file:
            file.writelines(f"{n // ITEMS_OF_A_PRODUCT},{domain}{n}\n" for n in range(items))
        with (folder / TEXTS[domain]).open("w") as file:
            file.writelines(f'{domain}{n},"Title, or speech" of some sixty letters, number {n:08}\n' for n in numbers)
        with (folder / IMAGES[domain]).open("w") as file:
            address = "https://images.example/a/long/way/down"
            if domain == "page":
                file.writelines(f"{domain}{n},{address}/{n}.jpg\n" for n in numbers)
            else:
                file.writelines(f"{domain}{n},{at},{address}/{n}-{at}.jpg\n" for n in numbers for at in range(FRAMES))


def peak_mb() -> float:
    """The most memory that this process has had; unlike `ru_maxrss` it does not begin with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


def read_all(folder: str) -> None:
    """Runs in a process of its own: builds the index, reads every item, prints the figures."""
    before = peak_mb()
    began = time.perf_counter()
    sides = [open_source(folder, split) for split in ("train", "val", "test")]
    built = time.perf_counter()
    after_building = peak_mb()
    items = 0
    for source in sides:
        for number in range(len(source)):
            for domain in DOMAINS:
                items += sum(1 for _ in source.items(number, domain))
    done = time.perf_counter()
    index = sum(file.stat().st_size for file in (Path(folder) / ".cope-live").iterdir())
    figures = {
        "items": items,
        "imports_mb": before,
        "building_mb": after_building,
        "reading_mb": peak_mb(),
        "building_s": built - began,
        "reading_s": done - built,
        "index_mb": index / 1e6,
    }
    print(json.dumps(figures))


def memory() -> list[dict[str, float]]:
    """Peak memory by size."""
    rows = []
    print(f"{'rows':>10} {'items':>9} {'imports':>9} {'building':>9} {'reading':>9} {'built in':>9} {'index':>9}")
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            write_rows(Path(folder), size)
            command = [sys.executable, "-m", "benchmarks.loader", "--read", folder]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        one = {"rows": size, **json.loads(output)}
        rows.append(one)
        print(
            f"{size:>10,} {one['items']:>9,} {one['imports_mb']:>6.0f} MB {one['building_mb']:>6.0f} MB "
            f"{one['reading_mb']:>6.0f} MB {one['building_s']:>7.1f} s {one['index_mb']:>6.0f} MB",
            flush=True,
        )
    return rows


def cpu_s() -> float:
    """Processor time of this process and of the loader's."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def throughput(objects: Path, name: str, workers: list[int], products: int, steps: int) -> list[dict[str, object]]:
    """Products, items and pictures per second by number of loader processes."""
    rows: list[dict[str, object]] = []
    rendered = RenderedSource(objects, "train")
    with tempfile.TemporaryDirectory() as folder:
        each = {domain: 2 for domain in DOMAINS}
        written = Path(folder) / "rope"
        write(rendered, written, "rope", min(len(rendered), 4 * products), each, frames=8)
        config = replace(preset(name), batch_products=products)
        print(
            f"\n{name}, {products} products in a batch, {config.clip_frames} frames of a clip, {os.cpu_count()} cores"
        )
        print(
            f"{'source':>10} {'processes':>9} {'products/s':>11} {'items/s':>9} {'pictures/s':>11} {'CPU/product':>12}"
        )
        for what, source in (("rendered", rendered), ("JPEG files", open_source(str(written)))):
            for count in workers:
                stream = batches(
                    source, replace(config, workers=count), lambda text, most: [ord(c) for c in text[:most]]
                )
                for _ in range(max(1, count)):  # each process loads its libraries and vocabulary with its first batch
                    next(stream)
                began, before, items, pictures, taken = time.perf_counter(), cpu_s(), 0, 0, 0
                for _ in range(steps):
                    batch = next(stream)
                    taken += len(batch)
                    items += sum(len(getattr(batch, domain)) for domain in DOMAINS)
                    pictures += sum(int(getattr(batch, domain).frame_there.sum()) for domain in DOMAINS)
                spent, cpu_ms = time.perf_counter() - began, 1000 * (cpu_s() - before) / taken
                one = {"source": what, "workers": count, "products_per_s": taken / spent}
                one |= {"items_per_s": items / spent, "pictures_per_s": pictures / spent, "cpu_ms": cpu_ms}
                rows.append({"preset": name, **one})
                speeds = f"{taken / spent:>11.1f} {items / spent:>9.1f} {pictures / spent:>11.1f}"
                print(f"{what:>10} {count:>9} {speeds} {cpu_ms:>9.0f} ms", flush=True)
    return rows


def main() -> None:
    """Prints the tables and writes the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader")
    parser.add_argument("--objects", type=Path, help="folder of objects; without it only memory is measured")
    parser.add_argument("--preset", choices=PRESETS, default="cope-base")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--products", type=int, default=32, help="in a batch")
    parser.add_argument("--steps", type=int, default=8, help="batches that are timed; more than are prepared ahead")
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read_all(options.read)
        return
    figures: dict[str, object] = {} if options.skip_memory else {"memory": memory()}
    if options.objects:
        timed = options.objects, options.preset, options.workers, options.products, options.steps
        figures["throughput"] = throughput(*timed)
    Path("build").mkdir(exist_ok=True)
    Path("build/loader.json").write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
