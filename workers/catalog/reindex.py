"""Switches searches to a new collection once it holds the whole catalogue and finds its pages."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from topology.index import Index, PageEntry, Query
from topology.index.base import Half
from topology.index.progress import CatalogProgress, note_dead_letters
from topology.records import PageVectors
from topology.retry import retrying
from topology.settings import Settings
from topology.topic_log import Follower, end_offsets
from topology.topics import PAGE_VECTORS, PRODUCT_PAGES

if TYPE_CHECKING:
    from topology.index.server import ServerIndex

_log = logging.getLogger(__name__)

# Pages that are searched for before the switch, and the share that must be found by their own picture. Products may
# share a picture, so not all come first; below nine in ten the collection is broken.
_CANARIES = 100
_CANARY_RECALL = 0.9

_LOOK_EVERY_S = 0.5


async def switch_when_filled(settings: Settings, index: "ServerIndex") -> None:
    """Waits until an index that is not searched yet holds the catalogue as it is now; then lets the alias point to it.

    Does nothing if it is searched already. Leaves the alias alone, with an error in the log, if the collection does
    not hold what it should. The old collection stays, for the way back.
    """
    if await retrying(index.is_searched, "look up the index"):
        return
    _log.info("filling a new collection", extra={"index": index.version, "model": index.model_version})
    products = await _encoded_products(settings, index.model_version)
    fault = await retrying(lambda: find_fault(index, products), "check the new collection")
    if fault:
        _log.error("the new collection is not used: %s", fault, extra={"index": index.version})
        return
    await retrying(index.publish, "switch the index")
    _log.info("searches go to the new collection", extra={"index": index.version, "products": len(products)})


@dataclass(frozen=True)
class Expected:
    """What the new collection must hold of a page: the digest of its entry, and its first vector, (D,) float16."""

    digest: str
    picture: Half

    @classmethod
    def of(cls, page: PageEntry) -> "Expected":
        """Returns what is expected of an encoded page."""
        return cls(page.digest, page.vectors[0].copy())


async def _encoded_products(settings: Settings, model_version: str) -> dict[str, Expected]:
    """Returns the pages of the catalogue as of now, once they have all been encoded by the model."""
    ends = await end_offsets(settings, PRODUCT_PAGES)
    progress = CatalogProgress(model_version)
    follower = Follower(settings, PAGE_VECTORS, PageVectors)
    pages: dict[str, Expected] = {}

    async def follow() -> None:
        async for record in follower:
            value = record.value
            pages.pop(record.key, None)
            if value is None:
                continue
            progress.note(value)
            if value.model_version == model_version and not (value.withdrawn or value.error):
                pages[record.key] = Expected.of(PageEntry.from_record(value))

    tasks = [asyncio.create_task(follow()), asyncio.create_task(note_dead_letters(settings, progress))]
    try:
        while not (progress.has_reached(ends) and follower.caught_up.is_set()):
            for task in (await asyncio.wait(tasks, timeout=_LOOK_EVERY_S))[0]:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return pages


async def find_fault(index: Index, pages: Mapping[str, Expected]) -> str:
    """Returns what is wrong with a collection, or nothing.

    Args:
        index: The collection.
        pages: What it should hold.
    """
    held = await index.digests()
    missing = sorted(product_id for product_id, page in pages.items() if held.get(product_id) != page.digest)
    if missing:
        return f"{len(missing)} of {len(pages)} pages are missing or differ, {missing[0]} among them"
    canaries = sorted(pages)[:: max(1, len(pages) // _CANARIES)]
    found = 0
    for product_id in canaries:
        best = await index.search(Query(regions=pages[product_id].picture[None]), 1)
        found += bool(best) and best[0].product_id == product_id
    if found < _CANARY_RECALL * len(canaries):
        return f"only {found} of {len(canaries)} pages are found by their own picture"
    return ""
