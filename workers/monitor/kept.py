"""Kept evidence as the routes read it: cached for a moment, and awaited while it is being written."""

import asyncio
import time
from collections import OrderedDict

from topology.evidence import EvidenceStore, Kept

# A page that shows a detection asks for each of its pictures; the cache makes that one read.
_AT_HAND = 32
_FRESH_S = 3.0
# The evidence role writes within some 100 ms of an event, and browsers may ask before.
_WAIT_S, _STEP_S = 3.0, 0.25


class KeptEvidence:
    """Reads detections from the store."""

    def __init__(self, store: EvidenceStore) -> None:
        self._store = store
        self._found: OrderedDict[str, tuple[float, Kept | None]] = OrderedDict()

    async def get(self, detection_id: str) -> Kept | None:
        """Returns what is kept; None if nothing is.

        Raises:
            Unavailable: The store cannot be read now.
        """
        read_s, kept = self._found.get(detection_id, (0.0, None))
        if kept is None or time.monotonic() - read_s > _FRESH_S:
            kept = await asyncio.to_thread(self._store.get, detection_id)
            self._found[detection_id] = time.monotonic(), kept
            self._found.move_to_end(detection_id)
            while len(self._found) > _AT_HAND:
                self._found.popitem(last=False)
        return kept

    async def awaited(self, detection_id: str, pts_ms: int) -> Kept | None:
        """As `get`, but waits a little for a frame that is not there yet."""
        deadline = time.monotonic() + _WAIT_S
        while True:
            kept = await self.get(detection_id)
            if (kept is not None and kept.frame(pts_ms) is not None) or time.monotonic() >= deadline:
                return kept
            self._found.pop(detection_id, None)
            await asyncio.sleep(_STEP_S)
