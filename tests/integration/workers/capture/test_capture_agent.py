"""The capture role on a broker: announcements, restarts, back-pressure, network streams from a local nginx."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from media_files import write_video

from topology.log import Follower, Producer, read_partition
from topology.records import Frame, Record, Speech, StreamAnnounced, StreamStatus, WindowEmbedding
from topology.settings import Settings
from topology.topics import LIVE_FRAMES, LIVE_SPEECH, LIVE_STREAMS, LIVE_WINDOWS, STREAM_STATUS
from topology.worker import Worker
from workers.capture.agent import build

ANSWER_TIMEOUT_S = 90.0
R = TypeVar("R", bound=Record)
NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")


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
async def capturing(settings: Settings) -> AsyncIterator[Statuses]:
    worker = Worker("capture", settings, serve_http=False)
    build(worker)
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


# ---------------------------------------------------------------------- network streams


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Nginx:
    """nginx with its rtmp module: RTMP in and out, HLS out."""

    def __init__(self, folder: Path) -> None:
        self.rtmp, self.http = free_port(), free_port()
        (folder / "hls").mkdir()
        config = folder / "nginx.conf"
        config.write_text(f"""
            load_module {NGINX_MODULE};
            user root; worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
            events {{ worker_connections 64; }}
            rtmp {{ server {{ listen 127.0.0.1:{self.rtmp}; application live {{
                live on; publish_notify on; hls on; hls_path {folder}/hls; hls_fragment 1s; hls_playlist_length 8s;
            }} }} }}
            http {{
                access_log off; client_body_temp_path {folder}/1; proxy_temp_path {folder}/2;
                fastcgi_temp_path {folder}/3; uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
                server {{ listen 127.0.0.1:{self.http}; location / {{ root {folder}; }} }}
            }}
        """)
        self._process = subprocess.Popen(["nginx", "-c", str(config)], stderr=subprocess.DEVNULL)

    def push(self, path: Path) -> subprocess.Popen[bytes]:
        command = ["ffmpeg", "-v", "error", "-re", "-i", str(path), "-c", "copy", "-f", "flv"]
        return subprocess.Popen([*command, f"rtmp://127.0.0.1:{self.rtmp}/live/room"], stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    if shutil.which("nginx") is None or not NGINX_MODULE.exists() or shutil.which("ffmpeg") is None:
        pytest.skip("needs nginx, libnginx-mod-rtmp and ffmpeg (apt-get install)")
    server = Nginx(tmp_path_factory.mktemp("nginx"))
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", server.rtmp)) == 0:
                break
    try:
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("kind", ["rtmp", "hls"])
async def test_a_live_stream_that_breaks_and_returns_gives_two_epochs(
    broker: Settings, nginx: Nginx, tmp_path: Path, kind: str
) -> None:
    settings = broker.model_copy(
        update={"stall_timeout_s": 4.0, "open_timeout_s": 5.0, "reconnect_max_s": 1.0, "reconnect_give_up_s": 60.0}
    )
    path = write_video(tmp_path / "a.mp4", 60)
    url = {
        "rtmp": f"rtmp://127.0.0.1:{nginx.rtmp}/live/room",
        "hls": f"http://127.0.0.1:{nginx.http}/hls/room.m3u8",
    }[kind]
    async with capturing(settings) as statuses:
        publisher = nginx.push(path)
        try:
            await announce(settings, "room", url)
            await statuses.of("room", lambda status: status.sent_until_ms >= 3_000)
            publisher.kill()
            publisher.wait()
            await statuses.of("room", lambda status: status.state == "stalled" and status.sent_until_ms > 0)
            publisher = nginx.push(path)
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
