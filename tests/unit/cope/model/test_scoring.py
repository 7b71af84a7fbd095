import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope.errors import UserError
from cope.model.scoring import (
    CANDIDATES,
    FEATURES,
    NOISE,
    UNCALIBRATED,
    USUAL_SPREAD,
    Calibration,
    MatchFeatures,
    Unit,
    closest,
    match_features,
    speech_scores,
)

E = np.eye(4, dtype=np.float32)


def features_of(frames, pictures, recent_from_ms=2000, **rest):
    return match_features(frames, recent_from_ms, [pictures], **rest)[0]


def test_a_frame_counts_with_its_best_region_and_page_picture():
    found = features_of([(2000, E[:2])], E[1:3])
    assert found.visual_recent == pytest.approx(1.0)
    assert found.visual_window == pytest.approx(1.0)


def test_recent_score_reads_the_newest_hop_only():
    found = features_of([(0, E[:1]), (1000, E[:1]), (2000, E[1:2])], E[:1])
    assert found.visual_recent == pytest.approx(0.0)
    assert found.visual_window == pytest.approx(1.0)  # the better half: two of three frames


@pytest.mark.parametrize(
    ("frames", "pages"), [([], E), ([(2000, E[:0])], E), ([(2000, E)], E[:0])], ids=["no frame", "no region", "no page"]
)
def test_what_is_missing_scores_nothing(frames, pages):
    assert match_features(frames, 0, [pages]) == [MatchFeatures()]


def test_text_share_is_relative_to_the_best_named_product():
    found = match_features([], 0, [E, E], texts=[0.2, 0.8])
    assert [one.text_share for one in found] == pytest.approx([0.25, 1.0])
    assert features_of([], E).text_share == 0.0


def test_a_product_stands_out_of_the_others_by_their_spread():
    frames = [(2000, E[:1])]
    alike = match_features(frames, 0, [E[:1] * cosine for cosine in (0.6, 0.5, 0.4, 0.5)])
    alone = match_features(frames, 0, [E[:1] * cosine for cosine in (0.6, 0.1, 0.1, 0.1)])
    assert 0 < alike[0].stands_out < alone[0].stands_out
    assert [one.stands_out for one in alone[1:]] == [0.0] * 3
    few = features_of(frames, E[:1] * 0.6), features_of(frames, E[:1] * 0.3)
    # Of a lone product it is known how others usually fit.
    assert few[0].stands_out == pytest.approx(math.sqrt(0.45 / math.hypot(USUAL_SPREAD, NOISE)))
    assert few[1].stands_out < 0.6 * few[0].stands_out


def test_no_more_than_the_closest_are_what_a_product_stands_out_of():
    near = [0.9, *(0.3 + number / 1000 for number in range(CANDIDATES - 1))]
    few = match_features([(0, E[:1])], 0, [E[:1] * one for one in near])
    many = match_features([(0, E[:1])], 0, [E[:1] * one for one in [*near, *[0.0] * 99]])
    assert few[0].stands_out == many[0].stands_out > 0
    assert {one.stands_out for one in many[CANDIDATES:]} == {0.0}


def test_words_that_are_read_tell_what_they_name_better():
    first, second = match_features([], 0, [E, E], reads=[0.2, 0.7])
    assert (first.read, second.read) == (0.2, 0.7)
    assert (first.read_behind, second.read_behind) == pytest.approx((-0.5, 0.0))
    assert match_features([], 0, [E], reads=[0.7], best_read=0.9)[0].read_behind == pytest.approx(-0.2)


def test_speech_counts_with_its_best_piece_and_weight():
    pages = [E[0], E[1], np.zeros(0, np.float16)]
    assert speech_scores([(E[0], 1.0), (E[1], 0.5)], pages) == pytest.approx([1.0, 0.5, 0.0])
    assert speech_scores([(-E[0], 1.0)], pages) == [0.0, 0.0, 0.0]
    assert speech_scores([], pages) == [0.0, 0.0, 0.0]


def test_margins_compare_with_the_best_other_product():
    found = match_features([(2000, E[:1])], 0, [E[:1] * cosine for cosine in (0.9, 0.6, 0.1)], speech=[0.1, 0.5, 0.2])
    assert [one.margin_recent for one in found] == pytest.approx([0.3, -0.3, -0.8])
    assert [one.margin_window for one in found] == pytest.approx([0.3, -0.3, -0.8])
    assert [one.margin_speech for one in found] == pytest.approx([-0.4, 0.3, -0.3])


def test_a_tie_has_no_margin():
    assert [one.margin_window for one in match_features([(0, E[:1])], 0, [E[:1], E[:1]])] == [0.0, 0.0]


def test_a_lone_candidate_is_compared_with_nothing():
    assert features_of([(2000, E[:1])], E[:1]).margin_recent == 1.0
    assert match_features([(2000, E[:1])], 0, []) == []


