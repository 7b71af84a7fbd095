"""The evidence role: `product_detected` to kept pictures.

Frames are read one by one, at the offsets that events name: following `live_frames` would cost as much as capture does.
Frames that are no longer there (the topic keeps ten minutes) are left out; a detection may be kept without pictures.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from functools import partial

from cope.vision.decoding import PictureError
from topology import metrics
from topology.delivery import Message
from topology.errors import Unavailable, record_fault
from topology.evidence import EvidenceStore, Kept, KeptFrame, evidence_url
from topology.records import EvidenceFrame, Frame, ProductDetected
from topology.retry import describe, retrying
from topology.topic_log import RecordReader
from topology.topics import LIVE_FRAMES, PRODUCT_DETECTED
from topology.worker import Worker
from workers.evidence.pictures import joined, prepared, wanted
from workers.faces import FaceBlur
from workers.pages import Pages

_log = logging.getLogger(__name__)

SWEEP_EVERY_S = 60.0
# Ongoing sightings that are held in memory, some 200 kB each: one for each stream that shows something.
_OPEN = 256
_ENVELOPE_BYTES = 20_000  # size of a detection beside its pictures
_DAY_S = 24 * 3600.0
_MB = 1_000_000


def build(worker: Worker, store: EvidenceStore | None = None) -> None:
    """Registers the evidence role.

    Args:
        worker: Gets the agent.
        store: Where to keep; None: where the settings say.
    """
    EvidenceKeeper(worker, store).register()


class EvidenceKeeper:
    """Keeps what events rest on."""

    def __init__(self, worker: Worker, store: EvidenceStore | None = None) -> None:
        settings = worker.settings
        self._worker = worker
        self._settings = settings
        self._store = store or EvidenceStore(evidence_url(settings))
        self._blur = FaceBlur() if settings.evidence_faces == "blur" else None
        self._reader = RecordReader(settings)
        self._pages = Pages(settings, self._reader)
        self._open: OrderedDict[str, Kept] = OrderedDict()
        self._bytes = 0

    def register(self) -> None:
        """Hooks itself into the worker."""
        worker = self._worker
        worker.background(self._pages.follow)
        worker.background(self._sweep)
        worker.on_stop(self._reader.stop)
        worker.delivery.on_revoked(lambda _topic, _partition: self._open.clear())
        worker.delivery.agent(PRODUCT_DETECTED, ProductDetected, self._work)

    async def _work(self, messages: AsyncIterator[Message[ProductDetected]]) -> None:
        await self._pages.caught_up.wait()
        async for message in messages:
            try:
                await self._take(message.value, message.partition)
            except Exception as error:  # noqa: BLE001 - whatever this event holds, the next one is kept
                await message.dead_letter(record_fault(error, f"the event of {message.value.stream_id}"))
            else:
                message.done()

    async def _take(self, event: ProductDetected, stream_partition: int) -> None:
        kept = await self._kept(event)
        if kept is not None and _moment(event) <= _moment(kept.event) and kept.frames:
            return  # a copy
        frames = kept.frames if kept is not None else ()
        most = self._settings.evidence_frames
        new = [
            found
            for one in wanted(frames, event.evidence.frames, most)
            if (found := await self._frame(event, one, stream_partition)) is not None
        ]
        if kept is not None and not new and event.status == "updated":
            return
        frames = joined(frames, new, most)
        kept = Kept(
            detection_id=event.detection_id,
            stream_id=event.stream_id,
            product_id=event.product_id,
            events=(event,) if kept is None else (kept.events[0], event),
            title=self._pages.title(event.product_id),
            frames=frames,
            page=kept.page if kept is not None and not new else await self._page(event.product_id, frames),
        )
        await self._put(kept)
        if event.status == "ended":
            self._open.pop(event.detection_id, None)

    async def _kept(self, event: ProductDetected) -> Kept | None:
        if event.detection_id in self._open:
            return self._open[event.detection_id]
        read = partial(asyncio.to_thread, self._store.get, event.detection_id)
        return await retrying(read, "read evidence")

    async def _put(self, kept: Kept) -> None:
        needed = _ENVELOPE_BYTES + len(kept.page) + sum(len(one.jpeg) + len(one.crop) for one in kept.frames)
        if self._bytes + needed > self._settings.evidence_limit_mb * _MB:
            await self._clear(needed)
        write = partial(asyncio.to_thread, self._store.put, kept)
        size = await retrying(write, "write evidence")
        self._open[kept.detection_id] = kept
        self._open.move_to_end(kept.detection_id)
        while len(self._open) > _OPEN:
            self._open.popitem(last=False)
        self._bytes += size  # too much where it replaced another file; the next sweep counts anew

    async def _frame(self, event: ProductDetected, wanted: EvidenceFrame, partition: int) -> KeptFrame | None:
        read = partial(self._reader.read, LIVE_FRAMES, partition, wanted.offset, Frame)
        record = await retrying(read, f"read a frame of {event.stream_id}")
        frame = record.value if record is not None else None
        if frame is None or (frame.stream_id, frame.epoch, frame.pts_ms) != (
            event.stream_id,
            event.epoch,
            wanted.pts_ms,
        ):
            metrics.EVIDENCE_FRAMES.labels("gone").inc()
            return None
        began = time.monotonic()
        try:
            found = await self._worker.in_executor(prepared, wanted, frame, self._blur)
        except PictureError as error:
            _log.warning("a frame cannot be kept", extra={"stream_id": event.stream_id, "error": describe(error)})
            metrics.EVIDENCE_FRAMES.labels("damaged").inc()
            return None
        metrics.STAGE_SECONDS.labels("keep_frame").observe(time.monotonic() - began)
        metrics.EVIDENCE_FRAMES.labels("kept").inc()
        return found

    async def _page(self, product_id: str, frames: tuple[KeptFrame, ...]) -> bytes:
        """The page picture that the best frame matches; a server of pictures that is down holds nothing up."""
        listed = self._pages.get(product_id)
        best = max(frames, key=lambda frame: frame.score, default=None)
        number = None if listed is None else listed.image_number(best.page_image if best else "")
        if number is None:
            return b""
        try:
            return await self._pages.picture(product_id, number) or b""
        except Unavailable as error:
            _log.warning("a page picture is left out", extra={"product_id": product_id, "error": str(error)})
            return b""

    async def _sweep(self) -> None:
        while True:
            await self._clear()
            await asyncio.sleep(SWEEP_EVERY_S)

    async def _clear(self, needed: int = 0) -> None:
        """Makes room for what is about to be written."""
        settings = self._settings
        limits = settings.evidence_days * _DAY_S, max(0, settings.evidence_limit_mb * _MB - needed)
        self._bytes = await retrying(partial(asyncio.to_thread, self._store.sweep, *limits), "clear evidence")
        metrics.EVIDENCE_BYTES.set(self._bytes)


def _moment(event: ProductDetected) -> tuple[int, bool]:
    return event.emitted_media_ms, event.status == "ended"
