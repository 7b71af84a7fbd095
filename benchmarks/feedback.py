"""Do verdicts mend a mistake? The loop of docs/feedback.md on the sample streams: `python -m benchmarks.feedback OUT`.

Products (`--product`) are taken out of the catalogue, in which their look-alikes are: these are then detected.
Verdicts are given over HTTP as the streams' truth says, exported, and a copy of the model is calibrated with them.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import click

from cope.serving.artefact import locate
from topology.embedded import EmbeddedBroker
from topology.settings import Settings, load_settings
from topology.worker import Worker
from workers.cli.truth import read_truths
from workers.monitor.agent import build

SAMPLES = Path("samples")
STREAMS = [str(path) for path in sorted((SAMPLES / "streams").glob("*.mp4"))]


def _run(*arguments: str, **settings: str) -> str:
    print("$", *(f"{name}={value}" for name, value in settings.items()), "cope-live", *arguments, flush=True)
    command = [sys.executable, "-m", "workers", *arguments]
    done = subprocess.run(command, env=os.environ | settings, text=True, capture_output=True, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr[-2000:])
    return done.stdout


def _detected(events: Path, truth: dict[str, Any]) -> list[dict[str, Any]]:
    """The first event of each sighting, with what is really shown in its middle (None: nothing of the catalogue)."""
    found = []
    newest: dict[str, dict[str, Any]] = {}
    for line in events.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        newest[event["detection_id"]] = event
    for event in newest.values():
        middle_ms = (event["media_start_ms"] + event["media_end_ms"]) / 2
        shown = [one.product_id for one in truth[event["stream_id"]].showings if one.start_ms <= middle_ms < one.end_ms]
        found.append(event | {"shown": shown[0] if shown else None})
    return found


def _told(name: str, detected: list[dict[str, Any]], gone: Sequence[str]) -> dict[str, Any]:
    wrong = [one for one in detected if one["shown"] != one["product_id"]]
    for one in wrong:
        print(f"  {name}: {one['product_id']} at {one['confidence']:.2f} while {one['shown']} is shown")
    row = {
        "right": len(detected) - len(wrong),
        "wrong": len(wrong),
        "the mistake": [one["confidence"] for one in wrong if one["shown"] in gone],
    }
    print(name, row, flush=True)
    return row


async def _judge(settings: Settings, detected: list[dict[str, Any]], gone: Sequence[str], verdict: str) -> None:
    worker = Worker("monitor", settings)
    build(worker)
    await worker.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{worker.http_port}") as client:
            for path in ("/streams", "/products"):
                while (await client.get(path)).status != 200:  # noqa: ASYNC110 - it answers 503 with Retry-After
                    await asyncio.sleep(0.2)
            for one in detected:
                given: dict[str, str] = {"verdict": "right"}
                if one["shown"] is None or one["shown"] in gone:
                    given = {"verdict": verdict}
                elif one["shown"] != one["product_id"]:
                    given = {"verdict": "other", "product_id": one["shown"]}
                async with client.post(f"/detections/{one['detection_id']}/verdict", json=given) as response:
                    if response.status != 200:
                        raise click.ClickException(await response.text())
    finally:
        await worker.stop()


@click.command(help=__doc__)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--product", "products", multiple=True, default=("saleor-84",), show_default=True)
@click.option(
    "--verdict",
    type=click.Choice(("not_in_catalogue", "wrong")),
    default="not_in_catalogue",
    show_default=True,
    help="What is said of the mistakes.",
)
@click.option("--handicaps/--anew", default=True, show_default=True, help="Give handicaps, or fit a new calibration.")
@click.option("--data", multiple=True, help="More to calibrate on, beside the verdicts.")
def main(out: Path, products: tuple[str, ...], verdict: str, handicaps: bool, data: tuple[str, ...]) -> None:
    """Runs the loop and writes its figures."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in (SAMPLES / "catalog.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["images"] = [str((SAMPLES / image).resolve()) for image in row["images"]]
    catalogue = out / "catalog.jsonl"
    catalogue.write_text("".join(json.dumps(row) + "\n" for row in rows if row["product_id"] not in products))
    truth = read_truths((SAMPLES / "streams").glob("*.truth.jsonl"))
    model = out / "model"
    shutil.copytree(locate("cope-mini"), model, dirs_exist_ok=True)
    with EmbeddedBroker() as broker:
        settings = broker.configure(load_settings()).model_copy(
            update={"evidence_url": str(out / "evidence"), "stream_partitions": 1, "product_partitions": 1}
        )
        at = {
            "COPE_BROKER": settings.broker,
            "COPE_IDEMPOTENT_PRODUCER": "false",
            "COPE_BROKER_SESSION_TIMEOUT_S": "6",
            "COPE_STREAM_PARTITIONS": "1",
            "COPE_PRODUCT_PARTITIONS": "1",
            "COPE_EVIDENCE_URL": settings.evidence_url,
            "COPE_ALLOWED_FOLDERS": str(SAMPLES.resolve()),
        }
        _run("watch", *STREAMS, "--catalog", str(catalogue), "--events", str(out / "before.jsonl"), **at)
        before = _detected(out / "before.jsonl", truth)
        figures = {"before": _told("before", before, products)}
        asyncio.run(_judge(settings, before, products, verdict))
        print(_run("verdicts", "export", str(out / "verdicts"), **at))
    more = [word for one in (*data, str(out / "verdicts")) for word in ("--data", one)]
    print(_run("calibrate", str(model), *(["--handicaps"] if handicaps else []), *more))
    _run("watch", *STREAMS, "--catalog", str(catalogue), "--model", str(model), "--events", str(out / "after.jsonl"))
    figures["after"] = _told("after", _detected(out / "after.jsonl", truth), products)
    (out / "feedback.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
