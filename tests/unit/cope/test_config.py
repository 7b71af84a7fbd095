"""Every number of a configuration has a range, and what lies outside is one line."""

import math
from dataclasses import asdict, fields
from typing import Any

import pytest
from annotated_types import Ge, Gt, Le, Lt

from cope.config import PRESETS, ModelConfig, TrainConfig, described, from_dict
from cope.errors import UserError
from cope.train import configuration

NUMBERS: dict[str, tuple[Any, Any]] = {
    name: (kind, known)
    for kind in (ModelConfig, TrainConfig)
    for name, known in kind.__pydantic_fields__.items()  # type: ignore[union-attr]
    if known.annotation in (int, float)
}


def outside(known: Any) -> list[Any]:
    """Values just beyond the bounds of a field, and those that are no numbers."""
    kind, values = known.annotation, []
    for bound in known.metadata:
        match bound:
            case Ge(low):
                values.append(kind(low) - 1)
            case Gt(low):
                values.append(kind(low))
            case Le(high):
                values.append(kind(high) + 1)
            case Lt(high):
                values.append(kind(high))
    return values + ([math.nan, math.inf, -math.inf] if kind is float else [])


@pytest.mark.parametrize("name", NUMBERS)
def test_what_lies_outside_is_one_line_that_names_field_value_and_range(name: str) -> None:
    kind, known = NUMBERS[name]
    assert any(isinstance(bound, Ge | Gt) for bound in known.metadata)
    for value in outside(known):
        with pytest.raises(UserError) as refused:
            from_dict(kind, {name: value}, "mine.toml")
        assert str(refused.value).startswith(f"mine.toml: {name} must be ")
        assert str(refused.value).endswith(f", not {value!r}")
        assert "at least" in str(refused.value) or "more than" in str(refused.value)
    with pytest.raises(UserError, match=f"{name} must be {known.annotation.__name__}, not True"):
        from_dict(kind, {name: True}, "mine.toml")


@pytest.mark.parametrize(
    ("field", "value", "range_"),
    [
        ("layer_decay", 0.0, "more than 0 and at most 1"),
        ("ema", 1.0, "at least 0 and less than 1"),
        ("steps", 0, "at least 1"),
        ("seed", 2**32, "at least 0 and at most 4294967295"),
        ("precision", "float8", "one of auto, float32"),
    ],
)
def test_ranges_say_whether_their_bounds_are_inside(field: str, value: Any, range_: str) -> None:
    with pytest.raises(UserError) as refused:
        from_dict(TrainConfig, {field: value}, "mine.toml")
    assert str(refused.value) == f"mine.toml: {field} must be {range_}, not {value!r}"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_lie_inside(name: str) -> None:
    assert from_dict(TrainConfig, asdict(PRESETS[name]), name) == PRESETS[name]


def test_every_field_says_what_it_means_and_its_default() -> None:
    told = dict(described())
    own = [f.name for f in fields(TrainConfig) if f.name != "model"]
    assert list(told) == [*own, *(f"model.{f.name}" for f in fields(ModelConfig))]
    assert all(not text.startswith(("None", "[")) for text in told.values())
    assert told["steps"] == "Optimiser steps of the representation. [at least 1; 400]"


def test_a_setting_of_the_command_line_is_checked() -> None:
    with pytest.raises(UserError, match=r"--set model\.dim=0: model: dim must be at least 2, not 0"):
        configuration("cope-mini", None, ["model.dim=0"])
    with pytest.raises(UserError, match="learning_rate must be more than 0, not nan"):
        configuration("cope-mini", None, ["learning_rate=NaN"])
