"""From a window and its candidates to observations."""

from dataclasses import replace

import numpy as np
import pytest

from cope.keywords import PrintedWords, page_terms
from cope.model.scoring import FEATURES, Calibration
from topology.errors import BadInput
from topology.index import PageEntry
from topology.records import FrameRegions, Keyword, ReadLine, Said, WindowEmbedding
from workers.recognize.evidence import observe, read_of, search_query, unpack
from workers.recognize.standing import StandingLines

CALIBRATION = Calibration(
    dict.fromkeys(FEATURES, 0.0) | {"visual_recent": 12.0, "margin_recent": 4.0, "text_share": 3.0},
    bias=-9.0,
    prior=0.05,
)
AXES = np.eye(8, dtype=np.float16)


def frame(pts_ms, *rows, salience=None):
    regions = np.array(rows, np.float16).reshape(len(rows), -1)
    return FrameRegions(pts_ms, regions.tobytes(), salience or tuple(0.9 - 0.1 * n for n in range(len(rows))))


def window(frames=(), keywords=(), embedding=AXES[0], speech=()):
    return WindowEmbedding(
        stream_id="room",
        epoch=0,
        start_ms=0,
        end_ms=8_000,
        hop_ms=2_000,
        embedding=b"" if embedding is None else embedding.tobytes(),
        frames=tuple(frames),
        keywords=tuple(Keyword(text, weight) for text, weight in keywords),
        speech=tuple(Said(vector.tobytes(), weight) for vector, weight in speech),
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
    assert [one.pts_ms for one in found["a"].frames] == [6_500]
    assert [one.pts_ms for one in found["b"].frames] == [1_000]
    assert found["c"].frames == ()


def test_only_new_frames_are_judged():
    found = observed(window([frame(1_000, AXES[0]), frame(7_000, AXES[0])]), new_from_ms=6_000)
    assert [one.pts_ms for one in found["a"].frames] == [7_000]


def test_words_raise_a_product_but_show_no_frame():
    said = [("red teapot", 1.0)]
    silent, spoken = observed(window([frame(7_000, AXES[5])])), observed(window([frame(7_000, AXES[5])], said))
    assert spoken["a"].log_odds > silent["a"].log_odds
    assert spoken["a"].text > 0.3
    assert spoken["a"].keywords == ("red teapot",)
    assert spoken["a"].frames == spoken["b"].keywords == ()


def test_words_choose_between_look_alikes():
    alike = np.float16(0.72) * AXES[0] + np.float16(0.69) * AXES[1]
    pages = {one.product_id: one for one in (page("a", 0, "Orange juice"), page("b", 1, "Carrot juice"))}
    silent = observed(window([frame(7_000, alike), frame(7_500, alike)]), pages)
    assert len(silent["a"].frames) == 2 and not silent["b"].frames
    told = observed(window([frame(7_000, alike), frame(7_500, alike)], [("carrot", 1.0), ("juice", 1.0)]), pages)
    assert told["b"].log_odds > max(0, told["a"].log_odds) and len(told["b"].frames) == 2
    elsewhere = observed(window([frame(7_000, AXES[5])], [("carrot", 1.0), ("juice", 1.0)]), pages)
    assert not elsewhere["b"].frames, "what is named must be seen"


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


def test_the_index_is_asked_for_the_newest_speech():
    one = window(speech=[(AXES[n], 1.0) for n in range(6)])
    np.testing.assert_array_equal(search_query(unpack(one, 0), None).speech, AXES[2:6])


def test_speech_of_a_page_s_meaning_raises_its_product():
    pages = {name: replace(one, text=AXES[3 + n]) for n, (name, one) in enumerate(PAGES.items())}
    calibration = replace(CALIBRATION, weights=CALIBRATION.weights | {"speech": 3.0, "margin_speech": 2.0})
    look = unpack(window([frame(7_000, AXES[6])], speech=[(AXES[4], 0.5)]), 0)
    found = {one.product_id: one for one in observe(look, pages, calibration)}
    assert found["b"].speech == 0.5 and found["a"].speech == 0
    assert found["b"].log_odds == pytest.approx(found["a"].log_odds + 3.0 * 0.5 + 2.0 * 1.0, abs=0.02)
    assert not found["b"].frames, "what is said shows nothing"


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
        window([frame(1_000, AXES[0])], speech=[(AXES[0][:4], 1.0)]),
        window(speech=[(np.full(8, np.nan, np.float16), 1.0)]),
    ],
)
def test_arrays_that_do_not_fit_are_bad_input(broken):
    with pytest.raises(BadInput, match="window 0 of room"):
        unpack(broken, 0)


