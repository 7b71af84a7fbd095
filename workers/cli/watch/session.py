"""Runs all roles in one event loop over the given sources, until the sources end."""

import asyncio
import signal
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, TextIO
from urllib.parse import urlsplit

from cope.serving.encoder import Encoder
from topology.addresses import allowing
from topology.admin import require_topics
from topology.embedded import EmbeddedBroker
from topology.errors import UserError
from topology.log_format import setup_logging
from topology.records import ProductPage
from topology.redact import redacted
from topology.settings import FLOW, Role, Settings
from topology.topics import PRODUCT_DETECTED
from topology.worker import Worker
from workers.capture.address import local_path, scheme_of
from workers.capture.source import probe
from workers.catalog.files import read_catalog
from workers.catalog.progress import wait_indexed
from workers.cli.products import publish_pages
from workers.cli.publish import announce, announce_end
from workers.cli.roles import create_worker
from workers.cli.watch.following import Following
from workers.cli.watch.page import free_port, page_address, show_page
from workers.cli.watch.progress import StreamProgress, WatchProgress
from workers.cli.watch.view import View, counted, create_view, media_time


@dataclass(frozen=True)
class WatchResult:
    """The result of a watch.

    Attributes:
        failed: Streams that could not be played to their end.
        sightings: Sightings started, over all streams.
        media_ms: Media looked at, over all streams.
        seconds: Wall time from the announcement of the streams to their end.
    """

    failed: tuple[str, ...]
    sightings: int
    media_ms: int
    seconds: float

    @property
    def status(self) -> int:
        """The exit status."""
        return 1 if self.failed else 0

    def __str__(self) -> str:
        """One line for people."""
        speed = self.media_ms / 1000 / max(self.seconds, 0.001)
        return (
            f"{counted(self.sightings, 'sighting')} in {media_time(self.media_ms)} of streams, "
            f"looked at in {self.seconds:.0f} s: {speed:.1f} × real time"
        )


# Roles that compute with the model share one encoder: its towers take some 600 MB.
_ENCODING_ROLES = ("catalog", "embed", "recognize", "monitor")

# Partitions share work among processes, and here there is one. Each more costs a few round trips at the start. A join
# of a group waits for half of the session's time-out, in case that another member comes. A lone member is not missed
# when its heartbeats are late: one that was stopped for 8 s kept its partitions.
_ONE_PROCESS = {"stream_partitions": 1, "product_partitions": 1, "broker_session_timeout_s": 2.0}

# `watch` ends when its sources end, which few live servers announce: with a platform's patience it would wait minutes.
_GIVE_UP_S = 20.0

# How long evidence and webhook may take with the last events of a watch.
_LAST_EVENTS_S = 10.0

# When one role cannot start, how long the others may take to have started, so that they stop in order.
_START_END_S = 10.0


def name_sources(sources: Sequence[str]) -> dict[str, str]:
    """Returns stream ids and URLs of sources written as SOURCE or NAME=SOURCE.

    Raises:
        UserError: Two sources have one name.
    """
    named: dict[str, str] = {}
    for source in sources:
        name, equals, url = source.partition("=")
        if not equals or any(mark in name for mark in "/:.") or Path(source).exists():
            path = urlsplit(source).path if "://" in source else source
            name, url = PurePosixPath(path).stem or source, source
        if name in named:
            raise UserError(
                f"{redacted(named[name])} and {redacted(url)} would both be called {name!r}: name one, as in other=URL"
            )
        named[name] = url if "://" in url else str(Path(url).absolute())
    return named


async def watch(
    settings: Settings,
    sources: Sequence[str],
    catalog: str,
    *,
    columns: Mapping[str, str] | None = None,
    events_path: Path | None = None,
    realtime: bool = False,
    page: bool = False,
    language: str | None = None,
) -> WatchResult:
    """Recognises the catalogue's products in the sources. See `read_catalog` for `catalog` and `columns`.

    Raises:
        UserError: A source, the catalogue or a setting cannot be used.
        KeyboardInterrupt: Stopped by Ctrl-C, after everything was taken down.
    """
    named = name_sources(sources)
    if events_path is not None:
        _keep_inputs(events_path, [Path(catalog), *map(Path, named.values())])
    if "reconnect_give_up_s" not in settings.model_fields_set:
        settings = settings.model_copy(update={"reconnect_give_up_s": _GIVE_UP_S})
    if page and not settings.http_port:
        settings = settings.model_copy(update={"http_port": free_port()})
    pages = read_catalog(catalog, check_images=True, columns=columns)
    places = [*named.values(), *(image.uri for page in pages for image in page.images)]
    local = [place for place in places if not scheme_of(place)]
    settings = allowing(
        settings, urls=[place for place in places if scheme_of(place)], files=[local_path(place) for place in local]
    )
    streams = []
    for stream_id, url in named.items():
        info = await asyncio.to_thread(probe, url, settings)
        streams.append(StreamProgress(stream_id, url, info.duration_ms))
    with ExitStack() as files:
        events = files.enter_context(_open_events(events_path)) if events_path else None
        work = _run(settings, streams, pages, events, realtime=realtime, page=page, language=language)
        return await _until_interrupted(work)


