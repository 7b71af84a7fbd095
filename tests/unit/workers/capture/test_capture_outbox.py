import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.records import Frame, Speech
from workers.capture.outbox import Backlog, Closed, Outbox


def frame(pts_ms: int, *, end: bool = False) -> Frame:
    return Frame(stream_id="s", epoch=0, pts_ms=pts_ms, captured_at_ms=0, jpeg=b"x", end_of_epoch=end)


def speech(start_ms: int, *, audio: bytes = b"", end: bool = False) -> Speech:
    return Speech(
        stream_id="s", epoch=0, start_ms=start_ms, end_ms=start_ms + 10, captured_at_ms=0, audio=audio, end_of_epoch=end
    )


def drain(backlog: Backlog) -> list[object]:
    return [backlog.pop() for _ in range(len(backlog))]


def test_the_oldest_frames_are_dropped_first() -> None:
    backlog = Backlog(3)
    for record in (speech(0, audio=b"a"), frame(1), frame(2), frame(3), frame(4)):
        backlog.push(record)
    left = drain(backlog)
    assert [r.pts_ms for r in left if isinstance(r, Frame)] == [3, 4]
    assert isinstance(left[0], Speech) and left[0].audio == b"a"


@given(st.lists(st.sampled_from(["frame", "speech", "silence"]), max_size=80), st.integers(4, 12))
def test_an_overrun_loses_frames_and_sound_but_no_stretch_and_no_end(kinds: list[str], capacity: int) -> None:
    backlog = Backlog(capacity)
    time = 0
    for index, kind in enumerate(kinds):
        if kind == "frame":
            backlog.push(frame(index))
        else:
            backlog.push(speech(time, audio=b"a" if kind == "speech" else b""))
            time += 10
        assert len(backlog) <= capacity
    backlog.push(frame(len(kinds), end=True))
    backlog.push(speech(time, end=True))
    left = drain(backlog)
    stretches = [r for r in left if isinstance(r, Speech) and not r.end_of_epoch]
    edges = [0, *(s.end_ms for s in stretches)]
    assert [s.start_ms for s in stretches] == edges[:-1]
    assert edges[-1] == time
    assert [r.end_of_epoch for r in left if isinstance(r, Frame | Speech)][-2:] == [True, True]
    frames = [r.pts_ms for r in left if isinstance(r, Frame)]
    assert frames == sorted(frames)


async def test_a_thread_waits_for_room_and_all_arrives_in_order() -> None:
    outbox: Outbox[int] = Outbox(asyncio.get_running_loop(), 4)

    def produce() -> None:
        for number in range(100):
            outbox.put(number)
        outbox.end()

    threading.Thread(target=produce, daemon=True).start()
    got = []
    while (item := await outbox.get()) is not None:
        got.append(item)
    assert got == list(range(100))


async def test_a_threads_error_is_raised_after_what_it_had_put() -> None:
    outbox: Outbox[int] = Outbox(asyncio.get_running_loop(), 4)
    outbox.put(1)
    outbox.end(ValueError("broken"))
    assert await outbox.get() == 1
    with pytest.raises(ValueError, match="broken"):
        await outbox.get()


async def test_a_waiting_thread_is_released_when_the_task_leaves() -> None:
    outbox: Outbox[int] = Outbox(asyncio.get_running_loop(), 1)
    released = threading.Event()

    def produce() -> None:
        try:
            while True:
                outbox.put(1)
        except Closed:
            released.set()

    threading.Thread(target=produce, daemon=True).start()
    assert await outbox.get() == 1
    outbox.leave()
    assert await asyncio.to_thread(released.wait, 5)
