"""Waiting for the streams' end, and what ends that wait."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from topology.settings import Settings
from workers.cli.watch.following import Following
from workers.cli.watch.progress import StreamProgress, WatchProgress
from workers.cli.watch.view import PlainView


@pytest.fixture
def following() -> Following:
    progress = WatchProgress([StreamProgress("a", "a.mp4", None)], 8_000)
    return Following(Settings(_env_file=None, broker="127.0.0.1:9"), progress, PlainView({}), None)


class Watcher:
    """A worker's `wait_failed`."""

    def __init__(self) -> None:
        self.waits = False
        self.fails = asyncio.Event()

    async def wait_failed(self) -> None:
        self.waits = True
        await self.fails.wait()
        raise RuntimeError("out of order")


async def test_a_worker_that_fails_ends_the_wait_with_its_error(following: Following) -> None:
    first, second = Watcher(), Watcher()
    first.fails.set()
    with pytest.raises(RuntimeError, match="out of order"):
        await following.until_finished(first.wait_failed(), second.wait_failed())
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_interrupted_wait_watches_no_worker_any_more(
    following: Following, until: Callable[..., Awaitable[None]]
) -> None:
    # Else the workers' own end would be told as failures of theirs.
    watcher = Watcher()
    waiting = asyncio.create_task(following.until_finished(watcher.wait_failed()))
    await until(lambda: watcher.waits)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert asyncio.all_tasks() == {asyncio.current_task()}
