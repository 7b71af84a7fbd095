"""Workers that consume frames, for the tests of this folder."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from topology.records import Frame
from topology.settings import Settings
from topology.worker import Worker

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
    from topology.log import Producer

    async def send(settings: Settings, times: range) -> None:
        async with Producer(settings) as producer:
            for pts_ms in times:
                record = frame(pts_ms)
                await producer.send("live_frames", record.stream_id, record)

    return send
