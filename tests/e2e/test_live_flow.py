"""An RTMP push to nginx, watched as RTMP and as HLS while it is on the air."""

import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.flow_processes import CATALOG, environment, read_events
from tests.live_server import LiveServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

# The server does not say that a broadcast is over; after this long without a packet it is taken to be.
PATIENCE = {"COPE_STALL_TIMEOUT_S": "6", "COPE_RECONNECT_GIVE_UP_S": "6"}


@pytest.fixture
def live_server(tmp_path: Path) -> Iterator[LiveServer]:
    folder = tmp_path / "nginx"
    folder.mkdir()
    server = LiveServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def start_watch(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `cope-live watch`, which is killed at the test's end if it still runs."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "watch.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "workers", "watch", *arguments],
                env=environment() | PATIENCE,
                stdout=log,
                stderr=log,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


async def test_a_push_is_recognised_over_rtmp_and_over_hls(
    live_server: LiveServer,
    clip: Path,
    start_watch: Callable[..., subprocess.Popen[bytes]],
    tmp_path: Path,
    until: Callable[..., Awaitable[None]],
) -> None:
    await until(live_server.listening, 20)
    push = live_server.push(clip, "room")
    await until(lambda: live_server.hls_ready("room"), 30)
    path, log = tmp_path / "events.jsonl", tmp_path / "watch.log"
    sources = [f"rtmp={live_server.rtmp_url('room')}", f"hls={live_server.hls_url('room')}"]
    watch = start_watch(*sources, "--catalog", CATALOG, "--events", str(path))

    def both_have_started() -> bool:
        assert watch.poll() is None, log.read_text()
        assert push.poll() is None, live_server.log()
        events = read_events(path) if path.exists() else []
        return {event["stream_id"] for event in events} == {"rtmp", "hls"}

    await until(both_have_started, 300)
    push.kill()
    await until(lambda: watch.poll() is not None, 180)
    assert watch.returncode == 0, log.read_text()
    events = read_events(path)
    for detection_id in {event["detection_id"] for event in events}:
        statuses = [event["status"] for event in events if event["detection_id"] == detection_id]
        assert (statuses[0], statuses[-1]) == ("started", "ended")
