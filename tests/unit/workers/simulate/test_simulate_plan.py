from pathlib import Path

import numpy as np
import pytest

from cope.render.lives import Line
from topology.errors import UserError
from workers.cli.simulate.recipe import Recipe, parse_size, read_recipe
from workers.cli.simulate.sound import speak
from workers.cli.simulate.voices import SAMPLE_RATE, Samples, voice_of


class Beeps:
    """A voice that takes a second for any sentence."""

    def say(self, text: str, seed: int) -> Samples:
        return np.ones(SAMPLE_RATE, np.float32)


def test_sentences_wait_for_each_other_and_late_ones_are_left_out() -> None:
    lines = [Line(0.0, 5.0, "first"), Line(0.5, 5.0, "second"), Line(0.6, 1.0, "too late"), Line(9.5, 20.0, "no room")]
    track, said = speak(lines, Beeps(), 10.0, 0)
    assert [text for _, text in said] == ["first", "second"]
    assert said[1][0] == pytest.approx(1.25)
    assert len(track) == 10 * SAMPLE_RATE
    assert np.abs(track[: SAMPLE_RATE // 2]).mean() > 10 * np.abs(track[5 * SAMPLE_RATE :]).mean()


def test_a_recipe_is_read_with_folders_relative_to_it(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('seed = 5\nduration_s = 60\nsize = "320x180"\nshowing_s = [5, 6.5]\ndistractors = "things"\n')
    recipe = read_recipe(path)
    assert recipe == Recipe(
        seed=5, duration_s=60, size=(320, 180), showing_s=(5.0, 6.5), distractors=tmp_path.resolve() / "things"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sead = 1", "no setting 'sead'"),
        ("seed = 'x'", "seed = 'x' is of the wrong type"),
        ("seed = -1", "seed is -1"),
        ("seed =", "not TOML"),
        ("duration_s = 0", "duration is 0"),
        ('size = "640"', "is not WIDTHxHEIGHT"),
        ('size = "641x360"', "even numbers"),
        ('language = "fr"', "language is fr"),
        ("showing_s = [9, 3]", "the smaller first"),
        ("fps = true", "wrong type"),
    ],
)
def test_a_bad_recipe_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_recipe(path)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.toml: No such file"):
        read_recipe(tmp_path / "none.toml")


def test_sizes_are_parsed() -> None:
    assert parse_size("1280X720") == (1280, 720)


def test_a_voice_that_is_not_there_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no voice 'bella' speaks 'en'"):
        voice_of("en", "bella", None)
    with pytest.raises(UserError, match="npm pack kokoro-js"):
        voice_of("zh", "default", tmp_path)
