import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest

from tests.e2e.flow_processes import CATALOG, SAMPLES, environment, identities, read_events

ROOT = Path(__file__).parents[2]
JPEG = b"\xff\xd8"
SCHEMA = json.loads((ROOT / "topology/schemas/product_detected.schema.json").read_text())

# The first test also pays for the undisturbed run that the others are compared with.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_watch_finds_the_products_that_the_clip_shows(watched: list[dict[str, Any]]) -> None:
    truth = [json.loads(line) for line in min((SAMPLES / "streams").glob("*.truth.jsonl")).read_text().splitlines()]
    shown = {t["product_id"] for t in truth if "product_id" in t and t["end_ms"] < 34_000}
    assert shown
    assert {event["product_id"] for event in watched if event["status"] == "started"} >= shown


def test_each_event_follows_the_published_schema(watched: list[dict[str, Any]]) -> None:
    for event in watched:
        jsonschema.validate(event, SCHEMA)


def test_each_sighting_starts_and_ends_once(watched: list[dict[str, Any]]) -> None:
    for detection_id in {event["detection_id"] for event in watched}:
        statuses = [event["status"] for event in watched if event["detection_id"] == detection_id]
        assert statuses[0] == "started"
        assert statuses[-1] == "ended"
        assert set(statuses[1:-1]) <= {"updated"}


def test_watching_again_gives_the_same_events_and_a_page_of_them(
    watched: list[dict[str, Any]], clip: Path, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "workers", "watch", str(clip), "--catalog", CATALOG, "--events", str(path), "--page"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "until Ctrl-C" in line:
            break
    address = lines[-1].split()[0]
    with urllib.request.urlopen(address) as answer:
        assert b"/page/app.js" in answer.read()
    with urllib.request.urlopen(f"{address}streams") as answer:
        (room,) = json.load(answer)["streams"]
    assert (room["stream_id"], room["state"]) == (clip.stem, "ended")
    with urllib.request.urlopen(address + room["frame"].removeprefix("/")) as answer:
        assert answer.read().startswith(JPEG)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=120)[0]
    assert (process.returncode, rest) == (0, ""), "".join(lines) + rest
    assert identities(read_events(path)) == identities(watched)


@pytest.mark.parametrize("moment", ["starting", "▶"])
def test_interrupting_watch_leaves_no_process_behind(clip: Path, moment: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "workers", "watch", str(clip), "--catalog", CATALOG, "--realtime"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    assert any(moment in line for line in process.stdout)  # reads up to that line
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 130, output
    assert not output.strip(), "an interrupted watch has nothing more to say"
    assert children
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert not alive, [child.cmdline() for child in alive]
    assert len(gone) == len(children)


def test_killing_watch_leaves_no_broker_behind(clip: Path, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers", "watch", str(clip), "--catalog", CATALOG, "--realtime"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        assert "starting" in process.stdout.readline()
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert children
    assert not psutil.wait_procs(children, timeout=30)[1]
