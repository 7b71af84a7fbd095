"""The filter over time: from per-window evidence to sightings that start, go on and end.

One forward filter a stream (`cope.model.beliefs`) says how much each product is believed to be shown; here it is
decided what that means. The threshold was chosen on streams of other people's photos too (docs/decisions.md).

Plain Python. Its state is a few hundred bytes, and a filter restored from them goes on exactly as the one that wrote
them. So that the last bits of a matrix product (about 1e-6, they depend on the batch) do not show, evidence comes in
rounded (`workers.recognize.evidence`) and beliefs are kept at six decimals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from cope.model.beliefs import ENTRANTS, LEAVE, THRESHOLD, TYPICAL_HOP_MS, next_beliefs
from topology.records import refusing


@dataclass(frozen=True)
class FilterConfig:
    """What the filter believes about showings.

    Attributes:
        threshold: Belief at which a sighting starts.
        release: Share of the threshold below which a product counts as gone. Near 1, sightings break at every
            covered frame; near 0, they outlast their product.
        patience_ms: How long the belief must stay low before the sighting ends: hosts lay a product down and take
            it up again. Above, two showings of a product melt into one.
        leave: See `cope.model.beliefs.LEAVE`.
        entrants: See `cope.model.beliefs.ENTRANTS`.
        least: Belief below which a product is forgotten.
        support: Frames that must show the product, judged without words, before a sighting of it may start. Speech
            about a product is no showing.
        update_every_ms: Media time between `updated` events.
    """

    threshold: float = THRESHOLD
    release: float = 0.5
    patience_ms: int = 4_000
    leave: float = LEAVE
    entrants: int = ENTRANTS
    least: float = 1e-4
    support: int = 2
    update_every_ms: int = 10_000


class Shown(msgspec.Struct, array_like=True, frozen=True):
    """A frame that shows a product: see `topology.records.EvidenceFrame`."""

    pts_ms: int
    captured_at_ms: int = 0
    box: tuple[float, float, float, float] | None = None
    score: float = 0.0
    page_image: str = ""
    offset: int = -1


@dataclass(frozen=True)
class Observation:
    """What one window says of one product.

    Attributes:
        log_odds: Calibrated log-odds that the product is being shown at the window's end.
        frames: Frames, new since the last window, that show it, judged without what is said.
        visual: Best cosine of a region with a page image.
        text: Keyword match in [0, 1].
        keywords: Spoken keywords that name it.
        read: Match of what was read, in [0, 1].
        lines: Lines read that name it.
        speech: How well the meaning of what was said fits its page, in [0, 1].
    """

    product_id: str
    log_odds: float
    frames: tuple[Shown, ...] = ()
    visual: float = 0.0
    text: float = 0.0
    keywords: tuple[str, ...] = ()
    read: float = 0.0
    lines: tuple[str, ...] = ()
    speech: float = 0.0


@dataclass(frozen=True)
class Decision:
    """A sighting starts, goes on or ends.

    Attributes:
        first_window_ms: Start of the window that started the sighting.
        emitted_media_ms: Media time that had been looked at.
        confidence: The belief; in an `ended` one the highest of the sighting.
        frames: Latest frames that show the product.
        runner_up: Next best product and its belief.
    """

    product_id: str
    status: Literal["started", "updated", "ended"]
    epoch: int
    first_window_ms: int
    media_start_ms: int
    media_end_ms: int
    emitted_media_ms: int
    confidence: float
    frames: tuple[Shown, ...]
    visual: float
    text: float
    keywords: tuple[str, ...]
    read: float
    lines: tuple[str, ...]
    speech: float
    runner_up: tuple[str, float] | None


class Belief(msgspec.Struct, array_like=True):
    """What is known of a product that may be on.

    Attributes:
        probability: That it is being shown.
        since_ms: First frame of the present run of frames that show it; -1 without one.
        frames: The latest of them, at most `_EVIDENCE`.
        seen: How many they are in all.
    """

    product_id: str
    probability: float = 0.0
    since_ms: int = -1
    frames: tuple[Shown, ...] = ()
    seen: int = 0
    visual: float = 0.0
    text: float = 0.0
    keywords: tuple[str, ...] = ()
    read: float = 0.0
    lines: tuple[str, ...] = ()
    speech: float = 0.0


class Sighting(msgspec.Struct, array_like=True):
    """What is on now.

    Attributes:
        reported_ms: Media time of its last event.
        low_ms: Media time since which the belief has been low; -1 if it is not.
        highest: Highest belief so far.
    """

    product_id: str
    first_window_ms: int
    media_start_ms: int
    media_end_ms: int
    reported_ms: int
    low_ms: int
    highest: float


class TrackerState(msgspec.Struct, array_like=True):
    """All that a tracker knows. `epoch` -1: nothing yet; `looked_ms`: media time that has been looked at."""

    epoch: int = -1
    start_ms: int = -1
    looked_ms: int = 0
    ended: bool = False
    beliefs: list[Belief] = []
    sighting: Sighting | None = None


_EVIDENCE = 8  # frames named in an event; more would swell the state, and nobody looks at them
_decoder = msgspec.msgpack.Decoder(TrackerState)


class Tracker:
    """The recognition filter of one stream."""

    def __init__(self, config: FilterConfig, state: bytes = b"") -> None:
        self._config = config
        with refusing("the state of a recognition filter"):
            self._state = _decoder.decode(state) if state else TrackerState()

    def to_bytes(self) -> bytes:
        """Returns the state, for `Tracker(config, state)`."""
        return msgspec.msgpack.encode(self._state)

    @property
    def epoch(self) -> int:
        """The epoch of the newest window; -1 before the first one."""
        return self._state.epoch

    @property
    def start_ms(self) -> int:
        """Start of the newest window; -1 before the first one of the epoch."""
        return self._state.start_ms

    @property
    def looked_ms(self) -> int:
        """Media time up to which frames have been judged."""
        return self._state.looked_ms

    @property
    def products(self) -> list[str]:
        """Products under consideration: they must be in the observations, whatever a search finds."""
        return [belief.product_id for belief in self._state.beliefs]

    @property
    def is_on(self) -> bool:
        """Whether a product is being shown."""
        return self._state.sighting is not None

    @property
    def ended(self) -> bool:
        """Whether the epoch is over."""
        return self._state.ended

    def has_seen(self, epoch: int, start_ms: int) -> bool:
        """Whether the window was dealt with already (a redelivery), or its epoch is over."""
        state = self._state
        return epoch < state.epoch or (epoch == state.epoch and (state.ended or start_ms <= state.start_ms))

    def begin_epoch(self, epoch: int) -> list[Decision]:
        """Ends what an older epoch left on. To be called before an epoch's first window; harmless otherwise."""
        if epoch <= self._state.epoch:
            return []
        ended = self.end_epoch()
        self._state = TrackerState(epoch=epoch)
        return ended

    def end_epoch(self) -> list[Decision]:
        """Ends the sighting: the stream is over, or has reconnected."""
        decisions = [self._end()] if self._state.sighting else []
        self._state.beliefs = []
        self._state.ended = True
        return decisions

    def observe(self, start_ms: int, end_ms: int, observations: Sequence[Observation]) -> list[Decision]:
        """Takes the next window of the epoch.

        Args:
            start_ms: The window's start, after that of the window before.
            end_ms: Its end.
            observations: Of all candidates and of `products`. A product that is missing is gone from the catalogue
                or the room's bag.
        """
        state = self._state
        elapsed_ms = TYPICAL_HOP_MS if state.start_ms < 0 else start_ms - state.start_ms
        self._filter(elapsed_ms, observations)
        self._note_frames(observations)
        state.start_ms, state.looked_ms = start_ms, end_ms
        return self._decide()

    def _filter(self, elapsed_ms: int, observations: Sequence[Observation]) -> None:
        config, state = self._config, self._state
        known = {belief.product_id: belief for belief in state.beliefs}
        beliefs = next_beliefs(
            {product_id: belief.probability for product_id, belief in known.items()},
            {one.product_id: one.log_odds for one in observations},
            elapsed_ms,
            config.leave,
            config.entrants,
        )
        on = state.sighting.product_id if state.sighting else None
        state.beliefs = []
        for product_id, probability in beliefs.items():
            if probability >= config.least or product_id == on:
                belief = known.get(product_id) or Belief(product_id)
                belief.probability = probability
                state.beliefs.append(belief)
        state.beliefs.sort(key=lambda belief: (-belief.probability, belief.product_id))

    def _note_frames(self, observations: Sequence[Observation]) -> None:
        by_product = {one.product_id: one for one in observations}
        for belief in self._state.beliefs:
            one = by_product[belief.product_id]
            belief.visual, belief.text, belief.keywords = one.visual, one.text, one.keywords
            belief.read, belief.lines, belief.speech = one.read, one.lines, one.speech
            longest_gap_ms = self._config.patience_ms + TYPICAL_HOP_MS
            for frame in one.frames:
                if not belief.frames or frame.pts_ms - belief.frames[-1].pts_ms > longest_gap_ms:
                    belief.since_ms, belief.seen, belief.frames = frame.pts_ms, 0, ()
                belief.seen += 1
                belief.frames = (*belief.frames, frame)[-_EVIDENCE:]

    def _decide(self) -> list[Decision]:
        config, state = self._config, self._state
        best = state.beliefs[0] if state.beliefs else None
        if best and not (best.probability >= config.threshold and self._is_shown(best)):
            best = None
        decisions = []
        if state.sighting:
            decisions += self._continue(state.sighting, best)
        if best and not state.sighting:
            state.sighting = Sighting(
                best.product_id,
                first_window_ms=state.start_ms,
                media_start_ms=best.since_ms,
                media_end_ms=best.frames[-1].pts_ms,
                reported_ms=state.looked_ms,
                low_ms=-1,
                highest=best.probability,
            )
            decisions.append(self._decision("started", best.probability))
        return decisions

    def _is_shown(self, belief: Belief) -> bool:
        recent = bool(belief.frames) and self._state.looked_ms - belief.frames[-1].pts_ms <= self._config.patience_ms
        return recent and belief.seen >= self._config.support

    def _continue(self, sighting: Sighting, best: Belief | None) -> list[Decision]:
        config, state = self._config, self._state
        own = self._belief(sighting.product_id)
        if own is None or (best and best.product_id != sighting.product_id):
            return [self._end()]
        if own.probability >= config.threshold * config.release:
            sighting.low_ms = -1
            sighting.highest = max(sighting.highest, own.probability)
            # Frames seen while the belief was low belong to the sighting only if it recovers.
            sighting.media_end_ms = max((sighting.media_end_ms, *(frame.pts_ms for frame in own.frames)))
        elif sighting.low_ms < 0:
            sighting.low_ms = state.looked_ms
        elif state.looked_ms - sighting.low_ms >= config.patience_ms:
            return [self._end()]
        if sighting.low_ms < 0 and state.looked_ms - sighting.reported_ms >= config.update_every_ms:
            sighting.reported_ms = state.looked_ms
            return [self._decision("updated", own.probability)]
        return []

    def _end(self) -> Decision:
        sighting = self._state.sighting
        assert sighting is not None  # noqa: S101 - the callers have looked
        decision = self._decision("ended", sighting.highest)
        self._state.sighting = None
        own = self._belief(sighting.product_id)
        if own:  # should it come back, that is a new sighting with frames of its own
            own.since_ms, own.seen, own.frames = -1, 0, ()
        return decision

    def _decision(self, status: Literal["started", "updated", "ended"], confidence: float) -> Decision:
        state, sighting = self._state, self._state.sighting
        assert sighting is not None  # noqa: S101 - the callers have looked
        own = self._belief(sighting.product_id) or Belief(sighting.product_id)
        other = next((one for one in state.beliefs if one.product_id != sighting.product_id), None)
        return Decision(
            product_id=sighting.product_id,
            status=status,
            epoch=state.epoch,
            first_window_ms=sighting.first_window_ms,
            media_start_ms=sighting.media_start_ms,
            media_end_ms=sighting.media_end_ms,
            emitted_media_ms=state.looked_ms,
            confidence=round(confidence, 4),
            frames=own.frames,
            visual=own.visual,
            text=own.text,
            keywords=own.keywords,
            read=own.read,
            lines=own.lines,
            speech=own.speech,
            runner_up=(other.product_id, round(other.probability, 4)) if other else None,
        )

    def _belief(self, product_id: str) -> Belief | None:
        return next((belief for belief in self._state.beliefs if belief.product_id == product_id), None)
