"""A small model, pages and windows for the tests of catalog and recognize."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import cv2
import numpy as np

from cope.model.scoring import FEATURES, Calibration
from cope.serving.encoder import PageOutput
from topology.records import FrameRegions, Keyword, PageImage, ProductPage, WindowEmbedding
from topology.settings import Settings
from topology.topic_log import end_offsets, read_partition
from topology.worker import Worker

DIM = 12
HOP, LENGTH = 2_000, 8_000

# One hue a product: as far apart as a small model can tell.
HUES = {"red": 0, "yellow": 30, "green": 60, "cyan": 90, "blue": 120, "pink": 150}


class HueModel:
    """Encodes a picture as its histogram of hues: honest, deterministic and instant."""

    def __init__(self, version="hue@1"):
        self.version = version
        self.reading = ""
        weights = dict.fromkeys(FEATURES, 0.0) | {"visual_recent": 10.0, "margin_recent": 5.0, "text_share": 1.0}
        self.calibration = Calibration(weights, bias=-9.0, prior=0.05)

    def encode_pages(self, pages):
        outputs = []
        for page in pages:
            vectors = np.array([picture_vector(image) for image in page.images], np.float16)
            outputs.append(PageOutput(vectors, vectors[0]))
        return outputs


def picture(name, size=32):
    hsv = np.full((size, size, 3), (HUES[name], 255, 255), np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def picture_vector(image):
    hue = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 0]
    counts = np.bincount((hue // 15).ravel(), minlength=DIM)[:DIM].astype(np.float32)
    return (counts / np.linalg.norm(counts)).astype(np.float16)


def png(name):
    return cv2.imencode(".png", cv2.cvtColor(picture(name), cv2.COLOR_RGB2BGR))[1].tobytes()


def page(name, images=None):
    pictures = (PageImage(data=png(name)),) if images is None else images
    return ProductPage(product_id=name, title=f"{name} teapot", images=pictures)


def window(number, name=None, *, stream_id="room", epoch=0, model="hue@1", bag=None, keywords=()):
    """A window whose newest hop shows a product, or something grey."""
    end_ms = number * HOP + LENGTH
    vector = picture_vector(picture(name)) if name else (np.ones(DIM) / np.sqrt(DIM)).astype(np.float16)
    frames = tuple(FrameRegions(end_ms - ms, vector.tobytes(), (0.9,)) for ms in (2_000, 1_000))
    return WindowEmbedding(
        stream_id=stream_id,
        epoch=epoch,
        start_ms=number * HOP,
        end_ms=end_ms,
        hop_ms=HOP,
        captured_at_ms=int(time.time() * 1000),
        embedding=vector.tobytes(),
        frames=frames,
        keywords=tuple(Keyword(text, 1.0) for text in keywords),
        model_version=model,
        product_ids=bag,
    )


def end_of_epoch(number, stream_id="room", epoch=0):
    return WindowEmbedding(
        stream_id=stream_id, epoch=epoch, start_ms=number * HOP, end_ms=number * HOP + LENGTH, end_of_epoch=True
    )


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[Worker]:
    try:
        await worker.start()
        yield worker
    finally:
        await worker.stop()


async def read_all(settings: Settings, topic: str, kind: type[Any]) -> list[Any]:
    """All records of a topic, tombstones left out."""
    found = []
    for partition in await end_offsets(settings, topic):
        found += [record.value async for record in read_partition(settings, topic, partition, kind) if record.value]
    return found


async def until(condition: Callable, *workers: Worker, timeout_s: float = 150.0):
    """Polls until `await condition()` is true; a worker that fails meanwhile fails the test."""
    async with asyncio.timeout(timeout_s):
        while not (result := await condition()):
            for worker in workers:
                if worker.delivery.failure is not None:
                    raise worker.delivery.failure
            await asyncio.sleep(0.1)
        return result
