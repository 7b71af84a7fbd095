"""Time and memory of exact retrieval at the size of LPR4M's test, 20,000 live clips among 66,000 shop pictures.

    python -m benchmarks.retrieval [--gallery 66000] [--queries 20000] [--dim 512] [--device cpu]

Vectors are random with a common part for items of one product, about one and twelve positives to a query. Prints a
table and writes `build/benchmark-retrieval.json`. Memory is the peak during the search, less what was held before;
of the process from Linux's /proc, or of the GPU.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from cope.evaluation.ranking import ranks
from cope.runtime.device import choose

RESULT = Path("build/benchmark-retrieval.json")
NOISE = 2.0  # so much that about half of the queries are not found at once
POSITIVES = (1, 12)  # LPR4M's and ROPE's


def items(count: int, products: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """Vectors (count, dim) and products (count,)."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(products, dim, generator=torch.Generator().manual_seed(0))
    known = torch.randint(products, (count,), generator=generator)
    noise = torch.randn(count, dim, generator=generator)
    return functional.normalize(centres[known] + NOISE * noise, dim=1), known


def held_bytes(device: torch.device) -> int:
    """What is held now; the peak is counted from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_bytes(device: torch.device) -> int:
    """The most that was held since `held_bytes`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def main() -> None:
    """Prints the table and writes the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--gallery", type=int, default=66_000)
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = choose(args.device)
    rows = []
    print(
        f"{args.queries:,} queries x {args.gallery:,} items x {args.dim} on {device}, {torch.get_num_threads()} threads"
    )
    print(f"{'positives':>10} {'seconds':>8} {'vectors MB':>11} {'beside them MB':>15} {'R@1':>6} {'mAP':>6}")
    for positives in POSITIVES:
        products = args.gallery // positives
        gallery, gallery_ids = items(args.gallery, products, args.dim, 1)
        queries, query_ids = items(args.queries, products, args.dim, 2)
        held = (gallery.nbytes + queries.nbytes) / 1e6
        gallery, queries = gallery.to(device), queries.to(device)
        before, began = held_bytes(device), time.perf_counter()
        found = ranks(queries, query_ids, gallery, gallery_ids).figures()
        seconds, beside = time.perf_counter() - began, (peak_bytes(device) - before) / 1e6
        rows.append(
            {
                "positives": positives,
                "seconds": seconds,
                "vectors_mb": held,
                "beside_mb": beside,
                "r1": found.r1,
                "map": found.mean_average_precision,
            }
        )
        print(
            f"{positives:>10} {seconds:>8.1f} {held:>11.0f} {beside:>15.0f} {found.r1:>6.3f} "
            f"{found.mean_average_precision:>6.3f}"
        )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"arguments": vars(args), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
