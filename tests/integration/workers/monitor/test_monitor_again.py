"""A detection looked at again: with a small model that knows hues."""

import shutil
from urllib.parse import quote

import aiohttp
import av
import cv2
import msgspec
import numpy as np
import pytest

from cope.serving.encoder import FrameFeatures
from tests.integration.workers.catalog_parts import HueModel, page, picture, picture_vector, png
from tests.integration.workers.monitor.test_monitor_agent import event, until
from tests.unit.topology.test_evidence_store import kept as kept_of
from topology.addresses import allowing
from topology.admin import create_topics
from topology.evidence import EvidenceStore, KeptFrame
from topology.records import PageVectors, StreamAnnounced, StreamStatus
from topology.settings import Settings
from topology.topic_log import Producer
from topology.topics import LIVE_STREAMS, PAGE_VECTORS, PRODUCT_DETECTED, STREAM_STATUS
from workers.cli.roles import _read_stretch, create_worker
from workers.monitor.http import now_ms


class SeeingHueModel(HueModel):
    """Sees the one region that a frame of one hue is."""

    def encode_frames(self, images):
        box = np.array([[0, 0, 1, 1]], np.float32)
        return [FrameFeatures(picture_vector(image)[None], np.array([0.9], np.float32), box, None) for image in images]

    def encode_windows(self, windows):
        return np.stack([one.frames[0].regions[0] for one in windows])

    def encode_speech(self, texts):
        return [np.zeros(0, np.float16) for _ in texts]


SECONDS = 12


def plain(hue):
    """A frame of one hue; in the middle of the model's bins, it stays what it is when it is compressed."""
    hsv = np.full((64, 64, 3), (hue, 255, 200), np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


@pytest.fixture
def videos(tmp_path):
    """Two recordings of something green, blue before; a shadow goes over one to the right, over the other back."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("there.mp4", "back.mp4"):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream("libx264", rate=5)
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 64, "yuv420p", 20
            for number in range(5 * SECONDS):
                pixels = plain(67 if number >= 5 * 5 else 127)
                at = number if name == "there.mp4" else 5 * SECONDS - 1 - number
                pixels[:, : at + 1] //= 2
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
    return folder


def sent(path, from_ms, to_ms):
    """What capture sends of a recording."""
    allowed = allowing(Settings(_env_file=None), urls=[], files=[path])
    return _read_stretch(allowed, str(path), from_ms, to_ms)


@pytest.fixture
async def client(broker, tmp_path, videos):
    settings = broker.model_copy(update={"evidence_url": str(tmp_path / "kept"), "allowed_folders": str(videos)})
    await create_topics(settings)
    store = EvidenceStore(settings.evidence_url)
    elsewhere = tmp_path / "elsewhere.mp4"
    shutil.copy(videos / "there.mp4", elsewhere)
    rooms = {
        "network": "rtmp://media.example/live",
        "file": str(videos / "there.mp4"),
        "file unkept": f"file://{videos / 'there.mp4'}",
        "file replaced": str(videos / "back.mp4"),
        "file elsewhere": str(elsewhere),
    }
    async with Producer(settings) as producer:
        for name in ("red", "yellow", "green", "blue"):
            row = picture_vector(picture(name)).tobytes()
            record = PageVectors(
                product_id=name,
                source_partition=0,
                source_offset=0,
                model_version="hue@1",
                title=page(name).title,
                vectors=row,
                fused=row,
                images=("",),
            )
            await producer.send(PAGE_VECTORS, name, record)
        for room, url in rooms.items():
            await producer.send(LIVE_STREAMS, room, StreamAnnounced(stream_id=room, url=url))
            status = StreamStatus(stream_id=room, epoch=0, state="live", announced_offset=99, at_ms=now_ms())
            await producer.send(STREAM_STATUS, room, status)
            named = {"stream_id": room, "detection_id": f"of {room}", "media_start_ms": 6_000, "media_end_ms": 9_000}
            one = msgspec.structs.replace(event("started", "yellow"), **named)
            await producer.send(PRODUCT_DETECTED, room, one)
            frames = [
                KeptFrame(pts_ms=at_ms, captured_at_ms=0, box=None, score=0.5, page_image="", jpeg=jpeg)
                for at_ms, jpeg in sent(videos / "there.mp4", 6_000, 9_000)
            ]
            if room == "network":
                frames = [msgspec.structs.replace(frame, jpeg=png("red")) for frame in frames]
            if room != "file unkept":
                store.put(msgspec.structs.replace(kept_of(f"of {room}"), frames=tuple(frames)))
        gone = msgspec.structs.replace(event("started", "yellow"), detection_id="gone")
        await producer.send(PRODUCT_DETECTED, "room", gone)
    worker = create_worker("monitor", settings, encoder=SeeingHueModel())
    await worker.start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{worker.http_port}") as one:

        async def ready():
            async with one.get("/products/red") as product, one.get("/detections/gone") as detection:
                return product.status == detection.status == 200

        await until(ready, worker)
        yield one
    await worker.stop()


async def again(client, detection_id):
    async with client.post(f"/detections/{quote(detection_id)}/again") as response:
        return response.status, await response.json()


async def test_kept_frames_are_seen_by_the_model_of_now_and_both_results_are_told(client):
    status, told = await again(client, "of network")
    assert status == 200, told
    assert (told["before"]["product_id"], told["before"]["model_version"]) == ("yellow", "cope-mini@3fa1c2")
    assert (told["after"]["product_id"], told["after"]["model_version"]) == ("red", "hue@1")
    assert told["after"]["confidence"] > 0.9
    assert {one["product_id"] for one in told["after"]["candidates"]} == {"red", "yellow", "green", "blue"}
    assert (told["source"], told["from_ms"] // 1000, told["to_ms"] // 1000, told["frames"]) == ("frames", 6, 8, 3)


@pytest.mark.parametrize("room", ["file", "file unkept"])
async def test_of_a_file_the_stretch_is_read_again_and_goes_through_the_filter(client, videos, room):
    status, told = await again(client, f"of {room}")
    assert status == 200, told
    frames = sent(videos / "there.mp4", 0, 11_000)
    assert (told["source"], told["frames"]) == ("file", len(frames))
    assert (told["from_ms"], told["to_ms"]) == (frames[0][0], frames[-1][0])
    assert (told["before"]["product_id"], told["after"]["product_id"]) == ("yellow", "green")
    assert told["after"]["confidence"] > 0.9


@pytest.mark.parametrize("room", ["file replaced", "file elsewhere"])
async def test_another_file_and_one_that_may_not_be_read_leave_the_kept_frames(client, room):
    status, told = await again(client, f"of {room}")
    assert (status, told["source"], told["after"]["product_id"]) == (200, "frames", "green")


async def test_without_frames_it_says_so(client):
    status, told = await again(client, "gone")
    assert status == 409 and "frames are gone" in told["error"]
