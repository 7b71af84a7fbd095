"""The transcribe role: `live_speech` to `live_keywords`, in order per stream."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator

from cope.keywords import Vocabulary
from topology import metrics
from topology.delivery import Message
from topology.errors import BadInput, UserError, record_fault
from topology.language import primary_tag
from topology.records import Keywords, Speech
from topology.topic_log import end_offsets, read_partition
from topology.topics import LIVE_KEYWORDS, LIVE_SPEECH, PRODUCT_PAGES
from topology.worker import Worker
from workers.transcribe.catalogue import CatalogueWords
from workers.transcribe.language import Streams
from workers.transcribe.recognizer import SAMPLE_RATE, Recognizer
from workers.transcribe.transcriber import Transcriber, progress

_log = logging.getLogger(__name__)

# Pieces at hand, of all streams: a partition's records come in runs of one stream, and each of its pieces needs the
# language of those before it. 128 kB each.
_MOST_WAITING = 64


def build(worker: Worker, recognizer: Recognizer | None = None) -> None:
    """Registers the transcribe role.

    Args:
        worker: Gets the agent.
        recognizer: Used in the worker's model thread; None: load the model of the settings at the start.
    """
    Transcribe(worker, recognizer).register()


class Transcribe:
    """Answers each piece of speech with its keywords. Pieces of several streams go through the model together."""

    def __init__(self, worker: Worker, recognizer: Recognizer | None = None) -> None:
        self._worker = worker
        self._recognizer = recognizer
        self._vocabulary = Vocabulary()
        self._words = CatalogueWords(worker.settings, self._vocabulary, worker.in_executor)
        self._transcriber: Transcriber | None = None
        self._streams: dict[int, Streams] = {}
        self._inbox: deque[Message[Speech]] = deque()
        self._changed = asyncio.Condition()

    def register(self) -> None:
        """Hooks itself into the worker."""
        self._worker.on_start(self._start)
        self._worker.on_stop(self._words.stop)
        self._worker.background(self._words.wait)
        self._worker.background(self._work)
        self._worker.delivery.on_assigned(self._read_back)
        self._worker.delivery.on_revoked(self._forget)
        self._worker.delivery.agent(LIVE_SPEECH, Speech, self._take)

    async def _start(self) -> None:
        settings = self._worker.settings
        if self._recognizer is None:
            # Imported here: the speech model's libraries take seconds to load, and no other role needs them.
            from workers.transcribe.whisper import open_recognizer

            self._recognizer = await self._worker.in_executor(open_recognizer, settings)
        default = primary_tag(settings.default_language)
        if default and default not in self._recognizer.languages:
            raise UserError(
                f"COPE_DEFAULT_LANGUAGE is {settings.default_language}, which the speech model does not know: "
                "name another (en, zh, ...), or leave it empty to detect the language"
            )
        self._transcriber = Transcriber(self._recognizer, self._vocabulary, default)
        await self._words.start()

    async def _read_back(self, topic: str, partition: int) -> None:
        """Learns from the answers in the log how far each stream of the partition is, and in what language."""
        if topic != LIVE_SPEECH:
            return
        streams = Streams()
        async for record in read_partition(self._worker.settings, LIVE_KEYWORDS, partition, Keywords):
            if record.value is not None:
                streams.note(record.value)
        self._streams[partition] = streams

    def _forget(self, topic: str, partition: int) -> None:
        if topic == LIVE_SPEECH:
            self._streams.pop(partition, None)

    async def _take(self, messages: AsyncIterator[Message[Speech]]) -> None:
        async for message in messages:
            async with self._changed:
                self._inbox.append(message)
                self._changed.notify_all()
                await self._changed.wait_for(lambda: len(self._inbox) < _MOST_WAITING)

    async def _work(self) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._inbox))
                batch = next_pieces(self._inbox, self._ready().at_once)
                self._changed.notify_all()
            batch = [message for message in batch if self._is_open(message)]
            if any(map(self._is_first, batch)):
                # Pages published before a stream begins are known when its first words come.
                await self._words.reach(await end_offsets(self._worker.settings, PRODUCT_PAGES))
            await self._answer(batch)

    def _is_open(self, message: Message[Speech]) -> bool:
        """Returns whether a piece waits for its answer; acks one that comes again."""
        speech, streams = message.value, self._streams.get(message.partition)
        if message.revoked or streams is None:
            return False
        if streams.is_answered(speech.stream_id, speech.epoch, speech.start_ms, speech.end_of_epoch):
            message.done()
            return False
        return True

    def _is_first(self, message: Message[Speech]) -> bool:
        """Returns whether nothing of the piece's epoch was answered yet."""
        streams = self._streams.get(message.partition)
        return streams is not None and streams.is_new(message.value.stream_id, message.value.epoch)

    async def _answer(self, batch: list[Message[Speech]]) -> None:
        """Answers pieces, in their order."""
        if not batch:
            return
        pieces = [(one.value, self._settled(one.value, one.partition)) for one in batch]
        began = time.monotonic()
        answers = await self._worker.in_executor(self._ready().transcribe, pieces)
        answered = zip(pieces, answers, strict=True)
        heard = [one for (one, _), answer in answered if one.audio and isinstance(answer, Keywords)]
        self._measure(heard, time.monotonic() - began)
        for message, answer in zip(batch, answers, strict=True):
            try:
                await self._send(message, answer)
            except Exception as error:  # noqa: BLE001 - whatever this record holds, the next one is heard
                speech = message.value
                await message.dead_letter(record_fault(error, f"speech of {speech.stream_id} at {speech.start_ms} ms"))

    async def _send(self, message: Message[Speech], answer: Keywords | BadInput) -> None:
        if not self._is_open(message):  # its partition was taken away meanwhile, or it is twice in the batch
            return
        speech = message.value
        if isinstance(answer, BadInput):
            # Windows wait for this stretch: say that it has passed, without words.
            known = self._ready().language_of(speech) or self._settled(speech, message.partition)
            sent = progress(speech, known)
        else:
            sent = answer
        await self._worker.delivery.send(LIVE_KEYWORDS, speech.stream_id, sent)
        if message.partition in self._streams:
            self._streams[message.partition].note(sent)
        if isinstance(answer, BadInput):
            await message.dead_letter(answer)
        else:
            message.done()

    def _settled(self, speech: Speech, partition: int) -> str | None:
        streams = self._streams.get(partition)
        return None if streams is None else streams.settled(speech.stream_id, speech.epoch)

    def _measure(self, heard: list[Speech], seconds: float) -> None:
        if not heard:
            return
        heard_s = sum(len(speech.audio) for speech in heard) / (2 * SAMPLE_RATE)
        metrics.BATCH_SIZE.labels("speech").observe(len(heard))
        metrics.STAGE_SECONDS.labels("transcribe").observe(seconds)
        metrics.SPEECH_SECONDS.inc(heard_s)
        metrics.ASR_REAL_TIME_FACTOR.observe(seconds / heard_s)

    def _ready(self) -> Transcriber:
        assert self._transcriber is not None  # noqa: S101 - set before the agents start
        return self._transcriber


def next_pieces(inbox: deque[Message[Speech]], most: int) -> list[Message[Speech]]:
    """Takes out the pieces to answer next: at most `most` with sound, one of each stream, and the silent ones before.

    The language that is heard in a piece may settle that of the stream's next one. An announced language is that of all
    pieces of an epoch.
    """
    taken: list[Message[Speech]] = []
    left: list[Message[Speech]] = []
    heard: set[str] = set()
    for message in inbox:
        speech = message.value
        if speech.stream_id in heard or len(heard) == most:
            left.append(message)
            continue
        taken.append(message)
        if speech.audio:
            heard.add(speech.stream_id)
    inbox.clear()
    inbox.extend(left)
    return taken
