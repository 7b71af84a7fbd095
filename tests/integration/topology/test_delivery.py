"""What a handler is promised: each record in order, once, and acked only when it says so."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest

from topology import topics
from topology.admin import create_topics
from topology.codec import encode_value
from topology.delivery import Message
from topology.errors import BadInput
from topology.records import SCHEMA_VERSION, Frame, StreamAnnounced
from topology.settings import Settings
from topology.topic_log import Producer, end_offsets, read_raw
from topology.topics import dead_letter
from topology.worker import Worker


class Collector:
    """A handler that keeps its messages and ends those that the test wants."""

    def __init__(self, worker: Worker, done=lambda message: True) -> None:
        self.messages: list[Message[Frame]] = []
        self._done = done
        worker.delivery.agent(topics.LIVE_FRAMES, Frame, self.handle)

    async def handle(self, messages: AsyncIterator[Message[Frame]]) -> None:
        async for message in messages:
            self.messages.append(message)
            if self._done(message):
                message.done()

    @property
    def times(self) -> list[int]:
        return [message.value.pts_ms for message in self.messages]


async def dead_letters(settings: Settings, topic: str) -> list:
    queue = dead_letter(topic)
    ends = await end_offsets(settings, queue)
    return [m for partition, end in ends.items() async for m in read_raw(settings, queue, partition, 0, end)]


async def test_records_of_a_partition_come_in_order_with_the_time_of_the_log(
    any_broker, running, until, send_frames
) -> None:
    worker = Worker("embed", any_broker)
    collector = Collector(worker)
    before = time.time() * 1000
    async with running(worker):
        await send_frames(any_broker, range(60))
        await until(lambda: len(collector.messages) >= 60)
    by_partition = defaultdict(list)
    for message in collector.messages:
        by_partition[message.partition].append(message)
        assert before - 1000 < message.log_ms < time.time() * 1000 + 1000
        assert message.topic == "live_frames"
        assert message.key == message.value.stream_id
    for messages in by_partition.values():
        assert [m.offset for m in messages] == list(range(len(messages)))
    assert sorted(collector.times) == list(range(60))


async def test_what_was_done_is_not_read_again_and_what_was_open_is(broker, running, until, send_frames) -> None:
    """Records 0..19 of one stream; 7 stays open, so reading begins there again."""
    worker = Worker("embed", broker)
    collector = Collector(worker, done=lambda message: message.value.pts_ms != 42)
    async with running(worker):
        await send_frames(broker, range(0, 120, 6))  # all of room-0
        await until(lambda: len(collector.messages) == 20)
    again = Worker("embed", broker)
    collected_again = Collector(again)
    async with running(again):
        await until(lambda: len(collected_again.messages) == 13)
    assert collected_again.times == list(range(42, 120, 6))
    once_more = Worker("embed", broker)
    collected_once_more = Collector(once_more)
    async with running(once_more):
        await send_frames(broker, range(120, 126, 6))
        await until(lambda: bool(collected_once_more.messages))
    assert collected_once_more.times == [120]


async def test_bad_records_are_dead_lettered_with_their_cause_and_the_stream_goes_on(
    any_broker, running, until, frame
) -> None:
    worker = Worker("embed", any_broker)
    seen: list[int] = []

    async def handle(messages: AsyncIterator[Message[Frame]]) -> None:
        async for message in messages:
            if message.value.pts_ms == 13:
                await message.dead_letter(BadInput("not a JPEG"), attempts=3)
                continue
            seen.append(message.value.pts_ms)
            message.done()

    worker.delivery.agent(topics.LIVE_FRAMES, Frame, handle)
    newer = encode_value(Frame(stream_id="s", epoch=0, pts_ms=0, captured_at_ms=0, v=SCHEMA_VERSION + 1))[0]
    async with running(worker):
        async with Producer(any_broker) as producer:
            await producer.send_raw(topics.LIVE_FRAMES, b"s", b"\xc1 junk", [])
            await producer.send_raw(topics.LIVE_FRAMES, b"s", newer, [])
            await producer.send_raw(topics.LIVE_FRAMES, b"s", None, [])
            await producer.send(topics.LIVE_FRAMES, "s", frame(13))
            await producer.send(topics.LIVE_FRAMES, "s", frame(14))
        await until(lambda: seen == [14])
        assert worker.delivery.failure is None
    letters = await dead_letters(any_broker, topics.LIVE_FRAMES)
    headers = [{name: value.decode() for name, value in letter.headers} for letter in letters]
    assert [letter.value for letter in letters[:2]] == [b"\xc1 junk", newer]
    assert letters[2].value is None
    assert [h["error"] for h in headers] == ["BadInput", "NewerSchema", "BadInput", "BadInput"]
    assert {h["topic"] for h in headers} == {"live_frames"}
    assert [h["offset"] for h in headers] == ["0", "1", "2", "3"]
    assert [h["attempts"] for h in headers] == ["1", "1", "1", "3"]
    assert headers[3]["message"] == "not a JPEG"
    again = Worker("embed", any_broker)
    collector = Collector(again)
    async with running(again):
        async with Producer(any_broker) as producer:
            await producer.send(topics.LIVE_FRAMES, "s", frame(15))
        await until(lambda: bool(collector.messages))
    assert collector.times == [15], "dead letters are acked"


async def test_tombstones_reach_agents_that_take_them(broker, running, until) -> None:
    worker = Worker("capture", broker)
    values: list[StreamAnnounced | None] = []

    async def handle(messages: AsyncIterator[Message[StreamAnnounced]]) -> None:
        async for message in messages:
            values.append(message.value)
            message.done()

    worker.delivery.agent(topics.LIVE_STREAMS, StreamAnnounced, handle, tombstones=True)
    async with running(worker):
        await worker.delivery.send(topics.LIVE_STREAMS, "s", StreamAnnounced(stream_id="s", url="a.mp4"))
        await worker.delivery.send(topics.LIVE_STREAMS, "s", None)
        await until(lambda: len(values) == 2)
    assert values == [StreamAnnounced(stream_id="s", url="a.mp4"), None]


async def test_a_handler_that_raises_stops_the_worker_and_acks_nothing(broker, running, until, send_frames) -> None:
    worker = Worker("embed", broker)

    async def handle(messages: AsyncIterator[Message[Frame]]) -> None:
        async for message in messages:
            if message.value.pts_ms == 6:
                raise ZeroDivisionError("a bug")
            message.done()

    worker.delivery.agent(topics.LIVE_FRAMES, Frame, handle)
    async with running(worker):
        await send_frames(broker, range(0, 18, 6))
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(worker.wait_failed(), 30)
        assert "a bug" in worker.health.report()["consumer"]
    again = Worker("embed", broker)
    collector = Collector(again)
    async with running(again):
        await until(lambda: len(collector.messages) >= 2)
    assert collector.times == [6, 12]


async def test_hooks_of_a_partition_run_before_its_first_record(broker, running, until, send_frames) -> None:
    await create_topics(broker)
    await send_frames(broker, range(6))
    worker = Worker("embed", broker)
    events: list[tuple[str, int]] = []

    async def restore(topic: str, partition: int) -> None:
        assert topic == "live_frames"
        await asyncio.sleep(0.3)
        events.append(("restored", partition))

    async def handle(messages: AsyncIterator[Message[Frame]]) -> None:
        async for message in messages:
            events.append(("record", message.partition))
            message.done()

    worker.delivery.on_assigned(restore)
    worker.delivery.agent(topics.LIVE_FRAMES, Frame, handle)
    async with running(worker):
        await until(lambda: sum(kind == "record" for kind, _ in events) == 6)
        assert worker.delivery.assigned("live_frames") == [0, 1, 2]
    for partition in {partition for _, partition in events}:
        own = [kind for kind, of in events if of == partition]
        assert own[0] == "restored"
        assert own.count("restored") == 1


async def test_two_workers_share_the_partitions_and_one_takes_over(any_broker, running, until, send_frames) -> None:
    first = Worker("embed", any_broker)
    collected_first = Collector(first, done=lambda message: False)
    revoked: list[int] = []
    first.delivery.on_revoked(lambda topic, partition: revoked.append(partition))
    async with running(first):
        await send_frames(any_broker, range(12))
        await until(lambda: len(collected_first.messages) == 12)
        second = Worker("embed", any_broker)
        collected_second = Collector(second)
        async with running(second):
            await until(
                lambda: (
                    sorted(first.delivery.assigned("live_frames") + second.delivery.assigned("live_frames"))
                    == [0, 1, 2]
                    and 0 < len(second.delivery.assigned("live_frames")) < 3
                )
            )
            assert sorted(revoked) == [0, 1, 2], "the eager protocol takes all away"
            taken_over = second.delivery.assigned("live_frames")
            old = [message for message in collected_first.messages[:12] if message.partition in taken_over]
            assert all(message.revoked for message in old)
            for message in old:
                message.done()  # too late: it must not ack what the other worker has now
            expected = {message.offset for message in old}
            await until(lambda: {m.offset for m in collected_second.messages} >= expected)
        await until(lambda: first.delivery.assigned("live_frames") == [0, 1, 2])
        await send_frames(any_broker, range(100, 112))
        await until(lambda: set(collected_first.times) >= set(range(100, 112)))


async def test_a_record_that_is_too_large_is_bad_input(broker, running) -> None:
    await create_topics(broker)
    record = Frame(stream_id="s", epoch=0, pts_ms=0, captured_at_ms=0, jpeg=b"x" * 4_200_000)
    async with Producer(broker) as producer:
        with pytest.raises(BadInput, match="live_frames takes"):
            await producer.send(topics.LIVE_FRAMES, "s", record)


async def test_large_records_come_through(any_broker, running, until) -> None:
    worker = Worker("embed", any_broker)
    collector = Collector(worker)
    async with running(worker):
        for pts_ms in range(5):
            record = Frame(stream_id="s", epoch=0, pts_ms=pts_ms, captured_at_ms=0, jpeg=b"x" * 4_000_000)
            await worker.delivery.send(topics.LIVE_FRAMES, "s", record)
        await until(lambda: collector.times == [0, 1, 2, 3, 4])


async def test_a_slow_topic_does_not_hold_up_another(broker, running, until) -> None:
    """A handler that takes nothing fills its buffer; the other handler's records must still come."""
    worker = Worker("embed", broker)
    collector = Collector(worker)

    async def stuck(messages: AsyncIterator[Message[StreamAnnounced]]) -> None:
        async for _ in messages:
            await asyncio.Event().wait()

    worker.delivery.agent(topics.LIVE_STREAMS, StreamAnnounced, stuck)
    async with running(worker), Producer(broker) as producer:
        await asyncio.gather(
            *(producer.send(topics.LIVE_STREAMS, "s", StreamAnnounced(stream_id="s", url="a.mp4")) for _ in range(2000))
        )
        record = Frame(stream_id="s", epoch=0, pts_ms=1, captured_at_ms=0)
        await producer.send(topics.LIVE_FRAMES, "s", record)
        await until(lambda: collector.times == [1])


@pytest.mark.parametrize("left_out", [7, 20], ids=["some", "the last"])
async def test_records_that_faust_leaves_out_are_delivered_all_the_same(
    any_broker, running, until, send_frames, left_out: int
) -> None:
    """Faust drops records below its own read offset, and sets that wrongly at times (faust-streaming 596, 606)."""
    worker = Worker("embed", any_broker)
    collector = Collector(worker)
    async with running(worker):
        await until(lambda: worker.delivery.assigned("live_frames") == [0, 1, 2])
        for tp in worker.app.consumer.assignment():
            worker.app.consumer._read_offset[tp] = left_out
        await send_frames(any_broker, range(0, 120, 6))
        await until(lambda: collector.times == list(range(0, 120, 6)))
        await worker.delivery.commit()
    again = Worker("embed", any_broker)
    collected_again = Collector(again)
    async with running(again):
        await send_frames(any_broker, range(120, 126, 6))
        await until(lambda: bool(collected_again.messages))
    assert collected_again.times == [120]
