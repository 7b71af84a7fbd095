"""A worker that is killed again and again loses nothing and repeats only what it sent before."""

from topology import topics
from topology.admin import create_topics
from topology.topic_log import end_offsets

FRAMES = 600
KILL_AT = (80, 300)  # records of output; somewhere within a batch, a commit interval, a held-back record


async def test_killed_under_load_nothing_is_lost(any_broker, until, send_frames, pipeline, outputs) -> None:
    await create_topics(any_broker)
    await send_frames(any_broker, range(FRAMES))

    async def written() -> int:
        return sum((await end_offsets(any_broker, topics.LIVE_KEYWORDS)).values())

    process = pipeline(any_broker)
    try:
        for goal in KILL_AT:

            async def reached(goal: int = goal) -> bool:
                return await written() >= goal

            await until(reached)
            process.kill()
            process = pipeline(any_broker)

        async def complete() -> bool:
            return await written() >= FRAMES and len(await outputs(any_broker)) >= FRAMES

        await until(complete, 90)
        assert process.terminate() == 0, process.log.read_text()
    finally:
        process.kill()
    counts = await outputs(any_broker)
    assert set(counts) == set(range(FRAMES))
    assert counts.total() > FRAMES, "no kill interrupted anything"
