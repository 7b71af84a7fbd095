"""What `python -m cope.evaluate` tells on the terminal."""

import pytest

from cope import evaluate as command
from cope.data.items import Picture
from cope.evaluation import evaluating
from cope.serving import artefact
from tests.unit.cope.evaluation.shop import Shop

pytestmark = pytest.mark.slow


@pytest.fixture
def shop(monkeypatch):
    shop = Shop()
    monkeypatch.setattr(evaluating, "open_source", lambda data, split: shop)
    return shop


def arguments(model, out):
    sizes = ["--ways", "4", "--episodes", "5", "--room-size", "3", "--items", "2", "--frames", "5"]
    return [str(model), "--data", "d", "--out", str(out), "--device", "cpu", "--workers", "0", "--no-pictures", *sizes]


def test_what_was_skipped_is_told_at_the_end(folder, shop, tmp_path, capsys):
    assert command.main(arguments(folder, tmp_path / "r")) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "data: 2 rows with too few columns, 1 broken pictures"


@pytest.mark.parametrize("rooms", [False, True])
def test_a_size_of_rooms_that_is_not_used_is_told(folder, shop, tmp_path, capsys, rooms):
    shop.rooms = rooms
    assert command.main(arguments(folder, tmp_path / "r")) == 0
    assert ("--room-size 3 is not used: the data have rooms of their own" in capsys.readouterr().err) == rooms


def test_data_without_any_readable_picture_are_refused(folder, shop, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shop, "_picture", lambda item, image: Picture(None, problem="missing pictures"))
    assert command.main(arguments(folder, tmp_path / "r")) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("cope.evaluate: shop: not one picture could be read (144 missing pictures, 2 rows")
    assert not (tmp_path / "r" / "report.html").exists()


def test_a_model_that_is_given_nothing_but_titles_is_measured(folder, shop, tmp_path, capsys):
    made = artefact.load(folder)
    hearing = {"modalities": "text", "live_text": "none"}
    artefact.save(folder, made.name, made.config, made.weights, made.calibration, **hearing)
    options = [one for one in arguments(folder, tmp_path / "r") if one != "--no-pictures"]
    assert command.main(options) == 0
    assert "fused          R@1 0.000" in capsys.readouterr().out