def test_pages_of_another_length_are_bad_input():
    short = {"a": PageEntry("a", "m@1", AXES[:1, :4], AXES[0, :4])}
    with pytest.raises(BadInput, match="another length"):
        observed(window([frame(7_000, AXES[0])]), short)


def test_a_title_said_in_full_speaks_for_its_product_in_any_language():
    names = Calibration(CALIBRATION.weights | {"text_share": 0.0, "named": 5.0}, bias=-9.0, prior=0.05)
    pages = {
        "a": PageEntry("a", "m@1", AXES[:1], AXES[0], titles=("Vine Tomato", "藤番茄")),
        "b": PageEntry("b", "m@1", AXES[1:2], AXES[1], titles=("Beef Tomato",)),
    }
    for said in ("vine tomato", "藤番茄"):
        look = unpack(window([frame(7_000, AXES[5])], keywords=[(said, 0.9)]), 0)
        found = {one.product_id: one.log_odds for one in observe(look, pages, names)}
        assert found["a"] == pytest.approx(-4.0) and found["b"] < -8.9


READS = Calibration(CALIBRATION.weights | {"read_behind": 10.0}, bias=-9.0, prior=0.05)


def line(text, at=(0.4, 0.4, 0.6, 0.5)):
    return ReadLine(text, 0.9, at)


def read_window(*lines, axis=5, boxes=((0.3, 0.3, 0.7, 0.7),), pts_ms=7_000):
    one = frame(pts_ms, AXES[axis])
    where = np.array(boxes, "<f4").tobytes()
    return window([FrameRegions(one.pts_ms, one.regions, one.salience, where, 1_700, tuple(lines))])


def words_read(look, standing=None):
    shop = PrintedWords()
    shop.add("a", ["Red teapot"], ["RÖD TEKANNA"])
    shop.add("b", ["Blue kettle"])
    return read_of(look, standing or StandingLines(), 0, shop.seen)


def test_what_is_read_on_a_product_speaks_for_it_and_its_frame():
    look = unpack(read_window(line("TEKANNA"), line("gibberish")), 0)
    read = words_read(look)
    found = {one.product_id: one for one in observe(look, PAGES, READS, read)}
    assert read.best(5) == ["a"]
    assert found["a"].log_odds > found["b"].log_odds
    assert found["a"].read > 0.2 and found["b"].read == 0
    assert found["a"].lines == ("TEKANNA",) and found["b"].lines == ()


def test_small_print_beside_all_regions_is_a_comment_and_a_title_is_none():
    small, title = line("teapot", (0.8, 0.9, 0.9, 0.92)), line("teapot", (0.1, 0.9, 0.9, 0.95))
    assert not words_read(unpack(read_window(small), 0)).window
    assert "a" in words_read(unpack(read_window(title), 0)).window


def test_a_line_that_stands_on_the_screen_names_nothing():
    standing = StandingLines()
    for second in range(4):
        standing.note(0, 2_000 * second, [line("TEAPOT")])
    assert not words_read(unpack(read_window(line("TEAPOT")), 0), standing).window


def test_older_frames_of_a_window_say_less():
    new, old = (words_read(unpack(read_window(line("teapot"), pts_ms=pts_ms), 0)) for pts_ms in (7_000, 1_000))
    assert new.score("a") > old.score("a") > 0


def test_evidence_says_where_the_product_is_and_which_picture_it_matches():
    one = read_window(axis=0)
    entry = PageEntry("a", "m@1", AXES[[3, 4, 0, 5]], AXES[0], {}, "a", images=("front.jpg", "back.jpg"))
    (found,) = observe(unpack(one, 0), {"a": entry}, CALIBRATION)
    (shown,) = found.frames
    assert shown.page_image == "back.jpg"  # two views a picture
    assert shown.box == pytest.approx((0.3, 0.3, 0.7, 0.7)) and shown.captured_at_ms == 1_700
    assert shown.score == 1.0
