import json
import shutil
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from cope import calibrate
from cope.calibrate import Piece, Shop, handicaps, heard, meant, peaks, random_catalogue, vocabulary_of
from cope.config import TrainConfig
from cope.data import showings
from cope.data.objects import Product
from cope.data.showings import Known, Stream, shown_frames, speech
from cope.keywords import MAX_KEYWORDS, page_terms
from cope.model.scoring import FEATURES, UNCALIBRATED, Calibration, MatchFeatures
from cope.render import live_scene
from cope.render.speech import CHAT
from cope.serving import artefact
from cope.serving.card import model_card
from cope.serving.encoder import Encoder, PageInput
from cope.training.odds import Sample, fit
from cope.vision.cutouts import thing
from topology.records import Keyword
from workers.embed.encoding import weigh
from workers.embed.parts import KeywordsIn

pytestmark = pytest.mark.slow

SHOWN = [*[0] * 10, *[-1] * 4, *[2] * 10, *[-1] * 14, *[3] * 10]
SPLITS = ("train", "val", "test")

SILENT = np.zeros(0, np.float16)


@pytest.fixture
def products():
    names = ("copper kettle", "wool blanket", "walnut tray", "linen apron", "")
    return [Known(f"p{i}", f"p{i}", name) for i, name in enumerate(names)]


def spoken(products, catalogue, seeds=range(40), split="val"):
    """What is said on some streams, as pieces with keywords."""
    vocabulary = vocabulary_of(products, catalogue)
    streams = [speech(np.random.default_rng(seed), SHOWN, products, catalogue, split) for seed in seeds]
    return [[Piece(one.start_s, one.end_s, vocabulary.extract(one.text), SILENT) for one in lines] for lines in streams]


def as_service_weighs(pieces, end_s):
    def record(piece):
        keywords = tuple(Keyword(text, weight) for text, weight in piece.keywords)
        item = SimpleNamespace(value=SimpleNamespace(keywords=keywords))
        return KeywordsIn("s", 0, 1000 * piece.start_s, 1000 * piece.end_s, 0, item)

    start_ms = 1000 * end_s - calibrate.WINDOW_MS
    reach_ms = start_ms - calibrate.LOOK_BACK_MS
    within = [r for r in map(record, pieces) if r.end_ms > reach_ms and r.start_ms < 1000 * end_s]
    return [(one.text, one.weight) for one in weigh(within, start_ms, calibrate.LOOK_BACK_MS)]


def test_names_come_through_the_vocabulary_of_the_catalogue(products):
    pieces = [piece for stream in spoken(products, [0, 1]) for piece in stream]
    weights = [dict(piece.keywords) for piece in pieces]
    assert any(one.get("copper kettle", 0) > 0.5 for one in weights)
    # "walnut tray" is shown and named, and in no page of this catalogue: a phrase that it does not know.
    assert max(weight for one in weights for text, weight in one.items() if "walnut" in text) <= 0.2


def test_chatter_is_no_surer_than_in_service(products):
    vocabulary = vocabulary_of(products, range(4))
    for text in CHAT["val"]:
        assert all(weight <= 0.2 for _, weight in vocabulary.extract(text))
    assert not vocabulary.extract("thank you for watching")


def test_products_without_a_name_are_shown_in_chatter(products):
    for piece in (p for stream in spoken(products, [4]) for p in stream):
        assert all(weight <= 0.2 for _, weight in piece.keywords)


def test_a_third_of_the_streams_is_silent_and_a_seed_says_the_same_again(products):
    streams = spoken(products, range(4), range(200))
    assert 0.2 < sum(not stream for stream in streams) / len(streams) < 0.5
    assert streams == spoken(products, range(4), range(200))


@pytest.mark.parametrize("split", SPLITS)
def test_each_side_of_the_split_has_its_own_sentences(products, monkeypatch, split):
    asked = []

    def said(rng, names, talk, side):
        asked.append(side)
        return ""

    monkeypatch.setattr(showings, "transcript", said)
    spoken(products, range(4), split=split)
    assert set(asked) == {split}


def test_pieces_of_speech_do_not_overlap(products):
    for stream in spoken(products, range(4)):
        for one, following in pairwise(stream):
            assert one.start_s < one.end_s <= following.start_s


