"""How fast `watch` is, what it costs, and how late its events come.

    python -m benchmarks.watch [--streams 1,2,4,8] [--skip-latency]

Prints the cost of the kernels alone (`benchmarks.limit`), two tables and writes `build/benchmark-watch.json`:

* by stream count: real-time factor (wall seconds per second of media, all streams together, from the streams'
  announcement to their end; below 1 is faster than real time), CPU seconds per stream-minute by stage, peak memory;
  the start included, so the first streams bear it; and all of it by what the kernels alone take;
* media-to-event latency with two streams played in real time: from the capture of the newest frame that an event
  rests on to the event.

Each row is one run in a process of its own over the sample streams, repeated under other names. A stage's CPU time
is that of its threads, so the models are given one thread each (`COPE_THREADS=1`).
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
STREAMS = sorted((ROOT / "samples/streams").glob("*.mp4"))
CATALOG = ROOT / "samples/catalog.jsonl"
RESULT = ROOT / "build/benchmark-watch.json"
STAGES = ("capture", "transcribe", "embed", "catalog", "recognize", "broker", "rest")


class CpuByStage(threading.Thread):
    """Samples the CPU time of this process's threads by the names of their stages.

    Threads that native code made (CTranslate2 for Whisper, onnxruntime for voice activity) have no Python name.
    """

    def __init__(self) -> None:
        super().__init__(name="benchmark", daemon=True)
        self._process = psutil.Process()
        self._seconds: dict[int, float] = {}
        self._stages: dict[int, str] = {}
        self._children: dict[int, float] = {}
        self._stopped = threading.Event()
        self.peak_bytes = 0

    def run(self) -> None:
        """Samples until `stop`; a thread that ends loses at most its last half second."""
        while not self._stopped.wait(0.5):
            self.sample()

    def stop(self) -> dict[str, float]:
        """Returns CPU seconds by stage."""
        self._stopped.set()
        self.join()
        self.sample()
        seconds = dict.fromkeys(STAGES, 0.0)
        for thread, value in self._seconds.items():
            seconds[self._stages.get(thread, "transcribe")] += value
        seconds["broker"] += sum(self._children.values())
        return seconds

    def sample(self) -> None:
        """Takes one sample of all threads, child processes and memory."""
        for thread in threading.enumerate():
            if thread.native_id is not None:
                self._stages[thread.native_id] = _stage(thread.name)
        for times in self._process.threads():
            self._seconds[times.id] = times.user_time + times.system_time
        memory = self._process.memory_info().rss
        for child in self._process.children(recursive=True):
            try:
                used = child.cpu_times()
                self._children[child.pid] = used.user + used.system
                memory += child.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        self.peak_bytes = max(self.peak_bytes, memory)


def _stage(thread_name: str) -> str:
    if thread_name.startswith("player-"):  # capture's decoding thread of a stream
        return "capture"
    for stage in STAGES:
        if stage in thread_name:
            return stage
    return "rest"


def measure(count: int, realtime: bool) -> dict[str, Any]:
    """Watches `count` of the sample streams in this process and returns what was measured."""
    sources = [f"room-{number}={STREAMS[number % len(STREAMS)]}" for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        return {"streams": count} | watched(sources, CATALOG, Path(folder) / "events.jsonl", realtime)


def watched(sources: list[str], catalog: Path, events_path: Path, realtime: bool = False) -> dict[str, Any]:
    """Watches streams in this process, writes their events and returns what was measured."""
    from topology.settings import load_settings
    from workers.cli.watch.session import watch

    cpu = CpuByStage()
    cpu.start()
    result = asyncio.run(watch(load_settings(), sources, str(catalog), events_path=events_path, realtime=realtime))
    seconds = cpu.stop()
    events = [json.loads(line) for line in events_path.read_text().splitlines()]
    minutes = result.media_ms / 60_000
    return {
        "real_time_factor": result.seconds / (result.media_ms / 1000),
        "media_s": result.media_ms / 1000,
        "wall_s": result.seconds,
        "cpu_s_per_stream_minute": {stage: value / minutes for stage, value in seconds.items()},
        "peak_memory_bytes": cpu.peak_bytes,
        "latency_ms": [event["latency_ms"] for event in events if event["status"] == "started"],
    }


def in_a_process_of_its_own(count: int, realtime: bool) -> dict[str, Any]:
    """Returns `measure(...)` of a fresh process."""
    return run("benchmarks.watch", "--measure", str(count), *(["--realtime"] if realtime else []))


def run(module: str, *arguments: str, **settings: str) -> dict[str, Any]:
    """Returns what a benchmark writes in a fresh process with one thread for each model, and these settings."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        subprocess.run(
            [sys.executable, "-m", module, *arguments, "--out", str(out)],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "COPE_THREADS": "1", "OMP_NUM_THREADS": "1"} | settings,
        )
        loaded: dict[str, Any] = json.loads(out.read_text())
        return loaded


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", default="1,2,4,8", help="stream counts to measure")
    parser.add_argument("--skip-latency", action="store_true", help="leave out the run in real time (90 s)")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--realtime", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULT, help="where the JSON goes")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.measure:
        options.out.write_text(json.dumps(measure(options.measure, options.realtime)))
        return

    limit = run("benchmarks.limit")
    least = sum(limit.values())
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.machine()}\n")
    print("kernels alone: " + "  ".join(f"{kernel} {value:.1f}" for kernel, value in limit.items()), end="")
    print(f", together {least:.1f} CPU seconds per stream-minute\n")
    print(f"{'streams':>7} {'RTF':>6} {'wall s':>7} {'peak MB':>8}   CPU seconds per stream-minute")
    rows = []
    for count in map(int, options.streams.split(",")):
        row = in_a_process_of_its_own(count, realtime=False)
        rows.append(row)
        cpu = row["cpu_s_per_stream_minute"]
        stages = "  ".join(f"{stage} {cpu[stage]:.1f}" for stage in STAGES)
        memory = row["peak_memory_bytes"] / 2**20
        row["flow_by_kernels"] = sum(cpu.values()) / least
        stages += f"  = {row['flow_by_kernels']:.2f} x kernels"
        print(f"{count:>7} {row['real_time_factor']:>6.2f} {row['wall_s']:>7.0f} {memory:>8.0f}   {stages}", flush=True)
    summary: dict[str, object] = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kernels": limit,
        "by_streams": rows,
    }
    if not options.skip_latency:
        row = in_a_process_of_its_own(2, realtime=True)
        latency = sorted(row["latency_ms"])
        cuts = statistics.quantiles(latency, n=20)
        print(f"\nmedia-to-event latency, 2 streams in real time: p50 {cuts[9]:.0f} ms, p95 {cuts[18]:.0f} ms", end="")
        print(f" of {len(latency)} sightings")
        summary["latency_ms"] = {"p50": cuts[9], "p95": cuts[18], "sightings": len(latency)}
    options.out.write_text(json.dumps(summary, indent=2))
    print(f"\n{options.out}")


if __name__ == "__main__":
    main()
