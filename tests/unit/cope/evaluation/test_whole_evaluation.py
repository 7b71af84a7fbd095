"""From pictures and strings to the report, on the tiny model and products that are plain colours."""

import errno
import json
import os
import socket
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch

from cope import evaluate as command
from cope.config import ModelConfig
from cope.data.items import Picture
from cope.domains import DOMAINS
from cope.errors import UserError
from cope.evaluation import evaluating, report
from cope.evaluation.collecting import Sampling, evaluation_set
from cope.evaluation.describing import Describer
from cope.evaluation.evaluating import Options, evaluate
from cope.evaluation.measures import speech_figures
from cope.evaluation.ranking import Ranks
from cope.evaluation.sets import CHAT, KEYWORDS, MISLED, NAMED, RAW
from cope.evaluation.space import embedded, frozen
from cope.evaluation.suite import Drawn, Protocol, Sheet
from cope.keywords import query_terms
from cope.model.modeling import CopeModel
from cope.model.scoring import UNCALIBRATED
from cope.model.views import NOBODY
from cope.serving import artefact
from cope.serving.encoder import Encoder, PageInput, WindowInput
from cope.towers.packaged import text_tower, vision_tower
from tests.unit.cope.evaluation.shop import Shop

pytestmark = pytest.mark.slow


@pytest.fixture
def describer(folder):
    return Describer(Encoder(folder, "cpu"))


def read(describer, source, cache, split="test", **sampling):
    return evaluation_set(describer, source, split, cache, Sampling(frames=3, **sampling), workers=0)


def test_items_become_vectors_as_in_service(folder, describer, tmp_path):
    data, _ = read(describer, Shop(), tmp_path)
    space = embedded(describer.model, data, torch.device("cpu"))
    encoder, shop = Encoder(folder, "cpu"), Shop()
    page, live = shop.items(1, "page")[0], shop.items(1, "live")[1]
    row = data.items["page"].index("page-1-0")
    served = encoder.encode_pages([PageInput(page.text, shop.pictures(page))])[0]
    ours = space.fused["page"].vectors[space.fused["page"].rows.tolist().index(row)]
    np.testing.assert_allclose(ours.numpy(), served.fused, atol=4e-3)
    row = data.items["live"].index("live-1-1")
    frames = [shop.pictures(live)[at] for at in (0, 2, 4)]  # three of five, spread evenly
    window = WindowInput(encoder.encode_frames(frames), data.keywords["live"][row])
    ours = space.fused["live"].vectors[space.fused["live"].rows.tolist().index(row)]
    np.testing.assert_allclose(ours.numpy(), encoder.encode_windows([window])[0], atol=4e-3)


def test_frames_that_see_one_another_do_so_here_as_in_service(hub, tmp_path):
    config = ModelConfig(
        vision=str(hub["x_clip"]),
        text=str(hub["bert"]),
        dim=16,
        crop_pixels=32,
        regions=0,
        temporal="transformer",
        fusion="transformer",
        tuning="full",
    )
    vision, text = (opened(name, "full") for opened, name in ((vision_tower, config.vision), (text_tower, config.text)))
    torch.manual_seed(0)
    model = CopeModel(config, (), vision.descriptor_width, text.width)
    artefact.save(tmp_path / "m", "m", config, model.state_dict(), UNCALIBRATED, towers=(vision, text))
    encoder, shop = Encoder(tmp_path / "m", "cpu"), Shop()
    describer = Describer(encoder)
    data, about = read(describer, shop, tmp_path)
    assert about["finder_recall"] is None
    row = data.items["live"].index("live-2-0")
    clip = shop.items(2, "live")[0]
    frames = [shop.pictures(clip)[at] for at in (0, 2, 4)]
    window = WindowInput(encoder.encode_frames(frames), data.keywords["live"][row])
    side = embedded(describer.model, data, torch.device("cpu")).fused["live"]
    ours = side.vectors[side.rows.tolist().index(row)].numpy()
    np.testing.assert_allclose(ours, encoder.encode_windows([window])[0], atol=4e-3)


