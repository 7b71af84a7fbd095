"""The vocabulary, kept in step with `product_pages`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from cope.keywords import Vocabulary
from cope.keywords.markup import plain
from topology.bounds import clipped
from topology.errors import record_fault
from topology.records import ProductPage
from topology.settings import Settings
from topology.topic_log import Follower, LogRecord
from topology.topics import PRODUCT_PAGES

_log = logging.getLogger(__name__)


class CatalogueWords:
    """Follows `product_pages` into a vocabulary.

    Args:
        settings: Name the broker.
        vocabulary: Filled and changed here.
        in_model_thread: Runs a function where the vocabulary is used, so that nothing reads it while it changes.
    """

    def __init__(
        self,
        settings: Settings,
        vocabulary: Vocabulary,
        in_model_thread: Callable[..., Awaitable[None]],
    ) -> None:
        self._vocabulary = vocabulary
        self._in_model_thread = in_model_thread
        self._follower: Follower[ProductPage] = Follower(settings, PRODUCT_PAGES, ProductPage)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when all pages that the topic holds now are known; goes on following it."""
        self._task = asyncio.create_task(self._follow(), name="vocabulary")
        caught_up = asyncio.create_task(self._follower.caught_up.wait())
        try:
            await asyncio.wait({self._task, caught_up}, return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                self._task.result()
        finally:
            caught_up.cancel()
        _log.info("vocabulary is read", extra={"products": len(self._vocabulary)})

    async def wait(self) -> None:
        """Never returns; raises the error that ends the following."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def reach(self, ends: Mapping[int, int]) -> None:
        """Returns when the pages below these offsets, one a partition, are known."""
        await self._follower.reach(ends)

    async def stop(self) -> None:
        """Ends the following."""
        self._follower.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        async for record in self._follower:
            try:
                await self._in_model_thread(self._take, record)
            except Exception as error:  # noqa: BLE001 - the words of one page must not stop all speech
                fault = record_fault(error, f"page {record.key[:60]}")
                _log.error("the words of a page are left out", extra={"error": str(fault)})

    def _take(self, record: LogRecord[ProductPage]) -> None:
        page = record.value
        if page is None:
            self._vocabulary.remove(record.key)
            return
        page = clipped(page)
        attributes = {name: plain(value) for name, value in page.attributes.items()}
        self._vocabulary.add(record.key, plain(page.title), plain(page.brand), plain(page.category), attributes)
