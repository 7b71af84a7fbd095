"""The filter over time: small synthetic showings."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.errors import BadInput
from workers.recognize.tracker import Decision, FilterConfig, Observation, Shown, Tracker

HOP, LENGTH = 2_000, 8_000


def log_odds(probability):
    return round(math.log(probability / (1 - probability)), 2)


def observation(product_id, probability, end_ms, seen=None):
    shown = probability >= 0.5 if seen is None else seen
    frames = (Shown(end_ms - 2_000), Shown(end_ms - 1_000)) if shown else ()
    return Observation(product_id, log_odds(probability), frames, visual=0.8, text=0.1, keywords=("cup",))


def play(tracker, windows, first=0, epoch=0):
    """Feeds one dict of product to probability a hop; returns (status, product, end of the window) and decisions."""
    decisions: list[Decision] = list(tracker.begin_epoch(epoch))
    for number, window in enumerate(windows, first):
        start_ms, end_ms = number * HOP, number * HOP + LENGTH
        seen = [observation(product, p, end_ms) for product, p in window.items()]
        seen += [observation(p, 0.02, end_ms) for p in tracker.products if p not in window]
        decisions += tracker.observe(start_ms, end_ms, seen)
    return decisions


def brief(decisions):
    return [(one.status, one.product_id) for one in decisions]


def fresh(**options):
    return Tracker(FilterConfig(**options))


def test_a_clear_showing_starts_once_goes_on_and_ends_once():
    tracker = fresh()
    decisions = play(tracker, [{"a": 0.02}] * 3 + [{"a": 0.98, "b": 0.05}] * 10 + [{"a": 0.02}] * 6)
    assert brief(decisions) == [("started", "a"), ("updated", "a"), ("ended", "a")]
    started, _, ended = decisions
    assert started.media_start_ms == 3 * HOP + LENGTH - 2_000  # the first frame that shows it
    assert started.emitted_media_ms - started.media_start_ms <= 6_000
    assert ended.media_end_ms == 12 * HOP + LENGTH - 1_000  # the last one
    assert {one.first_window_ms for one in decisions} == {started.first_window_ms}
    assert not tracker.is_on


def test_a_flicker_of_one_window_starts_nothing():
    assert play(fresh(), [{"a": 0.02}] * 3 + [{"a": 0.65}] + [{"a": 0.02}] * 5) == []


def test_an_overwhelming_single_window_may_start_a_very_short_showing():
    decisions = play(fresh(), [{"a": 0.02}] * 3 + [{"a": 0.9995}] + [{"a": 0.02}] * 5)
    assert brief(decisions) == [("started", "a"), ("ended", "a")]


def test_a_gap_of_one_window_does_not_break_a_sighting():
    decisions = play(fresh(), [{"a": 0.98}] * 5 + [{"a": 0.05}] + [{"a": 0.98}] * 3)
    assert brief(decisions) == [("started", "a"), ("updated", "a")]


def test_a_long_gap_makes_a_second_sighting_with_a_new_first_window():
    decisions = play(fresh(), [{"a": 0.98}] * 4 + [{"a": 0.02}] * 8 + [{"a": 0.98}] * 3)
    assert brief(decisions) == [("started", "a"), ("ended", "a"), ("started", "a")]
    assert decisions[0].first_window_ms < decisions[2].first_window_ms
    assert decisions[2].media_start_ms == 12 * HOP + LENGTH - 2_000


def test_a_similar_runner_up_takes_confidence_but_does_not_start():
    decisions = play(fresh(), [{"a": 0.97, "b": 0.3}] * 8)
    assert {one.product_id for one in decisions} == {"a"}
    assert decisions[0].runner_up[0] == "b"
    assert 0 < decisions[0].runner_up[1] < 0.3


def test_two_products_that_cannot_be_told_apart_start_nothing():
    assert play(fresh(), [{"a": 0.9, "b": 0.9}] * 10) == []


def test_an_object_outside_the_catalogue_starts_nothing():
    looks = [{"a": 0.2, "b": 0.15}, {"b": 0.3, "c": 0.1}, {"c": 0.35, "a": 0.1}] * 8
    assert play(fresh(), looks) == []


def test_many_unlikely_candidates_do_not_add_up():
    assert play(fresh(), [{f"p{number}": 0.1 for number in range(40)}] * 10) == []


def test_a_switch_ends_one_product_before_the_other_starts():
    decisions = play(fresh(), [{"a": 0.98}] * 5 + [{"a": 0.1, "b": 0.98}] * 5)
    assert brief(decisions)[:3] == [("started", "a"), ("ended", "a"), ("started", "b")]
    ended, started = decisions[1:3]
    assert ended.media_end_ms < started.media_start_ms


def test_speech_about_a_product_is_no_showing():
    tracker = fresh()
    for number in range(10):
        end_ms = number * HOP + LENGTH
        assert tracker.observe(number * HOP, end_ms, [observation("a", 0.99, end_ms, seen=False)]) == []


def test_frames_of_long_ago_do_not_make_speech_a_showing():
    tracker = fresh()
    assert play(tracker, [{"a": 0.6}]) == []
    for number in range(4, 12):
        end_ms = number * HOP + LENGTH
        assert tracker.observe(number * HOP, end_ms, [observation("a", 0.99, end_ms, seen=False)]) == []


def test_a_product_withdrawn_from_the_catalogue_ends_its_sighting():
    tracker = fresh()
    play(tracker, [{"a": 0.98}] * 4)
    assert brief(tracker.observe(4 * HOP, 4 * HOP + LENGTH, [])) == [("ended", "a")]


def test_the_end_of_an_epoch_ends_the_sighting_and_closes_the_epoch():
    tracker = fresh()
    play(tracker, [{"a": 0.98}] * 4)
    assert brief(tracker.end_epoch()) == [("ended", "a")]
    assert tracker.ended
    assert tracker.end_epoch() == []
    assert tracker.has_seen(0, 999_999)
    assert not tracker.has_seen(1, 0)


def test_a_new_epoch_ends_what_was_on_and_starts_afresh():
    tracker = fresh()
    first = play(tracker, [{"a": 0.98}] * 4)
    second = play(tracker, [{"a": 0.98}] * 4, epoch=1)
    assert brief(first + second) == [("started", "a"), ("ended", "a"), ("started", "a")]
    assert [one.epoch for one in second] == [0, 1]


def test_seen_windows_are_known():
    tracker = fresh()
    play(tracker, [{}] * 3)
    assert tracker.has_seen(0, 0) and tracker.has_seen(0, 2 * HOP)
    assert not tracker.has_seen(0, 3 * HOP)


@pytest.mark.parametrize(("p", "believed"), [(0.02, 0.01), (0.2, 0.12), (0.5, 0.59), (0.8, 0.92), (0.9, 0.97)])
def test_a_constant_probability_moves_the_belief_to_its_side_without_becoming_certain(p, believed):
    tracker = fresh(threshold=0.999)
    play(tracker, [{"a": p}] * 60)
    assert tracker._state.beliefs[0].probability == pytest.approx(believed, abs=0.01)


def test_garbage_is_no_state():
    with pytest.raises(BadInput, match="not the state of a recognition filter"):
        Tracker(FilterConfig(), b"\xc1 nonsense")


_windows = st.lists(
    st.dictionaries(st.sampled_from("abcd"), st.floats(0.001, 0.999), max_size=4), min_size=1, max_size=30
)


@given(windows=_windows, cut=st.integers(0, 30))
def test_a_filter_restored_from_bytes_goes_on_identically(windows, cut):
    whole = play(fresh(), windows)
    first = fresh()
    decisions = play(first, windows[:cut])
    second = Tracker(FilterConfig(), first.to_bytes())
    decisions += play(second, windows[cut:], first=min(cut, len(windows)))
    assert decisions == whole


@given(windows=_windows)
def test_events_of_a_stream_are_well_formed(windows):
    tracker = fresh()
    decisions = play(tracker, windows)
    decisions += tracker.end_epoch()
    on = None
    for one in decisions:
        assert 0 <= one.media_start_ms <= one.media_end_ms <= one.emitted_media_ms
        assert 0 <= one.confidence <= 1
        if one.status == "started":
            assert on is None
            assert one.confidence >= FilterConfig().threshold
            on = (one.product_id, one.first_window_ms)
        else:
            assert on == (one.product_id, one.first_window_ms)
            on = None if one.status == "ended" else on
    assert on is None


@given(windows=_windows)
def test_beliefs_are_probabilities_and_few(windows):
    tracker = fresh()
    play(tracker, windows)
    beliefs = [belief.probability for belief in tracker._state.beliefs]
    assert all(0 <= one <= 1 for one in beliefs)
    assert sum(beliefs) <= 1 + 1e-4
    assert len(tracker.to_bytes()) < 4_000


@given(windows=_windows, noise=st.lists(st.floats(-1e-6, 1e-6), min_size=4, max_size=4))
def test_differences_in_the_last_bits_of_scores_do_not_show(windows, noise):
    """Given that evidence comes in rounded, as `evidence.observe` does."""
    shifted = [
        {product: round(p, 3) + delta for (product, p), delta in zip(sorted(window.items()), noise, strict=False)}
        for window in windows
    ]
    plain = [{product: round(p, 3) for product, p in window.items()} for window in windows]
    edges = any(
        abs(abs(math.log(p / (1 - p)) * 100 % 1) - 0.5) < 0.3 for window in plain for p in window.values() if 0 < p < 1
    )
    if not edges and all(0 < p < 1 for window in shifted for p in window.values()):
        assert play(fresh(), shifted) == play(fresh(), plain)
