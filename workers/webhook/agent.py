"""The webhook role: posts each event of `product_detected`, at least once, those of a stream in order."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import aiohttp

from topology import metrics
from topology.codec import encode_value
from topology.delivery import Message
from topology.errors import BadInput, Unavailable, UserError
from topology.records import ProductDetected
from topology.redact import redacted
from topology.retry import describe, retrying
from topology.topics import PRODUCT_DETECTED
from topology.worker import Worker
from workers.webhook.signing import headers_of, key_of

_log = logging.getLogger(__name__)

TIMEOUT_S = 10.0  # a slower receiver should answer first and work later
LONGEST_PAUSE_S = 60.0  # longest pause between attempts; larger: events come late after the receiver is back
_WAITING = 64  # events of a partition that are read ahead of its receiver

# With these a receiver refuses the event itself. Any other answer may change, so the event is sent again.
_REFUSED = frozenset({400, 410, 413, 415, 422})


def build(worker: Worker) -> None:
    """Registers the webhook role.

    Raises:
        UserError: No URL is set, or the secret cannot be used.
    """
    Webhook(worker).register()


class Webhook:
    """Posts events; each partition has a lane of its own, so that one slow answer does not hold up all streams."""

    def __init__(self, worker: Worker) -> None:
        settings = worker.settings
        if not settings.webhook_url.startswith(("http://", "https://")):
            raise UserError("COPE_WEBHOOK_URL: name the http(s) URL that takes the events")
        self._worker = worker
        self._url = settings.webhook_url
        self._key = key_of(settings.webhook_secret.get_secret_value())
        self._session: aiohttp.ClientSession | None = None
        self._lanes: dict[int, asyncio.Queue[Message[ProductDetected]]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def register(self) -> None:
        """Hooks itself into the worker."""
        self._worker.on_start(self._start)
        self._worker.on_stop(self._stop)
        self._worker.delivery.agent(PRODUCT_DETECTED, ProductDetected, self._work)

    async def _start(self) -> None:
        if not self._key:
            _log.warning("events are posted unsigned: anybody could post such; set COPE_WEBHOOK_SECRET")
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _work(self, messages: AsyncIterator[Message[ProductDetected]]) -> None:
        async for message in messages:
            lane = self._lanes.get(message.partition)
            if lane is None:
                lane = self._lanes[message.partition] = asyncio.Queue(_WAITING)
                self._tasks.append(asyncio.create_task(self._run(lane)))
            await lane.put(message)

    async def _run(self, lane: asyncio.Queue[Message[ProductDetected]]) -> None:
        try:
            while True:
                await self._deliver(await lane.get())
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker must not go on
            self._worker.delivery.fail(error)

    async def _deliver(self, message: Message[ProductDetected]) -> None:
        if message.revoked:
            return
        try:
            await retrying(
                lambda: self._post(message.value),
                f"post to {redacted(self._url)}",
                longest_pause_s=LONGEST_PAUSE_S,
            )
        except BadInput as error:
            metrics.WEBHOOK_POSTS.labels("refused").inc()
            await message.dead_letter(error)
        else:
            metrics.WEBHOOK_POSTS.labels("taken").inc()
            message.done()

    async def _post(self, event: ProductDetected) -> None:
        assert self._session is not None  # noqa: S101 - set before the agents start
        body, _ = encode_value(event)
        headers = headers_of(event, body, self._key, int(time.time()))
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            metrics.WEBHOOK_POSTS.labels("failed").inc()
            raise Unavailable(redacted(describe(error))) from error
        if status in _REFUSED:
            raise BadInput(f"the receiver refuses the event: it answers {status}")
        if not 200 <= status < 300:
            metrics.WEBHOOK_POSTS.labels("failed").inc()
            raise Unavailable(f"the receiver answers {status}")
