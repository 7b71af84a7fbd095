"""What classification of 190,000 products costs, sampled and in full.

    python -m benchmarks.softmax [--device cuda] [--repeats 3] [--steps 7]

Prints a table and writes `build/benchmark-softmax.json`: time of a step (loss, gradients, update of the classes) on
the clock and of this process's CPU threads, and peak memory beyond the class matrix and its state, for vectors of 512
numbers, 384 at once (128 products, a page, a video and a live clip each):

* the full CosFace over 190,000 classes: a parameter, its dense gradient, and the same rule of updating;
* `SampledProductSoftmax` over as many, 4,096 of them sampled in a step;
* the full CosFace over 4,096 classes, which the sampled one is to be like.

Each row is the median over runs in processes of their own, taken in turn. Linux only (peak memory of a process).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional

from cope.training.product_softmax import SampledProductSoftmax, cosface

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "build/benchmark-softmax.json"
CLASSES, SAMPLED, DIM, BATCH = 190_000, 4_096, 512, 384
ROWS = {"full of 190,000": (CLASSES, 0), "4,096 of 190,000": (CLASSES, SAMPLED), "full of 4,096": (SAMPLED, 0)}
WARM_UP = 2  # steps that are not timed: they make the buffers of threads and of the allocator


class Full(nn.Module):
    """CosFace over all classes, with a dense gradient."""

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(functional.normalize(torch.randn(classes, dim), dim=1))
        self.squares: Tensor
        self.register_buffer("squares", torch.zeros(classes))

    def forward(self, vectors: Tensor, product: Tensor) -> Tensor:
        """The mean loss."""
        return cosface(vectors, self.weight, product, 0.4, 64.0).mean()

    @torch.no_grad()
    def update(self, rate: float) -> None:
        """Row-wise Adagrad, in place as far as it goes."""
        gradient, weight = self.weight.grad, self.weight.data
        assert gradient is not None
        self.squares += torch.linalg.vector_norm(gradient, dim=1).square_()
        gradient *= (-rate / self.squares.clamp_min(1e-30).sqrt()).unsqueeze(1)
        weight += gradient
        weight /= torch.linalg.vector_norm(weight, dim=1, keepdim=True)
        self.weight.grad = None


def measure(row: str, steps: int, device: str) -> dict[str, object]:
    """Takes steps in this process and returns what was measured."""
    torch.manual_seed(0)
    classes, sampled = ROWS[row]
    softmax = (SampledProductSoftmax(classes, DIM, sampled) if sampled else Full(classes, DIM)).to(device)
    vectors = functional.normalize(torch.randn(BATCH, DIM), dim=1).to(device)
    products = torch.randint(0, classes, (WARM_UP + steps, BATCH)).to(device)
    peak = peak_memory(device)
    seconds, cpu_seconds = [], []
    for product in products:
        start, cpu_start = time.perf_counter(), time.process_time()
        leaf = vectors.clone().requires_grad_()
        loss = softmax(leaf, product)
        loss.backward()
        softmax.update(0.1)
        loss.item()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    times = {"step_s": statistics.median(seconds[WARM_UP:]), "cpu_s": statistics.median(cpu_seconds[WARM_UP:])}
    return {**times, "peak_bytes": peak()}


def peak_memory(device: str) -> Callable[[], int]:
    """Starts counting; the result, called, gives the peak since then beyond what was taken at the start."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        taken = torch.cuda.memory_allocated()
        return lambda: torch.cuda.max_memory_allocated() - taken
    taken = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to now

    def peak() -> int:
        status = Path("/proc/self/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 - taken

    return peak


def in_a_process_of_its_own(row: str, options: argparse.Namespace) -> dict[str, float]:
    """Returns `measure(...)` of a fresh process."""
    command = [sys.executable, "-m", "benchmarks.softmax", "--measure", row]
    command += ["--steps", str(options.steps), "--device", options.device]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    loaded: dict[str, float] = json.loads(done.stdout)
    return loaded


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--repeats", type=int, default=3, help="processes per row")
    parser.add_argument("--steps", type=int, default=7, help="timed steps per process")
    parser.add_argument("--measure", choices=ROWS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULT, help="where the JSON goes")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.steps, options.device)))
        return

    device = torch.cuda.get_device_name() if options.device != "cpu" else platform.machine()
    print(f"{device}, {torch.get_num_threads()} of {os.cpu_count()} cores, torch {torch.__version__}\n")
    runs: dict[str, list[dict[str, float]]] = {row: [] for row in ROWS}
    for _ in range(options.repeats):
        for row, taken in runs.items():
            taken.append(in_a_process_of_its_own(row, options))
    print(f"{'classes':>16} {'ms a step':>10} {'(of runs)':>18} {'CPU ms':>8} {'peak MB':>8}")
    rows: list[dict[str, Any]] = []
    for row, taken in runs.items():
        medians = {key: statistics.median(run[key] for run in taken) for key in ("step_s", "cpu_s", "peak_bytes")}
        rows.append({"classes": row, **medians, "runs": taken})
        steps = [1000 * run["step_s"] for run in taken]
        span = f"{min(steps):.1f} to {max(steps):.1f}"
        times = f"{1000 * medians['step_s']:>10.1f} {span:>18} {1000 * medians['cpu_s']:>8.1f}"
        print(f"{row:>16} {times} {medians['peak_bytes'] / 2**20:>8.0f}")
    full, sampled, small = rows
    print(f"\nthe sampled one takes {_ratios(sampled, small)} of the full one over {SAMPLED:,},")
    print(f"and the full one over {CLASSES:,} takes {_ratios(full, sampled)} of the sampled one")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    summary = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "device": device, "rows": rows}
    options.out.write_text(json.dumps(summary, indent=2))
    print(f"\n{options.out}")


def _ratios(a: dict[str, Any], b: dict[str, Any]) -> str:
    time_ratio, cpu_ratio, memory_ratio = (a[key] / b[key] for key in ("step_s", "cpu_s", "peak_bytes"))
    return f"{time_ratio:.2f} times the time, {cpu_ratio:.2f} the CPU time and {memory_ratio:.2f} the memory"


if __name__ == "__main__":
    main()