async def _run(
    settings: Settings,
    streams: list[StreamProgress],
    pages: list[ProductPage],
    events: TextIO | None,
    *,
    realtime: bool,
    page: bool,
    language: str | None,
) -> WatchResult:
    progress = WatchProgress(streams, settings.window_ms)
    async with AsyncExitStack() as stack:
        encoder = await asyncio.to_thread(
            Encoder, settings.model, settings.device, settings.threads, settings.precision == "auto"
        )
        own_broker = settings.broker == "embedded"
        if own_broker:
            broker = await stack.enter_async_context(EmbeddedBroker())
            settings = broker.configure(settings).model_copy(update=_ONE_PROCESS)
        if not settings.evidence_url:
            folder = stack.enter_context(TemporaryDirectory(prefix="cope-live-evidence-", ignore_cleanup_errors=True))
            evidence = {"evidence_url": folder} if "evidence" in wanted_roles(settings) else {}
            settings = settings.model_copy(update=evidence)
        view = create_view(progress, {page.product_id: page.title for page in pages})
        view.start()
        stack.callback(view.stop)
        # After the view, which takes over standard error; only what goes wrong, unless more is asked for.
        quiet = {} if "log_level" in settings.model_fields_set else {"log_level": "warning"}
        setup_logging(settings.model_copy(update=quiet))
        products, rooms = counted(len(pages), "product"), counted(len(streams), "stream")
        view.say(f"{products}, {rooms}, model {encoder.version}: starting")
        await require_topics(settings)
        following = await stack.enter_async_context(Following(settings, progress, view, events))
        # The catalogue before the streams: what a window is compared with must not depend on how fast pages are
        # encoded.
        offsets = await publish_pages(settings, pages)
        workers = await _start_workers(stack, settings, encoder, own_broker)
        await _until_indexed(settings, offsets, workers, view)
        if page:
            show_page(settings, view)
        started = time.monotonic()
        for stream in streams:
            await announce(settings, stream.stream_id, stream.url, language=language, realtime=realtime)
            if not own_broker:
                stack.push_async_callback(_end_if_open, settings, stream)
        await following.until_finished(*(worker.wait_failed() for worker in workers))
        await _until_kept(workers)
        result = WatchResult(
            failed=tuple(stream.stream_id for stream in streams if stream.failed),
            sightings=sum(stream.sightings for stream in streams),
            media_ms=sum(stream.processed_ms for stream in streams),
            seconds=time.monotonic() - started,
        )
        view.say(str(result))
        if page:
            await _keep_page(settings, view, workers)
    return result


def wanted_roles(settings: Settings) -> tuple[Role, ...]:
    """Returns the roles that a watch runs: evidence is kept only where somebody can look at it."""
    looks = bool(settings.evidence_url or settings.http_port)
    wanted: dict[Role, bool] = {"evidence": looks, "webhook": bool(settings.webhook_url)}
    return (*FLOW, *(role for role, is_wanted in wanted.items() if is_wanted))


async def _keep_page(settings: Settings, view: View, workers: list[Worker]) -> None:
    """Serves the page until Ctrl-C, which is then not a failure."""
    view.say(f"{page_address(settings)} shows all of it until Ctrl-C")
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*(worker.wait_failed() for worker in workers))


async def _start_workers(stack: AsyncExitStack, settings: Settings, encoder: Encoder, own_broker: bool) -> list[Worker]:
    workers = []
    for role in wanted_roles(settings):
        parts: dict[str, Any] = {"encoder": encoder} if role in _ENCODING_ROLES else {}
        if role == "catalog":
            parts["keep"] = True
        # One process has one registry of metrics: the monitor's port serves that of all roles.
        worker = create_worker(role, settings, serve_http=role == "monitor", **parts)
        stack.push_async_callback(worker.stop)
        workers.append(worker)
    # The monitor first: a busy port is found before anything else runs.
    workers.sort(key=lambda worker: worker.role != "monitor")
    await workers[0].start()
    starting = [asyncio.create_task(worker.start(join_first=own_broker)) for worker in workers[1:]]
    try:
        done, others = await asyncio.wait(starting, return_when=asyncio.FIRST_EXCEPTION)
        if others:  # aiokafka forgets to close the connections of a start that is cancelled
            await asyncio.wait(others, timeout=_START_END_S)
        for task in done:
            task.result()
    finally:  # if one fails, the others must not go on while everything is taken down
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)
    return workers


async def _until_indexed(settings: Settings, offsets: dict[int, int], workers: list[Worker], view: View) -> None:
    async def wait() -> None:
        async for progress in wait_indexed(settings, offsets):
            errors = progress.errors
        for product_id, error in sorted(errors.items()):
            view.say(f"{product_id} cannot be recognised: {error}")

    tasks = [asyncio.ensure_future(work) for work in (wait(), *(worker.wait_failed() for worker in workers))]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()


async def _until_kept(workers: list[Worker]) -> None:
    """Waits until the roles that read events have taken the last ones, but not for a receiver that is down."""
    late = [worker for worker in workers if worker.role in ("evidence", "webhook")]
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_EVENTS_S):
            await asyncio.gather(*(worker.delivery.until_done(PRODUCT_DETECTED) for worker in late))


async def _end_if_open(settings: Settings, stream: StreamProgress) -> None:
    """On a broker that outlives this process, a stream that we announced must not be captured for ever."""
    if not stream.finished:
        await announce_end(settings, stream.stream_id)


def _keep_inputs(events: Path, inputs: list[Path]) -> None:
    for path in inputs:
        if events.exists() and path.exists() and events.samefile(path):
            raise UserError(f"{events}: events would overwrite this input: name another file with --events")


def _open_events(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: events cannot be written there: {error.strerror}") from None


async def _until_interrupted(work: Coroutine[Any, Any, WatchResult]) -> WatchResult:
    """Runs `work`; SIGINT and SIGTERM cancel it, so that everything it started is taken down.

    Raises:
        KeyboardInterrupt: It was cancelled.
    """
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
