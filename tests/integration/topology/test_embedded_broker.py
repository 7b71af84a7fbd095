"""The embedded broker lives and dies with its owner."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from topology.embedded import EmbeddedBroker
from topology.settings import Settings

ROOT = Path(__file__).parents[3]
OWNER = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has it ignored
import time
from topology.embedded import EmbeddedBroker
broker = EmbeddedBroker()
broker.start()
print(broker.pid, flush=True)
time.sleep(600)
"""


def test_it_listens_while_it_is_open_and_is_gone_after() -> None:
    with EmbeddedBroker() as broker:
        process = psutil.Process(broker.pid)
        host, port = broker.address.split(":")
        assert any(c.laddr.port == int(port) for c in process.net_connections())
        assert host == "127.0.0.1"
    assert broker.pid is None
    assert not process.is_running()


async def test_it_is_an_async_context_manager_too() -> None:
    async with EmbeddedBroker() as broker:
        _, writer = await asyncio.open_connection(*broker.address.split(":"))
        writer.close()
        await writer.wait_closed()


def test_two_of_them_do_not_meet() -> None:
    with EmbeddedBroker() as first, EmbeddedBroker() as second:
        assert first.address != second.address


def test_settings_are_pointed_at_it_within_its_limits() -> None:
    with EmbeddedBroker() as broker:
        settings = broker.configure(Settings(_env_file=None))
        assert settings.broker == broker.address
        assert not settings.idempotent_producer
        assert settings.broker_session_timeout_s == 6.0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_dies_with_its_parent_however_that_ends(how: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        broker = psutil.Process(int(parent.stdout.readline()))
        assert broker.is_running()
        parent.send_signal(how)
        try:
            parent.wait(60)
        finally:
            parent.kill()
        psutil.wait_procs([broker], timeout=60)
        assert not broker.is_running() or broker.status() == psutil.STATUS_ZOMBIE
