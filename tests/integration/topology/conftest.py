"""Workers that consume frames, for the tests of this folder."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from topology import topics
from topology.records import Frame, Keywords
from topology.settings import Settings
from topology.topic_log import Producer, end_offsets, read_partition
from topology.worker import Worker

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

Running = Callable[[Worker], AbstractAsyncContextManager[Worker]]


@pytest.fixture
def running() -> Running:
    """`async with running(worker):` starts it and stops it."""

    @asynccontextmanager
    async def run(worker: Worker) -> AsyncIterator[Worker]:
        try:
            await worker.start()
            yield worker
        finally:
            await worker.stop()

    return run


@pytest.fixture
def new_worker() -> Callable[[Settings], Worker]:
    """Makes a worker of the role embed; its handlers are up to the test."""
    return lambda settings: Worker("embed", settings)


@pytest.fixture
def frame() -> Callable[[int], Frame]:
    """Makes a frame that is told by its media time."""
    return lambda pts_ms: Frame(stream_id=f"room-{pts_ms % 6}", epoch=0, pts_ms=pts_ms, captured_at_ms=0)


SendFrames = Callable[[Settings, range], Awaitable[None]]


@pytest.fixture
def send_frames(frame: Callable[[int], Frame]) -> SendFrames:
    """Sends frames of the given media times, over six streams."""

    async def send(settings: Settings, times: range) -> None:
        async with Producer(settings) as producer:
            for pts_ms in times:
                record = frame(pts_ms)
                await producer.send("live_frames", record.stream_id, record)

    return send


class Process:
    """pipeline_worker.py as a process of its own."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    str(HERE / "pipeline_worker.py"),
                    settings.broker,
                    settings.topic_prefix,
                    str(int(settings.idempotent_producer)),
                ],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=output,
            )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def terminate(self) -> int:
        self._process.terminate()
        return self._process.wait(40)


async def _outputs(settings: Settings) -> Counter[int]:
    ends = await end_offsets(settings, topics.LIVE_KEYWORDS)
    counts: Counter[int] = Counter()
    for partition in ends:
        async for record in read_partition(settings, topics.LIVE_KEYWORDS, partition, Keywords):
            assert record.value is not None
            counts[record.value.start_ms] += 1
    return counts


@pytest.fixture
def pipeline(tmp_path: Path) -> Callable[[Settings], Process]:
    """Starts pipeline_worker.py; all processes of a test share one log file."""
    return lambda settings: Process(settings, tmp_path / "log")


@pytest.fixture
def outputs() -> Callable[[Settings], Awaitable[Counter[int]]]:
    """`await outputs(settings)` counts what the pipeline has written, by media time."""
    return _outputs
