"""Roles without a broker: records go through the real decoder and handler, what they send is encoded and measured."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from topology.codec import encode_key, encode_value
from topology.delivery import Delivery
from topology.errors import BadInput
from topology.message import Message, Partition
from topology.settings import Settings
from topology.topic_log import check_size
from topology.topics import DEAD_LETTER_SUFFIX
from topology.worker import Worker

SETTINGS = Settings(_env_file=None, broker="127.0.0.1:1", read_words="off")


class MemoryDelivery(Delivery):
    """Keeps what is sent, and hands out what it is given.

    Attributes:
        sent: The records, by topic.
        letters: Topic, offset and error of each dead-lettered record.
    """

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker.app, worker.role, worker.settings)
        self.sent: dict[str, list[Any]] = defaultdict(list)
        self.letters: list[tuple[str, int, Exception]] = []
        self._queues: dict[str, tuple[asyncio.Queue[Message[Any]], type, bool]] = {}
        self._handlers: list[Callable[[], Any]] = []
        self._logs: dict[str, Partition] = {}
        self._changed = asyncio.Condition()

    def agent(self, topic: str, kind: type, handler: Any, *, tombstones: bool = False) -> None:
        queue: asyncio.Queue[Message[Any]] = asyncio.Queue()
        self._queues[topic] = (queue, kind, tombstones)
        self._logs[topic] = Partition(topic, 0)

        async def messages() -> AsyncIterator[Message[Any]]:
            while True:
                message = await queue.get()
                try:
                    message.value = self._decode(message, kind, tombstones)
                except BadInput as error:
                    await message.dead_letter(error)
                    queue.task_done()
                    continue
                yield message
                queue.task_done()

        self._handlers.append(lambda: handler(messages()))

    async def give(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Gives a record to its handler, and waits until that asks for the next one."""
        partition = self._logs[topic]
        offset = (partition.mark.position or 0) + partition.mark.open
        partition.mark.add(offset)
        raw = SimpleNamespace(key=key, value=value, offset=offset, timestamp=1_700_000_000_000 + offset)
        queue = self._queues[topic][0]
        queue.put_nowait(Message(partition, raw, self._dead_letter))
        await queue.join()

    async def send(self, topic: str, key: str, record: Any, *, headers: Any = None) -> None:
        value, own = (None, []) if record is None else encode_value(record)
        check_size(topic, encode_key(key), value, [*own, *(headers or [])])
        self.sent[topic].append(record)
        async with self._changed:
            self._changed.notify_all()

    async def until(self, topic: str, wanted: Callable[[Any], Any]) -> None:
        """Returns when something wanted has been sent to a topic."""
        async with self._changed:
            await self._changed.wait_for(lambda: any(map(wanted, self.sent[topic])))

    async def until_done(self, topic: str) -> None:
        """Returns when all records that were given are done."""
        while self._logs[topic].mark.open:  # noqa: ASYNC110 - nobody tells when a mark moves
            await asyncio.sleep(0.001)

    async def _dead_letter(self, message: Message[Any], error: Exception, attempts: int) -> None:
        check_size(message.topic + DEAD_LETTER_SUFFIX, message.raw.key, message.raw.value, [])
        self.letters.append((message.topic, message.offset, error))

    async def undelivered(self, topic: str) -> dict[int, int]:
        return {}

    async def failing(self) -> None:
        """Runs the handlers for ever; raises what one of them raises."""
        await asyncio.gather(*(run() for run in self._handlers))


class MemoryRefusals:
    """Counts what a reader of a log refuses."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    async def tell(self, partition: int, offset: int, error: BadInput) -> None:
        self.told.append((partition, offset))


async def soon(work: Awaitable[Any], most_s: int = 60) -> Any:
    """Awaits what a machine does in moments. Of time in which the process is not run at all, only a second counts."""
    task = asyncio.ensure_future(work)
    try:
        for _ in range(most_s):
            if (await asyncio.wait({task}, timeout=1))[0]:
                return task.result()
        raise TimeoutError("blocked")
    finally:
        task.cancel()


async def run_role(worker: Worker, build: Callable[[Worker], Any], feed: Callable[[MemoryDelivery], Any]) -> Any:
    """Builds a role, feeds it, and returns what `feed` returns; raises what the role dies of."""
    delivery = worker.delivery = MemoryDelivery(worker)
    build(worker)
    for start in worker._starts:
        await start()

    async def beside(work: Callable[[], Any]) -> None:
        await work()
        await asyncio.Event().wait()  # some have nothing to do

    work = [asyncio.create_task(beside(fn)) for fn in (delivery.failing, *worker._background)]
    feeding = asyncio.create_task(feed(delivery))
    failed = asyncio.create_task(delivery.wait_failed())
    try:
        done, _ = await soon(asyncio.wait({feeding, failed, *work}, return_when=asyncio.FIRST_COMPLETED))
        for task in done:
            task.result()
        return feeding.result()
    finally:
        tasks = [feeding, failed, *work]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        worker.executor.shutdown(wait=False)
