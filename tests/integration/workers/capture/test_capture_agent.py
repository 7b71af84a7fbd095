"""The capture role on a broker: announcements, restarts, back-pressure, network streams from a local nginx."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.integration.workers.capture.media_files import write_video
from tests.live_server import LiveServer
from topology.records import Frame, Record, Speech, StreamAnnounced, StreamStatus, WindowEmbedding
from topology.settings import Settings
from topology.topic_log import Follower, Producer, read_partition
from topology.topics import LIVE_FRAMES, LIVE_SPEECH, LIVE_STREAMS, LIVE_WINDOWS, STREAM_STATUS
from topology.worker import Worker
from workers.capture.agent import build
from workers.capture.media import MediaSource, OpenSource
from workers.capture.repeats import PacketMemory
from workers.capture.source import open_source

ANSWER_TIMEOUT_S = 150.0
R = TypeVar("R", bound=Record)


class Statuses:
    """What `stream_status` has told so far."""

    def __init__(self, settings: Settings) -> None:
        self._follower = Follower(settings, STREAM_STATUS, StreamStatus)
        self._told: list[StreamStatus] = []
        self._more = asyncio.Condition()

    async def follow(self) -> None:
        async for record in self._follower:
            if record.value is not None:
                async with self._more:
                    self._told.append(record.value)
                    self._more.notify_all()

    async def of(self, stream_id: str, wanted: Callable[[StreamStatus], bool]) -> StreamStatus:
        """Waits for a status and returns it."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S), self._more:
            while True:
                for status in self._told:
                    if status.stream_id == stream_id and wanted(status):
                        return status
                await self._more.wait()

    async def over(self, stream_id: str) -> StreamStatus:
        return await self.of(stream_id, lambda status: status.state in ("ended", "failed"))


@asynccontextmanager
async def capturing(settings: Settings, opener: OpenSource | None = None) -> AsyncIterator[Statuses]:
    worker = Worker("capture", settings, serve_http=False)
    build(worker, opener)
    statuses = Statuses(settings)
    await worker.start()
    following = asyncio.create_task(statuses.follow())
    try:
        yield statuses
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await worker.stop()


async def announce(settings: Settings, stream_id: str, url: Path | str, **fields: object) -> None:
    async with Producer(settings) as producer:
        record = StreamAnnounced(stream_id=stream_id, url=str(url), **fields)  # type: ignore[arg-type]
        await producer.send(LIVE_STREAMS, stream_id, record)


async def read(settings: Settings, topic: str, kind: type[R], stream_id: str) -> list[R]:
    return [
        record.value
        for partition in range(settings.stream_partitions)
        async for record in read_partition(settings, topic, partition, kind)
        if record.value is not None and record.key == stream_id
    ]


async def frames_of(settings: Settings, stream_id: str) -> list[Frame]:
    return await read(settings, LIVE_FRAMES, Frame, stream_id)


def identity(frame: Frame) -> tuple[object, ...]:
    return (frame.epoch, frame.pts_ms, frame.jpeg, frame.end_of_epoch)


async def test_a_file_is_captured_whole_and_only_once(broker: Settings, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 6)
    async with capturing(broker) as statuses:
        await announce(broker, "a", path, language="en", product_ids=("p1",))
        status = await statuses.over("a")
    assert (status.state, status.epoch, status.detail) == ("ended", 0, "")
    frames = await frames_of(broker, "a")
    assert [frame.pts_ms for frame in frames[:-1]] == [0, 1000, 2000, 3000, 4000, 5000]
    assert frames[-1].end_of_epoch and not frames[-1].jpeg
    assert all(frame.jpeg.startswith(b"\xff\xd8") and frame.product_ids == ("p1",) for frame in frames[:-1])
    stretches = await read(broker, LIVE_SPEECH, Speech, "a")
    assert stretches[0].start_ms == 0 and stretches[-1].end_of_epoch and stretches[-1].end_ms >= 5_900
    assert [s.start_ms for s in stretches[1:]] == [s.end_ms for s in stretches[:-1]]

    async with capturing(broker) as statuses:
        await announce(broker, "other", path)
        await statuses.over("other")
    assert await frames_of(broker, "a") == frames


async def test_a_restart_in_mid_file_sends_the_same_set(broker: Settings, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 8)
    async with capturing(broker) as statuses:
        await announce(broker, "whole", path)
        await statuses.over("whole")
        await announce(broker, "cut", path, realtime=True)
        await statuses.of("cut", lambda status: status.sent_until_ms >= 2_000)
    async with capturing(broker) as statuses:
        status = await statuses.over("cut")
    assert (status.state, status.epoch) == ("ended", 0)
    whole, cut = await frames_of(broker, "whole"), await frames_of(broker, "cut")
    assert {identity(frame) for frame in cut} == {identity(frame) for frame in whole}
    assert len(cut) < 2 * len(whole) - 2, "what was sent before the restart is skipped"


async def test_a_file_stays_within_reach_of_its_windows(broker: Settings, tmp_path: Path) -> None:
    settings = broker.model_copy(update={"window_ms": 1_000, "hop_ms": 500, "speech_chunk_s": 1.0, "file_ahead_s": 1.0})
    path = write_video(tmp_path / "a.mp4", 20)
    async with capturing(settings) as statuses:
        await announce(settings, "a", path)
        waiting = await statuses.of("a", lambda status: status.sent_until_ms >= 10_000)
        assert waiting.state == "live"
        assert max(frame.pts_ms for frame in await frames_of(settings, "a")) <= 12_500
        async with Producer(settings) as producer:
            window = WindowEmbedding(stream_id="a", epoch=0, start_ms=8_000, end_ms=9_000)
            await producer.send(LIVE_WINDOWS, "a", window)
            await statuses.over("a")
    assert max(frame.pts_ms for frame in await frames_of(settings, "a")) >= 19_000


