import pytest
import torch
from torch import nn

from cope.config import ModelConfig
from cope.errors import UserError
from cope.towers.lora import LoraLinear, add_lora, merge_lora
from cope.towers.packaged import finder_tower, text_tower, vision_tower
from tests.unit.cope.towers.test_hub_towers import TEXTS, padded, pixels
from tests.unit.cope.towers.tiny_hub import READING, SEEING

pytestmark = pytest.mark.slow


def stirred(tower):
    """Moves everything that is learned."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in tower.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return tower


def learned(tower):
    return {name for name, parameter in tower.named_parameters() if parameter.requires_grad}


def test_a_step_starts_as_nothing_and_merges_into_the_weight():
    torch.manual_seed(0)
    block = nn.ModuleDict({"q_proj": nn.Linear(6, 4), "fc": nn.Linear(4, 4)})
    x = torch.randn(5, 6)
    before = block["q_proj"](x)
    assert add_lora(block, rank=2) == 1
    step = block["q_proj"]
    assert isinstance(step, LoraLinear)
    assert torch.equal(step(x), before)
    stirred(step)
    moved = step(x)
    assert not torch.allclose(moved, before, atol=1e-3)
    merge_lora(block)
    assert type(block["q_proj"]) is nn.Linear
    assert torch.allclose(block["q_proj"](x), moved, atol=1e-5)


@pytest.mark.parametrize("family", SEEING)
def test_low_rank_steps_of_a_vision_tower_start_as_nothing_and_merge(hub, family):
    plain, tower = vision_tower(str(hub[family])), vision_tower(str(hub[family]), "lora", 4)
    assert learned(tower)
    assert all("lora_" in name for name in learned(tower))
    with torch.no_grad():
        assert torch.allclose(tower.describe(pixels(2)), plain.describe(pixels(2)), atol=1e-5)
        moved = stirred(tower).describe(pixels(2))
        assert not torch.allclose(moved, plain.describe(pixels(2)), atol=1e-3)
        tower.merge()
        assert torch.allclose(tower.describe(pixels(2)), moved, atol=1e-4)
    assert not learned(tower)


@pytest.mark.parametrize("family", READING)
def test_low_rank_steps_of_a_text_tower_start_as_nothing_and_merge(hub, family):
    plain, tower = text_tower(str(hub[family])), text_tower(str(hub[family]), "lora", 4)
    batch = padded(tower, TEXTS)
    with torch.no_grad():
        assert torch.allclose(tower.forward_tokens(*batch), plain.forward_tokens(*batch), atol=1e-5)
        moved = stirred(tower).forward_tokens(*batch)
        assert not torch.allclose(moved, plain.forward_tokens(*batch), atol=1e-3)
        tower.merge()
        assert torch.allclose(tower.forward_tokens(*batch), moved, atol=1e-4)


@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
@pytest.mark.parametrize("family", ["clip", "siglip", "x_clip", "vit"])
def test_layers_hold_all_that_is_learned_once_from_the_input_up(hub, family, tuning):
    tower = vision_tower(str(hub[family]), tuning, 4)
    layers = tower.layers()
    assert len(layers) == 1 + 2 + 1
    found = [id(p) for layer in layers for p in layer]
    assert sorted(found) == sorted(id(p) for p in tower.parameters() if p.requires_grad)
    assert [bool(layer) for layer in layers] == {
        "frozen": [False] * 4,
        "lora": [False, True, True, False],
        "full": [True] * 4,
    }[tuning]


@pytest.mark.parametrize("family", SEEING)
def test_all_that_is_learned_in_a_vision_tower_gets_a_gradient(hub, family):
    for tuning in ("lora", "full"):
        tower = vision_tower(str(hub[family]), tuning, 4).train()
        stirred(tower).describe(pixels(4), frames=2).square().sum().backward()
        idle = [name for name, p in tower.named_parameters() if p.requires_grad and p.grad is None]
        assert not idle, tuning


@pytest.mark.parametrize("family", READING)
def test_all_that_is_learned_in_a_text_tower_gets_a_gradient(hub, family):
    for tuning in ("lora", "full"):
        tower = text_tower(str(hub[family]), tuning, 4).train()
        stirred(tower).forward_tokens(*padded(tower, TEXTS))[:, 0].sum().backward()
        idle = [name for name, p in tower.named_parameters() if p.requires_grad and p.grad is None]
        assert not idle, tuning


@pytest.mark.parametrize("family", ["clip", "siglip", "x_clip", "vit"])
def test_checkpointing_changes_no_gradient(hub, family):
    gradients, calls = [], []
    for checkpointing in (False, True):
        tower = vision_tower(str(hub[family]), "full").train()
        if checkpointing:
            tower.enable_checkpointing()
        calls.append([])
        next(iter(tower.stack())).mlp.register_forward_pre_hook(lambda *_, mine=calls[-1]: mine.append(1))
        clips = tower.describe(pixels(4), frames=2)
        pages = tower.describe(pixels(3))  # another number of frames before the backward pass
        (clips.square().sum() + pages.square().sum()).backward()
        gradients.append([p.grad for p in tower.parameters()])
    assert [len(each) for each in calls] == [2, 4]  # once more in the backward pass
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(*gradients, strict=True))


def test_a_frozen_tower_stays_as_in_service_while_the_rest_trains(hub):
    tower = text_tower(str(hub["bert"]))
    nn.ModuleList([tower]).train()
    assert not any(part.training for part in tower.modules())
    assert text_tower(str(hub["bert"]), "full").train().training


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_what_is_tuned_moves_to_another_tower(hub, tuning):
    first, second = (vision_tower(str(hub["clip"]), tuning, 4) for _ in range(2))
    second.load_tuned(stirred(first).tuned_state())
    with torch.no_grad():
        assert torch.equal(first.describe(pixels(2)), second.describe(pixels(2)))


def test_tuned_weights_of_another_rank_are_refused(hub):
    tower = vision_tower(str(hub["clip"]), "lora", 4)
    with pytest.raises(UserError, match="of another tower or rank"):
        tower.load_tuned(vision_tower(str(hub["clip"]), "lora", 2).tuned_state())
    with pytest.raises(UserError, match="of another tower or rank"):
        tower.load_tuned({})


def test_a_tower_without_attention_takes_no_low_rank_steps():
    with pytest.raises(UserError, match="no attention layers for tuning=lora"):
        vision_tower("packaged:efficientnet-lite0", "lora")


def test_the_packaged_towers_can_be_tuned_in_full():
    tower = vision_tower("packaged:efficientnet-lite0", "full").train()
    tower.describe(pixels(2, 64, 64)).square().sum().backward()
    assert all(p.grad is not None for p in tower.parameters())


def test_the_finder_shares_a_frozen_tower_and_no_tuned_one(hub):
    name = str(hub["clip"])
    vision = vision_tower(name)
    assert finder_tower(ModelConfig(vision=name, finder=name), vision) is vision
    own = finder_tower(ModelConfig(vision=name, finder=name, tuning="lora"), vision_tower(name, "lora"))
    assert own is not None
    assert not learned(own)
    assert finder_tower(ModelConfig(vision=name, finder=name, regions=0), vision) is None
