from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope.errors import UserError
from cope.model.scoring import (
    FEATURES,
    UNCALIBRATED,
    Calibration,
    MatchFeatures,
    match_features,
    speech_scores,
    with_rivals,
)

E = np.eye(4, dtype=np.float32)


def features_of(frames, pages, recent_from_ms=2000, **rest):
    return match_features(frames, recent_from_ms, E[0], pages, E[0], **rest)


def test_a_frame_counts_with_its_best_region_and_page_picture():
    found = features_of([(2000, E[:2])], E[1:3])
    assert found.visual_recent == pytest.approx(1.0)
    assert found.visual_window == pytest.approx(1.0)


def test_recent_score_reads_the_newest_hop_only():
    found = features_of([(0, E[:1]), (1000, E[:1]), (2000, E[1:2])], E[:1])
    assert found.visual_recent == pytest.approx(0.0)
    assert found.visual_window == pytest.approx(1.0)  # the better half: two of three frames


def test_salience_is_that_of_the_region_that_fits():
    found = features_of([(2000, E[:2])], E[1:2], saliences=[np.array([0.9, 0.4], np.float32)])
    assert found.salience == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("frames", "pages"), [([], E), ([(2000, E[:0])], E), ([(2000, E)], E[:0])], ids=["no frame", "no region", "no page"]
)
def test_what_is_missing_scores_nothing(frames, pages):
    found = match_features(frames, 0, np.zeros(0), pages, np.zeros(0))
    assert found == MatchFeatures()


def test_text_share_is_relative_to_the_best_named_product():
    assert features_of([], E, text_score=0.2, best_text_score=0.8).text_share == pytest.approx(0.25)
    assert features_of([], E).text_share == 0.0


def test_speech_counts_with_its_best_piece_and_weight():
    pages = [E[0], E[1], np.zeros(0, np.float16)]
    assert speech_scores([(E[0], 1.0), (E[1], 0.5)], pages) == pytest.approx([1.0, 0.5, 0.0])
    assert speech_scores([(-E[0], 1.0)], pages) == [0.0, 0.0, 0.0]
    assert speech_scores([], pages) == [0.0, 0.0, 0.0]


def test_margins_compare_with_the_best_other_product():
    first, second, third = with_rivals([MatchFeatures(visual_recent=v) for v in (0.9, 0.6, 0.1)])
    assert [round(f.margin_recent, 6) for f in (first, second, third)] == [0.3, -0.3, -0.8]


def test_a_tie_has_no_margin():
    assert [f.margin_window for f in with_rivals([MatchFeatures(visual_window=0.5)] * 2)] == [0.0, 0.0]


def test_a_lone_candidate_is_compared_with_nothing():
    assert with_rivals([MatchFeatures(fused=0.7)])[0].margin_fused == pytest.approx(0.7)
    assert with_rivals([]) == []


@given(st.lists(st.floats(-1, 1), min_size=len(FEATURES), max_size=len(FEATURES)))
def test_a_probability_is_one_for_any_features(values):
    assert 0.0 <= UNCALIBRATED.probability(MatchFeatures(*values)) <= 1.0


def test_the_likelihood_ratio_leaves_the_prior_out():
    even = Calibration(dict.fromkeys(FEATURES, 0.0), bias=float(np.log(0.2 / 0.8)), prior=0.2)
    assert even.probability(MatchFeatures()) == pytest.approx(0.2)
    assert even.log_likelihood_ratio(MatchFeatures()) == pytest.approx(0.0)


def test_a_calibration_survives_its_file(tmp_path):
    for one in (UNCALIBRATED, replace(UNCALIBRATED, handicaps={"p1": 0.5})):
        one.save(tmp_path / "calibration.json")
        assert Calibration.load(tmp_path / "calibration.json") == one


def test_a_handicap_is_taken_off_the_log_odds_of_its_product_alone():
    handicapped = replace(UNCALIBRATED, handicaps={"p1": 0.5})
    seen = MatchFeatures(visual_window=0.9)
    assert handicapped.logit(seen, "p1") == UNCALIBRATED.logit(seen) - 0.5
    assert handicapped.log_likelihood_ratio(seen, "p2") == UNCALIBRATED.log_likelihood_ratio(seen)
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
    path.write_text('{"weights": {"smell": 2.0}, "bias": -1.0, "prior": 0.1}')
    with pytest.raises(UserError, match="other features"):
        Calibration.load(path)
