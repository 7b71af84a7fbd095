"""The catalogue as recognition sees it: kept up with the topic `page_vectors`."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress

from cope.keywords import PrintedWords, Seen
from topology import metrics
from topology.dead_letters import LogRefusals
from topology.errors import BadInput
from topology.index import Candidate, Index, PageEntry, Query
from topology.index.progress import CatalogProgress, note_dead_letters
from topology.records import PageVectors
from topology.retry import retrying
from topology.settings import Settings
from topology.topic_log import Follower, LogRecord, end_offsets
from topology.topics import PAGE_VECTORS, PRODUCT_PAGES

_log = logging.getLogger(__name__)

_WAITING = 400  # records read ahead of the index
_AT_ONCE = 200  # pages per write: one write of 200 costs little more than one of 1
_KEPT = 4_096  # pages whose vectors stay at hand: some 10 MB
_LOOK_EVERY_S = 1.0
_TELL_EVERY_S = 10.0

# How long a new stream waits for pages that are on the topic to reach the index. It takes milliseconds; if it does
# not, the stream matters more than a page.
_CATCH_UP_TIMEOUT_S = 30.0


class Catalogue:
    """Reads `page_vectors` for ever: fills an embedded index, and forgets what a page was before it changed.

    A Qdrant server's index is filled by the catalog role; there, only the forgetting is left.

    Args:
        settings: Of the worker.
        index: To search.
        refusals: Take records that hold no page of this index.
    """

    def __init__(self, settings: Settings, index: Index, refusals: LogRefusals) -> None:
        self._settings = settings
        self._index = index
        self._fills = not settings.qdrant_url
        self._progress = CatalogProgress(index.model_version)
        self._follower = Follower(settings, PAGE_VECTORS, PageVectors, refuse=refusals.tell)
        self._refusals = refusals
        self._queue: asyncio.Queue[LogRecord[PageVectors]] = asyncio.Queue(_WAITING)
        self._applied: dict[int, int] = {}  # partition of page_vectors -> next offset
        self._changed = asyncio.Condition()
        self._ready = asyncio.Event()
        self._held: dict[str, str] = {}  # what the folder held at the start and nobody has confirmed yet
        self._pages: OrderedDict[str, PageEntry] = OrderedDict()
        self._edition = 0
        self._printed = PrintedWords()
        self.products: set[str] = set()

    @property
    def version(self) -> str:
        """Of the index."""
        return self._index.version

    # -- following -----------------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Works until cancelled."""
        self._held = await retrying(self._index.digests, "list the index") if self._fills else {}
        # Not a task group: it would wrap an error that is meant for the user.
        tasks = [asyncio.create_task(work()) for work in (self._read, self._write, self._await_first_pages)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _read(self) -> None:
        async for record in self._follower:
            await self._queue.put(record)

    async def _write(self) -> None:
        while True:
            records = [await self._queue.get()]
            while len(records) < _AT_ONCE and not self._queue.empty():
                records.append(self._queue.get_nowait())
            await self._apply(records)

    async def _apply(self, records: Sequence[LogRecord[PageVectors]]) -> None:
        latest: dict[str, PageEntry | None] = {}
        for record in records:
            latest[record.key] = entry = await self._entry(record)
            if entry is not None and record.value is not None and record.value.names:
                self._printed.add(record.key, record.value.names, record.value.read)
            else:
                self._printed.remove(record.key)
        if self._fills:
            pages = [page for page in latest.values() if page is not None and not self._is_held(page)]
            gone = [product_id for product_id, page in latest.items() if page is None]
            gone += await self._upsert(pages, records)
            await self._index.remove(gone)
            latest.update(dict.fromkeys(gone))
        self._edition += 1
        for product_id, page in latest.items():
            self._pages.pop(product_id, None)
            self._held.pop(product_id, None)
            (self.products.discard if page is None else self.products.add)(product_id)
        metrics.INDEX_PRODUCTS.set(len(self.products))
        async with self._changed:
            for record in records:
                self._applied[record.partition] = record.offset + 1
                if record.value is not None:
                    self._progress.note(record.value)
            self._changed.notify_all()

    async def _upsert(self, pages: Sequence[PageEntry], records: Sequence[LogRecord[PageVectors]]) -> list[str]:
        """Writes pages; returns those that the index refuses."""
        try:
            await self._index.upsert(pages)
        except BadInput as error:
            if len(pages) == 1:
                record = next(one for one in reversed(records) if one.key == pages[0].product_id)
                await self._refuse(record, error)
                return [record.key]
            return [gone for page in pages for gone in await self._upsert([page], records)]
        return []

    async def _refuse(self, record: LogRecord[PageVectors], error: BadInput) -> None:
        _log.warning("a page is left out", extra={"product_id": record.key, "error": str(error)})
        await self._refusals.tell(record.partition, record.offset, error)

    async def _entry(self, record: LogRecord[PageVectors]) -> PageEntry | None:
        value = record.value
        if value is None or value.withdrawn or value.error:
            return None
        if value.model_version != self._index.model_version:
            return None  # of an older model: the catalog role is about to encode it again
        try:
            if value.product_id != record.key:
                raise BadInput(f"the page of {value.product_id} has another key: send it with its own id")
            return PageEntry.from_record(value)
        except BadInput as error:
            await self._refuse(record, error)
            return None

    def _is_held(self, page: PageEntry) -> bool:
        return self._held.get(page.product_id) == page.digest

    # -- waiting -------------------------------------------------------------------------------------------------

    async def _await_first_pages(self) -> None:
        """Waits until all that `product_pages` held at the start has been encoded and is in the index."""
        ends = await end_offsets(self._settings, PRODUCT_PAGES)
        skipped = asyncio.create_task(note_dead_letters(self._settings, self._progress))
        try:
            await self._until_reached(ends)
        finally:
            skipped.cancel()
        await self.catch_up()
        if self._fills and self._held:  # withdrawn while this worker was away, and compacted out of the log since
            await self._index.remove(list(self._held))
            self._held = {}
        await self._index.optimize()
        _log.info("the catalogue is ready", extra={"products": len(self.products), "index": self.version})
        self._ready.set()

    async def _until_reached(self, ends: Mapping[int, int]) -> None:
        told_s = time.monotonic()
        while not self._progress.has_reached(ends):
            with suppress(TimeoutError):  # dead letters are noted without a notice: look again after a while
                async with asyncio.timeout(_LOOK_EVERY_S), self._changed:
                    await self._changed.wait()
            if time.monotonic() - told_s >= _TELL_EVERY_S:
                told_s = time.monotonic()
                _log.info(
                    "waiting for the catalog role to encode the catalogue",
                    extra={
                        "pages": self._progress.count(ends),
                        "of": sum(ends.values()),
                        "model": self._index.model_version,
                    },
                )

    async def ready(self) -> None:
        """Waits for the catalogue as it was when this worker started."""
        await self._ready.wait()

    async def catch_up(self) -> None:
        """Waits until what `page_vectors` holds now is in the index, so that a new stream is searched for all of it."""
        ends = await end_offsets(self._settings, PAGE_VECTORS)
        try:
            async with asyncio.timeout(_CATCH_UP_TIMEOUT_S), self._changed:
                await self._changed.wait_for(
                    lambda: all(self._applied.get(partition, 0) >= end for partition, end in ends.items())
                )
        except TimeoutError:
            _log.warning("the index lags behind page_vectors; going on without its newest pages")

    # -- asking --------------------------------------------------------------------------------------------------

    async def search(self, query: Query, limit: int) -> list[Candidate]:
        """See `Index.search`."""
        return await self._index.search(query, limit)

    def seen(self, lines: Sequence[tuple[str, float]], bag: Sequence[str] | None) -> dict[str, Seen]:
        """Returns the products that lines read in a stream name; see `cope.keywords.PrintedWords.seen`."""
        found = self._printed.seen(lines) if lines else {}
        return found if bag is None else {one: found[one] for one in bag if one in found}

    async def pages(self, product_ids: Sequence[str]) -> dict[str, PageEntry]:
        """Returns the entries of those products that are in the catalogue."""
        found = {one: self._pages[one] for one in product_ids if one in self._pages}
        missing = [one for one in product_ids if one not in found]
        if missing:
            edition = self._edition
            fetched = await self._index.vectors(missing)
            if edition == self._edition:  # else it may be what a page was before
                self._pages.update(fetched)
            found |= fetched
        for one in found:
            if one in self._pages:
                self._pages.move_to_end(one)
        while len(self._pages) > _KEPT:
            self._pages.popitem(last=False)
        return found

    async def close(self) -> None:
        """Releases the index."""
        self._follower.stop()
        await self._index.close()