def test_what_is_heard_in_a_window_weighs_as_in_service(products):
    for pieces in spoken(products, range(4), range(10)):
        for end_s in range(2, len(SHOWN) + 1, 2):
            assert heard(pieces, end_s) == as_service_weighs(pieces, end_s)


def test_what_was_meant_fades_as_keywords_do():
    one, other = np.eye(2, dtype=np.float16)
    pieces = [Piece(0, 4, [], one), Piece(4, 6, [], SILENT), Piece(12, 14, [], other)]
    (first, weight), (second, full) = meant(pieces, 22)
    assert first is one and weight == pytest.approx(0.5) and second is other and full == 1.0


def test_no_window_has_more_keywords_than_in_service():
    many = [Piece(0, 6, [(f"word {i}", 0.5) for i in range(40)], SILENT), Piece(6, 8, [("lamp", 0.4)], SILENT)]
    assert heard(many, 8) == as_service_weighs(many, 8)
    assert len(heard(many, 8)) == MAX_KEYWORDS


@pytest.fixture
def pairs():
    """Two hundred products, the first and the second, the third and the fourth, ... alike."""
    picture = thing(np.random.default_rng(0))
    return [Product(f"p{i}", f"g{i // 2}", f"lamp {i}", picture) for i in range(200)]


def test_what_must_be_refused_has_its_look_alike_there_half_the_time_at_least(pairs):
    refused = replaced = 0
    for seed in range(300):
        catalogue = random_catalogue(np.random.default_rng(seed), pairs, {0, 4, 8})
        assert len(set(catalogue)) == len(catalogue) >= 2
        for shown in {0, 4, 8} - set(catalogue):
            refused += 1
            replaced += shown + 1 in catalogue
    assert 0.3 < refused / 900 < 0.5
    assert replaced / refused > 0.5


def test_other_products_stand_beside_what_is_shown(pairs, monkeypatch):
    drawn = []

    def render(rng, room, items, size, camera):
        drawn.append([cutout for cutout, _ in items])
        return np.zeros((360, 640, 3), np.uint8), []

    monkeypatch.setattr(live_scene, "render_frame", render)
    pictures = [thing(np.random.default_rng(i)) for i in range(30)]
    shelf = [replace(product, cutout=picture) for product, picture in zip(pairs[:30], pictures, strict=True)]
    room = np.zeros((400, 700, 3), np.uint8)
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(30)[:6]
        stream = [number for _, number in shown_frames(np.random.default_rng(seed), shelf, order, [room])]
        forbidden = [pictures[i] for number in order for i in (number, number ^ 1)]
        for shown, items in zip(stream, drawn[-len(stream) :], strict=True):
            assert not any(one is other for one in items[:-1] for other in forbidden)
            assert shown < 0 or items[-1] is pictures[shown]
    beside = [any(one is picture for one in items[:1] for picture in pictures) and len(items) > 1 for items in drawn]
    assert 0.1 < sum(beside) / len(beside) < 0.4


@pytest.fixture
def recorded(tmp_path):
    """A manifest of 30 products with two clips each: of twelve pictures, and of one beside a lost one."""
    rows = []
    for number in range(30):
        shades = {name: 5 * number + at for at, name in enumerate(("page", "still", *map(str, range(12))))}
        for name, shade in shades.items():
            cv2.imwrite(str(tmp_path / f"{number}-{name}.png"), np.full((40, 60, 3), shade, np.uint8))
        about = {"product_id": f"p{number}", "category": f"c{number // 2}", "split": "val"}
        clips = ([f"{number}-{at}.png" for at in range(12)], [f"{number}-still.png", "lost.png"])
        rows.append(
            {**about, "domain": "page", "id": "page", "images": [f"{number}-page.png"], "text": f"lamp {number}"}
        )
        rows += [
            {**about, "domain": "live", "id": f"{at}", "images": images, "text": f"look at lamp {number}"}
            for at, images in enumerate(clips)
        ]
    for row in rows:
        row["id"] = f"{row['product_id']}-{row['id']}"
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(tmp_path)


