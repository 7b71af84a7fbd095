"""The recognize role: `live_windows` and the catalogue to `product_detected`.

A window is done when its events and then its state have been acknowledged by the broker. After a crash in between,
the window comes again and gives the same events: same input, same state, same decisions, same ids.
"""

import logging
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from cope.model.scoring import UNCALIBRATED, Calibration
from cope.serving.identity import load_identity
from topology import metrics
from topology.delivery import Message
from topology.errors import BadInput, record_fault
from topology.index import Index, PageEntry, open_index
from topology.records import (
    Evidence,
    EvidenceFrame,
    ProductDetected,
    RecognitionState,
    RunnerUp,
    WindowEmbedding,
)
from topology.retry import retrying
from topology.topic_log import read_partition
from topology.topics import LIVE_WINDOWS, PAGE_VECTORS, PRODUCT_DETECTED, RECOGNITION_STATE
from topology.worker import Worker
from workers.recognize import evidence
from workers.recognize.catalogue import Catalogue
from workers.recognize.standing import StandingLines
from workers.recognize.tracker import Decision, FilterConfig, Observation, Tracker

_log = logging.getLogger(__name__)

# Any fixed namespace: detection ids must be the same in every process and release.
_NAMESPACE = uuid.UUID("b9d0a4e6-2a2c-5d7e-9c39-6f1d1c1f7a10")

# Of what all searches of a window find together, so many times `candidates` are scored, those first that come first in
# any of them. More cost time and change nothing: what is in nobody's first five is not what is being shown.
_SCORED = 3

# The state of an ended stream is kept while its windows may still be redelivered: they live for an hour.
_FORGET_AFTER_MS = 24 * 3_600_000


class Model(Protocol):
    """What recognition needs of a model: `cope.serving.identity.ModelIdentity`, or a whole `Encoder`."""

    @property
    def version(self) -> str:
        """Of the vectors that it compares."""
        ...

    @property
    def calibration(self) -> Calibration:
        """Of their scores."""
        ...


def build(worker: Worker, encoder: Model | None = None, index: Index | None = None) -> None:
    """Registers the recognize role.

    Args:
        worker: Gets the agent.
        encoder: A model that the process has loaded already; None: read version and calibration of the settings'
            model, without its towers.
        index: To search; None: the one that the settings name. Closed with the worker.
    """
    Recognizer(worker, encoder, index).register()


def detection_id(stream_id: str, epoch: int, product_id: str, first_window_ms: int) -> str:
    """Returns the id that all events of a sighting carry."""
    return str(uuid.uuid5(_NAMESPACE, f"{stream_id}|{epoch}|{product_id}|{first_window_ms}"))


