"""Which pieces of speech go through the model together."""

from collections import deque
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from workers.transcribe.agent import next_pieces


def message(room: int, has_sound: bool) -> Any:
    return SimpleNamespace(value=SimpleNamespace(stream_id=f"room-{room}", audio=b"sound" if has_sound else b""))


@given(pieces=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=20), most=st.integers(1, 4))
def test_all_pieces_are_taken_in_the_order_of_their_stream_and_one_with_sound_at_a_time(
    pieces: list[tuple[int, bool]], most: int
) -> None:
    messages = [message(*piece) for piece in pieces]
    inbox, taken = deque(messages), []
    while inbox:
        batch = next_pieces(inbox, most)
        assert batch
        heard = [one.value.stream_id for one in batch if one.value.audio]
        assert len(heard) == len(set(heard)) <= most
        taken += batch
    for room in {one.value.stream_id for one in messages}:
        assert [one for one in taken if one.value.stream_id == room] == [
            one for one in messages if one.value.stream_id == room
        ]


def test_a_piece_waits_for_the_one_before_it_but_not_for_other_streams() -> None:
    silent, first, second, last, other = (message(0, sound) for sound in (False, True, True, False, True))
    other.value.stream_id = "room-1"
    inbox = deque([silent, first, second, last, other])
    assert [next_pieces(inbox, 4) for _ in range(3)] == [[silent, first, other], [second], [last]]
