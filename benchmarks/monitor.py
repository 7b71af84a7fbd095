"""Does the monitor's memory stay flat? `python -m benchmarks.monitor [--rooms 1000] [--minutes 30]`; JSON in build/.

A monitor on an embedded broker follows what so many rooms tell in so many minutes, as fast as it can: of each room four
events a minute with eight frames each, and a status and a state of recognition every half minute.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import click
import psutil

from topology.admin import create_topics
from topology.codec import encode_value
from topology.embedded import EmbeddedBroker
from topology.records import Evidence, EvidenceFrame, ProductDetected, RecognitionState, Record, RunnerUp, StreamStatus
from topology.settings import Settings, load_settings
from topology.topic_log import Producer
from topology.topics import PRODUCT_DETECTED, RECOGNITION_STATE, STREAM_STATUS
from topology.worker import Worker
from workers.monitor.agent import build

AT_ONCE = 500
SIGHTING = ("started", "updated", "updated", "ended")


def _records(room: str, minute: int) -> Iterator[tuple[str, Record | ProductDetected]]:
    """What a room tells in a minute."""
    now_ms = time.time_ns() // 1_000_000
    detection_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{room} {minute}"))
    for number, status in enumerate(SIGHTING):
        at_ms = 60_000 * minute + 15_000 * number
        frames = tuple(
            EvidenceFrame(
                pts_ms=at_ms + 1_000 * i,
                captured_at_ms=now_ms,
                box=(0.1, 0.2, 0.3, 0.4),
                score=0.5 + i / 100,
                page_image=f"https://shop.example/images/product-{minute}.jpg",
                offset=i,
            )
            for i in range(8)
        )
        yield (
            PRODUCT_DETECTED,
            ProductDetected(
                detection_id=detection_id,
                stream_id=room,
                product_id=f"product-{minute}",
                status=status,  # type: ignore[arg-type]
                epoch=0,
                media_start_ms=60_000 * minute,
                media_end_ms=at_ms,
                emitted_media_ms=at_ms,
                detected_at="2026-01-01T00:00:00.000Z",
                latency_ms=2_000,
                confidence=0.9,
                evidence=Evidence(
                    frame_pts_ms=tuple(frame.pts_ms for frame in frames),
                    keywords=("red handbag", "handbag", "red"),
                    frames=frames,
                    runner_up=RunnerUp(product_id="product-x", confidence=0.05),
                ),
                model_version="cope-mini@3fa1c2d4",
                index_version="product_pages_v1",
            ),
        )
    for half in (0, 30_000):
        sent_ms = 60_000 * minute + half
        yield (
            STREAM_STATUS,
            StreamStatus(
                stream_id=room,
                epoch=0,
                state="live",
                announced_offset=0,
                sent_until_ms=sent_ms,
                at_ms=now_ms,
                frame_at_ms=now_ms,
                live=True,
            ),
        )
        yield RECOGNITION_STATE, RecognitionState(stream_id=room, epoch=0, start_ms=sent_ms, tracker=b"x" * 400)


async def _run(settings: Settings, rooms: int, minutes: int) -> list[int]:
    await create_topics(settings)
    worker = Worker("monitor", settings)
    build(worker)
    await worker.start()
    process, sizes = psutil.Process(), []
    async with Producer(settings) as producer:
        for minute in range(minutes):
            names = [f"room-{number}" for number in range(rooms)]
            batch = [(topic, room, record) for room in names for topic, record in _records(room, minute)]
            for at in range(0, len(batch), AT_ONCE):
                sends = []
                for topic, room, record in batch[at : at + AT_ONCE]:
                    value, headers = encode_value(record)
                    sends.append(producer.send_raw(topic, room.encode(), value, headers))
                await asyncio.gather(*sends)
            sizes.append(process.memory_info().rss // 1_000_000)
            print(f"minute {minute + 1}: {sizes[-1]} MB", flush=True)
    await worker.stop()
    return sizes


@click.command(help=__doc__)
@click.option("--rooms", default=1_000, show_default=True)
@click.option("--minutes", default=30, show_default=True)
def main(rooms: int, minutes: int) -> None:
    """Runs the benchmark."""
    with EmbeddedBroker() as broker:
        sizes = asyncio.run(_run(broker.configure(load_settings()), rooms, minutes))
    row = {"rooms": rooms, "minutes": minutes, "rss_mb": sizes}
    print(json.dumps(row))
    Path("build").mkdir(exist_ok=True)
    Path("build/monitor.json").write_text(json.dumps(row) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
