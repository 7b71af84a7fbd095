"""One piece of speech to its keywords."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope.keywords import Vocabulary
from topology.errors import BadInput
from topology.records import Keywords, Speech
from workers.transcribe.recognizer import Audio, MemoryRecognizer, Transcript
from workers.transcribe.transcriber import Transcriber, samples


def speech(audio: bytes = bytes(32_000), end_ms: int = 1000, language: str | None = None, **fields: bool) -> Speech:
    return Speech(
        stream_id="room", epoch=0, start_ms=0, end_ms=end_ms, captured_at_ms=7, audio=audio, language=language, **fields
    )


def transcriber(asked: list[str | None], heard: Transcript, default: str = "") -> Transcriber:
    def listen(audio: Audio, language: str | None) -> Transcript:
        asked.append(language)
        return heard

    vocabulary = Vocabulary()
    vocabulary.add("p", "Apple Juice")
    return Transcriber(MemoryRecognizer(listen), vocabulary, default)


def answered(core: Transcriber, piece: Speech, settled: str | None = None) -> Keywords:
    (answer,) = core.transcribe([(piece, settled)])
    assert isinstance(answer, Keywords)
    return answer


def test_the_answer_has_text_keywords_and_the_times_of_the_speech() -> None:
    heard = Transcript("an apple juice", "en", 0.97, 0.8)
    answer = answered(transcriber([], heard), speech())
    assert (answer.start_ms, answer.end_ms, answer.captured_at_ms) == (0, 1000, 7)
    assert (answer.text, answer.confidence, answer.language, answer.language_fixed) == (heard.text, 0.8, "en", True)
    assert answer.keywords[0].text == "Apple Juice"


@pytest.mark.parametrize(
    ("announced", "default", "settled", "asked"),
    [
        ("zh-CN", "en", "en", "zh"),
        (None, "zh", "en", "zh"),
        (None, "", "en", "en"),
        (None, "", None, None),
        ("tlh", "", None, None),
        ("tlh", "zh", None, "zh"),
    ],
)
def test_the_language_is_announced_else_default_else_settled_else_detected(
    announced: str | None, default: str, settled: str | None, asked: str | None
) -> None:
    calls: list[str | None] = []
    answered(transcriber(calls, Transcript(), default), speech(language=announced), settled)
    assert calls == [asked]


def test_an_unknown_language_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    core = transcriber([], Transcript("hm", "en", 0.9, 0.9))
    with caplog.at_level(logging.WARNING):
        answered(core, speech(language="tlh"))
        answered(core, speech(language="tlh"))
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("heard", "fixed"),
    [
        (Transcript("apple", "en", 0.79, 0.9), False),
        (Transcript("apple", "en", 0.8, 0.9), True),
        (Transcript("", "nn", 0.99, 0.0), False),
    ],
)
def test_only_a_sure_detection_with_a_text_settles_the_language(heard: Transcript, fixed: bool) -> None:
    assert answered(transcriber([], heard), speech()).language_fixed is fixed


def test_silence_and_the_end_of_an_epoch_ask_no_model() -> None:
    calls: list[str | None] = []
    core = transcriber(calls, Transcript("never"))
    silent = answered(core, speech(audio=b""), "zh")
    ended = answered(core, speech(audio=b"", end_of_epoch=True))
    assert calls == []
    assert (silent.text, silent.keywords, silent.language, silent.language_fixed) == ("", (), "zh", True)
    assert ended.end_of_epoch and not ended.language_fixed


@pytest.mark.parametrize(
    ("audio", "end_ms"),
    [(bytes(31_999), 1000), (bytes(32_000), 2000), (bytes(32_000), -5), (bytes(32_000 * 31), 31_000)],
)
def test_audio_that_does_not_fit_its_times_is_bad_input(audio: bytes, end_ms: int) -> None:
    refused, good = transcriber([], Transcript("hello", "en")).transcribe(
        [(speech(audio, end_ms), None), (speech(), None)]
    )
    assert isinstance(refused, BadInput) and str(refused).startswith("speech of room at 0/0 ms")
    assert isinstance(good, Keywords) and good.text == "hello"


def test_a_piece_that_the_model_fails_on_does_not_spoil_the_others() -> None:
    def listen(audio: Audio, language: str | None) -> Transcript:
        if audio[0] < 0:
            raise RuntimeError("the model has failed")
        return Transcript(f"level {audio[0] * 32_768:.0f}", "en", 1.0, 0.9)

    core = Transcriber(MemoryRecognizer(listen), Vocabulary())
    pieces = [(speech(np.full(16_000, level, "<i2").tobytes()), None) for level in (100, -1, 300)]
    first, failed, third = core.transcribe(pieces)
    assert isinstance(failed, BadInput) and "the model has failed" in str(failed)
    assert [one.text for one in (first, third) if isinstance(one, Keywords)] == ["level 100", "level 300"]


def test_too_little_memory_is_not_the_fault_of_a_piece() -> None:
    def listen(audio: Audio, language: str | None) -> Transcript:
        raise MemoryError

    with pytest.raises(MemoryError):
        Transcriber(MemoryRecognizer(listen), Vocabulary()).transcribe([(speech(), None)] * 2)


@given(values=st.lists(st.integers(-32_768, 32_767), min_size=1, max_size=200))
def test_samples_are_the_pcm_in_minus_one_to_one(values: list[int]) -> None:
    audio = np.array(values, "<i2").tobytes()
    found = samples(speech(audio, end_ms=len(values) // 16))
    assert found.dtype == np.float32
    assert np.array_equal(np.round(found * 32_768), values)
    assert np.abs(found).max() <= 1.0
