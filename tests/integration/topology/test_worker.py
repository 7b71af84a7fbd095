"""A worker's life: start, health, failure, end."""

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from topology import topics
from topology.admin import create_topics
from topology.delivery import Message
from topology.embedded import EmbeddedBroker
from topology.errors import UserError
from topology.records import Frame
from topology.settings import Settings
from topology.topic_log import Producer
from topology.worker import Worker

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
END_TIMEOUT_S = 45.0


async def ignore(messages: AsyncIterator[Message[Frame]]) -> None:
    async for message in messages:
        message.done()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def spawn(settings: Settings, port: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "pipeline_worker.py"),
        settings.broker,
        settings.topic_prefix,
        str(int(settings.idempotent_producer)),
        env=os.environ | {"PYTHONPATH": str(ROOT), "COPE_HTTP_PORT": str(port)},
        stderr=asyncio.subprocess.PIPE,
    )


async def healthy(port: int) -> bool:
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"http://127.0.0.1:{port}/healthz") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


@pytest.mark.parametrize(("how", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_signals_end_it_in_order(any_broker, until, how: signal.Signals, status: int) -> None:
    port = free_port()
    process = await spawn(any_broker, port)
    try:
        await until(lambda: healthy(port))
        process.send_signal(how)
        _, log = await asyncio.wait_for(process.communicate(), END_TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == status, log.decode()
    assert b"stopped role=embed" in log
    assert b"Traceback" not in log


async def test_interrupted_while_the_broker_is_down_it_ends_at_once(broker) -> None:
    settings = broker.model_copy(update={"broker": f"127.0.0.1:{free_port()}"})
    process = await spawn(settings, 0)
    assert process.stderr is not None
    lines = b""
    while b"does not answer" not in lines:
        lines = await asyncio.wait_for(process.stderr.readline(), 30)
    assert settings.broker.encode() in lines
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 10) == 130


async def test_ended_while_the_broker_is_dead_it_does_not_hang(until) -> None:
    port = free_port()
    broker = EmbeddedBroker()
    broker.start()
    process = await spawn(broker.configure(Settings(_env_file=None)), port)
    try:
        await until(lambda: healthy(port))
        broker.stop()
        process.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(process.communicate(), END_TIMEOUT_S)
    finally:
        broker.stop()
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, log.decode()


async def test_it_waits_for_a_broker_that_comes_later(until, caplog) -> None:
    port = free_port()
    settings = Settings(_env_file=None, broker=f"127.0.0.1:{port}", idempotent_producer=False, stream_partitions=1)
    worker = Worker("embed", settings.model_copy(update={"broker_session_timeout_s": 6.0}))
    worker.delivery.agent(topics.LIVE_FRAMES, Frame, ignore)
    starting = asyncio.create_task(worker.start())
    await until(lambda: "create topics" in caplog.text)
    assert not starting.done()
    broker = EmbeddedBroker(port)
    broker.start()
    try:
        await asyncio.wait_for(starting, 60)
    finally:
        await worker.stop()
        broker.stop()


async def test_health_and_metrics_are_served(broker, until) -> None:
    worker = Worker("embed", broker)
    worker.delivery.agent(topics.LIVE_FRAMES, Frame, ignore)
    worker.health.add("stream", lambda: trouble)
    trouble = "no frame for 60 s"
    try:
        await worker.start()
        base = f"http://127.0.0.1:{worker.http_port}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{base}/healthz") as response:
                assert response.status == 503
                body = await response.json()
                assert body["role"] == "embed"
                assert body["checks"]["stream"] == "no frame for 60 s"
            trouble = ""
            await until(lambda: worker.health.ok)
            async with session.get(f"{base}/healthz") as response:
                assert response.status == 200
                assert set((await response.json())["checks"].values()) == {"ok"}

            async def lag_is_told() -> bool:
                async with session.get(f"{base}/metrics") as response:
                    text = await response.text()
                return 'cope_consumer_lag_records{role="embed",topic="live_frames"} 0.0' in text

            await until(lag_is_told)
    finally:
        await worker.stop()


async def test_a_busy_port_is_named(broker) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        worker = Worker("monitor", broker.model_copy(update={"http_port": port}))
        with pytest.raises(UserError, match=f"127.0.0.1:{port} .*COPE_HTTP_PORT"):
            await worker.serve()


async def test_a_failing_handler_is_what_serving_raises(broker) -> None:
    worker = Worker("embed", broker)

    async def broken(messages: AsyncIterator[Message[Frame]]) -> None:
        async for _ in messages:
            raise ZeroDivisionError

    worker.delivery.agent(topics.LIVE_FRAMES, Frame, broken)
    await create_topics(broker)  # Tansu makes a topic that is sent to, with partitions of its own choice
    serving = asyncio.create_task(worker.serve())
    frame = Frame(stream_id="s", epoch=0, pts_ms=0, captured_at_ms=0)
    await worker.delivery.send(topics.LIVE_FRAMES, "s", frame)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(serving, 60)


async def test_a_failing_background_task_is_what_serving_raises(broker) -> None:
    worker = Worker("monitor", broker)

    async def broken() -> None:
        raise ZeroDivisionError

    worker.background(broken)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(worker.serve(), 60)


async def test_hooks_run_before_and_after_and_work_runs_beside(broker) -> None:
    worker = Worker("monitor", broker)
    events: list[str] = []
    beside = asyncio.Event()

    async def start() -> None:
        events.append("start")

    async def background() -> None:
        events.append(await worker.in_executor("{}{}".format, "back", "ground"))
        beside.set()
        await asyncio.Event().wait()

    async def stop() -> None:
        await worker.delivery.send(topics.LIVE_STREAMS, "s", None)  # sending still works
        events.append("stop")

    worker.on_start(start)
    worker.background(background)
    worker.on_stop(stop)
    await worker.start()
    await asyncio.wait_for(beside.wait(), 10)
    await worker.stop()
    assert events == ["start", "background", "stop"]


async def test_one_that_joins_first_hands_out_records_after_its_hooks(broker, until) -> None:
    order = []
    worker = Worker("embed", broker)

    async def prepare() -> None:
        await until(lambda: worker.delivery.ready)
        order.append("hook")

    async def take(messages: AsyncIterator[Message[Frame]]) -> None:
        async for message in messages:
            order.append("record")
            message.done()

    worker.on_start(prepare)
    worker.delivery.agent(topics.LIVE_FRAMES, Frame, take)
    await create_topics(broker)
    async with Producer(broker) as producer:
        await producer.send(topics.LIVE_FRAMES, "room", Frame(stream_id="room", epoch=0, pts_ms=0, captured_at_ms=0))
    await worker.start(join_first=True)
    await until(lambda: "record" in order)
    await worker.stop()
    assert order == ["hook", "record"]


async def test_one_that_joins_first_ends_in_order_when_a_hook_fails(broker, caplog) -> None:
    worker = Worker("embed", broker)

    async def fail() -> None:
        raise UserError("no such model")

    worker.on_start(fail)
    worker.delivery.agent(topics.LIVE_FRAMES, Frame, ignore)
    with pytest.raises(UserError, match="no such model"):
        await worker.start(join_first=True)
    await worker.stop()
    gc.collect()
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_a_hook_that_fails_at_the_stop_does_not_keep_the_rest_from_stopping(broker, caplog) -> None:
    worker = Worker("monitor", broker)

    async def stop() -> None:
        raise ZeroDivisionError

    worker.on_stop(stop)
    await worker.start()
    await worker.stop()
    assert "a stop hook failed" in caplog.text
