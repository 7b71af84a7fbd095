"""What evidence costs beside a watch: `python -m benchmarks.evidence [--realtime] [STREAM...]`; JSON in build/.

The evidence role, in this process, follows a watch in another one. Processor seconds of both, from the start of the
watch to its end, and of the role while nothing happens.
"""

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import click

from topology.embedded import EmbeddedBroker
from topology.settings import Settings, load_settings
from topology.topics import PRODUCT_DETECTED
from topology.worker import Worker
from workers.evidence.agent import build

IDLE_S = 20.0
ONE = {"stream_partitions": 1, "product_partitions": 1}


async def _follow(settings: Settings, command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Returns the processor seconds of the role beside a command, and those of a minute without events."""
    worker = Worker("evidence", settings, serve_http=False)
    build(worker)
    await worker.start()
    try:
        await asyncio.sleep(IDLE_S / 2)  # joining the group is no part of it
        began_s = time.process_time()
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.DEVNULL)
        if await process.wait():
            raise click.ClickException("the watch failed")
        await worker.delivery.until_done(PRODUCT_DETECTED)
        done_s = time.process_time()
        await asyncio.sleep(IDLE_S)
        idle_s = time.process_time() - done_s
    finally:
        await worker.stop()
    return done_s - began_s, idle_s * 60 / IDLE_S


@click.command(help=__doc__)
@click.argument("streams", nargs=-1)
@click.option("--realtime", is_flag=True, help="At the speed of the streams' clock, as they are in service.")
def main(streams: tuple[str, ...], realtime: bool) -> None:
    """Runs the benchmark."""
    sources = streams or tuple(str(path) for path in sorted(Path("samples/streams").glob("*.mp4")))
    with EmbeddedBroker() as broker, tempfile.TemporaryDirectory() as folder:
        settings = broker.configure(load_settings()).model_copy(
            update=ONE | {"evidence_url": folder, "allowed_folders": str(Path("samples").resolve())}
        )
        events = Path(folder) / "events.jsonl"
        arguments = ["watch", *sources, "--catalog", "samples/catalog.jsonl", "--events", str(events)]
        arguments += ["--realtime"] if realtime else []
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COPE_")} | {
            "COPE_BROKER": settings.broker,
            "COPE_IDEMPOTENT_PRODUCER": "false",
            "COPE_BROKER_SESSION_TIMEOUT_S": str(settings.broker_session_timeout_s),
            "COPE_STREAM_PARTITIONS": "1",
            "COPE_PRODUCT_PARTITIONS": "1",
        }
        command = [sys.executable, "-m", "workers", *arguments]
        keep_s, idle_s = asyncio.run(_follow(settings, command, environment))
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        watch_s = used.ru_utime + used.ru_stime
        told = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
        files = [path.stat().st_size for path in Path(folder).rglob("*.evidence")]
    row = {
        "sightings": len({event["detection_id"] for event in told}),
        "watch_cpu_s": round(watch_s, 1),
        "evidence_cpu_s": round(keep_s, 2),
        "evidence_idle_cpu_s_a_minute": round(idle_s, 2),
        "share": round(keep_s / watch_s, 4),
        "kept": len(files),
        "kept_bytes": sum(files),
    }
    print(json.dumps(row, indent=1))
    Path("build").mkdir(exist_ok=True)
    Path("build/evidence.json").write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
