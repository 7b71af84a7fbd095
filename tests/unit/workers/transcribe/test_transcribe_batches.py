"""Which pieces of speech go through the model together, and what becomes of them when their partition is taken away."""

import asyncio
import threading
from collections import deque
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fuzz.memory_flow import SETTINGS, MemoryDelivery, run_role
from topology import topics
from topology.codec import encode_value
from topology.message import Partition
from topology.records import Speech
from topology.worker import Worker
from workers.transcribe.agent import Transcribe, next_pieces
from workers.transcribe.language import Streams
from workers.transcribe.recognizer import Audio, MemoryRecognizer, Transcript


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


class NoPages:
    """A catalogue that is known, and empty."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def wait(self) -> None: ...

    async def reach(self, _: object) -> None: ...


def test_pieces_whose_partition_is_taken_away_are_answered_by_its_next_owner_only(monkeypatch: Any) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def listen(_audio: Audio, _language: str | None) -> Transcript:
        begun.set()
        go_on.wait(30)
        return Transcript("a red teapot", "en", 1.0, 0.9)

    async def no_ends(*_: object) -> dict[int, int]:
        return {}

    monkeypatch.setattr("workers.transcribe.agent.end_offsets", no_ends)
    roles: list[Transcribe] = []

    def build(worker: Worker) -> None:
        role = Transcribe(worker, MemoryRecognizer(listen))
        role._words = NoPages()  # type: ignore[assignment]
        role.register()
        role._streams[0] = Streams()
        roles.append(role)

    async def give(delivery: MemoryDelivery, rooms: list[str]) -> None:
        for room in rooms:
            speech = Speech(stream_id=room, epoch=0, start_ms=0, end_ms=100, captured_at_ms=0, audio=bytes(3_200))
            await delivery.give(topics.LIVE_SPEECH, room.encode(), encode_value(speech)[0])

    async def feed(delivery: MemoryDelivery) -> None:
        await give(delivery, ["one"])
        await asyncio.to_thread(begun.wait, 30)
        await give(delivery, ["one", "two"])  # wait while the first is in the model
        delivery._logs[topics.LIVE_SPEECH].revoked = True
        roles[0]._forget(topics.LIVE_SPEECH, 0)
        delivery._logs[topics.LIVE_SPEECH] = Partition(topics.LIVE_SPEECH, 0)
        roles[0]._streams[0] = Streams()
        go_on.set()
        await give(delivery, ["three"])
        await delivery.until_done(topics.LIVE_SPEECH)
        assert [one.stream_id for one in delivery.sent[topics.LIVE_KEYWORDS]] == ["three"]
        await give(delivery, ["one", "two"])
        await delivery.until_done(topics.LIVE_SPEECH)
        assert sorted(one.stream_id for one in delivery.sent[topics.LIVE_KEYWORDS]) == ["one", "three", "two"]

    asyncio.run(run_role(Worker("transcribe", SETTINGS, serve_http=False), build, feed))
