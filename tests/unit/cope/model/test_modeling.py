from dataclasses import replace

import pytest
import torch

from cope.config import ModelConfig
from cope.domains import DOMAINS
from cope.model.modeling import CopeModel
from cope.model.views import Views

DIM, WIDTH, WORDS = 12, 10, 6
PLAIN = ModelConfig(dim=DIM, regions=2, hidden=8)
SWITCHES = {
    "default": {},
    "transformer over frames": {"temporal": "transformer", "temporal_layers": 2},
    "fusion encoder": {"fusion": "transformer", "fusion_layers": 2},
    "no fusion": {"fusion": "none"},
    "one projection": {"domain_projections": False},
    "whole frames": {"regions": 0},
    "the paper": {"regions": 0, "temporal": "transformer", "fusion": "transformer"},
}


def built(**changes):
    torch.manual_seed(0)
    return CopeModel(replace(PLAIN, **changes), (4, 8), WIDTH, WORDS)


def views(items=4, frames=3, each=2, seed=1):
    """Clips of frames with regions; item 1 says nothing, item 2 shows nothing, item 3 neither."""
    generator = torch.Generator().manual_seed(seed)
    frame = torch.arange(frames).repeat_interleave(each).repeat(items, 1)
    frame[2:] = -1
    return Views(
        descriptors=torch.randn(items, frames * each, WIDTH, generator=generator),
        salience=torch.rand(items, frames * each, generator=generator),
        frame=frame,
        words=torch.randn(items, WORDS, generator=generator),
        told=torch.tensor([1.0, 0.0, 1.0, 0.0]),
        product=torch.arange(items),
        right=torch.zeros(items, frames * each, dtype=torch.bool),
    )


def unit(vectors):
    return torch.allclose(vectors.norm(dim=-1), torch.ones(vectors.shape[:-1]), atol=1e-5)


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_embeds_and_learns(switch):
    model = built(**SWITCHES[switch]).train()
    loss = torch.zeros(())
    for domain in DOMAINS:
        found = model.embed(views(), domain)
        assert found.regions.shape == (4, 6, DIM)
        for vectors in (found.visual, found.fused, found.words):
            assert vectors.shape == (4, DIM)
            assert unit(vectors)
        loss = loss + found.fused[:, 0].sum() + found.visual[:, 1].sum() + found.words[:, 2].sum()
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if not name.startswith("finder.")}
    assert all(g is None or torch.isfinite(g).all() for g in gradients.values())
    assert not [name for name, g in gradients.items() if g is None]


@pytest.mark.parametrize("switch", SWITCHES)
def test_an_item_does_not_depend_on_those_beside_it(switch):
    model = built(**SWITCHES[switch]).eval()
    batch = views()
    long = views(frames=4, seed=2)
    # Beside clips of more frames, padded to their length.
    padded = Views(
        **{
            name: torch.cat([torch.cat([value, torch.full_like(value[:, :2], -1 if name == "frame" else 0)], 1), other])
            if name in ("descriptors", "salience", "frame", "right")
            else torch.cat([value, other])
            for name, value, other in ((n, v, vars(long)[n]) for n, v in vars(batch).items())
        }
    )
    with torch.no_grad():
        for domain in DOMAINS:
            alone = model.embed(batch.rows(torch.tensor([0])), domain)
            beside = model.embed(padded, domain)
            assert torch.allclose(alone.visual[0], beside.visual[0], atol=1e-5)
            assert torch.allclose(alone.fused[0], beside.fused[0], atol=1e-5)


@pytest.mark.parametrize("switch", ["default", "fusion encoder"])
def test_words_count_as_much_as_they_are_surely_told(switch):
    model = built(**SWITCHES[switch]).eval()
    with torch.no_grad():
        silent, *heard = (
            model.embed(replace(views(), told=torch.full((4,), sure)), "live").fused[0]
            for sure in (0.0, 1e-4, 0.5, 1.0)
        )
    near = [float(silent @ vector) for vector in heard]
    assert near[0] == pytest.approx(1.0, abs=1e-4)
    assert near[0] > near[1] > near[2]


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("switch", ["default", "fusion encoder"])
def test_placeholders_stand_in_for_what_is_missing(switch, domain):
    model = built(**SWITCHES[switch]).eval()
    with torch.no_grad():
        before = model.embed(views(), domain)
        model.no_picture.add_(1.0)
        seen = model.embed(views(), domain)
        model.no_text.add_(1.0)
        said = model.embed(views(), domain)
    changed = [not torch.allclose(a, b, atol=1e-4) for a, b in zip(before.fused, seen.fused, strict=True)]
    assert changed == [False, False, True, True]
    changed = [not torch.allclose(a, b, atol=1e-4) for a, b in zip(seen.fused, said.fused, strict=True)]
    assert changed == [False, True, False, True]
    assert torch.allclose(before.visual[:2], seen.visual[:2])
    assert torch.allclose(seen.visual[2], seen.visual[3])


def test_what_is_padded_may_hold_anything():
    model = built().eval()
    clean, dirty = views(), views()
    dirty.words[dirty.told == 0] = float("nan")
    with torch.no_grad():
        assert torch.equal(model.embed(clean, "live").fused, model.embed(dirty, "live").fused)


def test_without_fusion_words_count_only_where_there_is_no_picture():
    model = built(fusion="none").eval()
    with torch.no_grad():
        found = model.embed(views(), "live")
    assert torch.equal(found.fused[:2], found.visual[:2])
    assert torch.allclose(found.fused[2], found.words[2])


def test_a_page_is_the_mean_of_its_pictures():
    model = built().eval()
    batch = views()
    batch.frame[0, 4:] = -1
    with torch.no_grad():
        found = model.embed(batch, "page")
        mean = found.regions[0, :4].mean(dim=0)
    assert torch.allclose(found.visual[0], mean / mean.norm(), atol=1e-5)


def test_projections_differ_by_domain_or_do_not():
    for shared in (False, True):
        model = built(domain_projections=not shared).eval()
        with torch.no_grad():
            for number, step in enumerate(model.visual.domains.values()):
                step.weight.copy_(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(number)))
            page, live = (model.visual(views().descriptors[0], domain) for domain in ("page", "live"))
        assert torch.allclose(page, live) == shared


def test_the_integration_transformer_knows_the_order_of_frames():
    model = built(temporal="transformer").eval()
    batch = views()
    turned = replace(batch, frame=torch.where(batch.frame < 0, -1, 2 - batch.frame))
    with torch.no_grad():
        model.frames.position.copy_(torch.randn(model.frames.position.shape) * 2)
        assert not torch.allclose(
            model.embed(batch, "live").visual[0], model.embed(turned, "live").visual[0], atol=1e-3
        )


def test_halves_of_one_model_start_on_the_same_axes():
    config = replace(PLAIN, vision="one/model", text="one/model", regions=0)
    model = CopeModel(config, (), WIDTH, WIDTH)
    assert torch.equal(model.visual.axes.weight, model.text.axes.weight)
    other = CopeModel(replace(config, text="another/model"), (), WIDTH, WIDTH)
    assert not torch.equal(other.visual.axes.weight, other.text.axes.weight)
