"""The ring behind the change feed."""

import asyncio

import pytest

from workers.monitor.feed import Feed, TooOldError, message


def numbers(changes):
    return [int(change.split(b"data: ")[1]) for change in changes]


async def test_a_reader_gets_all_changes_once_and_in_order():
    feed = Feed()
    position, got = feed.end, []
    for number in range(600):
        feed.publish("stream", str(number).encode())
    while position < feed.end:
        changes = await feed.after(position)
        position += len(changes)
        got += numbers(changes)
    assert got == list(range(600))


async def test_a_reader_waits_for_a_change():
    feed = Feed()
    waiting = asyncio.create_task(feed.after(feed.end))
    await asyncio.sleep(0)
    assert not waiting.done()
    feed.publish("detection", b"7")
    assert await waiting == [message("detection", feed.last_id, b"7")]


async def test_reading_goes_on_after_an_id():
    feed = Feed()
    for number in range(3):
        feed.publish("stream", str(number).encode())
    first = (await feed.after(0))[0].split(b"\n")[0].removeprefix(b"id: ").decode()
    assert numbers(await feed.after(feed.position(first))) == [1, 2]
    assert feed.position(feed.last_id) == feed.end


async def test_ids_whose_changes_are_gone_or_never_were_give_no_position():
    feed = Feed(capacity=4)
    for number in range(10):
        feed.publish("stream", str(number).encode())
    process = feed.last_id.partition("-")[0]
    assert feed.position(f"{process}-5") is None
    assert numbers(await feed.after(feed.position(f"{process}-6"))) == [6, 7, 8, 9]
    for strange in (f"{process}-11", f"{process}-", f"{process}--6", f"{process}-six", "6", "", Feed().last_id):
        assert feed.position(strange) is None


async def test_a_reader_that_the_ring_has_run_over_is_told():
    feed = Feed(capacity=4)
    for number in range(5):
        feed.publish("stream", str(number).encode())
    with pytest.raises(TooOldError):
        await feed.after(0)


async def test_closing_ends_all_readers():
    feed = Feed()
    waiting = [asyncio.create_task(feed.after(feed.end)) for _ in range(3)]
    await asyncio.sleep(0)
    feed.close()
    assert await asyncio.gather(*waiting) == [[], [], []]
