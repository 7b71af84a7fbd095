"""The catalog role: `product_pages` to `page_vectors`, and to the Qdrant server where there is one."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from cope.serving.encoder import Encoder, PageOutput
from cope.towers.reading import Reader
from topology import metrics
from topology.addresses import Allowed
from topology.bounds import LONGEST_ERROR, clipped, fitting
from topology.delivery import Message
from topology.errors import BadInput, record_fault
from topology.index import Index, PageEntry, open_server_to_fill
from topology.records import PageImage, PageVectors, ProductPage
from topology.retry import retrying
from topology.topic_log import read_partition, read_range
from topology.topics import PAGE_VECTORS, PRODUCT_PAGES
from topology.worker import Worker
from workers.catalog import encoding
from workers.catalog.kept import KeptPages, content_of
from workers.catalog.reindex import switch_when_filled
from workers.images import load_image
from workers.reading import reader_of

if TYPE_CHECKING:
    from topology.index.server import ServerIndex

T = TypeVar("T")

_log = logging.getLogger(__name__)

# How long a batch waits for more pages. Publishing a catalogue fills batches anyway; a single page must not wait long.
_LINGER_S = 0.02

# Pages and pictures that are fetched and encoded together. Pictures take up to 1.2 MB of memory each. Larger: galleries
# fill the memory; smaller: one slow server delays the others.
_MOST_PAGES = 16
_MOST_PICTURES = 128

_LONGEST_ID = 512  # as records say: `topology.records.Id`


def build(worker: Worker, encoder: Encoder | None = None, keep: bool = False) -> None:
    """Registers the catalog role.

    Args:
        worker: Gets the agent.
        encoder: Shared with other roles of the process; None: load the model of the settings at the start.
        keep: Keep encoded pages on this machine's disk. For `watch`, whose topics are gone when it ends.
    """
    Catalog(worker, encoder, keep).register()


class Catalog:
    """Encodes pages as they come."""

    def __init__(self, worker: Worker, encoder: Encoder | None = None, keep: bool = False) -> None:
        self._worker = worker
        self._keep = keep
        self._kept: KeptPages | None = None
        self._allowed = Allowed.of(worker.settings)
        self._encoder = encoder
        self._reader: Reader | None = None
        self._index: ServerIndex | None = None

    def register(self) -> None:
        """Hooks itself into the worker."""
        self._worker.on_start(self._start)
        self._worker.on_stop(self._stop)
        self._worker.background(self._reindex)
        self._worker.delivery.on_assigned(self._encode_anew)
        self._worker.delivery.agent(PRODUCT_PAGES, ProductPage, self._work, tombstones=True)

    async def _start(self) -> None:
        settings = self._worker.settings
        if self._encoder is None:
            self._encoder = await self._worker.in_executor(
                Encoder, settings.model, settings.device, settings.threads, settings.precision == "auto"
            )
        self._reader = await self._worker.in_executor(reader_of, settings, self._encoder.reading)
        if self._keep:
            self._kept = KeptPages(f"{self._encoder.version} {self._reader is not None}")
        if settings.qdrant_url:
            version = self._encoder.version
            self._index = await retrying(lambda: open_server_to_fill(settings, version), "open the index")

    async def _stop(self) -> None:
        if self._kept is not None:
            self._kept.close()
        if self._index is not None:
            await self._index.close()

    async def _reindex(self) -> None:
        """With a new model on a Qdrant server, pages go to a new collection: searches move there once it is full."""
        if self._index is not None:
            await switch_when_filled(self._worker.settings, self._index)

    async def _encode_anew(self, topic: str, partition: int) -> None:
        """Encodes the pages of a partition again whose newest vectors are of another model, before any new page.

        In the order of the log, so that `CatalogProgress` holds for a new model too.
        """
        if topic != PRODUCT_PAGES:
            return
        settings, version = self._worker.settings, self._model().version
        stale: dict[str, int] = {}
        async for held in read_partition(settings, PAGE_VECTORS, partition, PageVectors):
            stale.pop(held.key, None)
            if held.value is not None and not held.value.withdrawn and held.value.model_version != version:
                stale[held.key] = held.value.source_offset
        if not stale:
            return
        _log.info("encoding pages anew", extra={"partition": partition, "pages": len(stale), "model": version})
        end = max(stale.values()) + 1
        async for page in read_range(settings, PRODUCT_PAGES, partition, ProductPage, 0, end):
            if page.value is not None and stale.get(page.key) == page.offset:
                await self._encode_and_publish(
                    page.value, page.key, partition, page.offset, await self._fetch(page.value)
                )

    async def _work(self, messages: AsyncIterator[Message[ProductPage]]) -> None:
        async for batch in batches(messages, _MOST_PAGES, _LINGER_S):
            for part in in_parts(batch, _pictures_of, _MOST_PICTURES):
                await self._take(part)

    async def _take(self, batch: list[Message[ProductPage]]) -> None:
        pictures = await asyncio.gather(*(self._fetch(message.value) for message in batch))
        for message, found in zip(batch, pictures, strict=True):
            if message.revoked:
                continue
            error = await self._encode_and_publish(message.value, message.key, message.partition, message.offset, found)
            if error is None:
                message.done()
            else:
                await message.dead_letter(error)

    async def _encode_and_publish(
        self, page: ProductPage | None, key: str, partition: int, offset: int, found: encoding.Pictures
    ) -> BadInput | None:
        """Sends the page's vectors, or a record that says why it has none; returns what is wrong with the page."""
        version = self._model().version
        if not 0 < len(key) <= _LONGEST_ID:
            metrics.PAGES.labels("failed").inc()
            return BadInput(f"a page with a key of {len(key)} characters: send it with its product_id as the key")
        try:
            if page is None:
                await self._publish(encoding.withdrawn(key, partition, offset, version))
                metrics.PAGES.labels("withdrawn").inc()
                return None
            if page.product_id != key:
                raise BadInput(f"the page of {page.product_id} has the key {key}: send it with its own id")
            page = clipped(encoding.without_markup(page))
            await self._publish(await self._encode(page, partition, offset, found))
        except Exception as error:  # noqa: BLE001 - whatever this page holds, the next one is encoded
            fault = record_fault(error, f"page {key}")
            await self._publish(encoding.failed(key, partition, offset, fault, version))
            metrics.PAGES.labels("failed").inc()
            return fault
        for problem in found.problems:
            _log.warning(
                "an image is left out", extra={"product_id": page.product_id, "error": problem[:LONGEST_ERROR]}
            )
        metrics.PAGES.labels("partly" if found.problems else "encoded").inc()
        return None

    async def _fetch(self, page: ProductPage | None) -> encoding.Pictures:
        if page is None:
            return encoding.Pictures()
        try:
            return await encoding.fetch_pictures(page, self._load)
        except Exception as error:  # noqa: BLE001 - whatever these pictures do to a decoder, others go on
            return encoding.Pictures(problems=[str(record_fault(error, "its pictures"))])

    def _load(self, image: PageImage) -> encoding.Pixels:
        return load_image(image, self._allowed, longest=encoding.LONGEST_SIDE_PX)

    async def _encode(self, page: ProductPage, partition: int, offset: int, found: encoding.Pictures) -> PageVectors:
        if not found.images:
            reasons = "; ".join(found.problems) or "it names none"
            raise BadInput(f"page {page.product_id} has no usable image ({reasons}): publish it again with one")
        content = b"" if self._kept is None else content_of(page, found)
        if self._kept is not None and (known := self._kept.find(content)) is not None:
            return msgspec.structs.replace(known, source_partition=partition, source_offset=offset)
        output = await self._run_model(page, found)
        read = await self._read(page, found)
        record = encoding.page_vectors(page, partition, offset, found, output, self._model().version, read)
        if self._kept is not None:
            self._kept.keep(content, record)
        return record

    async def _read(self, page: ProductPage, found: encoding.Pictures) -> list[str] | None:
        """Reads the page's pictures; None where the model does not read."""
        if self._reader is None:
            return None
        began = time.monotonic()
        try:
            lines = await self._worker.in_executor(self._reader.read_page, found.images)
        except Exception as error:
            raise record_fault(error, f"the words on page {page.product_id}") from error
        metrics.STAGE_SECONDS.labels("read_page").observe(time.monotonic() - began)
        return lines

    async def _run_model(self, page: ProductPage, found: encoding.Pictures) -> PageOutput:
        began = time.monotonic()
        try:
            outputs = await self._worker.in_executor(self._model().encode_pages, [encoding.page_input(page, found)])
        except Exception as error:
            raise record_fault(error, f"page {page.product_id} fails in the model: it") from error
        metrics.STAGE_SECONDS.labels("encode_page").observe(time.monotonic() - began)
        return outputs[0]

    async def _publish(self, record: PageVectors) -> None:
        """Updates the index, then the topic: a page that is on the topic is also in the index."""
        record = fitting(record)
        index = self._index
        if index is not None:
            await retrying(lambda: _apply(index, record), "write to the index")
            metrics.INDEX_PRODUCTS.set(await retrying(index.count, "count the index"))
        await self._worker.delivery.send(PAGE_VECTORS, record.product_id, record)

    def _model(self) -> Encoder:
        assert self._encoder is not None  # noqa: S101 - set before the agents start
        return self._encoder


