"""The newest sightings of all streams, in bounded memory."""

import heapq
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from topology.records import EvidenceFrame, ProductDetected

Why = Literal["low confidence", "small margin", "often confused"]
Order = tuple[int, int, str]

# A sighting of three events takes some 6 kB, so these are 10,000 sightings: an hour of 100 rooms. Older ones are known
# only from the evidence that is kept of them.
MOST_BYTES = 64 * 1024 * 1024
# Events that are kept of one sighting: the first, and the newest ones. At one in 10 s these are the last minutes.
_EVENTS = 16
_BELIEFS = 720  # points of a sighting's belief: two hours
_OVERHEAD_BYTES = 2_000  # memory of a sighting beside its events
_LATENCIES = 1_000

_RANK = {"started": 0, "updated": 1, "ended": 2}
_LOW, _SMALL = 0.8, 0.3  # confidence and margin over the runner-up below which a person should look
_CONFUSED = 3  # number of sightings in which two products compete before they count as confused
_COMPETES = 0.1  # a runner-up of less confidence does not count as a competitor

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ProductDetected).decode


@dataclass
class Sighting:
    """One sighting.

    Attributes:
        order: Its place among those of its stream: epoch, begin, id. The same in every process.
        confidence: Confidence of its newest event.
        runner_up: The product that came next while it was on, and its confidence.
        best: The frame that shows the product best, of all its events.
        belief: Media time and confidence, per event.
    """

    detection_id: str
    stream_id: str
    product_id: str
    order: Order
    confidence: float = 0.0
    runner_up: tuple[str, float] | None = None
    best: EvidenceFrame | None = None
    belief: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_BELIEFS))
    newest: tuple[float, int] = (-math.inf, -1)
    kept: list[bytes] = field(default_factory=list)

    @property
    def events(self) -> list[ProductDetected]:
        """Its events: the first that is known and the newest ones."""
        return [_decode(one) for one in self.kept]

    @property
    def event(self) -> ProductDetected:
        """Its newest event."""
        return _decode(self.kept[-1])

    @property
    def margin(self) -> float:
        """The difference of its confidence and the runner-up's."""
        return self.confidence - (self.runner_up[1] if self.runner_up else 0.0)


class History:
    """Sightings by id and by stream. When the memory is used up, the least recently changed ones are dropped."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.bytes = 0
        self.latencies: deque[int] = deque(maxlen=_LATENCIES)
        self.versions = ("", "")
        self._most = most_bytes
        self._sightings: OrderedDict[str, Sighting] = OrderedDict()
        self._streams: dict[str, dict[str, Order]] = {}

    def __len__(self) -> int:
        return len(self._sightings)

    def add(self, event: ProductDetected) -> Sighting:
        """Takes an event; copies change nothing."""
        one = self._sightings.get(event.detection_id)
        if one is None:
            order = (event.epoch, event.media_start_ms, event.detection_id)
            one = self._sightings[event.detection_id] = Sighting(
                event.detection_id, event.stream_id, event.product_id, order
            )
            self._streams.setdefault(event.stream_id, {})[event.detection_id] = order
            self.bytes += _OVERHEAD_BYTES
        self._sightings.move_to_end(event.detection_id)
        moment = (event.emitted_media_ms, _RANK[event.status])
        if moment > one.newest:
            one.newest = moment
            self._note(one, event)
        while self.bytes > self._most and len(self._sightings) > 1:
            self._drop(next(iter(self._sightings)))
        return one

    def _note(self, one: Sighting, event: ProductDetected) -> None:
        one.kept.append(_encode(event))
        self.bytes += len(one.kept[-1])
        if len(one.kept) > _EVENTS:
            self.bytes -= len(one.kept.pop(1))
        one.confidence = event.confidence
        if event.status != "ended":  # the runner-up at its end is the product shown next, not a competitor
            other = event.evidence.runner_up
            one.runner_up = (other.product_id, other.confidence) if other else None
        one.belief.append((event.emitted_media_ms, event.confidence))
        for frame in event.evidence.frames:
            if one.best is None or frame.score > one.best.score:
                one.best = frame
        if event.status == "started":
            self.latencies.append(event.latency_ms)
        self.versions = (event.model_version, event.index_version)

    def _drop(self, detection_id: str) -> None:
        one = self._sightings.pop(detection_id)
        self.bytes -= _OVERHEAD_BYTES + sum(map(len, one.kept))
        of_stream = self._streams[one.stream_id]
        del of_stream[detection_id]
        if not of_stream:
            del self._streams[one.stream_id]

    def get(self, detection_id: str) -> Sighting | None:
        """Returns a sighting; None if it is not known (any more)."""
        return self._sightings.get(detection_id)

    def of_stream(self, stream_id: str, before: Order | None, limit: int) -> list[Sighting]:
        """Returns the newest sightings of a stream that come before a place, newest first."""
        orders = self._streams.get(stream_id, {}).values()
        wanted = orders if before is None else (order for order in orders if order < before)
        return [self._sightings[order[2]] for order in heapq.nlargest(limit, wanted)]

    def of_product(self, product_id: str, limit: int) -> list[Sighting]:
        """Returns the newest sightings of a product, newest first."""
        found: list[Sighting] = []
        for one in reversed(self._sightings.values()):
            if one.product_id == product_id:
                found.append(one)
                if len(found) == limit:
                    break
        return found

    def doubtful(
        self, is_settled: Callable[[str], bool], limit: int, corrected: Collection[frozenset[str]] = ()
    ) -> list[tuple[Sighting, Why]]:
        """Returns sightings that are likely wrong, the likeliest first, and why a person should look.

        Args:
            is_settled: Says of an id whether a person has looked already.
            limit: At most so many.
            corrected: Pairs of products of which a person has named one where the other was detected.
        """
        pairs = Counter(self._pairs())
        pairs.update(dict.fromkeys(corrected, _CONFUSED))
        found: list[tuple[float, str, Sighting, Why]] = []
        for one in self._sightings.values():
            if is_settled(one.detection_id):
                continue
            doubts: list[tuple[float, Why]] = [
                (_LOW - one.confidence, "low confidence"),
                (_SMALL - one.margin, "small margin"),
            ]
            if one.runner_up and pairs[frozenset((one.product_id, one.runner_up[0]))] >= _CONFUSED:
                doubts.append((one.runner_up[1], "often confused"))
            doubt, why = max(doubts)
            if doubt > 0:
                found.append((sum(max(0.0, one) for one, _ in doubts), one.detection_id, one, why))
        best = heapq.nlargest(limit, found, key=lambda entry: entry[:2])
        return [(one, why) for _, _, one, why in best]

    def _pairs(self) -> Iterator[frozenset[str]]:
        for one in self._sightings.values():
            if one.runner_up and one.runner_up[1] >= _COMPETES:
                yield frozenset((one.product_id, one.runner_up[0]))
