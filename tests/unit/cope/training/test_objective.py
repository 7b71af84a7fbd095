"""Which losses a configuration has, and on what rows."""

from dataclasses import replace

import pytest
import torch

from cope.config import TrainConfig, preset
from cope.model.views import NOBODY
from cope.training.objective import Objective
from cope.training.product_softmax import SampledProductSoftmax
from tests.unit.cope.training.tiny_views import CONFIG, batch, objective

CONTRASTS = {f"{kind} {pair}" for kind in ("visual", "fused") for pair in ("page-live", "page-video", "video-live")}
BEYOND = {"regions page-live", "regions page-video"}


def losses(made: Objective, views=None):
    return {name: loss.item() for name, loss in made(*(views or batch())).items()}


def test_a_run_has_the_losses_that_its_preset_names():
    mini, paper = preset("cope-mini"), preset("cope-paper")
    small = replace(mini, model=replace(mini.model, colour=0.0))
    assert losses(objective(small, model_dim=12)).keys() == CONTRASTS | BEYOND
    smaller = replace(paper, model=replace(paper.model, dim=12, temporal="attention", fusion="sum"), classes_sampled=9)
    assert losses(objective(smaller)).keys() == CONTRASTS | {"classification"}


@pytest.mark.parametrize(
    ("weight", "names"),
    [
        ("region_contrast", {"regions page-live", "regions page-video"}),
        ("classification", {"classification"}),
    ],
)
def test_a_loss_counts_by_its_weight_and_is_left_out_at_0(weight, names):
    full = losses(objective())
    doubled = losses(objective(**{weight: 2 * getattr(CONFIG, weight)}))
    without = losses(objective(**{weight: 0.0}))
    assert full.keys() - without.keys() == names
    for name, loss in full.items():
        assert doubled[name] == pytest.approx((2 if name in names else 1) * loss, rel=1e-12)
        assert name in names or without[name] == loss


def test_a_text_baseline_learns_nothing_from_items_without_words():
    made = objective(modalities="text")
    silent = tuple(one.without_words() for one in batch())
    found = made(*silent)
    sum(found.values()).backward()
    assert {loss.item() for loss in found.values()} == {0.0}
    assert all(p.grad is None or not p.grad.any() for p in made.parameters())


@pytest.mark.parametrize("kind", ["fused page-live", "classification"])
def test_a_text_baseline_tells_only_items_with_words_apart(kind):
    page, video, live = batch()
    made = objective(modalities="text")
    unsaid = torch.where((live.told > 0) & (torch.arange(len(live)) != 1), live.told, 0.0)
    live = replace(live, told=unsaid)
    missing = replace(live, product=torch.where(unsaid > 0, live.product, NOBODY))
    assert losses(made, (page, video, live))[kind] == losses(made, (page, video, missing))[kind]


def test_a_text_baseline_sees_no_clips_where_it_is_not_told_what_is_said():
    found = losses(objective(modalities="text", live_text="none"))
    assert {name: loss for name, loss in found.items() if "live" in name} == {
        "fused page-live": 0.0,
        "fused video-live": 0.0,
    }


def test_what_is_seen_counts_without_words():
    made, (page, video, live) = objective(), batch()
    for one in (page, video, live):
        assert torch.equal(made.shaped(one.without_words(), "live").product, one.product)


def test_classes_start_by_the_seed_of_the_run():
    starts = [objective(TrainConfig(classification=1.0, classes_sampled=4, seed=seed)).products for seed in (7, 7, 8)]
    first, again, other = (products.weight for products in starts if isinstance(products, SampledProductSoftmax))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
