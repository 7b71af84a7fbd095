"""What is taken for invented, and what is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.transcribe.guards import Heard, is_doubtful, is_invented, is_silent, is_too_fast, repeats_itself


@pytest.mark.parametrize("text", ["Thanks for watching!", "you", "謝謝觀看。", "字幕由 Amara.org 社区提供", "Bye-bye."])
def test_phrases_that_whisper_invents_are_told(text: str) -> None:
    assert is_invented(text)


@pytest.mark.parametrize("text", ["Thanks for watching, here is the apple juice", "谢谢大家来看苹果汁", "Juice", ""])
def test_real_sentences_are_not_invented(text: str) -> None:
    assert not is_invented(text)


@pytest.mark.parametrize("text", ["嗯" * 20, "so good so good so good so good so good", "juice, juice, juice, juice"])
def test_loops_are_told(text: str) -> None:
    assert repeats_itself(text)


@pytest.mark.parametrize("text", ["very, very, very good juice", "3, 2, 1, buy!", "好好好，买它", "哈哈哈", ""])
def test_a_hosts_manner_is_no_loop(text: str) -> None:
    assert not repeats_itself(text)


def test_nobody_speaks_that_fast() -> None:
    assert is_too_fast("苹果汁" * 10, seconds=1.0)
    assert not is_too_fast("今天给大家介绍的是这款苹果汁", seconds=2.5)
    assert is_too_fast("a sentence that takes four seconds at least " * 4, seconds=1.0)


def test_doubt_about_speech_asks_for_a_surer_text() -> None:
    assert not is_doubtful(Heard("red wine", log_probability=-0.05, no_speech=0.73), 3.0)
    assert not is_doubtful(Heard("red wine", log_probability=-0.8, no_speech=0.1), 3.0)
    assert is_doubtful(Heard("red wine", log_probability=-0.8, no_speech=0.73), 3.0)
    assert is_doubtful(Heard("red wine", log_probability=-1.1, no_speech=0.0), 3.0)


def test_silence_is_no_sound_or_next_to_none() -> None:
    assert is_silent(np.zeros(0, np.float32))
    assert is_silent(np.full(16_000, 5e-4, np.float32))
    assert not is_silent(np.full(16_000, 1e-2, np.float32))


@given(text=st.text(), seconds=st.floats(0, 30))
def test_any_text_can_be_judged(text: str, seconds: float) -> None:
    assert is_doubtful(Heard(text, -0.1, 0.0), seconds) == (repeats_itself(text) or is_too_fast(text, seconds))
    assert is_invented(text) in (True, False)
