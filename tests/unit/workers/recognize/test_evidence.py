"""From a window and its candidates to observations."""

import numpy as np
import pytest

from cope.keywords import page_terms
from cope.model.scoring import FEATURES, Calibration
from topology.errors import BadInput
from topology.index import PageEntry
from topology.records import FrameRegions, Keyword, WindowEmbedding
from workers.recognize.evidence import observe, search_query, unpack

CALIBRATION = Calibration(
    dict.fromkeys(FEATURES, 0.0) | {"visual_recent": 12.0, "margin_recent": 4.0, "text": 3.0}, bias=-9.0, prior=0.05
)
AXES = np.eye(8, dtype=np.float16)


def frame(pts_ms, *rows, salience=None):
    regions = np.array(rows, np.float16).reshape(len(rows), -1)
    return FrameRegions(pts_ms, regions.tobytes(), salience or tuple(0.9 - 0.1 * n for n in range(len(rows))))


def window(frames=(), keywords=(), embedding=AXES[0]):
    return WindowEmbedding(
        stream_id="room",
        epoch=0,
        start_ms=0,
        end_ms=8_000,
        hop_ms=2_000,
        embedding=b"" if embedding is None else embedding.tobytes(),
        frames=tuple(frames),
        keywords=tuple(Keyword(text, weight) for text, weight in keywords),
    )


def page(name, axis, title="thing"):
    return PageEntry(name, "m@1", AXES[axis][None], AXES[axis], page_terms(title), title)


PAGES = {one.product_id: one for one in (page("a", 0, "Red teapot"), page("b", 1, "Blue kettle"), page("c", 2))}


def observed(one, pages=PAGES, new_from_ms=0):
    return {o.product_id: o for o in observe(unpack(one, new_from_ms), pages, CALIBRATION)}


def test_the_product_in_the_newest_hop_is_the_likely_one():
    found = observed(window([frame(1_000, AXES[1]), frame(6_500, AXES[0], AXES[5]), frame(7_500, AXES[0])]))
    assert found["a"].log_odds > 2 > 0 > found["b"].log_odds
    assert found["a"].visual == 1.0


def test_frames_are_credited_to_the_product_that_they_show():
    one = window([frame(1_000, AXES[1]), frame(6_500, AXES[0]), frame(7_500, AXES[5])])
    found = observed(one)
    assert found["a"].frames == (6_500,)
    assert found["b"].frames == (1_000,)
    assert found["c"].frames == ()


def test_only_new_frames_are_judged():
    found = observed(window([frame(1_000, AXES[0]), frame(7_000, AXES[0])]), new_from_ms=6_000)
    assert found["a"].frames == (7_000,)


def test_words_raise_a_product_but_show_no_frame():
    said = [("red teapot", 1.0)]
    silent, spoken = observed(window([frame(7_000, AXES[5])])), observed(window([frame(7_000, AXES[5])], said))
    assert spoken["a"].log_odds > silent["a"].log_odds
    assert spoken["a"].text > 0.3
    assert spoken["a"].keywords == ("red teapot",)
    assert spoken["a"].frames == spoken["b"].keywords == ()


def test_a_window_without_frames_speaks_against_all():
    found = observed(window(embedding=None))
    assert all(one.log_odds < -2 for one in found.values())


def test_without_candidates_there_is_nothing_to_observe():
    assert observed(window([frame(7_000, AXES[0])]), pages={}) == {}


def test_the_last_bits_of_vectors_do_not_show():
    near = {"a": PageEntry("a", "m@1", AXES[:1] * np.float16(0.9995), AXES[0])}
    exact = {"a": PageEntry("a", "m@1", AXES[:1] * np.float16(0.9995) + np.float16(1e-7), AXES[0])}
    one = window([frame(7_000, AXES[0])])
    assert observed(one, near) == observed(one, exact)


def test_the_index_is_asked_for_salient_regions_of_new_frames():
    rows = [AXES[n] for n in range(7)]
    one = window([frame(1_000, AXES[7]), frame(7_000, *rows)], [("teapot", 1.0)])
    query = search_query(unpack(one, 6_000), ("a",))
    np.testing.assert_array_equal(query.regions, AXES[:4].astype(np.float32))
    np.testing.assert_array_equal(query.embedding, AXES[0])
    assert query.terms and query.bag == ("a",)


def test_an_empty_window_asks_for_nothing():
    query = search_query(unpack(window(embedding=None), 0), None)
    assert query.dense() == [] and not query.terms


@pytest.mark.parametrize(
    "broken",
    [
        window([FrameRegions(1_000, AXES[0].tobytes()[:-2], (0.9, 0.8))]),
        window([FrameRegions(1_000, AXES[0].tobytes(), ())]),
        window([frame(1_000, AXES[0][:4])]),
        window([frame(1_000, np.full(8, np.nan))]),
    ],
)
def test_arrays_that_do_not_fit_are_bad_input(broken):
    with pytest.raises(BadInput, match="window 0 of room"):
        unpack(broken, 0)


def test_pages_of_another_length_are_bad_input():
    short = {"a": PageEntry("a", "m@1", AXES[:1, :4], AXES[0, :4])}
    with pytest.raises(BadInput, match="another length"):
        observed(window([frame(7_000, AXES[0])]), short)
