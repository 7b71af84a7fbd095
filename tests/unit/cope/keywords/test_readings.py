"""What a text tower reads of keywords, and how surely they name something."""

import pytest

from cope.keywords import readings, told

HEARD = [("gift", 0.06), (" red shoe ", 0.9), ("", 0.8), ("blue", 0.0)]


def test_keywords_are_read_one_by_one_or_as_one_text():
    assert readings(HEARD, "mean") == [("gift", 0.06), ("red shoe", 0.9)]
    assert readings(HEARD, "joined") == [("red shoe, gift", 0.9)]


@pytest.mark.parametrize("how", ["mean", "joined"])
@pytest.mark.parametrize("nothing", [[], [("", 1.0)], [("shoe", 0.0)]])
def test_of_nothing_nothing_is_read(how, nothing):
    assert readings(nothing, how) == []
    assert told(nothing) == 0


def test_words_are_told_as_surely_as_the_weightiest():
    assert told(HEARD) == 0.9
    assert told([("gift", 0.06)]) == 0.06
    assert told([("shoe", 1.0), ("red", 7.0)]) == 1.0
