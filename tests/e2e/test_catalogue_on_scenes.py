"""A sample stream with its catalogue as shops photograph: on scenes. And with look-alikes that no catalogue holds."""

import json
from pathlib import Path

import pytest

from benchmarks.scenic import catalogue_on_scenes
from tests.e2e.flow_processes import SAMPLES, run_cli

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

UNLISTED = {"saleor-73", "saleor-112"}  # the host shows them, and the catalogue has what looks alike
FOUND = 5  # of the six that are listed


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """The sample catalogue without the unlisted ones."""
    return catalogue_on_scenes(tmp_path, UNLISTED)


def test_products_on_scenes_are_found_and_look_alikes_that_no_page_shows_are_not(
    catalogue: Path, tmp_path: Path
) -> None:
    events, listed, unlisted = tmp_path / "events.jsonl", tmp_path / "listed.jsonl", tmp_path / "unlisted.jsonl"
    stream = SAMPLES / "streams" / "room-en"
    lines = stream.with_suffix(".truth.jsonl").read_text().splitlines(keepends=True)
    listed.write_text("".join(line for line in lines if json.loads(line).get("product_id") not in UNLISTED))
    told = [json.loads(line) for line in lines if json.loads(line).get("product_id") in UNLISTED]
    unlisted.write_text("".join(json.dumps(one | {"title": one.pop("product_id")}) + "\n" for one in told))
    done = run_cli("watch", f"{stream}.mp4", "--catalog", str(catalogue), "--events", str(events))
    assert done.returncode == 0, done.stdout + done.stderr
    score = run_cli("score", str(events), str(listed), str(unlisted))
    row = next(line.split() for line in score.stdout.splitlines() if line.startswith("room-en"))
    showings, found, false = int(row[1]), int(row[2]), int(row[3])
    assert (showings, false) == (6, 0), score.stdout
    assert found >= FOUND, score.stdout
