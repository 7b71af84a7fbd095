"""Which lines of a stream stand on the screen all the time: a shop's name, a clock, a banner.

They name products at best by chance: a line counts as read only while it is something new.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from rapidfuzz import fuzz

from cope.vision.regions import overlap
from topology.records import ReadLine, refusing

# A line that has stood at its place for so long is part of the screen. Hosts do not hold a product still for as long;
# shorter, and the title card of a long showing would be taken for a banner.
STANDING_MS = 45_000

# One that was there in the stream's first seconds has been there before: so often seen, it is part of the screen.
_START_MS = 3_000
_SEEN_FROM_START = 3

# A line that has not been read for so long is gone: a blink of the recogniser is no end, a showing later is a new one.
_GONE_MS = 12_000

_SAME_PLACE = 0.6  # IoU of boxes, from which on two lines stand at one place: what is held in a hand moves
_SAME_TEXT = 80  # percent of rapidfuzz: recognisers differ in a letter from frame to frame
_MOST = 96  # lines that are remembered of a stream: a screen full of text


class Place(msgspec.Struct, array_like=True):
    """A line at its place: when it was seen there first and last, and how often."""

    text: str
    box: tuple[float, float, float, float]
    first_ms: int
    last_ms: int
    seen: int = 1


class StandingState(msgspec.Struct, array_like=True):
    """All that is known of a stream's screen. `first_ms`: its first frame; -1 before it."""

    epoch: int = -1
    first_ms: int = -1
    noted_ms: int = -1
    places: list[Place] = []


_decoder = msgspec.msgpack.Decoder(StandingState)


class StandingLines:
    """The lines on the screen of one stream."""

    def __init__(self, state: bytes = b"") -> None:
        with refusing("the state of a stream's standing lines"):
            self._state = _decoder.decode(state) if state else StandingState()

    def to_bytes(self) -> bytes:
        """Returns the state, for `StandingLines(state)`."""
        return msgspec.msgpack.encode(self._state)

    def note(self, epoch: int, pts_ms: int, lines: Sequence[ReadLine]) -> None:
        """Takes the lines of the next frame; of one that was noted already, nothing."""
        if epoch != self._state.epoch:
            self._state = StandingState(epoch)
        state = self._state
        if state.first_ms < 0:
            state.first_ms = pts_ms
        if pts_ms <= state.noted_ms or not lines:
            return
        state.noted_ms = pts_ms
        state.places = [place for place in state.places if pts_ms - place.last_ms <= _GONE_MS]
        for line in lines:
            place = self._place(line)
            if place is None:
                state.places.append(Place(line.text, line.box, pts_ms, pts_ms))
            elif place.last_ms < pts_ms:
                place.last_ms = pts_ms
                place.seen += 1
        state.places = sorted(state.places, key=lambda place: (place.first_ms, place.text))[:_MOST]

    def stands(self, line: ReadLine) -> bool:
        """Returns whether the line has been on the screen all the time."""
        place = self._place(line)
        if place is None:
            return False
        since_start = place.first_ms - self._state.first_ms < _START_MS and place.seen >= _SEEN_FROM_START
        return since_start or place.last_ms - place.first_ms >= STANDING_MS

    def _place(self, line: ReadLine) -> Place | None:
        places = self._state.places
        if not places:
            return None
        shared = overlap(np.array([line.box]), np.array([place.box for place in places]))[0]
        there = (places[number] for number in np.flatnonzero(shared >= _SAME_PLACE))
        return next((place for place in there if fuzz.ratio(place.text, line.text) >= _SAME_TEXT), None)
