"""The transcribe role: `live_speech` to `live_keywords`, in order per stream."""

import logging
import time
from collections.abc import AsyncIterator

from cope.keywords import Vocabulary
from topology import metrics
from topology.delivery import Message
from topology.errors import BadInput, UserError, is_out_of_memory, record_fault
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


def build(worker: Worker, recognizer: Recognizer | None = None) -> None:
    """Registers the transcribe role.

    Args:
        worker: Gets the agent.
        recognizer: Used in the worker's model thread; None: load the model of the settings at the start.
    """
    Transcribe(worker, recognizer).register()


class Transcribe:
    """Answers each piece of speech with its keywords."""

    def __init__(self, worker: Worker, recognizer: Recognizer | None = None) -> None:
        self._worker = worker
        self._recognizer = recognizer
        self._vocabulary = Vocabulary()
        self._words = CatalogueWords(worker.settings, self._vocabulary, worker.in_executor)
        self._transcriber: Transcriber | None = None
        self._streams: dict[int, Streams] = {}

    def register(self) -> None:
        """Hooks itself into the worker."""
        self._worker.on_start(self._start)
        self._worker.on_stop(self._words.stop)
        self._worker.background(self._words.wait)
        self._worker.delivery.on_assigned(self._read_back)
        self._worker.delivery.on_revoked(self._forget)
        self._worker.delivery.agent(LIVE_SPEECH, Speech, self._work)

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

    async def _work(self, messages: AsyncIterator[Message[Speech]]) -> None:
        async for message in messages:
            speech, streams = message.value, self._streams.get(message.partition)
            if message.revoked or streams is None:
                continue
            if streams.is_answered(speech.stream_id, speech.epoch, speech.start_ms, speech.end_of_epoch):
                message.done()
                continue
            if streams.is_new(speech.stream_id, speech.epoch):
                # Pages published before a stream begins are known when its first words come.
                await self._words.reach(await end_offsets(self._worker.settings, PRODUCT_PAGES))
            try:
                await self._answer(message, streams)
            except Exception as error:  # noqa: BLE001 - whatever this record holds, the next one is heard
                await message.dead_letter(record_fault(error, f"speech of {speech.stream_id} at {speech.start_ms} ms"))

    async def _answer(self, message: Message[Speech], streams: Streams) -> None:
        speech = message.value
        settled = streams.settled(speech.stream_id, speech.epoch)
        bad: BadInput | None = None
        began = time.monotonic()
        try:
            answer = await self._worker.in_executor(self._ready().transcribe, speech, settled)
        except BadInput as error:
            bad = error
        except Exception as error:
            if is_out_of_memory(error):
                raise
            bad = BadInput(
                f"speech of {speech.stream_id} at {speech.epoch}/{speech.start_ms} ms fails in the model "
                f"({type(error).__name__}: {error})"
            )
        if bad is not None:
            # Windows wait for this stretch: say that it has passed, without words.
            answer = progress(speech, self._ready().language_of(speech) or settled)
        elif speech.audio:
            self._measure(speech, time.monotonic() - began)
        if message.revoked:
            return
        await self._worker.delivery.send(LIVE_KEYWORDS, speech.stream_id, answer)
        streams.note(answer)
        if bad is not None:
            await message.dead_letter(bad)
        else:
            message.done()

    def _measure(self, speech: Speech, seconds: float) -> None:
        heard_s = len(speech.audio) / (2 * SAMPLE_RATE)
        metrics.STAGE_SECONDS.labels("transcribe").observe(seconds)
        metrics.SPEECH_SECONDS.inc(heard_s)
        metrics.ASR_REAL_TIME_FACTOR.observe(seconds / heard_s)

    def _ready(self) -> Transcriber:
        assert self._transcriber is not None  # noqa: S101 - set before the agents start
        return self._transcriber