def test_streams_are_made_of_recorded_clips_and_what_is_said_in_them(recorded):
    shop = showings.open_showings(recorded, "val", np.random.default_rng(0), 12)
    assert len(shop.products) == 30
    assert [stream_of_clips(shop, stream) for stream in shop.streams()] == [6, 6]
    assert shop.counts["missing pictures"] > 0


def stream_of_clips(shop, stream):
    """The number of clips of a stream, each as it should be."""
    frames = list(stream.frames)
    lines = stream.said([], [])
    assert lines[0].start_s == 0 and lines[-1].end_s == len(frames)
    for line in lines:
        [number] = {shown for _, shown in frames[line.start_s : line.end_s]}
        product = shop.products[number]
        name = int(product.id.removeprefix("p"))
        assert line.text == f"look at {product.name}" == f"look at lamp {name}"
        assert product.group == f"c{name // 2}"
        shades = [int(picture[0, 0, 0]) - 5 * name for picture, _ in frames[line.start_s : line.end_s]]
        assert shades in ([1] * 4, [2, 3, 5, 6, 7, 8, 9, 11, 12, 13])  # held on, or spread over the clip
    return len(lines)


@pytest.mark.parametrize(("showings", "held_out"), [("30", True), ("24", False)])
def test_a_model_is_calibrated_on_recorded_clips(recorded, tiny, tmp_path, monkeypatch, capsys, showings, held_out):
    folder = tmp_path / "tiny"
    artefact.save(folder, "tiny", tiny.config, tiny.model.state_dict(), None)
    (folder / "README.md").write_text(model_card("tiny", TrainConfig(model=tiny.config), "things", 30, {}))
    monkeypatch.setattr(calibrate, "CATALOGUES", 3)
    assert calibrate.main([str(folder), "--data", recorded, "--showings", showings]) == 0
    assert artefact.load(folder).calibration != UNCALIBRATED
    said = capsys.readouterr()
    assert "missing pictures" in said.err
    of = "of streams held out" if held_out else "of streams fitted on, not all held out; give more --showings or data"
    assert said.out.splitlines()[0].endswith(f"({of})")
    card = (folder / "README.md").read_text()
    assert "Calibrate it before it serves" not in card and card.count("## Calibration") == 1
    assert ("every fifth stream, held out" in card) == held_out != ("fitted on: not of all data held out" in card)


def test_a_model_that_reads_from_now_on_says_so(recorded, tiny, tmp_path, monkeypatch):
    pytest.importorskip("rapidocr")
    folder = tmp_path / "tiny"
    artefact.save(folder, "tiny", tiny.config, tiny.model.state_dict(), None)
    (folder / "README.md").write_text(model_card("tiny", TrainConfig(model=tiny.config), "things", 30, {}))
    monkeypatch.setattr(calibrate, "CATALOGUES", 1)
    for switch, reading in (("--read", "packaged:ppocr"), ("--no-read", "")):
        assert calibrate.main([str(folder), "--data", recorded, "--showings", "24", switch]) == 0
        assert artefact.load(folder).config.reading == reading
        assert ("are read (`packaged:ppocr`)" in (folder / "README.md").read_text()) == bool(reading)


def test_a_twin_that_was_trained_without_the_products_looks_at_them(recorded, tiny, tmp_path, monkeypatch):
    folder, twin = tmp_path / "tiny", tmp_path / "twin"
    weights = tiny.model.state_dict()
    artefact.save(folder, "tiny", tiny.config, weights, None)
    (folder / "README.md").write_text(model_card("tiny", TrainConfig(model=tiny.config), "things", 30, {}))
    artefact.save(twin, "other", tiny.config, {name: -one for name, one in weights.items()}, None)
    monkeypatch.setattr(calibrate, "CATALOGUES", 1)
    options = ["--data", recorded, "--showings", "24"]
    assert calibrate.main([str(folder), *options, "--twin", str(twin)]) == 0
    kept = artefact.load(folder)
    assert artefact.load(twin).calibration == UNCALIBRATED  # its own stays as it is
    assert f"The windows are those of {artefact.load(twin).version}, a twin" in (folder / "README.md").read_text()
    assert all((kept.weights[name] == one.half().float()).all() for name, one in weights.items())
    assert calibrate.main([str(twin), *options]) == 0
    assert artefact.load(twin).calibration == kept.calibration


