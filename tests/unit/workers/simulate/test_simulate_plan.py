import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology.errors import UserError
from topology.records import PageImage, ProductPage
from workers.cli.simulate.phrases import PHRASES, Host, spoken_price
from workers.cli.simulate.plan import Line, make_plan
from workers.cli.simulate.recipe import Recipe, parse_size, read_recipe
from workers.cli.simulate.sound import speak
from workers.cli.simulate.voices import SAMPLE_RATE, Samples, voice_of

PAGES = [
    ProductPage(
        product_id=f"p-{number}",
        title=f"Thing {number}",
        images=(PageImage(uri="a.png"),),
        price="15.00 USD",
        attributes={"title_zh": f"东西{number}"},
    )
    for number in range(6)
]


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), duration_s=st.floats(1, 400), language=st.sampled_from(["en", "zh"]))
def test_showings_follow_each_other_within_the_stream(seed: int, duration_s: float, language: str) -> None:
    recipe = Recipe(seed=seed, duration_s=duration_s, language=language)
    plan = make_plan(np.random.default_rng(seed), PAGES, recipe)
    assert plan.shown
    end_s = 0.0
    for shown in plan.shown:
        assert end_s <= shown.start_s < shown.end_s
        end_s = shown.end_s
    assert end_s <= duration_s + 1e-6
    assert plan.views[0].start_s == 0.0


def test_a_long_stream_has_breaks_and_one_of_them_shows_something_else() -> None:
    plan = make_plan(np.random.default_rng(0), PAGES, Recipe(duration_s=90))
    products = [shown for shown in plan.shown if shown.page is not None]
    edges = [(before.end_s, after.start_s) for before, after in itertools.pairwise(products)]
    breaks = [(end_s, start_s) for end_s, start_s in edges if start_s - end_s >= 8]
    assert len(breaks) == 2
    others = [shown for shown in plan.shown if shown.page is None]
    assert any(start_s < other.start_s < end_s for other in others for start_s, end_s in breaks)


def test_no_product_is_shown_again_before_all_were() -> None:
    plan = make_plan(np.random.default_rng(5), PAGES, Recipe(duration_s=120, no_product=0))
    shown = [item.page.product_id for item in plan.shown if item.page]
    assert sorted(shown[:6]) == [page.product_id for page in PAGES]


def test_a_recipe_may_name_its_products() -> None:
    recipe = Recipe(duration_s=60, products=("p-4", "p-1"))
    plan = make_plan(np.random.default_rng(5), [PAGES[4], PAGES[1]], recipe)
    assert [item.page.product_id for item in plan.shown if item.page] == ["p-4", "p-1"]


def test_a_thing_is_outside_at_its_start_and_inside_when_seen() -> None:
    shown = make_plan(np.random.default_rng(1), PAGES, Recipe(duration_s=60)).shown[0]

    def outside(t_s: float) -> float:
        placement = shown.placement(t_s)
        return max(abs(placement.x - 0.5), abs(placement.y - 0.5))

    assert outside(shown.start_s) > 0.6
    assert outside(shown.seen_from_s + 0.2) < 0.5
    assert outside(shown.end_s) > 0.6


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


def test_a_host_names_products_in_the_language_of_the_stream() -> None:
    assert "东西3" in Host("zh", np.random.default_rng(0)).here(PAGES[3])
    assert "Thing 3" in Host("en", np.random.default_rng(0)).here(PAGES[3])


def test_a_host_repeats_himself_only_when_all_was_said() -> None:
    host = Host("en", np.random.default_rng(0))
    chat = PHRASES["en"].chat
    assert sorted(host.chat() for _ in chat) == sorted(chat)


def test_a_page_without_a_price_is_not_given_one() -> None:
    bare = ProductPage(product_id="p", title="Lamp", images=())
    host = Host("en", np.random.default_rng(0))
    said = [say(bare) for say in (host.coming, host.here, host.details, host.was) for _ in range(3)]
    assert not any("  " in text or "{" in text or "only ." in text for text in said)


@pytest.mark.parametrize(
    ("price", "language", "spoken"),
    [
        ("15.00 USD", "en", "15 dollars"),
        ("3.20 USD", "zh", "3.20美元"),
        ("59", "en", "59"),
        ("ask us", "en", "ask us"),
        ("7.50 CHF", "en", "7.50 CHF"),
    ],
)
def test_prices_are_said_as_people_say_them(price: str, language: str, spoken: str) -> None:
    assert spoken_price(price, language) == spoken


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
