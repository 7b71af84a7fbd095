"""A detection looked at again: with a small model that knows hues."""

import aiohttp
import msgspec
import numpy as np
import pytest

from cope.serving.encoder import FrameFeatures
from tests.integration.workers.catalog_parts import HueModel, page, picture, picture_vector, png
from tests.integration.workers.monitor.test_monitor_agent import event, until
from tests.unit.topology.test_evidence_store import kept as kept_of
from topology.admin import create_topics
from topology.evidence import EvidenceStore, KeptFrame
from topology.records import PageVectors
from topology.topic_log import Producer
from topology.topics import PAGE_VECTORS, PRODUCT_DETECTED
from topology.worker import Worker
from workers.monitor.agent import build


class SeeingHueModel(HueModel):
    """Sees the one region that a frame of one hue is."""

    def encode_frames(self, images):
        box = np.array([[0, 0, 1, 1]], np.float32)
        return [FrameFeatures(picture_vector(image)[None], np.array([0.9], np.float32), box, None) for image in images]

    def encode_windows(self, windows):
        return np.stack([one.frames[0].regions[0] for one in windows])

    def encode_speech(self, texts):
        return [np.zeros(0, np.float16) for _ in texts]


@pytest.fixture
async def client(broker, tmp_path):
    settings = broker.model_copy(update={"evidence_url": str(tmp_path)})
    await create_topics(settings)
    async with Producer(settings) as producer:
        for name in ("red", "yellow", "blue"):
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
        for detection_id in ("d-1", "d-2"):
            one = msgspec.structs.replace(event("started", "yellow"), detection_id=detection_id)
            await producer.send(PRODUCT_DETECTED, "room", one)
    frames = tuple(
        KeptFrame(pts_ms=at, captured_at_ms=0, box=None, score=0.5, page_image="", jpeg=png("red")) for at in (0, 1_000)
    )
    EvidenceStore(str(tmp_path)).put(msgspec.structs.replace(kept_of("d-1"), frames=frames))
    worker = Worker("monitor", settings)
    build(worker, SeeingHueModel())
    await worker.start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{worker.http_port}") as one:

        async def ready():
            async with one.get("/products/red") as product, one.get("/detections/d-2") as detection:
                return product.status == detection.status == 200

        await until(ready, worker)
        yield one
    await worker.stop()


async def test_kept_frames_are_seen_by_the_model_of_now_and_both_results_are_told(client):
    async with client.post("/detections/d-1/again") as response:
        assert response.status == 200, await response.text()
        told = await response.json()
    assert (told["before"]["product_id"], told["before"]["model_version"]) == ("yellow", "cope-mini@3fa1c2")
    assert (told["after"]["product_id"], told["after"]["model_version"]) == ("red", "hue@1")
    assert told["after"]["confidence"] > 0.9
    assert {one["product_id"] for one in told["after"]["candidates"]} == {"red", "yellow", "blue"}


async def test_without_frames_it_says_so(client):
    async with client.post("/detections/d-2/again") as response:
        assert response.status == 409 and "frames are gone" in (await response.json())["error"]
