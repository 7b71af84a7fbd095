"""Runs all roles in one event loop over the given sources, until the sources end."""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TextIO
from urllib.parse import urlsplit

import msgspec

from cope.encoder import Encoder
from topology.admin import create_topics
from topology.embedded import EmbeddedBroker
from topology.errors import UserError
from topology.log import Follower
from topology.records import ProductDetected, ProductPage, RecognitionState, StreamStatus
from topology.settings import ROLES, Settings
from topology.topics import PRODUCT_DETECTED, RECOGNITION_STATE, STREAM_STATUS
from topology.worker import Worker
from workers.capture.source import probe
from workers.catalog.files import read_catalog
from workers.publish import announce, announce_end, publish_pages
from workers.roles import create_worker
from workers.watch.progress import StreamProgress, WatchProgress
from workers.watch.view import View, create_view

# Roles that compute with the model share one encoder: its towers take some 600 MB.
_ENCODING_ROLES = ("embed", "catalog")

# Ctrl-C must end the command soon even if a part hangs: beyond this the parts are left to die with the process.
_STOP_TIMEOUT_S = 10.0


def name_sources(sources: Sequence[str]) -> dict[str, str]:
    """Returns stream ids and URLs of sources written as SOURCE or NAME=SOURCE.

    Raises:
        UserError: Two sources have one name.
    """
    named: dict[str, str] = {}
    for source in sources:
        name, equals, url = source.partition("=")
        if not equals or "/" in name or ":" in name or "." in name:
            path = urlsplit(source).path if "://" in source else source
            name, url = PurePosixPath(path).stem or source, source
        if name in named:
            raise UserError(f"{named[name]} and {url} would both be called {name!r}: name one, as in other={url}")
        named[name] = url if "://" in url else str(Path(url).absolute())
    return named


async def watch(
    settings: Settings,
    sources: Sequence[str],
    catalog: Path,
    *,
    events_path: Path | None = None,
    realtime: bool = False,
    language: str | None = None,
) -> int:
    """Recognises the catalogue's products in the sources.

    Returns:
        Exit status: 0, or 1 if a stream failed on the way.

    Raises:
        UserError: A source, the catalogue or a setting cannot be used.
        KeyboardInterrupt: Stopped by Ctrl-C, after everything was taken down.
    """
    named = name_sources(sources)
    pages = read_catalog(catalog, check_images=True)
    streams = []
    for stream_id, url in named.items():
        info = await asyncio.to_thread(probe, url)
        streams.append(StreamProgress(stream_id, url, info.duration_ms))
    with _open_events(events_path) as events:
        run = _run(settings, streams, pages, events, realtime=realtime, language=language)
        return await _until_interrupted(run)


async def _run(
    settings: Settings,
    streams: list[StreamProgress],
    pages: list[ProductPage],
    events: TextIO | None,
    *,
    realtime: bool,
    language: str | None,
) -> int:
    progress = WatchProgress(streams, settings.window_ms)
    view = create_view(progress, {page.product_id: page.title for page in pages})
    async with contextlib.AsyncExitStack() as stack:
        view.start()
        stack.callback(view.stop)
        view.say(f"{len(pages)} products, {len(streams)} stream{'s' * (len(streams) != 1)}; starting the workers …")
        settings = await stack.enter_async_context(_broker(settings))
        await create_topics(settings)
        # Older events of a server's topics are not ours to show.
        detections = Follower(settings, PRODUCT_DETECTED, ProductDetected, from_beginning=False)
        states = Follower(settings, RECOGNITION_STATE, RecognitionState, from_beginning=False)
        statuses = Follower(settings, STREAM_STATUS, StreamStatus, from_beginning=False)
        done = asyncio.Event()
        tasks = [
            _follow_events(detections, progress, view, events),
            _follow_states(states, progress, done),
            _follow_statuses(statuses, progress, view, done),
        ]
        workers = await _start_workers(stack, settings)
        await publish_pages(settings, pages)
        for stream in streams:
            await announce(settings, stream.stream_id, stream.url, language=language, realtime=realtime)
            if settings.broker != "embedded":
                stack.push_async_callback(_end_if_open, settings, stream)
        await _first_of(done.wait(), *(worker.wait() for worker in workers), *tasks)
        await _drain(detections)
        failed = [stream for stream in streams if stream.failed]
        _summarise(view, progress)
    return 1 if failed else 0
