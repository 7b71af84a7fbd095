"""The embed role on a broker: frames and keywords in, windows out, nothing lost over a restart."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import cv2
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import cope.errors
from cope.serving.encoder import FrameFeatures, WindowInput
from topology.admin import create_topics
from topology.errors import UserError
from topology.records import Frame, Keyword, Keywords, WindowEmbedding, decode
from topology.settings import Settings
from topology.topic_log import Producer, end_offsets, read_raw
from topology.topics import LIVE_FRAMES, LIVE_KEYWORDS, LIVE_WINDOWS, dead_letter
from topology.worker import Worker
from workers.embed.agent import build

Until = Callable[..., Awaitable[None]]
DIM = 4


class MeanColour:
    """A small model with the encoder's interface: a frame's region is its mean colour, a window's their mean."""

    version = "mean-colour@1"
    reading = ""

    def encode_frames(self, images: Sequence[NDArray[np.uint8]]) -> list[FrameFeatures]:
        if any(image.shape[0] == 13 for image in images):
            raise ValueError("13 rows bring bad luck")
        if any(image.shape[0] == 17 for image in images):
            raise MemoryError("17 rows are too many")
        return [self._frame(image) for image in images]

    def _frame(self, image: NDArray[np.uint8]) -> FrameFeatures:
        region = np.array([[*image.reshape(-1, 3).mean(axis=0), 1.0]], np.float32)
        region /= np.linalg.norm(region)
        return FrameFeatures(region.astype(np.float16), np.ones(1, np.float32), np.zeros((1, 4), np.float32))

    def encode_speech(self, texts: Sequence[str]) -> list[NDArray[np.float16]]:
        return [np.zeros(0, np.float16)] * len(texts)

    def encode_windows(self, windows: Sequence[WindowInput]) -> NDArray[np.float16]:
        rows = []
        for window in windows:
            vectors = [frame.regions[0].astype(np.float32) for frame in window.frames] or [np.ones(DIM, np.float32)]
            row = np.mean(vectors, axis=0) + len(window.keywords)
            rows.append(row / np.linalg.norm(row))
        return np.asarray(rows, np.float16)


def jpeg(level: int, rows: int = 16) -> bytes:
    return cv2.imencode(".jpg", np.full((rows, 16, 3), level, np.uint8))[1].tobytes()


def frame(stream: str, second: int, *, data: bytes | None = None, live: bool = False, end: bool = False) -> Frame:
    return Frame(
        stream_id=stream,
        epoch=0,
        pts_ms=second * 1000,
        captured_at_ms=1_000_000 + second * 1000,
        width=16,
        height=16,
        jpeg=b"" if end else (data if data is not None else jpeg(second * 5)),
        live=live,
        first=second == 0,
        product_ids=("p-1",),
        end_of_epoch=end,
    )


def keywords(stream: str, start: int, end: int, *texts: str) -> Keywords:
    return Keywords(
        stream_id=stream,
        epoch=0,
        start_ms=start * 1000,
        end_ms=end * 1000,
        captured_at_ms=0,
        keywords=tuple(Keyword(text, 0.5) for text in texts),
        end_of_epoch=start == end,
    )


@asynccontextmanager
async def embed_worker(settings: Settings) -> AsyncIterator[Worker]:
    worker = Worker("embed", settings)
    build(worker, MeanColour())
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()


async def log_of(settings: Settings, topic: str) -> list[bytes]:
    ends = await end_offsets(settings, topic)
    return [raw.value for p, end in ends.items() async for raw in read_raw(settings, topic, p, 0, end)]


async def windows_of(settings: Settings, stream: str) -> list[WindowEmbedding]:
    records = [decode(value, WindowEmbedding) for value in await log_of(settings, LIVE_WINDOWS)]
    return [record for record in records if record.stream_id == stream]


def ended(settings: Settings, stream: str) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return any(window.end_of_epoch for window in await windows_of(settings, stream))

    return check


async def send_file(producer: Producer, stream: str, seconds: int, broken: dict[int, bytes] | None = None) -> None:
    for second in range(seconds):
        data = (broken or {}).get(second)
        await producer.send(LIVE_FRAMES, stream, frame(stream, second, data=data))
        if second % 5 == 4:
            await producer.send(LIVE_KEYWORDS, stream, keywords(stream, second - 4, second + 1, f"word-{second}"))
    await producer.send(LIVE_FRAMES, stream, frame(stream, seconds, end=True))
    await producer.send(LIVE_KEYWORDS, stream, keywords(stream, seconds, seconds))


async def test_a_file_becomes_windows_with_its_frames_and_words(any_broker: Settings, until: Until) -> None:
    settings = any_broker
    await create_topics(settings)
    async with Producer(settings) as producer, embed_worker(settings):
        await asyncio.gather(*(send_file(producer, stream, 20) for stream in ("a", "b", "c")))
        for stream in ("a", "b", "c"):
            await until(ended(settings, stream))
    windows = await windows_of(settings, "a")
    assert [window.start_ms for window in windows] == [*range(0, 20_000, 2_000), 20_000]
    assert windows[-1].end_of_epoch and not windows[-1].frames
    third = windows[2]
    assert [one.pts_ms for one in third.frames] == [4_000, 5_000, 6_000, 7_000, 8_000, 9_000, 10_000, 11_000]
    assert len(third.frames[0].regions) == 2 * DIM and len(third.embedding) == 2 * DIM
    assert {one.text for one in third.keywords} == {"word-4", "word-9", "word-14"}
    assert third.model_version == "mean-colour@1" and third.product_ids == ("p-1",) and third.hop_ms == 2_000
    assert third.captured_at_ms == 1_011_000


