"""Which losses a configuration has, on what rows, and those that are made here against a plain loop in float64."""

import math
from dataclasses import replace

import pytest
import torch
from test_losses import both_ways
from tiny_views import CONFIG, batch, objective

from cope.config import TrainConfig, preset
from cope.model.views import NOBODY
from cope.training.objective import LOOKS_WEIGHT, Objective
from cope.training.product_softmax import SampledProductSoftmax

CONTRASTS = {f"{kind} {pair}" for kind in ("visual", "fused") for pair in ("page-live", "page-video", "video-live")}
BEYOND = {"regions page-live", "regions page-video"}


def losses(made: Objective, views=None):
    return {name: loss.item() for name, loss in made(*(views or batch())).items()}


def test_a_run_has_the_losses_that_its_preset_names():
    mini, paper = preset("cope-mini"), preset("cope-paper")
    assert losses(objective(mini, model_dim=12)).keys() == CONTRASTS | BEYOND
    smaller = replace(paper, model=replace(paper.model, dim=12, temporal="attention", fusion="sum"), classes_sampled=9)
    assert losses(objective(smaller)).keys() == CONTRASTS | {"classification"}


@pytest.mark.parametrize(
    ("weight", "names"),
    [
        ("region_contrast", {"regions page-live", "regions page-video"}),
        ("pair_agreement", {"pairs"}),
        ("naming", {"words"}),
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


def test_words_guide_also_where_naming_is_off():
    full, without = (losses(objective(naming=naming, model_guided=True)) for naming in (0.5, 0.0))
    assert full.keys() - without.keys() == {"words"}
    assert without["looks"] == full["looks"]


def spoken_names(views):
    """(row of the page that is named, domain, row of the clip) of what is said; a text is its first page."""
    page, video, live = views
    written = [i for i in range(len(page)) if page.told[i] > 0 and page.product[i] >= 0]
    first = {i: next(j for j in range(len(page)) if bool((page.words[i] == page.words[j]).all())) for i in written}
    heard = [
        (first[i], domain, i)
        for domain, one in (("live", live), ("video", video))
        for i in written
        if one.told[i] > 0 and one.naming[i] and one.product[i] >= 0
    ]
    return first, heard


@pytest.mark.parametrize("seed", range(3))
def test_words_and_looks_equal_the_loop(seed):
    made, views = objective(model_guided=True, label_smoothing=0.1), batch(seed=seed)
    found = losses(made, views)
    page, video, live = views
    with torch.no_grad():
        embedded = {d: made.model.embed(one, d) for d, one in (("page", page), ("video", video), ("live", live))}
    first, heard = spoken_names(views)
    assert len(set(first.values())) == len(first) - 1  # two have one name
    assert len(heard) == 8
    said = [embedded[domain].words[i].numpy() for _, domain, i in heard]
    ids, scale = [name for name, _, _ in heard], 1 / CONFIG.temperature
    titles = [embedded["page"].words[i].numpy() for i in first]
    expected = both_ways(titles, [*first.values()], said, ids, scale, 0.1)
    assert found["words"] == pytest.approx(CONFIG.naming * expected, rel=1e-6)  # the temperature is kept in float32
    matrix = made.model.looks_like.weight.detach().numpy()
    looks = [matrix @ vector for vector in said]
    looks = [vector / math.sqrt(sum(x * x for x in vector)) for vector in looks]
    names = [first.get(i, NOBODY) for i in range(len(page))]
    expected = both_ways(looks, ids, embedded["page"].visual.numpy(), names, scale, 0.1)
    assert found["looks"] == pytest.approx(LOOKS_WEIGHT * expected, rel=1e-6)


def test_pages_do_not_move_towards_their_names():
    made = objective(model_guided=True)
    made(*batch())["looks"].backward()
    assert made.model.looks_like.weight.grad.abs().sum() > 0
    assert made.model.visual.axes.weight.grad is None


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
