"""The embed role: `live_frames` and `live_keywords` to `live_windows`.

    frames    -> inbox -> backbone, in batches over streams -> reader of words --+
                                                                                +-> windows -> text and fusion
    keywords -------------------------------------------------------------------+       -> live_windows -> acks

Words are read in a thread of their own, while the backbone has the next batch.

Each frame is encoded by itself, even if it is nearly the same as the one before: whether that one has been seen
depends on where reading began, and the content of a window must not.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from cope.serving.encoder import Encoder, FrameFeatures, WindowInput
from cope.towers.reading import Reader
from topology import metrics
from topology.delivery import Message
from topology.errors import BadInput, Unavailable, UserError, is_out_of_memory, record_fault
from topology.records import Frame, Keywords, ReadLine, WindowEmbedding
from topology.retry import describe
from topology.topics import LIVE_FRAMES, LIVE_KEYWORDS, LIVE_WINDOWS
from topology.worker import Worker
from workers.embed.clock import BrokerClock
from workers.embed.encoding import (
    HeardKeywords,
    LiveWindow,
    SeenFrame,
    content_of,
    decode_frame,
    is_read,
    window_record,
)
from workers.embed.parts import FrameIn, KeywordsIn, Step
from workers.embed.windows import Topic, WindowCore, WindowRules
from workers.reading import reader_of

_log = logging.getLogger(__name__)

T = TypeVar("T")
Pixels = NDArray[np.uint8]

# How often the ends of the logs are asked for. It delays live windows whose keywords do not come, so it is short while
# a window waits; otherwise it only serves to notice streams that have gone.
_TICK_S = 0.25
_REST_S = 1.0
# Most windows that wait to be sent. Above it no frames are encoded: their features would only fill memory.
_MOST_STEPS = 64

_TOPICS: dict[str, Topic] = {LIVE_FRAMES: "frames", LIVE_KEYWORDS: "keywords"}


class Model(Protocol):
    """What embedding needs of `cope.serving.encoder.Encoder`."""

    version: str

    @property
    def reading(self) -> str:
        """Name of its reader of words in pictures; empty if it has none."""
        ...

    def encode_frames(self, images: Sequence[Pixels]) -> list[FrameFeatures]:
        """Features of each picture, (H, W, 3) uint8 RGB."""
        ...

    def encode_speech(self, texts: Sequence[str]) -> list[NDArray[np.float16]]:
        """Returns the meaning of each text, (D,); (0,) for a text without one."""
        ...

    def encode_windows(self, windows: Sequence[WindowInput]) -> NDArray[np.float16]:
        """The fused embeddings, (B, D)."""
        ...


def build(worker: Worker, encoder: Model | None = None) -> None:
    """Registers the embed role.

    Args:
        worker: Gets the agents.
        encoder: Shared with other roles of the process; None: load the model of the settings at the start.
    """
    Embedder(worker, encoder).register()


class _Partition:
    """The windows of one partition, and the steps that they wait for to be taken."""

    def __init__(self, rules: WindowRules) -> None:
        self.core: WindowCore[SeenFrame, HeardKeywords] = WindowCore(rules)
        self.steps: deque[Step[SeenFrame, HeardKeywords]] = deque()
        self.in_hand = 0  # frames between the log and the core
        self.revoked = False


class Embedder:
    """Keeps the windows of all partitions that this process has."""

    def __init__(self, worker: Worker, encoder: Model | None = None) -> None:
        self._worker = worker
        self._encoder = encoder
        self._rules = WindowRules.from_settings(worker.settings)
        self._batch_size = worker.settings.batch_size
        self._reader: Reader | None = None
        self._partitions: dict[int, _Partition] = {}
        self._clock = BrokerClock()
        self._inbox: deque[tuple[_Partition, Message[Frame]]] = deque()
        self._seen: asyncio.Queue[list[tuple[_Partition, SeenFrame, Pixels | None]]] = asyncio.Queue(maxsize=1)
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="model-embed-reader")
        self._changed = asyncio.Condition()

    def register(self) -> None:
        """Hooks itself into the worker."""
        worker = self._worker
        worker.on_start(self._start)
        worker.on_stop(self._stop)
        worker.background(self._encode_frames)
        worker.background(self._read_frames)
        worker.background(self._send_windows)
        worker.background(self._follow_ends)
        worker.delivery.on_assigned(self._check_assigned)
        worker.delivery.on_revoked(self._drop)
        worker.delivery.agent(LIVE_FRAMES, Frame, self._take_frames)
        worker.delivery.agent(LIVE_KEYWORDS, Keywords, self._take_keywords)

    async def _start(self) -> None:
        settings = self._worker.settings
        if self._encoder is None:
            self._encoder = await self._worker.in_executor(
                Encoder, settings.model, settings.device, settings.threads, settings.precision == "auto"
            )
        self._reader = await self._worker.in_executor(reader_of, settings, self._model().reading)
        # Not awaited: it is done while the group is joined. What fails here is told of when it fails on a stream.
        self._worker.executor.submit(self._warm_up)

    def _warm_up(self) -> None:
        """Computes something once: the first time, kernels are compiled, and the text tower is loaded."""
        height = self._worker.settings.frame_height
        noise = np.random.default_rng(0).integers(0, 256, (height, height * 16 // 9, 3), np.uint8)
        self._model().encode_frames([noise])
        self._model().encode_speech(["warm up"])
        if self._reader is not None:
            self._reader.read(noise)

    async def _stop(self) -> None:
        self._reading.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------------ partitions

    async def _check_assigned(self, topic: str, partition: int) -> None:
        """Checks that this process has the partition of both topics; Faust assigns them together if counts agree."""
        for other in _TOPICS:
            if partition not in self._worker.delivery.assigned(other):
                raise UserError(
                    f"this worker has partition {partition} of {topic}, but not of {other}: both topics must have "
                    f"{self._worker.settings.stream_partitions} partitions (COPE_STREAM_PARTITIONS); create them anew"
                )

    def _drop(self, topic: str, partition: int) -> None:
        dropped = self._partitions.pop(partition, None)
        if dropped is not None:
            dropped.revoked = True

    def _partition(self, number: int) -> _Partition:
        return self._partitions.setdefault(number, _Partition(self._rules))

    # ------------------------------------------------------------------ in

    async def _take_frames(self, messages: AsyncIterator[Message[Frame]]) -> None:
        # No `await` between getting a message and counting it: `_follow_ends` relies on the count.
        async for message in messages:
            self._clock.observe(message.log_ms, _now_ms())
            partition = self._partition(message.partition)
            partition.in_hand += 1
            self._inbox.append((partition, message))
            async with self._changed:
                self._changed.notify_all()
                await self._changed.wait_for(lambda: len(self._inbox) < 2 * self._batch_size)

    async def _take_keywords(self, messages: AsyncIterator[HeardKeywords]) -> None:
        async for message in messages:
            self._clock.observe(message.log_ms, _now_ms())
            value = message.value
            heard = KeywordsIn(
                value.stream_id,
                value.epoch,
                value.start_ms,
                value.end_ms,
                message.log_ms,
                message,
                end=value.end_of_epoch,
            )
            partition = self._partition(message.partition)
            await self._plan(partition, partition.core.keywords(heard))

    async def _encode_frames(self) -> None:
        """Encodes the frames at hand, of all streams."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._inbox) and self._waiting_steps() < _MOST_STEPS)
                batch = [self._inbox.popleft() for _ in range(min(self._batch_size, len(self._inbox)))]
                self._changed.notify_all()
            batch = [(partition, message) for partition, message in batch if not partition.revoked]
            seen = await self._see([message for _, message in batch])
            await self._seen.put([(partition, *one) for (partition, _), one in zip(batch, seen, strict=True)])

    async def _read_frames(self) -> None:
        """Reads the words in encoded frames, then gives them to the windows."""
        while True:
            for partition, seen, picture in await self._seen.get():
                if picture is not None and not partition.revoked:
                    seen = await self._read(seen, picture)
                partition.in_hand -= 1
                if partition.revoked:
                    continue
                frame = seen.message.value
                arrived = FrameIn(
                    frame.stream_id,
                    frame.epoch,
                    frame.pts_ms,
                    seen.message.log_ms,
                    seen,
                    live=frame.live,
                    first=frame.first,
                    end=frame.end_of_epoch,
                )
                await self._plan(partition, partition.core.frame(arrived))

    async def _follow_ends(self) -> None:
        """Keeps the windows informed how far both logs have been delivered, also while nothing arrives."""
        while True:
            waits = any(partition.core.waits for partition in self._partitions.values())
            await asyncio.sleep(_TICK_S if waits else _REST_S)
            for name, topic in _TOPICS.items():
                asked_ms = _now_ms()
                try:
                    missing = await self._worker.delivery.undelivered(name)
                except Unavailable:
                    continue  # `delivery` reports it; the ends of the logs stay unknown until the broker answers
                passed_ms = self._clock.passed_ms(asked_ms)
                for number, partition in list(self._partitions.items()):
                    in_hand = partition.in_hand if topic == "frames" else 0
                    if passed_ms is not None and missing.get(number) == 0 and not in_hand:
                        await self._plan(partition, partition.core.advance(topic, passed_ms - 1))

    # ------------------------------------------------------------------ model

    async def _see(self, messages: list[Message[Frame]]) -> list[tuple[SeenFrame, Pixels | None]]:
        """Encodes frames; beside each its picture, if it was encoded. Of one that cannot be only the time counts."""
        pictures: list[Pixels] = []
        seen: list[SeenFrame | None] = []
        for message in messages:
            if message.value.end_of_epoch:
                seen.append(SeenFrame(message))
                continue
            try:
                pictures.append(await self._timed("decode_frame", decode_frame, message.value))
                seen.append(None)
            except Exception as error:  # noqa: BLE001 - whatever these bytes do to a decoder, others go on
                seen.append(SeenFrame(message, error=record_fault(error, f"a frame of {message.value.stream_id}")))
        encoded = iter(zip(pictures, await self._encode_pictures(pictures), strict=True))
        out: list[tuple[SeenFrame, Pixels | None]] = []
        for message, one in zip(messages, seen, strict=True):
            if one is not None:
                out.append((one, None))
            else:
                picture, features = next(encoded)
                if isinstance(features, Exception):
                    out.append((SeenFrame(message, error=_failed(message.value, features)), None))
                else:
                    out.append((SeenFrame(message, features), picture))
            message.value = msgspec.structs.replace(message.value, jpeg=b"")
        return out

    async def _encode_pictures(self, pictures: list[Pixels]) -> list[FrameFeatures | Exception]:
        if not pictures:
            return []
        metrics.BATCH_SIZE.labels("frames").observe(len(pictures))
        try:
            return list(await self._timed("encode_frames", self._model().encode_frames, pictures))
        except Exception as error:
            if is_out_of_memory(error):
                raise
            if len(pictures) == 1:
                return [error]
        return [(await self._encode_pictures([picture]))[0] for picture in pictures]

    async def _read(self, seen: SeenFrame, picture: Pixels) -> SeenFrame:
        """Reads the words in some of the frames. A frame that cannot be read goes on without words."""
        settings, reader, frame = self._worker.settings, self._reader, seen.message.value
        if reader is None or seen.features is None or not is_read(frame.pts_ms, settings):
            return seen
        try:
            boxes = seen.features.boxes[: settings.read_regions]
            lines = await self._timed("read_frame", reader.read_frame, picture, boxes, executor=self._reading)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            _log.error("a frame cannot be read", extra={"stream_id": frame.stream_id}, exc_info=error)
            return seen
        return replace(seen, read=tuple(ReadLine(line.text, line.confidence, line.box) for line in lines))

    async def _embed(self, inputs: list[WindowInput]) -> list[NDArray[np.float16] | None]:
        """Embeds windows; None for one that has no content, or that the model cannot take."""
        filled = [one for one in inputs if one.frames or one.keywords]
        if not filled:
            return [None] * len(inputs)
        metrics.BATCH_SIZE.labels("windows").observe(len(filled))
        try:
            rows = iter(await self._timed("encode_windows", self._model().encode_windows, filled))
            return [next(rows) if one.frames or one.keywords else None for one in inputs]
        except Exception as error:
            if is_out_of_memory(error):
                raise
            if len(inputs) == 1:
                _log.error("a window cannot be embedded", exc_info=error)
                return [None]
        return [(await self._embed([one]))[0] for one in inputs]

    async def _timed(
        self, stage: str, fn: Callable[..., T], *args: object, executor: ThreadPoolExecutor | None = None
    ) -> T:
        def run() -> T:
            with metrics.STAGE_SECONDS.labels(stage).time():
                return fn(*args)

        return await asyncio.get_running_loop().run_in_executor(executor or self._worker.executor, run)

    def _model(self) -> Model:
        assert self._encoder is not None  # noqa: S101 - set before the agents start
        return self._encoder

    # ------------------------------------------------------------------ out

    async def _plan(self, partition: _Partition, steps: list[Step[SeenFrame, HeardKeywords]]) -> None:
        if steps:
            partition.steps.extend(steps)
            async with self._changed:
                self._changed.notify_all()

    def _waiting_steps(self) -> int:
        return sum(len(partition.steps) for partition in self._partitions.values())

    async def _send_windows(self) -> None:
        """Embeds closed windows in batches over streams; sends them in order, then acks what they needed."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._waiting_steps() > 0)
            work = [
                (partition, list(islice(partition.steps, self._batch_size)))
                for partition in self._partitions.values()
                if partition.steps
            ]
            records = await self._records([step.window for _, steps in work for step in steps if step.window])
            await asyncio.gather(*(self._take_steps(partition, steps, records) for partition, steps in work))
            async with self._changed:
                self._changed.notify_all()

    async def _records(self, windows: list[LiveWindow]) -> dict[int, WindowEmbedding]:
        """Returns the record of each window, by the window's identity."""
        version, rules = self._model().version, self._rules
        contents = [content_of(window, rules.look_back_ms) for window in windows]
        embeddings = await self._embed([content.model_input for content in contents])
        speech = [await self._speech([text for text, _ in content.said]) for content in contents]
        return {
            id(window): window_record(window, content, embedding, said, rules.hop_ms, version)
            for window, content, embedding, said in zip(windows, contents, embeddings, speech, strict=True)
        }

    async def _speech(self, texts: list[str]) -> list[NDArray[np.float16]]:
        """Encodes what was said. A piece that the model cannot encode goes on without a vector."""
        try:
            return await self._timed("encode_speech", self._model().encode_speech, texts) if texts else []
        except Exception as error:
            if is_out_of_memory(error):
                raise
            _log.error("speech cannot be encoded", exc_info=error)
            return [np.zeros(0, np.float16)] * len(texts)

    async def _take_steps(
        self,
        partition: _Partition,
        steps: list[Step[SeenFrame, HeardKeywords]],
        records: dict[int, WindowEmbedding],
    ) -> None:
        for step in steps:
            if partition.revoked:
                return
            if step.window is not None:
                record = records[id(step.window)]
                await self._send(record)
                if not record.end_of_epoch:
                    metrics.WINDOWS.labels("heard" if step.window.heard else "missing").inc()
            for seen in step.frames:
                # Not before: a frame that is acked is not read again after a restart, and its time is needed.
                if seen.error is not None:
                    await seen.message.dead_letter(seen.error)
                else:
                    seen.message.done()
            for heard in step.keywords:
                heard.done()
            partition.steps.popleft()

    async def _send(self, record: WindowEmbedding) -> None:
        try:
            await self._worker.delivery.send(LIVE_WINDOWS, record.stream_id, record)
        except BadInput as error:
            # A window that is too large is sent without content: recognition must learn that its time has passed.
            _log.error(
                "a window is sent empty",
                extra={"stream_id": record.stream_id, "epoch": record.epoch, "error": str(error)},
            )
            empty = msgspec.structs.replace(record, embedding=b"", frames=(), keywords=(), speech=(), product_ids=None)
            await self._worker.delivery.send(LIVE_WINDOWS, record.stream_id, empty)


def _failed(frame: Frame, error: Exception) -> BadInput:
    return BadInput(f"frame {frame.epoch}/{frame.pts_ms} ms of {frame.stream_id} fails in the model: {describe(error)}")


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
