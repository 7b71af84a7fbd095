"""Cartons that look alike and differ in what is printed on them, by `python -m cope.evaluate --text read`."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from cope import evaluate as command
from cope.evaluation import reading
from cope.evaluation.collecting import Sampling, evaluation_set
from cope.evaluation.describing import Describer
from cope.evaluation.matching import clip_features, pages_of
from cope.model.scoring import UNCALIBRATED
from cope.serving import artefact
from cope.serving.encoder import Encoder
from tests.unit.cope.evaluation.shop import Shop

pytestmark = pytest.mark.slow
pytest.importorskip("rapidocr")

FLAVOURS = ("ORANGE", "CARROT", "LEMON")


@pytest.fixture(scope="module")
def cartons(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cartons")
    rows = []
    for number, flavour in enumerate(FLAVOURS):
        for domain in ("page", "live", "video"):
            picture = np.full((240, 320, 3), 225, np.uint8)
            cv2.putText(picture, flavour, (70, 130), cv2.FONT_HERSHEY_SIMPLEX, 1.4, (20, 20, 20), 3, cv2.LINE_AA)
            cv2.imwrite(str(folder / f"{domain}-{number}.png"), picture)
            item = {"product_id": f"p{number}", "domain": domain, "id": f"{domain}-{number}", "split": "test"}
            item |= {"images": [f"{domain}-{number}.png"], "text": f"Brand {number}" if domain == "page" else ""}
            rows.append(json.dumps(item) + "\n")
    (folder / "manifest.jsonl").write_text("".join(rows))
    return folder


def measured(model, cartons, out, capsys, text="read"):
    options = ["--data", str(cartons), "--out", str(out / "report"), "--cache", str(cartons / "cache"), "--text", text]
    sizes = ["--ways", "3", "--episodes", "2", "--workers", "0", "--device", "cpu", "--no-pictures"]
    assert command.main([str(model), *options, *sizes]) == 0
    found = json.loads((out / "report" / "report.json").read_text(encoding="utf-8"))
    return found["reading"], capsys.readouterr().out


def test_what_is_printed_tells_cartons_apart(folder, cartons, tmp_path, capsys, monkeypatch):
    # Words weigh as much as a cosine may: what is printed decides between pictures that are nearly the same.
    weighs = replace(UNCALIBRATED, weights=UNCALIBRATED.weights | {"read_behind": 100.0})
    artefact.update(folder, calibration=weighs)
    found, told = measured(folder, cartons, tmp_path, capsys)
    assert (found["weighed_by"], found["pages_with_words"], found["clips_with_words"]) == ("calibration", 3, 6)
    assert set(found["kinds"]) == {"pictures", "read", "pictures_read"}  # nothing is heard
    for kind in ("read", "pictures_read"):
        assert {way: one["r1"] for way, one in found["kinds"][kind].items()} == dict.fromkeys(
            ("L→P", "V→P", "P→L", "P→V"), 1.0
        )
    assert "read                 R@1 L→P 1.000" in told
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "Words that are read in pictures" in page and "log-odds of the model" in page

    def refuse(name):
        raise AssertionError("what was read once is kept")

    monkeypatch.setattr(reading.open_reader("packaged:ppocr"), "read", refuse)
    assert measured(folder, cartons, tmp_path, capsys)[0] == found


def test_words_that_no_calibration_weighs_are_added_to_the_cosine_and_it_is_said(folder, cartons, tmp_path, capsys):
    found, _ = measured(folder, cartons, tmp_path, capsys, "keywords+read")
    assert found["weighed_by"] == "sum"
    assert found["kinds"]["read"]["L→P"]["r1"] == 1.0
    assert "0.3 of each score of words" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_a_model_that_hears_nothing_may_read(folder, cartons, tmp_path, capsys):
    made = artefact.load(folder)
    artefact.save(folder, made.name, made.config, made.weights, made.calibration, modalities="vision")
    found, _ = measured(folder, cartons, tmp_path, capsys)
    assert found["kinds"]["read"]["V→P"]["r1"] == 1.0


def test_damaged_words_are_a_line(folder, cartons, tmp_path, capsys):
    measured(folder, cartons, tmp_path, capsys)
    cache = tmp_path / "cache"
    shutil.copytree(cartons / "cache", cache)
    (kept,) = cache.glob("words-*.sqlite")
    kept.write_bytes(b"not a database, but as long as one would be" * 10)
    options = ["--data", str(cartons), "--out", str(tmp_path / "r"), "--cache", str(cache), "--text", "read"]
    assert command.main([str(folder), *options, "--no-pictures", "--workers", "0", "--device", "cpu"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"cope.evaluate: cannot keep words in {kept}: file is not a database")


def test_speech_counts_by_its_meaning_as_in_service_unless_nothing_is_heard(folder, tmp_path):
    encoder, shop = Encoder(folder, "cpu"), Shop()
    data, _ = evaluation_set(Describer(encoder), shop, "test", tmp_path, Sampling(frames=3), workers=0)
    row = data.items["live"].index("live-1-0")
    texts = data.texts["page"]
    served = [encoder.encode_speech([text])[0] for text in (data.texts["live"][row], *texts)]
    pages = pages_of(encoder.model, data, torch.device("cpu"))
    found = clip_features(encoder.model, data, "live", row, pages, torch.device("cpu"))
    for page, one in zip(served[1:], found, strict=True):
        cosine = float(page.astype(np.float32) @ served[0]) if page.size else 0.0  # a page without a text
        assert one.speech == pytest.approx(max(0.0, cosine), abs=4e-3)
    assert max(one.speech for one in found) > 0
    silent = data.saying("none")
    assert not any(one.speech for one in clip_features(encoder.model, silent, "live", row, pages, torch.device("cpu")))