def test_a_twin_of_another_recipe_is_refused_before_anything_is_read(recorded, tiny, tmp_path, capsys):
    folder, twin = tmp_path / "tiny", tmp_path / "twin"
    artefact.save(folder, "tiny", tiny.config, tiny.model.state_dict(), None)
    other = replace(tiny.config, regions=2)
    artefact.save(twin, "other", other, tiny.model.state_dict(), None, live_text="raw")
    assert calibrate.main([str(folder), "--data", "nowhere", "--twin", str(twin)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"cope.calibrate: {twin} is no twin of tiny@")
    assert "model.regions 2 instead of 4, live_text raw instead of keywords" in line
    assert artefact.load(folder).calibration == UNCALIBRATED


def test_the_model_that_ships_is_not_changed(recorded, capsys):
    assert calibrate.main(["cope-mini", "--data", recorded]) == 2
    assert "is part of the package: copy /" in capsys.readouterr().err
    assert calibrate.main(["no-such-model", "--data", recorded]) == 2
    assert "no model at 'no-such-model'" in capsys.readouterr().err


def test_too_few_recorded_products_are_one_line(recorded, tiny, tmp_path, capsys):
    folder = tmp_path / "tiny"
    artefact.save(folder, "tiny", tiny.config, tiny.model.state_dict(), None)
    rows = (tmp_path / "manifest.jsonl").read_text().splitlines()
    (tmp_path / "manifest.jsonl").write_text("\n".join(rows[:30]))
    assert calibrate.main([str(folder), "--data", recorded]) == 2
    assert "10 products with a page on the val side of the split" in capsys.readouterr().err.splitlines()[-1]


def test_what_is_read_becomes_a_feature_and_what_never_varies_gets_no_weight(tmp_path):
    pytest.importorskip("rapidocr")
    folder = tmp_path / "reads"
    shutil.copytree(artefact.locate("cope-mini"), folder)
    artefact.update(folder, reading="packaged:ppocr")
    encoder = Encoder(folder, device="cpu")
    names = ["Orange Juice", "Oat Milk", "Green Tea", *(f"Thing {number}" for number in range(9))]
    products = [Known(name, name, name) for name in names]
    pictures = [np.full((120, 200, 3), 40 + 15 * number, np.uint8) for number in range(len(products))]
    pages = encoder.encode_pages([PageInput(one.name, [pictures[number]]) for number, one in enumerate(products)])
    shop = Shop(products, pages, [[] for _ in products], [page_terms(one.name) for one in products])
    frame = np.full((180, 320, 3), 200, np.uint8)
    cv2.putText(frame, "ORANGE JUICE", (20, 100), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (0, 0, 0), 2, cv2.LINE_AA)
    stream = Stream(iter([(frame, 0)] * 4), lambda shown, catalogue: [])
    watched = calibrate.watch(encoder, stream)
    found = calibrate.samples(np.random.default_rng(2), encoder, stream, watched, shop, 8)
    listed = [one for one in found if one.shown >= 0]
    assert listed
    for one in listed:
        right = one.candidates[one.shown]
        assert right.read > 0.4 and right.read_behind == 0.0
        assert all(other.read_behind < 0 for other in one.candidates if other is not right)
    fitted = fit(found, steps=20)
    assert fitted.weights["read_behind"] > 0
    assert fitted.weights["text_share"] == fitted.weights["speech"] == 0.0  # nobody speaks


def test_clips_of_anything_but_a_product_are_windows_that_refuse_it(recorded, tiny, tmp_path):
    artefact.save(tmp_path / "tiny", "tiny", tiny.config, tiny.model.state_dict(), None)
    encoder = Encoder(tmp_path / "tiny", device="cpu")
    rows = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    for row in rows:
        if row["domain"] == "live" and row["product_id"] == "p7":
            row["product_id"] = "not p3"
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    shop = showings.open_showings(recorded, "val", np.random.default_rng(0), 60)
    shown = {number for stream in shop.streams() for _, number in stream.frames}
    names = {shop.products[showings.refused(number)].id for number in shown if number < showings.NOT_LISTED}
    assert names == {"p3"} and showings.NOT_LISTED not in shown
    told = calibrate.judge(encoder, [recorded], "val", 60, 0)
    # Each clip by itself, against all products with a page: 4 pictures of one, ten of the other.
    assert sorted({len(windows) for windows in told}) == [2, 5]
    for windows in told:
        assert len({one.products[max(one.shown, one.refused)] for one in windows}) == 1
    assert {one.products[one.refused] for windows in told for one in windows if one.refused >= 0} == {"p3"}


@pytest.mark.parametrize("right", [True, False], ids=["and a right one", "the first verdict"])
def test_handicaps_alone_leave_the_rest_of_a_calibration_as_it_is(recorded, tiny, tmp_path, capsys, right):
    folder = tmp_path / "tiny"
    artefact.save(folder, "tiny", tiny.config, tiny.model.state_dict(), None)
    rows = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    few = [row for row in rows if row["product_id"] in {"p0", "p1", "p2"} and row["domain"] == "page"]
    few += [
        {**row, "product_id": "on no page"} for row in rows if row["product_id"] == "p0" and row["domain"] == "live"
    ]
    few += [row for row in rows if right and row["product_id"] == "p2" and row["domain"] == "live"]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, few)))
    believing = Calibration(dict.fromkeys(FEATURES, 0.0) | {"visual_recent": 30.0}, bias=-20.0, prior=0.05)
    artefact.update(folder, calibration=believing)
    before = artefact.load(folder).version
    assert calibrate.main([str(folder), "--handicaps", "--data", recorded]) == 0
    after = artefact.load(folder)
    assert after.version != before and after.calibration.handicaps
    assert replace(after.calibration, handicaps={}) == believing
    assert f"clips: {4 if right else 2};" in capsys.readouterr().out


