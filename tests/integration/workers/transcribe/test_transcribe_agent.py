"""The transcribe role on a broker, with a recognizer in memory: order, progress, bad input, restart, catalogue."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest

from topology import topics
from topology.errors import UserError
from topology.records import Keywords, PageImage, ProductPage, Speech
from topology.settings import Settings
from topology.topic_log import Follower, Producer, read_partition
from topology.worker import Worker
from workers.transcribe.agent import build
from workers.transcribe.recognizer import Audio, MemoryRecognizer, Piece, Transcript

ANSWER_TIMEOUT_S = 150.0


def speech(start_ms: int, level: int = 0, stream_id: str = "room-1", **fields: object) -> Speech:
    """A second of speech, told by its level; silence without one."""
    audio = np.full(16_000, level, "<i2").tobytes() if level else b""
    values = {"epoch": 0, "end_ms": start_ms + 1000, "captured_at_ms": 1, "audio": audio} | fields
    return Speech(stream_id=stream_id, start_ms=start_ms, **values)  # type: ignore[arg-type]


def page(product_id: str, title: str) -> ProductPage:
    return ProductPage(product_id=product_id, title=title, images=(PageImage(uri="none.png"),))


def recognizer(
    says: dict[int, str], language: str = "en", probability: Callable[[int], float] = lambda level: 0.9
) -> MemoryRecognizer:
    """Knows what each level says; language detection gives `language`."""

    def listen(audio: Audio, asked: str | None) -> Transcript:
        level = round(float(audio[0]) * 32_768)
        if level not in says:
            raise RuntimeError("the model has failed")
        known = 1.0 if asked else probability(level)
        return Transcript(says[level] + (f" in {asked}" if asked else ""), asked or language, known, 0.9)

    return MemoryRecognizer(listen)


@asynccontextmanager
async def transcribing(settings: Settings, recognizer: MemoryRecognizer) -> AsyncIterator[Worker]:
    worker = Worker("transcribe", settings, serve_http=False)
    build(worker, recognizer=recognizer)
    try:
        await worker.start()
        yield worker
    finally:
        await worker.stop()


async def send(settings: Settings, topic: str, *records: Speech | ProductPage) -> None:
    async with Producer(settings) as producer:
        for record in records:
            key = record.stream_id if isinstance(record, Speech) else record.product_id
            await producer.send(topic, key, record)


async def answers(settings: Settings, count: int) -> list[Keywords]:
    """Waits for so many answers and returns them."""
    found: list[Keywords] = []
    follower = Follower(settings, topics.LIVE_KEYWORDS, Keywords)
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        async for record in follower:
            assert record.value is not None
            found.append(record.value)
            if len(found) == count:
                follower.stop()
    return found


async def all_answers(settings: Settings) -> list[Keywords]:
    found = []
    for partition in range(settings.stream_partitions):
        async for record in read_partition(settings, topics.LIVE_KEYWORDS, partition, Keywords):
            assert record.value is not None
            found.append(record.value)
    return found


async def test_speech_becomes_keywords_of_the_catalogue_and_silence_progress(broker: Settings) -> None:
    says = {100: "this is the apple juice", 200: "hello everybody"}
    async with transcribing(broker, recognizer(says)):
        await send(broker, topics.PRODUCT_PAGES, page("p-1", "Apple Juice"), page("p-2", "Carrot Juice"))
        await send(
            broker,
            topics.LIVE_SPEECH,
            speech(0, 100),
            speech(1000),
            speech(2000, 200),
            speech(3000, end_of_epoch=True, end_ms=3000),
        )
        found = await answers(broker, 4)
    assert [(answer.start_ms, answer.end_ms) for answer in found] == [
        (0, 1000),
        (1000, 2000),
        (2000, 3000),
        (3000, 3000),
    ]
    assert found[0].text == "this is the apple juice"
    assert found[0].keywords[0].text == "Apple Juice"
    assert found[1].text == "" and found[1].keywords == ()
    assert found[2].keywords == ()
    assert [answer.end_of_epoch for answer in found] == [False, False, False, True]


async def test_bad_audio_and_a_failing_model_are_dead_lettered_and_the_stream_goes_on(broker: Settings) -> None:
    says = {100: "apple"}
    odd = speech(0, audio=b"\x01\x02\x03")
    long = speech(1000, audio=bytes(100_000))
    failing = speech(2000, 999)
    async with transcribing(broker, recognizer(says)):
        await send(broker, topics.LIVE_SPEECH, odd, long, failing, speech(3000, 100))
        found = await answers(broker, 4)
        dead = Follower(broker, topics.dead_letter(topics.LIVE_SPEECH), Speech)
        letters = []
        async for letter in dead:
            letters.append(letter.value)
            if len(letters) == 3:
                dead.stop()
    assert [answer.start_ms for answer in found] == [0, 1000, 2000, 3000]
    assert [answer.text for answer in found] == ["", "", "", "apple"]
    assert letters == [odd, long, failing]


async def test_a_detected_language_stays_for_the_epoch_also_over_a_restart(broker: Settings) -> None:
    says = {100: "one", 200: "two", 300: "three", 400: "four"}
    unsure_at_first = recognizer(says, "zh", lambda level: 0.5 if level == 100 else 0.95)
    async with transcribing(broker, unsure_at_first):
        await send(broker, topics.LIVE_SPEECH, speech(0, 100), speech(1000, 200), speech(2000))
        first = await answers(broker, 3)
    assert [(answer.language, answer.language_fixed) for answer in first] == [("zh", False), ("zh", True), ("zh", True)]
    async with transcribing(broker, recognizer(says, "en")):
        await send(broker, topics.LIVE_SPEECH, speech(3000, 300), speech(0, 400, epoch=1))
        second = (await answers(broker, 5))[3:]
    assert [(answer.text, answer.language) for answer in second] == [("three in zh", "zh"), ("four", "en")]


async def test_pieces_of_several_streams_are_heard_together_and_those_of_one_in_turn(broker: Settings) -> None:
    says = {100: "one", 200: "two", 300: "three"}
    batches: list[int] = []

    class Counting(MemoryRecognizer):
        def transcribe(self, pieces: Sequence[Piece]) -> list[Transcript]:
            batches.append(len(pieces))
            return super().transcribe(pieces)

    counting = Counting(recognizer(says, "zh", lambda level: 0.95)._listen)
    rooms = [f"room-{number}" for number in range(3)]
    pieces = [speech(1000 * number, level, room) for room in rooms for number, level in enumerate(says)]
    async with transcribing(broker, recognizer({})):  # makes the topics
        await send(broker, topics.LIVE_SPEECH, speech(0, stream_id="ready"))
        await answers(broker, 1)
    await send(broker, topics.LIVE_SPEECH, *pieces)
    async with transcribing(broker, counting):
        found = await answers(broker, 10)
    for room in rooms:
        texts = [answer.text for answer in found if answer.stream_id == room]
        assert texts == ["one", "two in zh", "three in zh"]
    assert sum(batches) == 9 and max(batches) > 1


async def test_an_answered_piece_that_comes_again_is_not_answered_again(broker: Settings) -> None:
    says = {100: "one", 200: "two"}
    async with transcribing(broker, recognizer(says)):
        await send(broker, topics.LIVE_SPEECH, speech(0, 100), speech(1000, 200))
        await answers(broker, 2)
    async with transcribing(broker, recognizer(says)):
        await send(broker, topics.LIVE_SPEECH, speech(0, 100), speech(1000, 200), speech(2000))
        await answers(broker, 3)
    assert [answer.start_ms for answer in await all_answers(broker)] == [0, 1000, 2000]


async def test_the_vocabulary_follows_the_catalogue(broker: Settings) -> None:
    says = {100: "apple juice and carrot juice"}
    async with transcribing(broker, recognizer(says)):
        await send(broker, topics.PRODUCT_PAGES, page("p-1", "Apple Juice"), page("p-2", "Carrot Juice"))
        await send(broker, topics.LIVE_SPEECH, speech(0, 100))
        before = (await answers(broker, 1))[0]
        async with Producer(broker) as producer:
            await producer.send(topics.PRODUCT_PAGES, "p-2", None)
        await send(broker, topics.LIVE_SPEECH, speech(0, 100, stream_id="room-2"))
        await answers(broker, 2)
        after = next(answer for answer in await all_answers(broker) if answer.stream_id == "room-2")
    assert {"Apple Juice", "Carrot Juice"} <= {keyword.text for keyword in before.keywords}
    assert "Apple Juice" in {keyword.text for keyword in after.keywords}
    assert "Carrot Juice" not in {keyword.text for keyword in after.keywords}


async def test_an_unknown_default_language_is_the_users_mistake(broker: Settings) -> None:
    settings = broker.model_copy(update={"default_language": "xx"})
    with pytest.raises(UserError, match="COPE_DEFAULT_LANGUAGE"):
        async with transcribing(settings, recognizer({})):
            pass