async def test_a_newer_announcement_replaces_the_older_one(broker: Settings, tmp_path: Path) -> None:
    first, second = write_video(tmp_path / "a.mp4", 60), write_video(tmp_path / "b.mp4", 3)
    async with capturing(broker) as statuses:
        await announce(broker, "a", first, realtime=True)
        await statuses.of("a", lambda status: status.state == "live")
        await announce(broker, "a", second)
        status = await statuses.over("a")
    assert (status.state, status.epoch) == ("ended", 1)
    frames = await frames_of(broker, "a")
    assert [frame.epoch for frame in frames if frame.end_of_epoch] == [0, 1]
    assert max(frame.pts_ms for frame in frames if frame.epoch == 0) < 50_000


async def test_an_end_that_is_announced_stops_the_stream(broker: Settings, tmp_path: Path) -> None:
    async with capturing(broker) as statuses:
        await announce(broker, "a", write_video(tmp_path / "a.mp4", 60), realtime=True)
        await statuses.of("a", lambda status: status.sent_until_ms > 0)
        await announce(broker, "a", "", state="ended")
        status = await statuses.over("a")
    assert status.state == "ended" and status.announced_offset == 1
    frames = await frames_of(broker, "a")
    assert [frame.end_of_epoch for frame in frames].count(True) == 1 and frames[-1].end_of_epoch


async def test_what_cannot_be_played_fails_and_the_others_go_on(broker: Settings, tmp_path: Path) -> None:
    async with capturing(broker) as statuses:
        await announce(broker, "gone", tmp_path / "gone.mp4")
        await announce(broker, "there", write_video(tmp_path / "a.mp4", 2, sound=False))
        gone, there = await statuses.over("gone"), await statuses.over("there")
    assert gone.state == "failed" and gone.detail.endswith("gone.mp4: no such file: check the path")
    assert there.state == "ended" and "no sound" in there.detail
    assert not await frames_of(broker, "gone")


async def test_the_end_of_a_stream_that_nobody_captures_is_told_all_the_same(broker: Settings) -> None:
    async with capturing(broker) as statuses:
        await announce(broker, "a", "", state="ended")
        status = await statuses.over("a")
    assert (status.state, status.announced_offset) == ("ended", 0)
    assert await frames_of(broker, "a") == []


async def test_a_capture_that_breaks_down_fails_its_stream_and_no_other(broker: Settings, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 2)

    def opener(url: str, seen: PacketMemory | None) -> MediaSource:
        if "odd" in url:
            raise ZeroDivisionError("nobody foresaw this")
        return open_source(url, broker, seen)

    async with capturing(broker, opener) as statuses:
        await announce(broker, "odd", tmp_path / "odd.mp4")
        await announce(broker, "even", path)
        odd, even = await statuses.over("odd"), await statuses.over("even")
    assert odd.state == "failed" and "capture broke down (ZeroDivisionError: nobody foresaw this)" in odd.detail
    assert even.state == "ended"


async def test_a_second_worker_takes_over_streams_where_the_first_one_was(broker: Settings, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 25)
    names = [f"room-{number}" for number in range(6)]
    async with capturing(broker) as statuses:
        await announce(broker, "whole", path)
        await statuses.over("whole")
        for name in names:
            await announce(broker, name, path, realtime=True)
        for name in names:
            await statuses.of(name, lambda status: status.sent_until_ms > 0)
        async with capturing(broker) as more:
            for name in names:
                status = await more.over(name)
                assert (status.state, status.epoch) == ("ended", 0)
    whole = {identity(frame) for frame in await frames_of(broker, "whole")}
    for name in names:
        assert {identity(frame) for frame in await frames_of(broker, name)} == whole


# ---------------------------------------------------------------------- network streams


@pytest.fixture
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    server = LiveServer(tmp_path_factory.mktemp("nginx"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("kind", ["rtmp", "hls"])
async def test_a_live_stream_that_breaks_and_returns_gives_two_epochs(
    broker: Settings, live_server: LiveServer, tmp_path: Path, kind: str, until: Callable[..., Awaitable[None]]
) -> None:
    settings = broker.model_copy(
        update={"stall_timeout_s": 4.0, "open_timeout_s": 5.0, "reconnect_max_s": 1.0, "reconnect_give_up_s": 60.0}
    )
    path = write_video(tmp_path / "a.mp4", 60)
    url = {"rtmp": live_server.rtmp_url("room"), "hls": live_server.hls_url("room")}[kind]
    await until(live_server.listening)
    async with capturing(settings) as statuses:
        publisher = live_server.push(path, "room")
        try:
            await announce(settings, "room", url)
            await statuses.of("room", lambda status: status.sent_until_ms >= 3_000)
            publisher.kill()
            publisher.wait()
            await statuses.of("room", lambda status: status.state == "stalled" and status.sent_until_ms > 0)
            publisher = live_server.push(path, "room")
            again = await statuses.of("room", lambda status: status.epoch >= 1 and status.sent_until_ms > 1_000)
            assert again.live and again.reconnects >= 1
            await announce(settings, "room", "", state="ended")
            ended = await statuses.over("room")
        finally:
            publisher.kill()
            publisher.wait()
    frames = await frames_of(settings, "room")
    assert all(frame.live for frame in frames)
    assert [frame.epoch for frame in frames if frame.end_of_epoch] == list(range(ended.epoch + 1))
    first = [frame.pts_ms for frame in frames if frame.epoch == 0]
    assert first == sorted(first) and first[0] < 2_500
    stretches = await read(settings, LIVE_SPEECH, Speech, "room")
    assert {s.epoch for s in stretches if s.end_of_epoch} == set(range(ended.epoch + 1))
