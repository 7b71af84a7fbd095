"""People's verdicts on detections: the topic `detection_verdicts`, which every monitor follows."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from topology.records import ProductDetected, Record, Verdict
from topology.settings import Settings
from topology.topic_log import Follower
from topology.topics import DETECTION_VERDICTS
from workers.monitor.answers import VerdictInput, VerdictView

Write = Callable[[str, str, Record | None], Awaitable[int]]

# The newest ones, some 0.5 kB each: 100 MB. Older ones stay on the topic; detections that old are no longer listed.
MOST = 200_000


class Verdicts:
    """Verdicts by detection.

    Args:
        settings: Settings of the worker.
        write: Sends a record and returns its offset.
        tell: Called with each new change.
    """

    def __init__(self, settings: Settings, write: Write, tell: Callable[[VerdictView], None]) -> None:
        self._write = write
        self._tell = tell
        self.follower = Follower(settings, DETECTION_VERDICTS, Verdict)
        self._given: OrderedDict[str, Verdict] = OrderedDict()
        # Offsets of what was written here, which counts at once, and has not come back yet.
        self._written: dict[str, int] = {}

    async def follow(self) -> None:
        """Works until cancelled."""
        async for record in self.follower:
            if record.offset >= self._written.get(record.key, -1):  # else it is older than what was written here since
                self._written.pop(record.key, None)
                self._take(record.key, record.value)

    def of(self, detection_id: str) -> VerdictView | None:
        """Returns the verdict on a detection; None without."""
        given = self._given.get(detection_id)
        return None if given is None else _view(given)

    @property
    def corrected(self) -> set[frozenset[str]]:
        """Pairs of products of which one was detected and the other named by a person."""
        return {frozenset((one.detected, one.product_id)) for one in self._given.values() if one.verdict == "other"}

    async def give(self, event: ProductDetected, given: VerdictInput, who: str) -> VerdictView:
        """Gives a verdict on the detection of an event, or takes it back; the same again changes nothing.

        Raises:
            Unavailable: The broker does not answer.
        """
        detection_id, now = event.detection_id, datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        before = self._given.get(detection_id)
        if given.verdict == "undo":
            if before is not None:
                await self._give(detection_id, None)
            return VerdictView(detection_id=detection_id, verdict="undo", who=who or None, at=now)
        if before is None or (before.verdict, before.product_id) != (given.verdict, given.product_id or ""):
            before = Verdict(
                detection_id=detection_id,
                verdict=given.verdict,
                product_id=given.product_id or "",
                who=who,
                at=now,
                stream_id=event.stream_id,
                detected=event.product_id,
                epoch=event.epoch,
                media_start_ms=event.media_start_ms,
                media_end_ms=event.media_end_ms,
                model_version=event.model_version,
            )
            await self._give(detection_id, before)
        return _view(before)

    async def _give(self, detection_id: str, verdict: Verdict | None) -> None:
        self._written[detection_id] = await self._write(DETECTION_VERDICTS, detection_id, verdict)
        self._take(detection_id, verdict)

    def _take(self, detection_id: str, verdict: Verdict | None) -> None:
        before = self._given.pop(detection_id, None)
        if verdict is not None:
            self._given[detection_id] = verdict
            if len(self._given) > MOST:
                self._given.popitem(last=False)
        if verdict != before:
            self._tell(VerdictView(detection_id=detection_id, verdict="undo") if verdict is None else _view(verdict))


def _view(verdict: Verdict) -> VerdictView:
    return VerdictView(
        detection_id=verdict.detection_id,
        verdict=verdict.verdict,
        product_id=verdict.product_id or None,
        who=verdict.who or None,
        at=verdict.at,
    )
