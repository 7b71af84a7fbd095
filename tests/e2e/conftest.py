"""The whole flow on a clip of a sample stream."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.flow_processes import CATALOG, SAMPLES, Processes, read_events, run_cli

CLIP_S = 36  # two or three products; long enough to kill each role in its middle


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory, first_seconds: Callable[[Path, Path, float], Path]) -> Path:
    """The first seconds of a sample stream."""
    return first_seconds(min((SAMPLES / "streams").glob("*.mp4")), tmp_path_factory.mktemp("clip") / "clip.mp4", CLIP_S)


@pytest.fixture(scope="session")
def watched(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The events of an undisturbed `watch` of the clip."""
    path = tmp_path_factory.mktemp("watch") / "events.jsonl"
    done = run_cli("watch", str(clip), "--catalog", CATALOG, "--events", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    return read_events(path)


@pytest.fixture
def start_processes(tmp_path: Path) -> Iterator[list[Processes]]:
    """A list that takes what a test has started; its processes are stopped at the test's end."""
    started: list[Processes] = []
    yield started
    for processes in started:
        processes.stop()
