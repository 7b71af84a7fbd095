"""Turns pieces of speech into keywords. No Kafka here."""

import logging
from collections.abc import Sequence

import numpy as np

from cope.keywords import Vocabulary
from topology.errors import BadInput, is_out_of_memory
from topology.language import primary_tag
from topology.records import Keyword, Keywords, Speech
from workers.transcribe.language import CERTAIN
from workers.transcribe.recognizer import SAMPLE_RATE, Audio, Piece, Recognizer, Transcript

_log = logging.getLogger(__name__)

_BYTES_PER_MS = SAMPLE_RATE * 2 // 1000
# Sound is cut in blocks and its times are whole milliseconds, so the two differ by less than a block.
_LENGTH_TOLERANCE_MS = 300
_LONGEST_MS = 30_000  # what Whisper takes in at once


class Transcriber:
    """Speech to text to keywords.

    Args:
        recognizer: Turns sound into text.
        vocabulary: The catalogue's words; may change between calls.
        default_language: Language of speech that names none; empty: detect it.
    """

    def __init__(self, recognizer: Recognizer, vocabulary: Vocabulary, default_language: str = "") -> None:
        self._recognizer = recognizer
        self._vocabulary = vocabulary
        self._default = default_language
        self._refused: set[str] = set()

    @property
    def at_once(self) -> int:
        """How many pieces with sound are transcribed best together."""
        return self._recognizer.at_once

    def language_of(self, speech: Speech) -> str | None:
        """Returns the language that is known before listening: announced, or the default; None to detect it."""
        if not speech.language:
            return self._default or None
        announced = primary_tag(speech.language)
        if announced in self._recognizer.languages:
            return announced
        if announced not in self._refused:
            self._refused.add(announced)
            _log.warning(
                "the speech model does not know the announced language, detecting it",
                extra={"stream_id": speech.stream_id, "language": speech.language},
            )
        return self._default or None

    def transcribe(self, pieces: Sequence[tuple[Speech, str | None]]) -> list[Keywords | BadInput]:
        """Returns the answer to each piece of speech, or why it has none.

        Args:
            pieces: Each with the language detected earlier in its epoch, None if not yet.
        """
        known = [self.language_of(speech) or settled for speech, settled in pieces]
        answers: dict[int, Keywords | BadInput] = {}
        sounds: dict[int, Piece] = {}
        for number, (speech, _) in enumerate(pieces):
            if not speech.audio or speech.end_of_epoch:
                answers[number] = progress(speech, known[number])
                continue
            try:
                sounds[number] = samples(speech), known[number]
            except BadInput as error:
                answers[number] = error
        for number, heard in zip(sounds, self._hear(list(sounds.values())), strict=True):
            answers[number] = self._answer(pieces[number][0], known[number], heard)
        return [answers[number] for number in range(len(pieces))]

    def _hear(self, pieces: Sequence[Piece]) -> list[Transcript | Exception]:
        """What is said in each piece, or why the model fails on it."""
        try:
            return list(self._recognizer.transcribe(pieces))
        except Exception as error:
            if is_out_of_memory(error):
                raise
            if len(pieces) == 1:
                return [error]
        return [self._hear([piece])[0] for piece in pieces]

    def _answer(self, speech: Speech, known: str | None, heard: Transcript | Exception) -> Keywords | BadInput:
        try:
            if isinstance(heard, Exception):
                raise heard
            return self._keywords(speech, known, heard)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return BadInput(
                f"speech of {speech.stream_id} at {speech.epoch}/{speech.start_ms} ms fails in the model "
                f"({type(error).__name__}: {error})"
            )

    def _keywords(self, speech: Speech, known: str | None, transcript: Transcript) -> Keywords:
        certain = bool(transcript.text) and transcript.language_probability >= CERTAIN
        found: Sequence[tuple[str, float]] = ()
        if transcript.text:
            found = self._vocabulary.extract(transcript.text, transcript.language)
        return Keywords(
            stream_id=speech.stream_id,
            epoch=speech.epoch,
            start_ms=speech.start_ms,
            end_ms=speech.end_ms,
            captured_at_ms=speech.captured_at_ms,
            text=transcript.text,
            keywords=tuple(Keyword(text, weight) for text, weight in found),
            language=known or transcript.language,
            language_fixed=known is not None or certain,
            confidence=transcript.confidence,
        )


def progress(speech: Speech, language: str | None) -> Keywords:
    """Returns an answer without words, which says that the stream has been heard up to here.

    Args:
        language: If it is settled for the epoch.
    """
    return Keywords(
        stream_id=speech.stream_id,
        epoch=speech.epoch,
        start_ms=speech.start_ms,
        end_ms=speech.end_ms,
        captured_at_ms=speech.captured_at_ms,
        language=language,
        language_fixed=language is not None,
        end_of_epoch=speech.end_of_epoch,
    )


def samples(speech: Speech) -> Audio:
    """Returns the sound of a piece of speech, (N,), values in [-1, 1].

    Raises:
        BadInput: It is not 16-bit PCM of the length that its times say.
    """
    where = f"speech of {speech.stream_id} at {speech.epoch}/{speech.start_ms} ms"
    if len(speech.audio) % 2:
        raise BadInput(f"{where} has {len(speech.audio)} bytes, which is not 16-bit PCM: send s16le, mono, 16 kHz")
    told_ms = speech.end_ms - speech.start_ms
    held_ms = len(speech.audio) // _BYTES_PER_MS
    if held_ms > _LONGEST_MS or abs(held_ms - told_ms) > _LENGTH_TOLERANCE_MS:
        raise BadInput(
            f"{where} holds {held_ms} ms of sound for {told_ms} ms of media time: send 16 kHz mono, "
            f"at most {_LONGEST_MS // 1000} s a record"
        )
    return np.frombuffer(speech.audio, "<i2").astype(np.float32) / np.float32(32_768)
