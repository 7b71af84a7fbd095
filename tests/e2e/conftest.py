"""The whole flow on a clip of a sample stream."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from flow_processes import CATALOG, SAMPLES, Processes, read_events, run_cli

CLIP_S = 36  # two or three products; long enough to kill each role in its middle


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first seconds of a sample stream, packets copied as they are."""
    source = min((SAMPLES / "streams").glob("*.mp4"))
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(source) as reader, av.open(path, "w") as writer:
        copies = {stream.index: writer.add_stream_from_template(stream) for stream in reader.streams}
        for packet in reader.demux():
            if packet.dts is not None and packet.pts * packet.time_base < CLIP_S:
                packet.stream = copies[packet.stream.index]
                writer.mux(packet)
    return path


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
