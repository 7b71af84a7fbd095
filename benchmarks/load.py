"""How many real-time streams this machine keeps up with.

    python -m benchmarks.load [--most 32]       # a table, build/benchmark-load.json and build/benchmark-load.png

The sample streams, played at the speed of their clock under other names, all at once and each round more of them, until
the flow falls behind: it ends more than `LATE_S` after the streams do, so its lag grows as long as they last. A round
takes as long as a stream, 90 s. Beside the lag at the end: how late events come, and the CPU time by stage.
"""

import argparse
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

from benchmarks.watch import ROOT, STREAMS, in_a_process_of_its_own
from topology.settings import load_settings
from workers.capture.source import probe

RESULT = ROOT / "build/benchmark-load.json"
# A window of 8 s ends with its stream, and keywords are waited for at most 4 s.
LATE_S = 10.0


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=2, help="streams of the first round")
    parser.add_argument("--step", type=int, default=2, help="more streams in each round")
    parser.add_argument("--most", type=int, default=32, help="streams of the last round")
    parser.add_argument("--out", type=Path, default=RESULT, help="where the JSON goes, and the picture beside it")
    options = parser.parse_args()
    settings = load_settings(allowed_folders=str(STREAMS[0].parent))
    longest_s = max((probe(str(path), settings).duration_ms or 0) / 1000 for path in STREAMS)
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.machine()}\n")
    print(f"{'streams':>7} {'lag s':>6} {'event p50':>10} {'p95 ms':>7} {'cores busy':>11}")
    rows: list[dict[str, Any]] = []
    for count in range(options.first, options.most + 1, options.step):
        row = in_a_process_of_its_own(count, realtime=True)
        cuts = statistics.quantiles(row["latency_ms"], n=20)
        row |= {"lag_s": row["wall_s"] - longest_s, "p50_ms": cuts[9], "p95_ms": cuts[18]}
        busy = sum(row["cpu_s_per_stream_minute"].values()) * row["media_s"] / 60 / row["wall_s"]
        rows.append(row)
        print(f"{count:>7} {row['lag_s']:>6.1f} {cuts[9]:>10.0f} {cuts[18]:>7.0f} {busy:>11.2f}", flush=True)
        if row["lag_s"] > LATE_S:
            break
    kept_up = [row["streams"] for row in rows if row["lag_s"] <= LATE_S]
    print(f"\n{max(kept_up, default=0)} streams without growing lag")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"keeps_up_with": max(kept_up, default=0), "rounds": rows}, indent=2) + "\n")
    draw(rows, options.out.with_suffix(".png"))
    print(options.out)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws lag and latency over the number of streams."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    counts = [row["streams"] for row in rows]
    axes.plot(counts, [row["p95_ms"] / 1000 for row in rows], marker="o", label="media to event, p95")
    axes.plot(counts, [row["p50_ms"] / 1000 for row in rows], marker="o", label="media to event, p50")
    axes.plot(counts, [row["lag_s"] for row in rows], marker="s", label="behind the streams at their end")
    axes.axhline(LATE_S, color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="real-time streams", ylabel="seconds", title=f"{os.cpu_count()} cores", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