async def _apply(index: Index, record: PageVectors) -> None:
    if record.withdrawn or record.error:
        await index.remove([record.product_id])
    else:
        await index.upsert([PageEntry.from_record(record)])


def _pictures_of(message: Message[ProductPage]) -> int:
    return min(len(message.value.images), encoding.MOST_IMAGES) if message.value is not None else 0


def in_parts(batch: Sequence[T], size_of: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """Yields the batch in parts, in order: each of `most` in all, or of a single larger one."""
    part: list[T] = []
    room = most
    for one in batch:
        room -= size_of(one)
        if part and room < 0:
            yield part
            part, room = [], most - size_of(one)
        part.append(one)
    if part:
        yield part


async def batches(messages: AsyncIterator[T], most: int, linger_s: float) -> AsyncIterator[list[T]]:
    """Yields what has come in, in order: at least one message, and no more than `most`."""
    pending: asyncio.Future[T] | None = None
    try:
        while True:
            batch: list[T] = []
            while len(batch) < most:
                pending = pending or asyncio.ensure_future(anext(messages))
                if not (await asyncio.wait({pending}, timeout=linger_s if batch else None))[0]:
                    break
                try:
                    batch.append(pending.result())
                except StopAsyncIteration:
                    if batch:
                        yield batch
                    return
                finally:
                    pending = None
            yield batch
    finally:
        if pending is not None:
            pending.cancel()
