"""The offsets of a role's consumer group, read and committed through the Kafka client inside Faust."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

import faust
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import TopicPartition
from faust.types import TP

from topology.errors import Unavailable
from topology.retry import describe

_log = logging.getLogger(__name__)

BROKER_TIMEOUT_S = 5.0  # an answer that takes longer counts as none


class Group:
    """Offsets of the group. Faust runs its Kafka client in a thread of its own; calls are passed there."""

    def __init__(self, app: faust.App) -> None:
        self._app = app

    async def start_offset(self, tp: TP) -> tuple[int, int]:
        """Returns where the group's reading of a partition begins, and how many offsets before it were deleted unread.

        Raises:
            Unavailable: The broker does not answer.
        """
        committed = await self._ask("committed", TopicPartition(*tp))
        beginning = (await self.beginning_offsets([tp]))[tp]
        if committed is None:
            return beginning, 0
        return max(int(committed), beginning), max(0, beginning - int(committed))

    async def beginning_offsets(self, partitions: Iterable[TP]) -> dict[TP, int]:
        """Returns the oldest offset that each partition still has.

        Raises:
            Unavailable: The broker does not answer.
        """
        return _by_tp(await self._ask("beginning_offsets", [TopicPartition(*tp) for tp in partitions]))

    async def end_offsets(self, partitions: Iterable[TP]) -> dict[TP, int]:
        """Returns the offset that each partition's next record will get.

        Raises:
            Unavailable: The broker does not answer.
        """
        return _by_tp(await self._ask("end_offsets", [TopicPartition(*tp) for tp in partitions]))

    async def commit(self, offsets: dict[TP, int]) -> bool:
        """Commits offsets. Returns whether the broker took them; a failure is logged."""
        if not offsets:
            return True
        try:
            async with asyncio.timeout(BROKER_TIMEOUT_S):
                await self._call("commit", {TopicPartition(*tp): offset for tp, offset in offsets.items()})
        except (CommitFailedError, IllegalStateError) as error:
            # The group has moved on: whoever has the partitions now reads these records again.
            _log.info("a commit came too late", extra={"error": describe(error)})
            return False
        except (KafkaError, TimeoutError) as error:
            _log.warning("a commit failed, trying again", extra={"error": describe(error)})
            return False
        return True

    async def seek(self, tp: TP, offset: int) -> None:
        """Makes Faust read a partition from an offset."""
        await self._app.consumer.seek(tp, offset)

    async def _ask(self, method: str, *args: Any) -> Any:
        try:
            async with asyncio.timeout(BROKER_TIMEOUT_S):
                return await self._call(method, *args)
        except (KafkaError, TimeoutError) as error:
            raise Unavailable(f"the broker does not answer: {describe(error)}") from error

    async def _call(self, method: str, *args: Any) -> Any:
        thread = self._app.consumer._thread
        return await thread.call_thread(getattr(thread._ensure_consumer(), method), *args)


def _by_tp(offsets: dict[TopicPartition, int]) -> dict[TP, int]:
    return {TP(*partition): int(offset) for partition, offset in offsets.items()}