def test_descriptors_are_kept_and_found_again(describer, tmp_path):
    first, second = Shop(), Shop()
    one, about = read(describer, first, tmp_path)
    other, again = read(describer, second, tmp_path)
    assert len(first.read_items) == 54 and second.read_items == ["live-0-0"]  # its picture is still broken
    assert again == about
    for domain in DOMAINS:
        assert torch.equal(one.views[domain].descriptors, other.views[domain].descriptors)
        assert torch.equal(one.views[domain].words, other.views[domain].words)
    third = Shop(fingerprint="f01")
    read(describer, third, tmp_path)
    assert len(third.read_items) == 54


def test_another_side_of_the_same_data_is_described_anew(describer, tmp_path):
    read(describer, Shop(), tmp_path)
    other = Shop()
    read(describer, other, tmp_path, split="val")
    assert len(other.read_items) == 54


@pytest.mark.parametrize("name", ["about.json", "unread.json", "speech.pt", "live-frame.npy"])
def test_damaged_descriptors_are_named_with_the_mend(describer, tmp_path, name):
    read(describer, Shop(), tmp_path)
    [folder] = tmp_path.glob("views-*")
    (folder / name).write_bytes(b"[")
    with pytest.raises(UserError, match=rf"{folder} is damaged .* remove it and start the same command again"):
        read(describer, Shop(), tmp_path)


def test_pictures_that_are_put_back_are_read(describer, tmp_path, monkeypatch):
    with monkeypatch.context() as gone:
        gone.setattr(Shop, "_picture", lambda *_: Picture(None, problem="missing pictures"))
        _, about = read(describer, Shop(), tmp_path)
    assert about["skipped"]["missing pictures"] == 144
    _, about = read(describer, Shop(), tmp_path)
    assert about["skipped"] == {"rows with too few columns": 2, "broken pictures": 1}
    data, again = read(describer, Shop(), tmp_path)
    assert again == about and (data.views["page"].frame >= 0).all()


