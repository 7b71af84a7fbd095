"""Every number of a configuration has a range, and what lies outside is one line."""

import math
from dataclasses import asdict, fields
from typing import Any

import pytest

from cope.config import PRESETS, ModelConfig, TrainConfig, from_dict
from cope.errors import UserError
from cope.ranges import RANGES, Range
from cope.train import configuration

NUMBERS: dict[str, Any] = {
    f.name: kind for kind in (ModelConfig, TrainConfig) for f in fields(kind) if f.type in (int, float)
}
KINDS = {f.name: f.type for kind in (ModelConfig, TrainConfig) for f in fields(kind)}


def outside(name: str) -> list[float]:
    allowed, kind = RANGES[name], KINDS[name]
    values = [kind(allowed.low) if allowed.above else kind(allowed.low) - 1]
    if not math.isinf(allowed.high):
        values.append(kind(allowed.high) if allowed.below else kind(allowed.high) + 1)
    return values + ([math.nan, math.inf, -math.inf] if kind is float else [])


def test_every_number_has_a_range() -> None:
    assert set(NUMBERS) == set(RANGES)


@pytest.mark.parametrize("name", NUMBERS)
def test_what_lies_outside_is_one_line_that_names_field_value_and_range(name: str) -> None:
    for value in outside(name):
        with pytest.raises(UserError) as refused:
            from_dict(NUMBERS[name], {name: value}, "mine.toml")
        assert str(refused.value) == f"mine.toml: {name} must be {RANGES[name]}, not {value!r}"
    with pytest.raises(UserError, match=f"{name} must be {KINDS[name].__name__}, not True"):
        from_dict(NUMBERS[name], {name: True}, "mine.toml")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_lie_inside(name: str) -> None:
    assert from_dict(TrainConfig, asdict(PRESETS[name]), name) == PRESETS[name]


def test_bounds_are_inside_unless_they_say_otherwise() -> None:
    assert 0 in Range(0, 1)
    assert 1 in Range(0, 1)
    assert 0 not in Range(0, 1, above=True)
    assert 1 not in Range(0, 1, below=True)
    assert str(Range(0, 1, above=True)) == "more than 0 and at most 1"
    assert str(Range(0, 1, below=True)) == "at least 0 and less than 1"
    assert str(Range(1)) == "at least 1"


def test_a_setting_of_the_command_line_is_checked() -> None:
    with pytest.raises(UserError, match=r"--set model\.dim=0: model: dim must be at least 2, not 0"):
        configuration("cope-mini", None, ["model.dim=0"])
    with pytest.raises(UserError, match="learning_rate must be more than 0, not nan"):
        configuration("cope-mini", None, ["learning_rate=NaN"])
