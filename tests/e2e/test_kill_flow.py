"""Kill -9 of each role in the middle of a stream changes nothing in the set of (detection_id, status)."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.flow_processes import SAMPLES, Processes, identities
from topology.admin import create_topics
from topology.records import ProductDetected, RecognitionState
from topology.settings import FLOW, Role, Settings
from topology.topic_log import Follower
from topology.topics import PRODUCT_DETECTED, RECOGNITION_STATE
from workers.catalog.files import read_catalog
from workers.cli.products import publish_pages
from workers.cli.publish import announce

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

# Each role is killed once, when recognition has come so far; the stream goes on in between. The order leaves a slow
# machine most time: what piles up while a role is away, recognition takes in a moment, embed in a few, and only
# transcribe piece by piece.
KILLS: tuple[tuple[Role, int], ...] = (
    ("recognize", 2_000),
    ("monitor", 4_000),
    ("catalog", 4_000),
    ("capture", 6_000),
    ("transcribe", 10_000),
    ("embed", 14_000),
)


class Observer:
    """Reads what comes out of the flow."""

    def __init__(self, settings: Settings) -> None:
        self._events = Follower(settings, PRODUCT_DETECTED, ProductDetected)
        self._states = Follower(settings, RECOGNITION_STATE, RecognitionState)
        self.identities: set[tuple[str, str]] = set()
        self.state = RecognitionState(stream_id="", epoch=0, start_ms=-1)

    async def __aenter__(self) -> "Observer":
        self._tasks = [asyncio.create_task(self._follow_events()), asyncio.create_task(self._follow_states())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks)

    async def _follow_events(self) -> None:
        async for record in self._events:
            if record.value is not None:
                self.identities.add((record.value.detection_id, record.value.status))

    async def _follow_states(self) -> None:
        async for record in self._states:
            if record.value is not None:
                self.state = record.value


async def test_each_role_killed_once_in_the_middle_of_a_stream_changes_no_event(
    any_broker: Settings,
    clip: Path,
    watched: list[dict[str, Any]],
    start_processes: list[Processes],
    tmp_path: Path,
    until: Callable[..., Awaitable[None]],
) -> None:
    assert {role for role, _ in KILLS} == set(FLOW)
    await create_topics(any_broker)
    processes = Processes(any_broker, tmp_path)
    start_processes.append(processes)
    processes.start_all()
    await publish_pages(any_broker, read_catalog(SAMPLES / "catalog.jsonl"))
    await announce(any_broker, "clip", str(clip), realtime=True)
    async with Observer(any_broker) as observer:

        def reached(start_ms: int) -> bool:
            processes.check()
            return observer.state.start_ms >= start_ms

        for role, threshold in KILLS:
            await until(lambda threshold=threshold: reached(threshold), 240)
            assert not observer.state.ended, "the stream was over before all roles had been killed"
            processes.kill(role)
            processes.start(role)
        await until(lambda: observer.state.ended, 240)
        expected = identities(watched)
        assert expected
        await until(lambda: observer.identities >= expected, 60)
        assert observer.identities == expected
