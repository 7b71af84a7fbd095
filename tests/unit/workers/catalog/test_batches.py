"""Batches of whatever has come in."""

import asyncio

import pytest

from workers.catalog.agent import batches, in_parts


async def counting(count, gate=None):
    for number in range(count):
        if gate is not None and number == 1:
            await gate.wait()
        yield number


async def test_what_is_there_is_taken_together_up_to_the_limit():
    assert [batch async for batch in batches(counting(5), 2, 0.5)] == [[0, 1], [2, 3], [4]]


async def test_a_lone_message_does_not_wait_for_company():
    gate = asyncio.Event()
    stream = batches(counting(3, gate), 2, 0.001)
    assert await anext(stream) == [0]
    gate.set()
    assert await anext(stream) == [1, 2]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [([], []), ([3, 3, 3], [[3, 3, 3]]), ([6, 5, 5, 4], [[6], [5, 5], [4]]), ([64, 1, 0], [[64], [1, 0]])],
)
def test_galleries_are_fetched_in_parts_of_bounded_size(sizes: list[int], parts: list[list[int]]) -> None:
    assert list(in_parts(sizes, lambda size: size, 10)) == parts
