"""The monitor without a broker: its followers are given records, its routes are asked over HTTP."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any
from unittest import mock
from urllib.parse import quote

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.unit.fuzz.memory_flow import SETTINGS
from tests.unit.fuzz.small_parts import SmallModel
from topology.codec import decode_value
from topology.errors import BadInput
from topology.records import (
    Keywords,
    PageVectors,
    ProductDetected,
    RecognitionState,
    StreamAnnounced,
    StreamStatus,
    Verdict,
)
from topology.topic_log import LogRecord
from topology.topics import (
    DETECTION_VERDICTS,
    LIVE_KEYWORDS,
    LIVE_STREAMS,
    PAGE_VECTORS,
    PRODUCT_DETECTED,
    RECOGNITION_STATE,
    STREAM_STATUS,
)
from topology.worker import Worker
from workers.monitor.agent import Monitor
from workers.monitor.routes import to_cursor

KINDS = {
    LIVE_STREAMS: StreamAnnounced,
    STREAM_STATUS: StreamStatus,
    RECOGNITION_STATE: RecognitionState,
    PRODUCT_DETECTED: ProductDetected,
    PAGE_VECTORS: PageVectors,
    DETECTION_VERDICTS: Verdict,
    LIVE_KEYWORDS: Keywords,
}


class Log:
    """A topic that is followed to its end. What is no record is skipped, as `Follower` does."""

    def __init__(self, topic: str, values: Sequence[tuple[str, bytes | None]]) -> None:
        self._topic = topic
        self._values = values
        self.given: list[LogRecord[Any]] = []
        self.caught_up = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[LogRecord[Any]]:
        for offset, (key, value) in enumerate(self._values):
            try:
                record = None if value is None else decode_value(value, KINDS[self._topic])
            except BadInput:
                continue
            self.given.append(LogRecord(record, key, self._topic, 0, offset, 1_000))
            yield self.given[-1]
        self.caught_up.set()


class WholeMonitor:
    """The role with its routes.

    Args:
        held: Key and value of records, by topic.
        evidence_url: Where evidence is kept.
    """

    def __init__(self, held: dict[str, list[tuple[str, bytes | None]]], evidence_url: str) -> None:
        settings = SETTINGS.model_copy(update={"evidence_url": evidence_url})
        self._worker = Worker("monitor", settings, serve_http=False)
        self._monitor = monitor = Monitor(self._worker, SmallModel())
        self.logs = {topic: Log(topic, held.get(topic, [])) for topic in KINDS}
        monitor._statuses, monitor._announcements = self.logs[STREAM_STATUS], self.logs[LIVE_STREAMS]
        monitor._progress, monitor._events = self.logs[RECOGNITION_STATE], self.logs[PRODUCT_DETECTED]
        monitor._verdicts.follower = self.logs[DETECTION_VERDICTS]
        monitor._pages._follower, monitor._pages.caught_up = self.logs[PAGE_VECTORS], self.logs[PAGE_VECTORS].caught_up
        monitor._followers = {
            topic: log for topic, log in self.logs.items() if topic not in (PAGE_VECTORS, LIVE_KEYWORDS)
        }
        monitor._reader.read = self._read
        self._worker.delivery.send = self._send
        self.written: list[str] = []

    async def follow(self) -> None:
        one = self._monitor
        await asyncio.gather(one._follow_statuses(), one._follow_announcements(), one._follow_progress())
        await asyncio.gather(one._follow_events(), one._pages.follow(), one._verdicts.follow())

    async def ask(self, bodies: Sequence[bytes]) -> dict[str, int]:
        """Asks every route, those that take a body with each of `bodies`; fails where one breaks down.

        Returns:
            The last status, by path.
        """
        history = self._monitor._history
        values = {
            "stream_id": [*(view.stream_id for view in self._monitor._state.views(0)), *history._streams, "none"],
            "detection_id": [*history._sightings, "none"],
            "product_id": [*self._monitor._pages._listed, "none"],
        }
        application = web.Application()
        self._monitor.routes().serve(application)
        said = {"end_offsets": self._ends, "read_range": lambda *_, **__: self.logs[LIVE_KEYWORDS]}
        with mock.patch.multiple("workers.monitor.transcript", **said):
            answers = await self._ask_all(application, values, bodies)
        self._worker.executor.shutdown(wait=False)
        return answers

    async def _ask_all(
        self, application: web.Application, values: dict[str, list[str]], bodies: Sequence[bytes]
    ) -> dict[str, int]:
        answers: dict[str, int] = {}
        async with TestClient(TestServer(application)) as client:
            for route in self._monitor.routes().all:
                if route.answer == "text/event-stream":
                    continue
                name = next((name for name in values if f"{{{name}" in route.path), "")
                for value in values[name][-3:] if name else [""]:
                    given = {name: quote(value, safe=""), "what": "frames", "pts_ms": "9000", "number": "0"}
                    path = re.sub(r":[^{}]*}", "}", route.path).format(**given)
                    for body in bodies:
                        taken = {"data": body} if route.body else {"params": {"after": to_cursor(body.hex()[:2_000])}}
                        async with client.request(route.method, path, **taken) as response:
                            assert response.status < 500, (route.method, path, taken, await response.text())
                            answers[path] = response.status
                        if not (route.body or route.query):
                            break
        return answers

    async def _ends(self, *_: object) -> dict[int, int]:
        return {0: 0}

    async def _read(self, topic: str, _partition: int, offset: int, _kind: type) -> LogRecord[Any] | None:
        return next((one for one in self.logs[topic].given if one.offset == offset), None) if topic in KINDS else None

    async def _send(self, topic: str, _key: str, _record: object) -> None:
        self.written.append(topic)