def test_the_closest_candidates_are_those_that_look_or_sound_most_like_it():
    found = [MatchFeatures(visual_recent=0.5), MatchFeatures(), MatchFeatures(visual_recent=0.4, speech=0.9)]
    assert closest(found, 2) == [2, 0]


UNIT = Unit(dict.fromkeys(FEATURES, 0.0) | {"speech": 2.0, "margin_speech": -1.0}, bias=-0.5, share=3.0)


def test_a_hidden_unit_weighs_features_together():
    with_unit = replace(UNCALIBRATED, units=(UNIT,))
    heard = MatchFeatures(speech=0.5, margin_speech=-0.25)
    assert with_unit.logit(heard) == pytest.approx(UNCALIBRATED.logit(heard) + 3.0 * np.tanh(-0.5 + 1.0 + 0.25))
    assert with_unit.weighs("speech") and not UNCALIBRATED.weighs("speech")
    deaf = with_unit.without("speech", "margin_speech")
    assert deaf.logit(heard) == deaf.logit(MatchFeatures()) and deaf.weighs("visual_window")


@given(st.lists(st.lists(st.floats(-1, 1), min_size=len(FEATURES), max_size=len(FEATURES)), min_size=2, max_size=9))
def test_a_candidate_has_the_same_odds_alone_as_among_others(rows):
    calibration = replace(UNCALIBRATED, units=(UNIT, UNIT, UNIT), handicaps={"p1": 0.5})
    candidates, ids = [MatchFeatures(*row) for row in rows], [f"p{number}" for number in range(len(rows))]
    together = calibration.logits(candidates, ids)
    assert together == [calibration.logit(one, name) for one, name in zip(candidates, ids, strict=True)]


@given(st.lists(st.floats(-1, 1), min_size=len(FEATURES), max_size=len(FEATURES)))
def test_a_probability_is_one_for_any_features(values):
    assert 0.0 <= UNCALIBRATED.probability(MatchFeatures(*values)) <= 1.0


def test_the_prior_is_what_nothing_is_known_of():
    even = Calibration(dict.fromkeys(FEATURES, 0.0), bias=float(np.log(0.2 / 0.8)), prior=0.2)
    assert even.probability(MatchFeatures()) == pytest.approx(0.2)
    assert even.logit(MatchFeatures()) == pytest.approx(even.prior_logit)


def test_a_calibration_survives_its_file(tmp_path):
    for one in (UNCALIBRATED, replace(UNCALIBRATED, handicaps={"p1": 0.5}), replace(UNCALIBRATED, units=(UNIT,))):
        one.save(tmp_path / "calibration.json")
        assert Calibration.load(tmp_path / "calibration.json") == one


def test_a_handicap_is_taken_off_the_log_odds_of_its_product_alone():
    handicapped = replace(UNCALIBRATED, handicaps={"p1": 0.5})
    seen = MatchFeatures(visual_window=0.9)
    assert handicapped.logit(seen, "p1") == UNCALIBRATED.logit(seen) - 0.5
    assert handicapped.logit(seen, "p2") == UNCALIBRATED.logit(seen)
    assert handicapped.probability(seen, "p1") < handicapped.probability(seen)


@pytest.mark.parametrize("content", ["", "[]", '{"weights": {"visual": 1}, "bias": 0, "prior": 0.1}', '{"bias": 1}'])
def test_a_broken_calibration_is_named(tmp_path, content):
    path = tmp_path / "calibration.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"calibration\.json.*cope\.calibrate"):
        Calibration.load(path)


def test_a_calibration_fitted_without_a_feature_gives_it_no_weight(tmp_path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text('{"weights": {"visual_recent": 2.0}, "bias": -1.0, "prior": 0.1}')
    calibration = Calibration.load(path)
    assert calibration.logit(MatchFeatures(visual_recent=1.0, read=0.9, read_behind=-0.2)) == 1.0
    path.write_text('{"weights": {"visual_recent": 2.0, "salience": 0.0}, "bias": -1.0, "prior": 0.1}')
    assert Calibration.load(path) == calibration
    path.write_text(
        '{"weights": {}, "bias": -1.0, "prior": 0.1, "units": [{"weights": {"read": 2.0}, "bias": 0.0, "share": 1.0}]}'
    )
    with pytest.raises(UserError, match="other features"):
        Calibration.load(path)
    path.write_text(
        '{"weights": {"read": 0.0}, "bias": -1.0, "prior": 0.1,'
        ' "units": [{"weights": {"smell": 2.0}, "bias": 0.0, "share": 1.0}]}'
    )
    with pytest.raises(UserError, match="other features"):
        Calibration.load(path)
    path.write_text('{"weights": {"smell": 2.0}, "bias": -1.0, "prior": 0.1}')
    with pytest.raises(UserError, match="other features"):
        Calibration.load(path)
