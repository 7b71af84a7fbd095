"""The examples of docs/producers.md do what they say, with the tools of Apache Kafka."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from topology import topics
from topology.admin import create_topics
from topology.codec import encode_value
from topology.connection import full_name
from topology.records import Evidence, PageImage, ProductDetected, ProductPage, Record, StreamAnnounced
from topology.settings import Settings
from topology.topic_log import Producer, end_offsets, read_partition

PAGE = Path(__file__).parents[3] / "docs" / "producers.md"


async def _shell(command: str) -> str:
    path = f"{os.environ['KAFKA_HOME']}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=os.environ | {"PATH": path}
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()


async def _held(settings: Settings, topic: str, kind: type[Record]) -> list[Record | None]:
    held: list[Record | None] = []
    for number in await end_offsets(settings, topic):
        held += [one.value async for one in read_partition(settings, topic, number, kind)]
    return held


@pytest.mark.kafka
async def test_the_examples_for_kafkas_own_tools(kafka: Settings) -> None:
    await create_topics(kafka)
    event = ProductDetected(
        detection_id="d", stream_id="room-7", product_id="p-42", status="started", epoch=0, media_start_ms=0,
        media_end_ms=1, emitted_media_ms=2, detected_at="", latency_ms=3, confidence=0.9, evidence=Evidence(),
        model_version="m", index_version="i",
    )  # fmt: skip
    async with Producer(kafka) as producer:
        await producer.send(topics.PRODUCT_DETECTED, "room-7", event)
    (script,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    here = re.sub(r"--topic (\w+)", lambda found: f"--topic {full_name(kafka, found[1])}", script)
    here = here.replace("localhost:9092", kafka.broker).rstrip()
    shown = await _shell(f"set -e\n{here} --max-messages 1 --timeout-ms 60000")
    assert shown.splitlines()[-1] == encode_value(event)[0].decode()
    announced = StreamAnnounced(stream_id="room-7", url="rtmp://media.example/live/room-7", language="en")
    assert await _held(kafka, topics.LIVE_STREAMS, StreamAnnounced) == [announced]
    page = ProductPage(product_id="p-42", title="Red teapot", images=(PageImage(uri="https://shop.example/p-42.jpg"),))
    assert await _held(kafka, topics.PRODUCT_PAGES, ProductPage) == [page]
