"""Runs `cope-live` in processes of its own: to its end, or as workers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from topology.settings import FLOW, Role, Settings

SAMPLES = Path(__file__).parents[2] / "samples"
CATALOG = str(SAMPLES / "catalog.jsonl")


def read_events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def identities(events: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(event["detection_id"], event["status"]) for event in events}


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
        "COPE_ALLOWED_NETWORKS": settings.allowed_networks,
        "COPE_ALLOWED_FOLDERS": settings.allowed_folders,
        "COPE_STREAM_PARTITIONS": str(settings.stream_partitions),
        "COPE_PRODUCT_PARTITIONS": str(settings.product_partitions),
        "COPE_EVIDENCE_URL": settings.evidence_url,
        "COPE_WEBHOOK_URL": settings.webhook_url,
    }


def run_cli(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `cope-live` to its end, with default settings."""
    return subprocess.run(
        [sys.executable, "-m", "workers", *arguments],
        env=environment(),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


class Processes:
    """Workers, one process each, with their logs in a folder."""

    def __init__(self, settings: Settings, folder: Path, roles: Sequence[Role] = FLOW) -> None:
        self._settings = settings
        self._roles = roles
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
        for role in self._roles:
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
