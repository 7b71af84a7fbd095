"""Waiting for the catalogue to be encoded: for the command line and its progress bar."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from topology.index.progress import CatalogProgress, note_dead_letters
from topology.records import PageVectors
from topology.settings import Settings
from topology.topic_log import Follower, end_offsets
from topology.topics import PAGE_VECTORS

# How often progress is yielded. More often, a bar costs more than the work; less often, it looks stuck.
_TELL_EVERY_S = 0.2


@dataclass(frozen=True)
class Encoded:
    """Progress of the catalog role.

    Attributes:
        encoded: Offsets of `product_pages` passed so far; `sum(offsets.values())` at the end.
        errors: Pages that could not be encoded, product_id to reason.
    """

    encoded: int = 0
    errors: dict[str, str] = field(default_factory=dict)


async def wait_indexed(settings: Settings, offsets: Mapping[int, int]) -> AsyncIterator[Encoded]:
    """Yields progress until all pages below the given end offsets of `product_pages` have been encoded.

    With a Qdrant server they are in its index then; an embedded index takes them from the same topic, and a stream
    that is announced afterwards is searched for all of them.

    Args:
        settings: Name the broker.
        offsets: End offset of each partition.
    """
    progress, errors = CatalogProgress(), dict[str, str]()
    follower = Follower(settings, PAGE_VECTORS, PageVectors)

    async def follow() -> None:
        async for record in follower:
            if record.value is None:
                continue
            progress.note(record.value)
            errors.pop(record.value.product_id, None)
            if record.value.error:
                errors[record.value.product_id] = record.value.error

    tasks = [asyncio.create_task(follow()), asyncio.create_task(note_dead_letters(settings, progress))]
    try:
        while not progress.has_reached(offsets):
            yield Encoded(progress.count(offsets), dict(errors))
            done, _ = await asyncio.wait(tasks, timeout=_TELL_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        # A dead letter passes its page by; the record that says what was wrong with it may still be on its way here.
        ends = await end_offsets(settings, PAGE_VECTORS)
        reached = asyncio.create_task(follower.reach(ends))
        tasks.append(reached)
        while not reached.done():
            for task in (await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))[0]:
                task.result()
        yield Encoded(progress.count(offsets), dict(errors))
    finally:
        follower.stop()
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
