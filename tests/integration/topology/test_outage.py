"""A broker that is killed and comes back: work stops, goes on, and loses nothing."""

import asyncio

import pytest

from topology.admin import create_topics


@pytest.mark.kafka
@pytest.mark.parametrize("down_s", [0, 20])
async def test_a_broker_outage_loses_nothing(
    kafka, kafka_server, until, send_frames, pipeline, outputs, down_s
) -> None:
    """Short: connections break. Long (beyond the session time-out of 6 s): the group forgets the worker."""
    await create_topics(kafka)
    await send_frames(kafka, range(600))
    process = pipeline(kafka)

    async def some() -> bool:
        return len(await outputs(kafka)) >= 100

    async def complete() -> bool:
        return len(await outputs(kafka)) >= 700

    try:
        await until(some)
        kafka_server.kill()
        await asyncio.sleep(down_s)
        kafka_server.start()
        await send_frames(kafka, range(600, 700))
        await until(complete, 120)
        assert process.terminate() == 0, process.log.read_text()
    finally:
        process.kill()
    assert set(await outputs(kafka)) == set(range(700))