async def test_a_restart_amid_a_stream_sends_the_same_windows(any_broker: Settings, until: Until) -> None:
    settings = any_broker
    await create_topics(settings)
    async with Producer(settings) as producer:
        await send_file(producer, "whole", 30)
        async with embed_worker(settings):
            for second in range(17):
                await producer.send(LIVE_FRAMES, "cut", frame("cut", second))
            await producer.send(LIVE_KEYWORDS, "cut", keywords("cut", 0, 14, "lamp"))

            async def some() -> bool:
                return len(await windows_of(settings, "cut")) >= 3

            await until(some)
            await until(ended(settings, "whole"))
        for second in range(17, 30):
            await producer.send(LIVE_FRAMES, "cut", frame("cut", second))
        await producer.send(LIVE_FRAMES, "cut", frame("cut", 30, end=True))
        await producer.send(LIVE_KEYWORDS, "cut", keywords("cut", 14, 30, "vase"))
        await producer.send(LIVE_KEYWORDS, "cut", keywords("cut", 30, 30))
        async with embed_worker(settings):
            await until(ended(settings, "cut"))
    first: dict[int, WindowEmbedding] = {}
    for window in await windows_of(settings, "cut"):
        again = first.setdefault(window.start_ms, window)
        assert again.frames == window.frames
    # The frames of the two streams are the same but for where they lie in the log.
    whole = {window.start_ms: window for window in await windows_of(settings, "whole")}
    assert list(first) == list(whole)
    for start_ms, window in first.items():
        frames = [msgspec.structs.replace(one, offset=-1) for one in window.frames]
        assert frames == [msgspec.structs.replace(one, offset=-1) for one in whole[start_ms].frames]
    assert {one.text for one in first[8_000].keywords} == {"lamp", "vase"}


async def test_bad_frames_are_dead_lettered_and_the_stream_goes_on(broker: Settings, until: Until) -> None:
    await create_topics(broker)
    broken = {3: b"no picture", 9: jpeg(9, rows=13)}
    async with Producer(broker) as producer, embed_worker(broker):
        await send_file(producer, "a", 20, broken)
        await until(ended(broker, "a"))

        async def lettered() -> bool:
            return len(await log_of(broker, dead_letter(LIVE_FRAMES))) == 2

        await until(lettered)
    letters = [decode(value, Frame) for value in await log_of(broker, dead_letter(LIVE_FRAMES))]
    assert {letter.pts_ms for letter in letters} == {3_000, 9_000}
    assert letters[0].jpeg == b"no picture"
    windows = await windows_of(broker, "a")
    assert [window.start_ms for window in windows] == [*range(0, 20_000, 2_000), 20_000]
    assert [one.pts_ms for one in windows[0].frames] == [0, 1_000, 2_000, 4_000, 5_000, 6_000, 7_000]


async def test_a_live_window_waits_for_its_keywords_no_longer_than_the_grace(broker: Settings, until: Until) -> None:
    settings = broker.model_copy(update={"grace_ms": 500, "idle_timeout_s": 2.0})
    await create_topics(settings)
    async with Producer(settings) as producer, embed_worker(settings):
        for second in range(10):
            await producer.send(LIVE_FRAMES, "a", frame("a", second, live=True))

        async def closed() -> bool:
            return len(await windows_of(settings, "a")) >= 1

        await until(closed)
        # No more frames come: the stream has gone, its windows close all the same.
        await until(ended(settings, "a"))
    windows = await windows_of(settings, "a")
    assert [window.start_ms for window in windows] == [0, 2_000, 4_000, 6_000, 8_000, 9_001]
    assert all(window.live and not window.keywords for window in windows)


async def test_lack_of_memory_stops_the_worker(broker: Settings) -> None:
    await create_topics(broker)
    async with Producer(broker) as producer, embed_worker(broker) as worker:
        await producer.send(LIVE_FRAMES, "a", frame("a", 0, data=jpeg(9, rows=17)))
        with pytest.raises(MemoryError):
            await asyncio.wait_for(worker.wait_failed(), 60)


async def test_a_partition_of_one_topic_without_the_other_stops_the_worker(
    broker: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker("embed", broker)
    assigned = worker.delivery.assigned
    monkeypatch.setattr(worker.delivery, "assigned", lambda topic: [] if topic == LIVE_KEYWORDS else assigned(topic))
    build(worker, MeanColour())
    await worker.start()
    try:
        with pytest.raises(UserError, match="both topics must have"):
            await asyncio.wait_for(worker.wait_failed(), 60)
    finally:
        await worker.stop()


async def test_a_model_that_cannot_be_loaded_is_the_users_to_mend(broker: Settings) -> None:
    worker = Worker("embed", broker.model_copy(update={"model": "/no/such/model"}))
    build(worker)
    try:
        with pytest.raises(cope.errors.UserError, match="/no/such/model"):
            await worker.start()
    finally:
        await worker.stop()