class Recognizer:
    """Keeps one filter a stream."""

    def __init__(self, worker: Worker, model: Model | None = None, index: Index | None = None) -> None:
        self._worker = worker
        self._model = model
        self._index = index
        self._catalogue: Catalogue | None = None
        settings = worker.settings
        self._filter = FilterConfig(threshold=settings.threshold, update_every_ms=settings.update_every_ms)
        self._trackers: dict[int, dict[str, Tracker]] = {}  # partition -> stream -> filter
        self._standing: dict[int, dict[str, StandingLines]] = {}  # partition -> stream -> lines on its screen

    def register(self) -> None:
        """Hooks itself into the worker."""
        worker = self._worker
        worker.on_start(self._start)
        worker.on_stop(self._stop)
        worker.background(self._follow_catalogue)
        worker.delivery.on_assigned(self._restore)
        worker.delivery.on_revoked(self._drop)
        worker.delivery.agent(LIVE_WINDOWS, WindowEmbedding, self._work)

    async def _start(self) -> None:
        settings = self._worker.settings
        if self._model is None:
            self._model = load_identity(settings.model)
        version = self._model.version
        if self._model.calibration == UNCALIBRATED:
            _log.warning(
                "the model is not calibrated: its confidences are a cautious guess; run python -m cope.calibrate",
                extra={"model": version},
            )
        if self._index is None:
            self._index = await retrying(lambda: open_index(settings, version), "open the index")
        self._catalogue = Catalogue(settings, self._index, self._worker.delivery.refusals(PAGE_VECTORS))

    async def _stop(self) -> None:
        if self._catalogue is not None:
            await self._catalogue.close()

    async def _follow_catalogue(self) -> None:
        await self._parts()[0].follow()

    def _parts(self) -> tuple[Catalogue, Model]:
        assert self._catalogue is not None and self._model is not None  # noqa: S101 - set before the agents start
        return self._catalogue, self._model

    # -- state ---------------------------------------------------------------------------------------------------

    async def _restore(self, topic: str, partition: int) -> None:
        """Reads back the filters of a partition, before its first window."""
        if topic != LIVE_WINDOWS:
            return
        states: dict[str, tuple[RecognitionState, int]] = {}
        async for record in read_partition(self._worker.settings, RECOGNITION_STATE, partition, RecognitionState):
            states.pop(record.key, None)
            if record.value is not None:
                states[record.key] = (record.value, record.log_ms)
        trackers = self._trackers[partition] = {}
        standing = self._standing[partition] = {}
        now_ms = time.time() * 1000
        for stream_id, (state, log_ms) in states.items():
            if state.ended and now_ms - log_ms > _FORGET_AFTER_MS:
                await self._worker.delivery.send(RECOGNITION_STATE, stream_id, None)
            else:
                try:
                    tracker, lines = Tracker(self._filter, state.tracker), StandingLines(state.standing)
                except BadInput as error:
                    _log.warning("a stream begins anew", extra={"stream_id": stream_id, "error": str(error)})
                    continue
                trackers[stream_id], standing[stream_id] = tracker, lines

    def _drop(self, topic: str, partition: int) -> None:
        if topic == LIVE_WINDOWS:
            self._trackers.pop(partition, None)
            self._standing.pop(partition, None)

    # -- windows -------------------------------------------------------------------------------------------------

    async def _work(self, messages: AsyncIterator[Message[WindowEmbedding]]) -> None:
        await self._parts()[0].ready()
        async for message in messages:
            window = message.value
            trackers = self._trackers.setdefault(message.partition, {})
            standing = self._standing.setdefault(message.partition, {})
            tracker = trackers.setdefault(window.stream_id, Tracker(self._filter)).to_bytes()
            lines = standing.setdefault(window.stream_id, StandingLines()).to_bytes()
            try:
                await self._take(message)
            except Exception as error:  # noqa: BLE001 - whatever this window holds, the next one is looked at
                fault = record_fault(error, f"window {window.start_ms} of {window.stream_id}")
                trackers[window.stream_id] = Tracker(self._filter, tracker)
                standing[window.stream_id] = StandingLines(lines)
                await message.dead_letter(fault)
            else:
                message.done()

    async def _take(self, message: Message[WindowEmbedding]) -> None:
        window = message.value
        trackers = self._trackers.setdefault(message.partition, {})
        tracker = trackers.setdefault(window.stream_id, Tracker(self._filter))
        standing = self._standing.setdefault(message.partition, {}).setdefault(window.stream_id, StandingLines())
        if window.end_of_epoch:
            if tracker.ended and window.epoch <= tracker.epoch:
                return
            decisions = tracker.begin_epoch(window.epoch) + tracker.end_epoch()
        elif tracker.has_seen(window.epoch, window.start_ms):
            return
        else:
            new_epoch = window.epoch > tracker.epoch
            observations = await self._observe(window, tracker, standing, new_epoch)
            decisions = tracker.begin_epoch(window.epoch)
            decisions += tracker.observe(window.start_ms, window.end_ms, observations)
            if observations and not tracker.is_on:
                metrics.REJECTED.inc()
        if message.revoked:
            return
        for decision in decisions:
            await self._send(window, decision)
        state = RecognitionState(
            stream_id=window.stream_id,
            epoch=tracker.epoch,
            start_ms=tracker.start_ms,
            ended=tracker.ended,
            tracker=tracker.to_bytes(),
            standing=standing.to_bytes(),
        )
        await self._worker.delivery.send(RECOGNITION_STATE, window.stream_id, state)

    async def _observe(
        self, window: WindowEmbedding, tracker: Tracker, standing: StandingLines, new_epoch: bool
    ) -> list[Observation]:
        catalogue, model = self._parts()
        if window.model_version != model.version:
            raise BadInput(
                f"window {window.start_ms} of {window.stream_id} was embedded by model {window.model_version}, this "
                f"worker has {model.version}: run embed and recognize with one COPE_MODEL"
            )
        if new_epoch:
            await catalogue.catch_up()
            self._check_products(window, catalogue)
        look = evidence.unpack(window, window.start_ms if new_epoch else tracker.looked_ms)
        read = evidence.read_of(look, standing, window.epoch, lambda lines: catalogue.seen(lines, window.product_ids))
        tracked = [] if new_epoch else tracker.products
        bag = window.product_ids

        async def find() -> dict[str, PageEntry]:
            limit = self._worker.settings.candidates
            found = await catalogue.search(evidence.search_query(look, bag), limit)
            wanted = {one.product_id for one in found[: _SCORED * limit]} | {
                one for one in tracked if bag is None or one in bag
            }
            wanted |= set(read.best(limit))
            return await catalogue.pages(sorted(wanted))

        with metrics.STAGE_SECONDS.labels("search").time():
            pages = await retrying(find, "search the index")
        with metrics.STAGE_SECONDS.labels("score").time():
            return await self._worker.in_executor(evidence.observe, look, pages, model.calibration, read)

    def _check_products(self, window: WindowEmbedding, catalogue: Catalogue) -> None:
        if not catalogue.products:
            _log.warning(
                "the catalogue is empty, nothing can be recognised: publish one with `cope-live index`",
                extra={"stream_id": window.stream_id},
            )
            return
        unknown = [one for one in window.product_ids or () if one not in catalogue.products]
        if unknown:
            metrics.BAG_UNKNOWN.inc(len(unknown))
            _log.warning(
                "the shopping bag names products that the catalogue does not have; they are ignored",
                extra={"stream_id": window.stream_id, "count": len(unknown), "first": unknown[0]},
            )

    # -- events --------------------------------------------------------------------------------------------------

    async def _send(self, window: WindowEmbedding, decision: Decision) -> None:
        catalogue, model = self._parts()
        now = datetime.now(UTC)
        # The end of an epoch was not captured at any time of its own.
        latency_ms = max(0, round(now.timestamp() * 1000) - window.captured_at_ms) if window.captured_at_ms else 0
        runner_up = decision.runner_up
        event = ProductDetected(
            detection_id=detection_id(window.stream_id, decision.epoch, decision.product_id, decision.first_window_ms),
            stream_id=window.stream_id,
            product_id=decision.product_id,
            status=decision.status,
            epoch=decision.epoch,
            media_start_ms=decision.media_start_ms,
            media_end_ms=decision.media_end_ms,
            emitted_media_ms=decision.emitted_media_ms,
            detected_at=now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            latency_ms=latency_ms,
            confidence=decision.confidence,
            evidence=Evidence(
                frame_pts_ms=tuple(frame.pts_ms for frame in decision.frames),
                keywords=decision.keywords,
                visual_score=decision.visual,
                text_score=decision.text,
                runner_up=RunnerUp(product_id=runner_up[0], confidence=runner_up[1]) if runner_up else None,
                frames=tuple(EvidenceFrame(**msgspec.structs.asdict(frame)) for frame in decision.frames),
                read=decision.lines,
                read_score=decision.read,
                speech_score=decision.speech,
            ),
            model_version=model.version,
            index_version=catalogue.version,
        )
        await self._worker.delivery.send(PRODUCT_DETECTED, window.stream_id, event)
        metrics.EVENTS.labels(event.status).inc()
        if event.status == "started":
            metrics.MATCH_CONFIDENCE.observe(event.confidence)
            metrics.EVENT_LATENCY.observe(latency_ms / 1000)
