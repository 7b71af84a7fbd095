"""How far each stream is, and in what language."""

from typing import Any

import pytest

from topology.language import primary_tag
from topology.records import Keywords
from workers.transcribe import language as module
from workers.transcribe.language import Streams


def answer(stream_id: str, epoch: int, start_ms: int, language: str | None = None, **fields: bool) -> Keywords:
    values: dict[str, Any] = {"language_fixed": language is not None} | fields
    return Keywords(
        stream_id=stream_id,
        epoch=epoch,
        start_ms=start_ms,
        end_ms=start_ms + 1,
        captured_at_ms=0,
        language=language,
        **values,
    )


@pytest.mark.parametrize(
    ("tag", "primary"), [("zh-CN", "zh"), ("zh_Hans", "zh"), ("cmn", "zh"), ("EN", "en"), (" fil-PH", "tl"), ("", "")]
)
def test_tags_are_brought_to_their_primary_language(tag: str, primary: str) -> None:
    assert primary_tag(tag) == primary


def test_a_settled_language_holds_for_its_epoch() -> None:
    streams = Streams()
    streams.note(answer("a", 0, 0))
    assert streams.settled("a", 0) is None
    streams.note(answer("a", 0, 10, "zh"))
    assert streams.settled("a", 0) == "zh"
    assert streams.settled("a", 1) is None
    assert streams.settled("b", 0) is None


def test_what_was_answered_is_known_also_at_the_end_of_an_epoch() -> None:
    streams = Streams()
    assert streams.is_new("a", 0)
    streams.note(answer("a", 0, 10))
    assert streams.is_answered("a", 0, 0, False)
    assert streams.is_answered("a", 0, 10, False)
    assert not streams.is_answered("a", 0, 10, True)
    assert not streams.is_answered("a", 0, 20, False)
    streams.note(answer("a", 0, 10, end_of_epoch=True))
    assert streams.is_answered("a", 0, 10, True)
    assert not streams.is_answered("a", 1, 0, False)
    assert streams.is_new("a", 1) and not streams.is_new("a", 0)


def test_an_answer_that_comes_twice_changes_nothing() -> None:
    streams = Streams()
    streams.note(answer("a", 0, 0))
    streams.note(answer("a", 0, 10, "zh"))
    streams.note(answer("a", 0, 0))
    assert streams.settled("a", 0) == "zh"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_STREAMS", 3)
    streams = Streams()
    for number in range(5):
        streams.note(answer(f"room-{number}", 0, 0, "en"))
    assert [streams.settled(f"room-{number}", 0) for number in range(5)] == [None, None, "en", "en", "en"]
