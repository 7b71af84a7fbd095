"""A worker process for the crash tests: each frame becomes one record on live_keywords, in batches.

It keeps records open behind later ones and ends them out of order, as windows do.
Usage: python pipeline_worker.py ADDRESS PREFIX IDEMPOTENT
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from topology import topics
from topology.delivery import Message
from topology.log_format import setup_logging
from topology.records import Frame, Keywords
from topology.settings import Settings
from topology.worker import Worker

HELD = 7  # records kept open behind the newest one


def build(worker: Worker) -> None:
    held: list[Message[Frame]] = []

    def forget(topic: str, partition: int) -> None:
        held[:] = [message for message in held if message.partition != partition]

    async def handle(messages: AsyncIterator[Message[Frame]]) -> None:
        async for message in messages:
            frame = message.value
            record = Keywords(
                stream_id=frame.stream_id, epoch=0, start_ms=frame.pts_ms, end_ms=frame.pts_ms + 1, captured_at_ms=0
            )
            await worker.delivery.send(topics.LIVE_KEYWORDS, message.key, record)
            held.append(message)
            if len(held) > HELD:
                held.pop(HELD // 2).done()
            if frame.end_of_epoch:
                for message in held:
                    message.done()
                held.clear()

    worker.delivery.on_revoked(forget)
    worker.delivery.agent(topics.LIVE_FRAMES, Frame, handle)


def main() -> int:
    address, prefix, idempotent = sys.argv[1:4]
    settings = Settings(
        _env_file=None,
        broker=address,
        topic_prefix=prefix,
        idempotent_producer=idempotent == "1",
        broker_session_timeout_s=6.0,
        stream_partitions=3,
        product_partitions=2,
    )
    setup_logging(settings)
    worker = Worker("embed", settings)
    build(worker)
    return worker.run()


if __name__ == "__main__":
    with contextlib.suppress(asyncio.CancelledError):
        sys.exit(main())
