"""The language in which a stream is transcribed: announced, else the default, else detected and then kept."""

from collections import OrderedDict
from dataclasses import dataclass

from topology.records import Keywords

# A detection with at least this probability settles the language. Clean speech of 3 s gives 0.97 and more; noise up to
# 0.86, but without a text, and only pieces with a text count.
CERTAIN = 0.8

# Streams that are remembered per partition. The language of a forgotten one would be detected anew.
_MOST_STREAMS = 10_000


@dataclass
class StreamState:
    """How far a stream has been transcribed, and in what language.

    Attributes:
        epoch: Epoch of the newest piece that was answered.
        start_ms: Its start.
        ended: It was the end of its epoch.
        language: The language that is settled for the epoch; None if none is.
    """

    epoch: int = -1
    start_ms: int = -1
    ended: bool = False
    language: str | None = None


class Streams:
    """The streams of one partition.

    It is rebuilt from the answers in `live_keywords`, so a restart transcribes no piece twice and none in another
    language than it would have been without.
    """

    def __init__(self) -> None:
        self._states: OrderedDict[str, StreamState] = OrderedDict()

    def is_answered(self, stream_id: str, epoch: int, start_ms: int, end_of_epoch: bool) -> bool:
        """Returns whether this piece, or a later one of its stream, was answered."""
        state = self._states.get(stream_id)
        return state is not None and (epoch, start_ms, end_of_epoch) <= (state.epoch, state.start_ms, state.ended)

    def is_new(self, stream_id: str, epoch: int) -> bool:
        """Returns whether nothing of this epoch was answered yet."""
        state = self._states.get(stream_id)
        return state is None or state.epoch < epoch

    def settled(self, stream_id: str, epoch: int) -> str | None:
        """Returns the language that was detected with certainty in this epoch."""
        state = self._states.get(stream_id)
        return state.language if state is not None and state.epoch == epoch else None

    def note(self, answer: Keywords) -> None:
        """Takes in an answer, sent now or read back."""
        if self.is_answered(answer.stream_id, answer.epoch, answer.start_ms, answer.end_of_epoch):
            return
        language = answer.language if answer.language_fixed else None
        self._states[answer.stream_id] = StreamState(answer.epoch, answer.start_ms, answer.end_of_epoch, language)
        self._states.move_to_end(answer.stream_id)
        if len(self._states) > _MOST_STREAMS:
            self._states.popitem(last=False)
