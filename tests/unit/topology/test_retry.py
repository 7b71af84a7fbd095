"""Trying again until it works."""

import pytest

from topology.errors import Unavailable
from topology.retry import describe, retrying


class Flaky:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr("topology.retry.asyncio.sleep", sleep)
    return taken


async def test_pauses_double_up_to_the_longest(pauses: list[float]) -> None:
    flaky = Flaky(*[Unavailable("down")] * 5)
    assert await retrying(flaky, "work", first_pause_s=1, longest_pause_s=4) == "done"
    assert pauses == [1, 2, 4, 4, 4]
    assert flaky.calls == 6


async def test_other_errors_are_raised_at_once(pauses: list[float]) -> None:
    with pytest.raises(ValueError, match="no"):
        await retrying(Flaky(ValueError("no")), "work")
    assert pauses == []


def test_an_error_is_described_in_one_line() -> None:
    assert describe(ValueError("one\ntwo")) == "ValueError: one two"
    assert describe(TimeoutError()) == "TimeoutError"
