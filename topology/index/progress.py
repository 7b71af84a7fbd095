"""How far the catalogue has been encoded."""

import asyncio
from collections.abc import Iterable, Mapping

from topology.records import PageVectors
from topology.settings import Settings
from topology.topic_log import end_offsets, read_raw
from topology.topics import PRODUCT_PAGES, dead_letter

_LOOK_EVERY_S = 1.0


class CatalogProgress:
    """Positions in `product_pages` up to which pages have been encoded, by partition.

    Pages of a partition are encoded in order, so the newest one implies all before it.

    Args:
        model_version: Count only pages encoded by this model; None: by any.
    """

    def __init__(self, model_version: str | None = None) -> None:
        self._model_version = model_version
        self._positions: dict[int, int] = {}

    def note(self, record: PageVectors) -> None:
        """Takes a record of `page_vectors`. A withdrawn page needs no encoding, so it counts for every model."""
        if self._model_version in (None, record.model_version) or record.withdrawn:
            self.pass_by(record.source_partition, record.source_offset)

    def pass_by(self, partition: int, offset: int) -> None:
        """Notes that the page at this offset will not come any more."""
        self._positions[partition] = max(self._positions.get(partition, 0), offset + 1)

    def has_reached(self, offsets: Mapping[int, int]) -> bool:
        """Whether all pages below the given end offsets have been encoded."""
        return all(self._positions.get(partition, 0) >= end for partition, end in offsets.items())

    def count(self, offsets: Mapping[int, int]) -> int:
        """Returns how many offsets below the given ends have been passed."""
        return sum(min(self._positions.get(partition, 0), end) for partition, end in offsets.items())


async def note_dead_letters(settings: Settings, progress: CatalogProgress) -> None:
    """Notes pages that never reach the encoder, until cancelled.

    A record that cannot be decoded as a page is dead-lettered and yields no `PageVectors`. Without this, a reader that
    waits for the last page of a partition would wait for ever if that record is the last one.
    """
    topic = dead_letter(PRODUCT_PAGES)
    positions: dict[int, int] = {}
    while True:
        for partition, end in (await end_offsets(settings, topic)).items():
            async for message in read_raw(settings, topic, partition, positions.get(partition, 0), end):
                source = _source(message.headers)
                if source is not None:
                    progress.pass_by(*source)
            positions[partition] = end
        await asyncio.sleep(_LOOK_EVERY_S)


def _source(headers: Iterable[tuple[str, bytes]]) -> tuple[int, int] | None:
    named = dict(headers)
    try:
        return int(named["partition"]), int(named["offset"])
    except (KeyError, ValueError):  # put there by hand, not by a worker
        return None
