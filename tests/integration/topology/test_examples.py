"""The examples of docs/producers.md do what they say: Apache Kafka's tools, JavaScript, Java and `cope-live events`."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from topology import topics
from topology.admin import create_topics
from topology.codec import encode_value
from topology.connection import full_name
from topology.records import Evidence, PageImage, ProductDetected, ProductPage, Record, StreamAnnounced
from topology.settings import Settings
from topology.topic_log import Producer, end_offsets, read_partition

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "producers.md"
EVENT = ProductDetected(
    detection_id="d", stream_id="room-7", product_id="p-42", status="started", epoch=0, media_start_ms=0,
    media_end_ms=1, emitted_media_ms=2, detected_at="", latency_ms=3, confidence=0.9, evidence=Evidence(),
    model_version="m", index_version="i",
)  # fmt: skip
ANNOUNCED = StreamAnnounced(stream_id="room-7", url="rtmp://media.example/live/room-7", language="en")


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
    async with Producer(kafka) as producer:
        await producer.send(topics.PRODUCT_DETECTED, "room-7", EVENT)
    (script,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    here = re.sub(r"--topic (\w+)", lambda found: f"--topic {full_name(kafka, found[1])}", script)
    here = here.replace("localhost:9092", kafka.broker).rstrip()
    shown = await _shell(f"set -e\n{here} --max-messages 1 --timeout-ms 60000")
    assert shown.splitlines()[-1] == encode_value(EVENT)[0].decode()
    assert await _held(kafka, topics.LIVE_STREAMS, StreamAnnounced) == [ANNOUNCED]
    page = ProductPage(product_id="p-42", title="Red teapot", images=(PageImage(uri="https://shop.example/p-42.jpg"),))
    assert await _held(kafka, topics.PRODUCT_PAGES, ProductPage) == [page]


async def _announces_and_reads(settings: Settings, command: Sequence[str | Path], folder: Path) -> None:
    """Runs a client of another language, which announces a stream and prints its first event."""
    await create_topics(settings)
    async with Producer(settings) as producer:
        await producer.send(topics.PRODUCT_DETECTED, "room-7", EVENT)
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        *(settings.broker, ANNOUNCED.stream_id, ANNOUNCED.url),
        cwd=folder,
        env=os.environ | {"COPE_TOPIC_PREFIX": settings.topic_prefix, "EVENTS": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert out.decode() == "started p-42 0.9\n"
    assert await _held(settings, topics.LIVE_STREAMS, StreamAnnounced) == [ANNOUNCED]


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JavaScript example with its library."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("needs node and npm")
    folder = tmp_path_factory.mktemp("javascript") / "example"
    shutil.copytree(ROOT / "examples" / "javascript", folder)
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund"]
    if subprocess.run(install, cwd=folder, check=False).returncode != 0:
        pytest.skip("npm cannot install kafkajs: is its registry at hand?")
    return folder


@pytest.mark.kafka
async def test_the_example_in_javascript(kafka: Settings, javascript: Path) -> None:
    await _announces_and_reads(kafka, ["node", "room.mjs"], javascript)


@pytest.mark.kafka
async def test_the_example_in_java(kafka: Settings) -> None:
    if not shutil.which("javac"):
        pytest.skip("needs a JDK, here is none")
    run = Path(os.environ["KAFKA_HOME"]) / "bin" / "kafka-run-class.sh"
    await _announces_and_reads(kafka, [run, "Room.java"], ROOT / "examples" / "java")


def _environment(settings: Settings) -> dict[str, str]:
    values = settings.model_dump(
        mode="json", include={"broker", "topic_prefix", "stream_partitions", "product_partitions"}
    )
    return {f"COPE_{name.upper()}": str(value) for name, value in values.items()}


async def test_events_are_followed_until_ctrl_c(broker: Settings) -> None:
    await create_topics(broker)
    async with Producer(broker) as producer:
        await producer.send(topics.PRODUCT_DETECTED, "another", EVENT)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "workers", "events", "--follow"),
            env=os.environ | _environment(broker),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        for _ in range(2):  # what the topic holds, then what comes
            assert await process.stdout.readline() == encode_value(EVENT)[0] + b"\n"
            await producer.send(topics.PRODUCT_DETECTED, "room-7", EVENT)
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
    assert (process.returncode, errors.strip()) == (130, b"")
