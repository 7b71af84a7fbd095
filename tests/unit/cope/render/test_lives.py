import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cope.render.lives import Timing, make_plan
from cope.render.phrases import PHRASES, Host, Offer, spoken_price

OFFERS = [Offer(f"p-{number}", f"Thing {number}", "15.00 USD") for number in range(6)]


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), duration_s=st.floats(1, 400), language=st.sampled_from(["en", "zh"]))
def test_showings_follow_each_other_within_the_stream(seed: int, duration_s: float, language: str) -> None:
    timing = Timing(duration_s=duration_s)
    plan = make_plan(np.random.default_rng(seed), OFFERS, timing, language)
    assert plan.shown
    end_s = 0.0
    for shown in plan.shown:
        assert end_s <= shown.showing.start_s < shown.showing.end_s
        end_s = shown.showing.end_s
    assert end_s <= duration_s + 1e-6
    assert plan.views[0].start_s == 0.0


def test_a_long_stream_has_breaks_and_one_of_them_shows_something_else() -> None:
    plan = make_plan(np.random.default_rng(0), OFFERS, Timing(duration_s=90), "en")
    products = [shown for shown in plan.shown if shown.offer is not None]
    edges = [(before.showing.end_s, after.showing.start_s) for before, after in itertools.pairwise(products)]
    breaks = [(end_s, start_s) for end_s, start_s in edges if start_s - end_s >= 8]
    assert len(breaks) == 2
    others = [shown for shown in plan.shown if shown.offer is None]
    assert any(start_s < other.showing.start_s < end_s for other in others for start_s, end_s in breaks)


def test_no_product_is_shown_again_before_all_were() -> None:
    plan = make_plan(np.random.default_rng(5), OFFERS, Timing(duration_s=120, no_product=0), "en")
    shown = [item.offer.id for item in plan.shown if item.offer]
    assert sorted(shown[:6]) == [offer.id for offer in OFFERS]


def test_products_are_shown_in_the_order_that_is_asked_for() -> None:
    plan = make_plan(np.random.default_rng(5), [OFFERS[4], OFFERS[1]], Timing(duration_s=60), "en", in_order=True)
    assert [item.offer.id for item in plan.shown if item.offer] == ["p-4", "p-1"]


def test_a_thing_is_outside_at_its_start_and_inside_when_seen() -> None:
    shown = make_plan(np.random.default_rng(1), OFFERS, Timing(duration_s=60), "en").shown[0].showing

    def outside(t_s: float) -> float:
        placement = shown.placement(t_s)
        return max(abs(placement.x - 0.5), abs(placement.y - 0.5))

    assert outside(shown.start_s) > 0.6
    assert outside(shown.seen_from_s + 0.2) < 0.5
    assert outside(shown.end_s) > 0.6


def test_a_host_names_products_in_the_language_of_the_stream() -> None:
    chinese = Host("zh", np.random.default_rng(0)).here(Offer("p", "东西3"))
    assert "东西3" in chinese and " " not in chinese
    assert "Thing 3" in Host("en", np.random.default_rng(0)).here(OFFERS[3])


def test_a_host_repeats_himself_only_when_all_was_said() -> None:
    host = Host("en", np.random.default_rng(0))
    chat = PHRASES["en"].chat
    assert sorted(host.chat() for _ in chat) == sorted(chat)


def test_a_page_without_a_price_is_not_given_one() -> None:
    bare = Offer("p", "Lamp")
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
