"""What a model with tuned towers is compared with: the same towers before any training, on the same regions."""

import shutil
from dataclasses import replace

import pytest
import torch

from cope.domains import DOMAINS
from cope.errors import UserError
from cope.evaluation import evaluating
from cope.evaluation.collecting import Sampling, evaluation_set
from cope.evaluation.describing import Describer
from cope.evaluation.evaluating import Options, evaluate
from cope.evaluation.space import frozen
from cope.evaluation.suite import Protocol
from cope.model.modeling import CopeModel
from cope.model.scoring import UNCALIBRATED
from cope.serving import artefact
from cope.serving.encoder import Encoder
from cope.towers.packaged import text_tower, vision_tower
from tests.unit.cope.evaluation.shop import Shop
from tests.unit.cope.towers.test_tuning import stirred

pytestmark = pytest.mark.slow

OPTIONS = Options(
    sampling=Sampling(items=2, frames=2), protocol=Protocol(4, 5, 3, pictures=False), device="cpu", workers=0
)


@pytest.fixture(params=["lora", "full"])
def folders(request, hub, tiny, tmp_path):
    """Artefacts of one model on towers that are frozen, and on the same ones moved by tuning."""
    name = shutil.copytree(hub["clip"], tmp_path / "clip")
    frozen = replace(tiny.config, vision=str(name), text=str(name), keywords="joined", regions=2)
    tuned = replace(frozen, tuning=request.param, lora_rank=4)
    torch.manual_seed(0)
    towers = tuple(stirred(opened(str(name), tuned.tuning, 4)) for opened in (vision_tower, text_tower))
    model = CopeModel(frozen, (8, 8), towers[0].descriptor_width, towers[1].width)
    artefact.save(tmp_path / "frozen", "m", frozen, model.state_dict(), UNCALIBRATED)
    artefact.save(tmp_path / "tuned", "m", tuned, model.state_dict(), UNCALIBRATED, towers=towers)
    return tmp_path


def read(folder, cache, tuned=True):
    describer = Describer(Encoder(folder, "cpu"), tuned)
    return evaluation_set(describer, Shop(), "test", cache, OPTIONS.sampling, workers=0)[0]


def test_untuned_towers_see_what_frozen_ones_see_on_the_same_regions(folders, tmp_path):
    plain, moved = read(folders / "frozen", tmp_path / "a"), read(folders / "tuned", tmp_path / "b")
    untuned = read(folders / "tuned", tmp_path / "b", tuned=False)
    for domain in DOMAINS:
        mine, theirs, other = untuned.views[domain], plain.views[domain], moved.views[domain]
        for name in ("descriptors", "salience", "frame", "words", "told"):
            assert torch.equal(getattr(mine, name), getattr(theirs, name)), name
        assert torch.equal(mine.salience, other.salience) and torch.equal(mine.product, other.product)
        assert not torch.allclose(mine.descriptors.float(), other.descriptors.float(), atol=1e-2)
        assert domain == "video" or not torch.allclose(mine.words, other.words, atol=1e-2)  # videos are silent
        assert torch.equal(frozen(untuned).fused[domain].vectors, frozen(plain).fused[domain].vectors)


def test_the_report_compares_with_the_towers_before_tuning(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluating, "open_source", lambda data, split: Shop())
    plain, tuned = (evaluate(folders / name, "data", tmp_path / f"r-{name}", OPTIONS) for name in ("frozen", "tuned"))
    for kind in ("frozen_fused", "frozen_vision"):
        assert tuned["retrieval"][kind] == plain["retrieval"][kind]
    assert tuned["retrieval"]["vision"] != plain["retrieval"]["vision"]
    gained = tuned["retrieval"]["fused"]["mean"]["r1"] - plain["retrieval"]["frozen_fused"]["mean"]["r1"]
    assert tuned["gain_over_frozen"]["all"]["fused"] == pytest.approx(gained)


def test_a_model_on_frozen_towers_is_read_once(folders, tmp_path):
    one, other = (Describer(Encoder(folders / "frozen", "cpu"), tuned) for tuned in (True, False))
    assert one.key == other.key
    keys = {Describer(Encoder(folders / "tuned", "cpu"), tuned).key for tuned in (True, False)}
    assert len(keys) == 2 and one.key in keys


@pytest.mark.parametrize("folders", ["full"], indirect=True)  # which travel along
def test_towers_that_are_not_there_are_one_line(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluating, "open_source", lambda data, split: Shop())
    shutil.rmtree(folders / "clip")
    with pytest.raises(UserError, match=r"beside its towers as they were before: the vision tower .* is not there"):
        evaluate(folders / "tuned", "data", tmp_path / "r", OPTIONS)
