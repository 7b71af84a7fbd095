"""All six roles on one broker: they start without a warning, and nothing that they show holds what a URL hides."""

import asyncio
import io
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import SecretStr

from tests.integration.workers.catalog_parts import HueModel, page, until
from topology import topics
from topology.dead_letters import read_letters
from topology.index.memory import MemoryIndex
from topology.log_format import setup_logging
from topology.records import PageImage, StreamAnnounced, StreamStatus
from topology.settings import ROLES, Role, Settings
from topology.topic_log import Producer, end_offsets, read_partition
from topology.worker import Worker
from workers.cli import dlq
from workers.cli.products import publish_pages
from workers.cli.publish import list_streams
from workers.cli.roles import create_worker
from workers.transcribe.recognizer import MemoryRecognizer, Transcript

SECRET = "hunter2"
AT = f"ann:{SECRET}@"
CLOSED = f"http://{AT}127.0.0.1:9/live/{{}}?token={SECRET}#{SECRET}"


def _role(role: Role, settings: Settings) -> Worker:
    parts: dict[str, dict[str, Any]] = {
        "capture": {},
        "transcribe": {"recognizer": MemoryRecognizer(lambda _audio, _language: Transcript("", "en", 1.0, 1.0))},
        "embed": {"encoder": HueModel()},
        "catalog": {"encoder": HueModel()},
        "recognize": {"encoder": HueModel(), "index": MemoryIndex("hue@1")},
        "monitor": {},
        "evidence": {},
        "webhook": {},
    }
    return create_worker(role, settings, **parts[role])


async def _healthy(worker: Worker) -> bool:
    address = f"http://127.0.0.1:{worker.http_port}/healthz"
    async with aiohttp.ClientSession() as client, client.get(address) as answer:
        return answer.status == 200


async def _show_all(settings: Settings, topic: str) -> None:
    async for letter in read_letters(settings, topic):
        await dlq._show(settings, topic, letter.name, None)


async def test_roles_start_without_a_warning_and_hide_what_urls_hide(broker: Settings, tmp_path: Path, capsys) -> None:
    settings = broker.model_copy(
        update={
            "webhook_url": CLOSED.format("hook"),
            "webhook_secret": SecretStr(SECRET),
            "evidence_url": str(tmp_path),
            "log_level": "debug",
            "reconnect_max_s": 0.1,
            "reconnect_give_up_s": 0.5,
            "open_timeout_s": 2.0,
        }
    )
    log = io.StringIO()
    setup_logging(settings, log)
    announced = {
        "closed": CLOSED.format("room"),
        "private": f"rtsp://{AT}10.1.2.3/live?token={SECRET}",
        "playlist": CLOSED.format("room.m3u8"),
        "slash": f"rtmp://ann:{SECRET}/{SECRET}@127.0.0.1:9/live",
        "gopher": f"gopher://{AT}127.0.0.1/live?token={SECRET}",
        "long": f"http://127.0.0.1:9/{'x' * 500}?token={SECRET}",
    }
    pages = [
        page("red"),
        page("blue", (PageImage(uri=CLOSED.format("p.jpg")),)),
        page("green", (PageImage(uri=f"https://{AT}10.1.2.3/p.jpg?sig={SECRET}"),)),
        page("cyan", (PageImage(uri=f"data:image/png;base64,{SECRET}"),)),
    ]
    shown: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        workers = {role: _role(role, settings) for role in ROLES}
        for worker in workers.values():
            stack.push_async_callback(worker.stop)
        await asyncio.gather(*(worker.start() for worker in workers.values()))
        for worker in workers.values():
            await until(lambda worker=worker: _healthy(worker), worker)
        assert not [line for line in log.getvalue().splitlines() if line.split()[1] in ("warning", "error")]
        await publish_pages(settings, pages)
        async with Producer(settings) as producer:
            for stream_id, url in announced.items():
                record = StreamAnnounced(stream_id=stream_id, url=url)
                await producer.send(topics.LIVE_STREAMS, stream_id, record)
        statuses: dict[str, list[StreamStatus]] = {}

        async def all_told() -> bool:
            statuses.clear()
            for partition in await end_offsets(settings, topics.STREAM_STATUS):
                async for one in read_partition(settings, topics.STREAM_STATUS, partition, StreamStatus):
                    if one.value is not None:
                        statuses.setdefault(one.value.stream_id, []).append(one.value)
            over = {stream_id for stream_id, held in statuses.items() if held[-1].state in ("failed", "ended")}
            letters = [sum((await end_offsets(settings, topics.dead_letter(topic))).values())
                       for topic in (topics.LIVE_STREAMS, topics.PRODUCT_PAGES)]  # fmt: skip
            return over >= announced.keys() - {"gopher"} and letters == [1, 3]

        await until(all_told, *workers.values())
        shown["stream_status"] = repr(statuses)
        shown["streams list"] = "\n".join(await list_streams(settings, as_json=False))
        shown["streams list --json"] = "\n".join(await list_streams(settings, as_json=True))
        for as_json in (False, True):
            await dlq._list(settings, topics.CONSUMED, as_json=as_json)
            shown[f"dlq list {as_json}"] = capsys.readouterr().out
        for topic in (topics.LIVE_STREAMS, topics.PRODUCT_PAGES):
            await _show_all(settings, topic)
            shown[f"dlq show {topic}"] = capsys.readouterr().out
        async with aiohttp.ClientSession(f"http://127.0.0.1:{workers['monitor'].http_port}") as client:
            for path in ("/", "/streams", "/streams/closed", "/now", "/metrics", "/healthz"):
                async with client.get(path) as answer:
                    shown[path] = await answer.text()
    shown["log"] = log.getvalue()
    assert all(stream_id in shown["/streams"] for stream_id in announced.keys() - {"gopher"})
    assert all(shown.values())
    assert not [name for name, text in shown.items() if SECRET in text]