def test_a_full_disk_is_a_line_before_the_work_and_leaves_nothing(describer, tmp_path, monkeypatch):
    disk = 4096

    def reserve(file, start, size):
        nonlocal disk
        disk -= size - start
        if disk < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    shop = Shop()
    with pytest.raises(
        UserError, match=r"cannot keep descriptors in .*: No space left on device; name another --cache"
    ):
        read(describer, shop, tmp_path / "cache")
    assert not shop.read_items
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_file_system_that_cannot_reserve_is_written_all_the_same(describer, tmp_path, monkeypatch):
    def reserve(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    read(describer, Shop(), tmp_path)


def test_what_a_killed_process_left_is_removed_and_nothing_of_the_living(describer, tmp_path):
    read(describer, Shop(), tmp_path / "cache")
    [kept] = (tmp_path / "cache").iterdir()
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    host, parent = socket.gethostname(), os.getppid()
    dead, alive = (kept.with_name(f"{kept.name}.{host}.{pid}.tmp") for pid in (gone.pid, parent))
    elsewhere = kept.with_name(f"{kept.name}.not-{host}.{gone.pid}.tmp")
    for left in (dead, alive, elsewhere):
        left.mkdir()
    (kept / "about.json").unlink()
    read(describer, Shop(), tmp_path / "cache")
    assert set((tmp_path / "cache").iterdir()) == {kept, alive, elsewhere}


def test_broken_pictures_are_counted_and_the_rest_is_used(describer, tmp_path):
    data, about = read(describer, Shop(), tmp_path)
    assert about["skipped"] == {"rows with too few columns": 2, "broken pictures": 1}
    frames = data.views["live"].frame
    assert frames.amax(dim=1).tolist() == [1] + [2] * 17
    assert about["frames_with_box"] == 2 * 18 * 3 - 1


def test_speech_is_read_in_all_variants(describer, tmp_path):
    data, _ = read(describer, Shop(), tmp_path)
    live = data.words["live"]
    assert set(live) == {KEYWORDS, RAW, CHAT, MISLED}
    naming = data.naming["live"].view(6, 3)
    assert (naming[:, :2] >= NAMED).all() and (naming[:, 2] == 0).all()
    assert live[RAW].told.all()
    assert not torch.equal(live[MISLED].vectors, live[KEYWORDS].vectors)
    assert not data.saying("none").views["live"].told.any()
    assert data.saying("none").views["page"].told.view(6, 3)[:, :2].all()


def test_chatter_is_counted_apart_where_it_says_a_name_of_the_catalogue(describer, tmp_path):
    data, _ = read(describer, Shop(), tmp_path)
    told = torch.tensor([1.0] * 6 + [0.1] * 12)
    chat = replace(data.words["live"][CHAT], told=told)
    data = replace(data, words={"live": {CHAT: chat}})
    first = torch.ones(18, dtype=torch.int64)
    found, lost = (Ranks(torch.arange(18), one, torch.zeros(18)) for one in (first, first + (told > 0.5)))
    figures = speech_figures({"none": found, CHAT: lost}, data)["all"]
    over_none = {name: (one["over_none"]["mean"], one["queries"]) for name, one in figures.items()}
    assert over_none == {
        "none": (0.0, 18),
        "unrelated": (pytest.approx(-1 / 3), 18),
        "unrelated_nameless": (0.0, 12),
        "unrelated_naming": (-1.0, 6),
    }


def test_a_part_of_the_data_keeps_its_numbers_from_zero(describer, tmp_path):
    data, about = read(describer, Shop(), tmp_path, products=3, items=2)
    assert len(data) == about["products"] == len(data.product_ids) == len(data.categories) == 3
    assert data.products("live").tolist() == [0, 0, 1, 1, 2, 2]
    assert all(data.items["page"][2 * i].split("-")[1] == data.product_ids[i][1:] for i in range(3))


def test_items_with_nothing_to_see_or_hear_belong_to_nobody(describer, tmp_path, monkeypatch):
    shop = Shop()
    monkeypatch.setattr(shop, "_picture", lambda item, image: Picture(None, problem="missing pictures"))
    data, _ = read(describer, shop, tmp_path)
    assert (data.products("video") == NOBODY).all()
    space = embedded(describer.model, data, torch.device("cpu"))
    assert len(space.vision["page"].rows) == 0
    assert len(space.fused["page"].rows) == 12  # by their titles
    assert len(space.fused["video"].rows) == 0


def test_frozen_towers_tell_plain_colours_apart(describer, tmp_path):
    data, _ = read(describer, Shop(), tmp_path)
    space = frozen(data)
    for side in (*space.vision.values(), *space.fused.values()):
        torch.testing.assert_close(side.vectors.norm(dim=1), torch.ones(len(side.rows)))
    page = space.vision["page"]
    best = (page.vectors @ page.vectors.T).fill_diagonal_(-1).argmax(dim=1)
    assert (page.products[best] == page.products).double().mean() > 0.8


class Balance(HTMLParser):
    """Open tags, pictures and words of a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.pictures, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.pictures.append(dict(attrs))
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize("rooms", [False, True], ids=["synthetic rooms", "rooms of the data"])
def test_the_report_holds_all_figures_and_pictures(folder, tmp_path, monkeypatch, rooms):
    monkeypatch.setattr(evaluating, "open_source", lambda data, split: Shop(name="<shop> & sons", rooms=rooms))
    out = tmp_path / "report"
    protocol = Protocol(ways=4, episodes=5, room_size=3, pictures=not rooms)
    figures = evaluate(folder, "anything", out, Options(protocol=protocol, workers=0, device="cpu"))

    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == figures
    assert set(figures["retrieval"]) == {"fused", "vision", "frozen_fused", "frozen_vision"}
    for found in figures["retrieval"].values():
        assert set(found) == {"P→V", "V→P", "P→L", "L→P", "V→L", "L→V", "mean"}
        assert all(0 <= one["r1"] <= one["r5"] <= one["r10"] <= 1 for one in found.values())
    gain = figures["gain_over_frozen"]
    means = {kind: figures["retrieval"][kind]["mean"]["r1"] for kind in figures["retrieval"]}
    assert set(gain) == {"raw", "all", "domain"}
    assert gain["all"]["fused"] == pytest.approx(means["fused"] - means["frozen_fused"])
    said = {"none", "keywords", "raw", "unrelated", "misled"}
    assert set(figures["speech"]["named"]) - {"unrelated_nameless", "unrelated_naming"} == said
    assert figures["speech"]["named"]["keywords"]["queries"] == 12
    assert set(figures["few_shot"]["P→L"]) == {"1", "2"}  # three items do not make four shots
    assert figures["rooms"]["L→P"]["queries"] == 18
    assert figures["rooms"]["rooms"]["count"] == 2
    assert figures["rooms"]["rooms"]["name"].startswith("rooms of" if rooms else "synthetic")
    assert set(figures["tail"]) == {"head", "body", "tail"}
    assert figures["calibration"]["candidates"] > 0

    page = Balance((out / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    words = " ".join(page.words)
    assert f"{figures['model']} on <shop> & sons" in words
    assert f"{100 * figures['retrieval']['fused']['mean']['r1']:.1f}" in words
    assert "2 rows with too few columns" in words
    if not rooms:
        assert len(page.pictures) == 5  # curve, map, three sheets
        assert all(picture["src"].startswith("data:image/png;base64,") and picture["alt"] for picture in page.pictures)
        assert len(list((out / "sheets").glob("*.png"))) == 3
        assert cv2.imread(str(out / "sheets" / "live-page.png")).shape[1] > 1000


def test_a_model_trained_without_words_is_measured_without(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluating, "open_source", lambda data, split: Shop())
    made = artefact.load(folder)
    artefact.save(folder, made.name, made.config, made.weights, made.calibration, modalities="vision")
    protocol = Protocol(ways=4, episodes=5, pictures=False)
    figures = evaluate(folder, "anything", tmp_path / "r", Options(protocol=protocol, workers=0, device="cpu"))
    assert figures["modalities"] == "vision"
    assert figures["text"] == "none" and figures["speech"] == {}
    assert "What speech does" not in (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert figures["retrieval"]["fused"]["L→P"] == pytest.approx(figures["retrieval"]["vision"]["L→P"], abs=0.2)


def test_words_for_a_model_trained_without_are_refused(folder, tmp_path):
    made = artefact.load(folder)
    artefact.save(folder, made.name, made.config, made.weights, made.calibration, modalities="vision")
    with pytest.raises(UserError, match=r"was trained on pictures alone and is given no words; leave --text out"):
        evaluate(folder, "anything", tmp_path / "r", Options(text="raw", workers=0, device="cpu"))


def test_a_model_trained_on_words_alone_is_compared_with_nothing_said_by_a_dash(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluating, "open_source", lambda data, split: Shop())
    made = artefact.load(folder)
    artefact.save(folder, made.name, made.config, made.weights, made.calibration, modalities="text")
    options = Options(protocol=Protocol(ways=4, episodes=5, pictures=False), workers=0, device="cpu")
    figures = evaluate(folder, "anything", tmp_path / "r", options)
    assert figures["speech"]["named"]["keywords"]["over_none"] == {"mean": None, "interval": None, "queries": 0}
    cells = Balance((tmp_path / "r" / "report.html").read_text(encoding="utf-8")).words
    at = cells.index("keywords, as in service")
    assert cells[at + 3] == "–"


@pytest.mark.parametrize("text", ["", "keywords", "raw", "none"])
def test_the_calibration_is_measured_with_the_words_that_are_asked_for(folder, tmp_path, monkeypatch, text):
    monkeypatch.setattr(evaluating, "open_source", lambda data, split: Shop())
    measured = []

    def measure(model, calibration, data, *_):
        measured.extend(query_terms(words) for words in data.keywords["live"])
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluating, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        evaluate(folder, "anything", tmp_path / "r", Options(text=text, workers=0, device="cpu"))
    transcript = query_terms([("so this is the red kettle everybody", 1.0)])
    assert (measured[0] == transcript) == (text == "raw")
    assert any(measured) == (text != "none")


def test_data_without_products_are_refused(describer, tmp_path, monkeypatch):
    shop = Shop()
    monkeypatch.setattr(shop, "items", lambda number, domain: [])
    with pytest.raises(UserError, match="no products to evaluate"):
        read(describer, shop, tmp_path)


def test_sheets_of_an_earlier_report_do_not_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "rendered", lambda *_: "")
    sheets = [Sheet(way, b"png", []) for way in (("live", "page"), ("page", "live"))]
    (tmp_path / "sheets").mkdir()
    (tmp_path / "sheets" / "mine.png").write_bytes(b"")
    for some in (sheets, sheets[:1], []):
        report.write(tmp_path, {}, Drawn(None, None, some))
        names = {f"{one.direction[0]}-{one.direction[1]}.png" for one in some}
        assert {path.name for path in (tmp_path / "sheets").iterdir()} == names | {"mine.png"}


def test_a_report_that_cannot_be_written_is_a_line(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluating, "open_source", lambda data, split: Shop())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot keep descriptors|cannot write the report"):
        evaluate(folder, "anything", tmp_path / "file", Options(workers=0, device="cpu"))


def pictured(folder, products, items):
    """JPEGs of each product's colour, named by item and picture; gives the names."""
    (folder / "images").mkdir(parents=True)
    shop, names = Shop(), {}
    for number in range(products):
        for item, domain, count in items:
            names[number, item] = [f"images/{number}-{item}-{at}.jpg" for at in range(count)]
            for at, name in enumerate(names[number, item]):
                image = f"{number % 6}/{domain}/{at}"
                picture = shop._picture(replace(shop.items(number % 6, domain)[1], product=number), image)
                cv2.imwrite(str(folder / name), picture.pixels[..., ::-1])
    return names


def lpr4m(folder):
    """24 products: a shop image and two clips each, no videos."""
    names = pictured(folder, 24, [("page", "page", 1), ("one", "live", 2), ("two", "live", 2)])
    rows = []
    for number in range(24):
        for clip in ("one", "two"):
            frames, [image] = ";".join(names[number, clip]), names[number, "page"]
            boxes = ";".join(["0.25,0.22,0.75,0.78"] * 2)
            about = [image, f"mug of kind {number}", str(number % 3), f"kitchen {number % 3}", f"mug of kind {number}"]
            room = f"r{number // 8}"
            rows.append("\t".join([f"v{number}{clip}", frames, boxes, *about, "small", "long", "clean", room]) + "\n")
    (folder / "test.tsv").write_text("".join(rows), encoding="utf-8")


def two_domains(folder):
    """24 products with two short videos and a live clip each, no pages, as a manifest."""
    names = pictured(folder, 24, [("one", "video", 2), ("two", "video", 2), ("live", "live", 2)])
    rows = [
        {"id": f"{number}-{item}", "product_id": f"p{number}", "domain": "live" if item == "live" else "video"}
        | {"images": images, "split": "test"}
        for (number, item), images in names.items()
    ]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize(("write", "ways"), [(lpr4m, {"P→L", "L→P"}), (two_domains, {"V→L", "L→V"})])
def test_data_of_two_domains_are_measured_in_their_two_directions(folder, tmp_path, monkeypatch, capsys, write, ways):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "index"))
    write(tmp_path / "data")
    out = tmp_path / "report"
    options = ["--ways", "4", "--episodes", "5", "--frames", "2", "--workers", "0", "--device", "cpu"]
    assert command.main([str(folder), "--data", str(tmp_path / "data"), "--out", str(out), *options]) == 0
    assert str(out / "report.html") in capsys.readouterr().out
    figures = json.loads((out / "report.json").read_text(encoding="utf-8"))
    for found in figures["retrieval"].values():
        assert set(found) == {*ways, "mean"}
    assert figures["retrieval"]["frozen_vision"]["mean"]["r1"] > 0.2  # of 24 products
    assert set(figures["few_shot"]) == ways
    page = Balance((out / "report.html").read_text(encoding="utf-8"))
    assert page.open == [] and ways <= set(page.words)
