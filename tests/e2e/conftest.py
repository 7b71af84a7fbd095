"""The whole flow on a clip of a sample stream: `watch` in a process, and six workers in processes of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from topology.settings import ROLES, Role, Settings

SAMPLES = Path(__file__).parents[2] / "samples"
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


def environment(settings: Settings | None = None) -> dict[str, str]:
    """Returns the environment of a child: ours without COPE_ variables, plus what the settings say."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("COPE_")}
    if settings is None:
        return variables
    return variables | {
        "COPE_BROKER": settings.broker,
        "COPE_BROKER_SESSION_TIMEOUT_S": str(settings.broker_session_timeout_s),
        "COPE_IDEMPOTENT_PRODUCER": str(settings.idempotent_producer),
        "COPE_TOPIC_PREFIX": settings.topic_prefix,
        "COPE_STREAM_PARTITIONS": str(settings.stream_partitions),
        "COPE_PRODUCT_PARTITIONS": str(settings.product_partitions),
    }


def run_cli(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `cope-live` to its end, with default settings."""
    return subprocess.run(
        [sys.executable, "-m", "workers", *arguments],
        env=environment(),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


class Processes:
    """The six workers, one process each, with their logs in a folder."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._running: dict[Role, subprocess.Popen[bytes]] = {}
        self._starts = 0

    def start(self, role: Role) -> None:
        self._starts += 1
        with (self._folder / f"{role}-{self._starts}.log").open("wb") as log:
            self._running[role] = subprocess.Popen(
                [sys.executable, "-m", "workers", "worker", role],
                env=environment(self._settings),
                stdout=log,
                stderr=log,
            )

    def start_all(self) -> None:
        for role in ROLES:
            self.start(role)

    def kill(self, role: Role) -> None:
        """Ends a worker as `kill -9` does."""
        process = self._running.pop(role)
        assert process.poll() is None, f"{role} had ended by itself:\n{self.logs(role)}"
        process.send_signal(signal.SIGKILL)
        process.wait()

    def check(self) -> None:
        """Fails the test if a worker has ended by itself."""
        for role, process in self._running.items():
            assert process.poll() is None, f"{role} has ended:\n{self.logs(role)}"

    def logs(self, role: Role) -> str:
        """Returns the last lines that the processes of a role wrote."""
        texts = [path.read_text(errors="replace")[-3000:] for path in sorted(self._folder.glob(f"{role}-*.log"))]
        return "\n---\n".join(texts)

    def stop(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def start_processes(tmp_path: Path) -> Iterator[list[Processes]]:
    """A list that takes what a test has started; its processes are stopped at the test's end."""
    started: list[Processes] = []
    yield started
    for processes in started:
        processes.stop()