BY_EYE = Calibration(dict.fromkeys(FEATURES, 0.0) | {"visual_recent": 10.0}, bias=-5.0, prior=0.05)


def sighting(shown, refused=-1, **seen):
    """Three windows that see the products of these cosines."""
    candidates = [MatchFeatures(visual_recent=value) for value in seen.values()]
    return [Sample(candidates, shown, refused, tuple(seen))] * 3


def test_a_product_that_is_believed_where_it_is_not_shown_gets_the_least_handicap_that_mends_it():
    told = [
        sighting(-1, lager=0.56, cola=0.2),  # something of no catalogue
        sighting(0, lager=0.8, cola=0.2),
        sighting(1, lager=0.2, cola=0.55),
    ]
    before, right = (peaks(BY_EYE, windows)["lager"] for windows in told[:2])
    assert before > 0.5
    given = handicaps(BY_EYE, told)
    assert list(given) == ["lager"]
    now = replace(BY_EYE, handicaps=given)
    assert peaks(now, told[0])["lager"] < calibrate.MISTAKEN
    assert calibrate.THRESHOLD < peaks(now, told[1])["lager"] < right
    assert peaks(now, told[2])["cola"] >= peaks(BY_EYE, told[2])["cola"]
    less = replace(BY_EYE, handicaps={"lager": given["lager"] - 0.25})
    assert peaks(less, told[0])["lager"] >= calibrate.MISTAKEN
    assert handicaps(replace(BY_EYE, handicaps={"tea": 2.0}), told) == {"tea": 2.0, **given}, "what others were given"


def test_only_what_is_said_to_be_wrong_gets_a_handicap():
    alike = sighting(-1, refused=0, lager=0.8, ale=0.8)
    assert list(handicaps(BY_EYE, [alike])) == ["lager"]
    assert set(handicaps(BY_EYE, [sighting(-1, lager=0.8, ale=0.78)])) == {"lager", "ale"}


def test_no_handicap_is_given_that_loses_more_right_sightings_than_it_mends():
    mistake, right = sighting(-1, lager=0.7), sighting(0, lager=0.6)
    assert handicaps(BY_EYE, [mistake, right, right]) == {}
    assert list(handicaps(BY_EYE, [mistake, mistake, right])) == ["lager"]
