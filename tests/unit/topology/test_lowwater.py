"""The low-water mark: nothing open is ever below it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.lowwater import LowWaterMark


def test_has_no_position_before_the_first_record() -> None:
    assert LowWaterMark().position is None


def test_stays_below_an_open_record_when_later_ones_are_done() -> None:
    mark = LowWaterMark()
    for offset in (5, 6, 7):
        mark.add(offset)
    mark.done(6)
    mark.done(7)
    assert mark.position == 5
    mark.done(5)
    assert mark.position == 8


def test_passes_offsets_that_do_not_exist() -> None:
    mark = LowWaterMark()
    mark.add(3)
    mark.add(9)
    mark.done(3)
    assert mark.position == 9


def test_done_twice_changes_nothing() -> None:
    mark = LowWaterMark()
    mark.add(1)
    mark.add(2)
    mark.done(2)
    mark.done(2)
    mark.done(1)
    mark.done(1)
    assert mark.position == 3


def test_refuses_a_record_that_came_before() -> None:
    mark = LowWaterMark()
    mark.add(4)
    with pytest.raises(ValueError, match="offset 4 after 4"):
        mark.add(4)


@given(st.data())
def test_position_is_the_first_open_offset_whatever_the_order(data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1, max_size=30)))
    order = data.draw(st.permutations(offsets))
    handed_out = data.draw(st.integers(1, len(offsets)))
    mark = LowWaterMark()
    for offset in offsets[:handed_out]:
        mark.add(offset)
    open_now = set(offsets[:handed_out])
    pending = iter(offsets[handed_out:])
    for offset in order:
        mark.done(offset)  # one that was not handed out yet must not count
        open_now.discard(offset)
        expected = min(open_now) if open_now else mark.position
        assert mark.position == expected
        late = next(pending, None)
        if late is not None:
            mark.add(late)
            open_now.add(late)
            assert mark.position == min(open_now)


@given(st.lists(st.integers(0, 5), max_size=200))
def test_memory_is_bounded_by_what_is_open(choices: list[int]) -> None:
    mark = LowWaterMark()
    open_now: list[int] = []
    for offset, choice in enumerate(choices):
        mark.add(offset)
        open_now.append(offset)
        while len(open_now) > 5:
            mark.done(open_now.pop(min(choice, len(open_now) - 1)))
        position = mark.position
        assert position == open_now[0]
        assert mark.open == offset + 1 - position
