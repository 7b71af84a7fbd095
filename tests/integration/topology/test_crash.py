"""A worker that is killed again and again loses nothing and repeats only what it sent before."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from topology import topics
from topology.admin import create_topics
from topology.log import end_offsets, read_partition
from topology.records import Keywords
from topology.settings import Settings

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
FRAMES = 1200
KILL_AT = (150, 420, 800)  # records of output; somewhere within a batch, a commit interval, a held-back record


class Process:
    """pipeline_worker.py as a process of its own."""

    def __init__(self, settings: Settings, log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    str(HERE / "pipeline_worker.py"),
                    settings.broker,
                    settings.topic_prefix,
                    str(int(settings.idempotent_producer)),
                ],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=output,
            )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def terminate(self) -> int:
        self._process.terminate()
        return self._process.wait(40)


async def outputs(settings: Settings) -> Counter[int]:
    ends = await end_offsets(settings, topics.LIVE_KEYWORDS)
    counts: Counter[int] = Counter()
    for partition in ends:
        async for record in read_partition(settings, topics.LIVE_KEYWORDS, partition, Keywords):
            counts[record.value.start_ms] += 1
    return counts


async def test_killed_under_load_nothing_is_lost(any_broker, until, send_frames, tmp_path: Path) -> None:
    await create_topics(any_broker)
    await send_frames(any_broker, range(FRAMES))

    async def written() -> int:
        return sum((await end_offsets(any_broker, topics.LIVE_KEYWORDS)).values())

    process = Process(any_broker, tmp_path / "log")
    try:
        for goal in KILL_AT:

            async def reached(goal: int = goal) -> bool:
                return await written() >= goal

            await until(reached)
            process.kill()
            process = Process(any_broker, tmp_path / "log")

        async def complete() -> bool:
            return len(await outputs(any_broker)) >= FRAMES

        await until(complete, 90)
        assert process.terminate() == 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
    counts = await outputs(any_broker)
    assert set(counts) == set(range(FRAMES))
    assert counts.total() > FRAMES, "no kill interrupted anything"
