"""A running role: its Faust app, delivery, health, HTTP, model thread, and an orderly start and end."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

import faust
from aiohttp import web

from topology import metrics
from topology.admin import create_topics, other_settings
from topology.app import make_app
from topology.connection import let_end
from topology.delivery import Delivery
from topology.errors import Unavailable
from topology.health import Health, HttpServer, make_http
from topology.retry import describe
from topology.settings import Role, Settings

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Hook = Callable[[], Awaitable[None]]

LAG_EVERY_S = 0.5
LATE_LOOP_S = 5.0  # an event loop that is this late misses live deadlines: unhealthy
HOOK_TIMEOUT_S = 10.0  # how long a role may take to finish the work in progress
FAUST_STOP_TIMEOUT_S = 10.0  # leaving the group takes a round trip; a dead broker must not delay the exit
EXIT_INTERRUPTED = 130


class Worker:
    """A role that runs in this process, alone or (in `watch`) beside others.

    Attributes:
        role: Name of the role.
        settings: Effective settings; `broker` is an address.
        app: The Faust app; agents are registered through `delivery`.
        delivery: Agents and sending.
        health: Named checks behind /healthz.
        http: Serves /metrics and /healthz; a role may add routes before the start.
        executor: One thread for model work, so that heartbeats and sends go on beside it.
    """

    def __init__(self, role: Role, settings: Settings, *, serve_http: bool = True) -> None:
        self.role = role
        self.settings = settings
        self.app: faust.App = make_app(role, settings)
        self.delivery = Delivery(self.app, role, settings)
        self.health = Health()
        self.http: web.Application = make_http(role, self.health)
        self.executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"model-{role}")
        self._server = HttpServer(self.http, settings) if serve_http else None
        self._starts: list[Hook] = []
        self._stops: list[Hook] = []
        self._background: list[Hook] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._faust_runs = False
        self._loop_lag_s = 0.0
        self.health.add("broker", lambda: self.delivery.trouble)
        self.health.add("consumer", self._check_consumer)
        self.health.add("event_loop", self._check_loop)

    @property
    def http_port(self) -> int:
        """The port of /metrics and /healthz; 0 if not served."""
        return self._server.port if self._server is not None else 0

    def on_start(self, fn: Hook) -> None:
        """Awaits `fn()` at the start, before the agents consume."""
        self._starts.append(fn)

    def on_stop(self, fn: Hook) -> None:
        """Awaits `fn()` at the stop, while sending still works."""
        self._stops.append(fn)

    def background(self, fn: Hook) -> None:
        """Runs `fn()` beside the agents for the worker's life. When it raises, the worker stops."""
        self._background.append(fn)

    async def in_executor(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Returns `fn(*args, **kwargs)`, called in the model thread."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, lambda: fn(*args, **kwargs))

    async def start(self, *, join_first: bool = False) -> None:
        """Makes the topics, runs the start hooks, then consumes. Waits with back-off while the broker is down.

        Args:
            join_first: Join the consumer group while the hooks run. It takes seconds, and disturbs other members of the
                group, also if a hook then fails: for a process that is alone.

        Raises:
            UserError: The port is busy, or the broker refuses the user or the topics.
        """
        if self._server is not None:
            await self._server.start()
        self._spawn(self._watch_loop, "event loop lag")
        await create_topics(self.settings)
        with suppress(Unavailable):  # some brokers do not tell the settings of their topics
            for line in await other_settings(self.settings):
                _log.warning("%s", line, extra={"role": self.role})
        joining = asyncio.create_task(self._join()) if join_first else None
        try:
            for fn in self._starts:
                await fn()
        except BaseException:
            if joining is not None:  # let it end, if it does: see `start_client`
                await let_end(joining, HOOK_TIMEOUT_S)
            raise
        await (joining or self._join())
        self.delivery.start()
        for fn in self._background:
            self._spawn(fn, getattr(fn, "__qualname__", "background"))
        _log.info("started", extra={"role": self.role})

    async def _join(self) -> None:
        if self.delivery.has_agents:
            self._faust_runs = True
            await self.app.start()
            self._spawn(self._watch_faust, "faust")

    async def stop(self) -> None:
        """Stops in order: background, hooks, last commit, group, producer, http. Bounded; never raises."""
        await self._cancel_tasks()
        for fn in self._stops:
            await self._bounded(fn(), HOOK_TIMEOUT_S, "a stop hook")
        await self._bounded(self.delivery.stop(), FAUST_STOP_TIMEOUT_S, "the last commit")
        if self._faust_runs:
            await self._bounded(self.app.stop(), FAUST_STOP_TIMEOUT_S, "leaving the group")
        await self._bounded(self.delivery.close(), FAUST_STOP_TIMEOUT_S, "closing the producer")
        if self._server is not None:
            await self._bounded(self._server.stop(), HOOK_TIMEOUT_S, "closing http")
        self.executor.shutdown(wait=False, cancel_futures=True)
        _log.info("stopped", extra={"role": self.role})

    async def wait_failed(self) -> None:
        """Raises what stops this worker, when it happens: a handler or a background task has failed."""
        await self.delivery.wait_failed()

    def run(self) -> int:
        """Runs the role in an event loop of its own until it is stopped. Returns the exit status: see `serve`."""
        return asyncio.run(self.serve())

    async def serve(self) -> int:
        """Starts, works until SIGINT (status 130), SIGTERM (status 0) or a failure, stops.

        Raises:
            Exception: What made it fail. `workers.__main__` turns it into a line and an exit status.
        """
        loop = asyncio.get_running_loop()
        stopping: asyncio.Future[int] = loop.create_future()

        def ask(status: int) -> None:
            if stopping.done():  # a second signal: the user does not want to wait
                os._exit(EXIT_INTERRUPTED)
            stopping.set_result(status)

        loop.add_signal_handler(signal.SIGINT, ask, EXIT_INTERRUPTED)
        loop.add_signal_handler(signal.SIGTERM, ask, 0)
        starting = asyncio.create_task(self.start())
        failed = asyncio.create_task(self.wait_failed())
        ends: set[asyncio.Future[Any]] = {stopping, failed}
        try:
            await asyncio.wait({starting, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                failed.result()
            return stopping.result()
        finally:
            starting.cancel()
            failed.cancel()
            await asyncio.gather(starting, failed, return_exceptions=True)
            await self.stop()

    def _spawn(self, fn: Hook, what: str) -> None:
        async def run() -> None:
            try:
                await fn()
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - reported through `wait_failed`
                self.delivery.fail(error)

        self._tasks.append(asyncio.create_task(run(), name=f"{self.role}: {what}"))

    async def _cancel_tasks(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=HOOK_TIMEOUT_S)
            for task in pending:
                _log.warning("a task does not end", extra={"role": self.role, "task": task.get_name()})

    async def _bounded(self, work: Awaitable[None], timeout_s: float, what: str) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await work
        except Exception as error:  # noqa: BLE001 - the other steps of the end still have to run
            _log.warning("%s failed", what, extra={"role": self.role, "error": describe(error)})

    async def _watch_faust(self) -> None:
        await self.app._crashed.wait()
        raise RuntimeError(f"the consumer crashed: {self.app.crash_reason!r}")

    async def _watch_loop(self) -> None:
        gauge = metrics.EVENT_LOOP_LAG.labels(self.role)
        while True:
            before = time.monotonic()
            await asyncio.sleep(LAG_EVERY_S)
            self._loop_lag_s = max(0.0, time.monotonic() - before - LAG_EVERY_S)
            gauge.set(self._loop_lag_s)

    def _check_consumer(self) -> str | None:
        if self.delivery.failure is not None:
            return f"failed: {describe(self.delivery.failure)}"
        if self.delivery.has_agents and not self.delivery.ready:
            return "waiting for partitions"
        return None

    def _check_loop(self) -> str | None:
        return f"late by {self._loop_lag_s:.1f} s" if self._loop_lag_s > LATE_LOOP_S else None
