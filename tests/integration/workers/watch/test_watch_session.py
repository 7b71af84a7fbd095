"""`watch` in this process: real weights, the embedded broker and index, a few seconds of a sample stream."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from topology.errors import UserError
from topology.settings import Settings
from workers.cli.watch.session import WatchResult, watch

SAMPLES = Path(__file__).parents[4] / "samples"
STREAM = min((SAMPLES / "streams").glob("*.mp4"))
CLIP_S = 14


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, first_seconds: Callable[[Path, Path, float], Path]) -> Path:
    """The first seconds of a sample stream."""
    return first_seconds(STREAM, tmp_path_factory.mktemp("clip") / "clip.mp4", CLIP_S)


@pytest.fixture(scope="module")
def shown() -> str:
    """The product that the clip shows first."""
    lines = map(json.loads, STREAM.with_suffix(".truth.jsonl").read_text().splitlines())
    return str(next(line["product_id"] for line in lines if "product_id" in line))


@pytest.fixture(scope="module")
def catalog(shown: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The product that is shown, two others, and one whose only picture cannot be fetched."""
    rows = [json.loads(line) for line in (SAMPLES / "catalog.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["product_id"] == shown] + [r for r in rows if r["product_id"] != shown][:2]
    for row in rows:
        row["images"] = [str(SAMPLES / image) for image in row["images"]]
    rows.append({"product_id": "gone", "title": "Gone", "images": ["http://127.0.0.1:9/gone.jpg"]})
    path = tmp_path_factory.mktemp("catalog") / "catalog.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


async def test_a_clip_is_watched_to_its_end(
    clip: Path, catalog: Path, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "events.jsonl"
    result = await watch(settings(), [str(clip)], str(catalog), events_path=path, language="en")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert (result.status, result.failed) == (0, ())
    assert result.sightings == sum(event["status"] == "started" for event in events)
    assert abs(result.media_ms - CLIP_S * 1000) < 500
    assert events[0]["product_id"] == shown
    assert (events[0]["status"], events[-1]["status"]) == ("started", "ended")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("4 products, 1 stream, model cope-mini@")
    assert any(line.startswith("gone cannot be recognised: ") for line in said)
    assert "clip: ended" in said
    assert said[-1] == str(result)


async def test_ctrl_c_takes_everything_down_and_is_told_as_such(
    clip: Path, catalog: Path, capsys: pytest.CaptureFixture[str], until: Callable[..., Awaitable[None]]
) -> None:
    said = ""

    def has_begun() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return "starting" in said

    async def interrupt() -> None:
        await until(has_begun, 120)
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = asyncio.create_task(interrupt())
    with pytest.raises(KeyboardInterrupt):
        await watch(settings(), [str(clip)], str(catalog), realtime=True)
    await interrupting
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_role_that_cannot_start_ends_the_watch_with_its_reason(clip: Path, catalog: Path) -> None:
    with pytest.raises(UserError, match=r"COPE_ASR_MODEL"):
        await watch(settings(asr_model="/nowhere"), [str(clip)], str(catalog))


def test_the_result_says_how_fast_it_went() -> None:
    result = WatchResult(failed=("b",), sightings=1, media_ms=90_000, seconds=30.0)
    assert result.status == 1
    assert str(result) == "1 sighting in 1:30 of streams, looked at in 30 s: 3.0 × real time"
