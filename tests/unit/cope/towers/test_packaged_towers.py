import pytest
import torch

from cope.errors import UserError
from cope.towers.packaged import text_tower, vision_tower
from tests.unit.cope.towers.test_hub_towers import padded

pytestmark = pytest.mark.slow

TEXTS = ("red bag", "stainless steel water bottle, 500 ml", "手提包")


def test_the_packaged_text_tower_reads_a_batch_as_it_reads_each_text():
    tower = text_tower("packaged:multilingual-e5-small")
    with torch.no_grad():
        together = tower.forward_tokens(*padded(tower, TEXTS, 3))
        alone = torch.stack([tower.encode(text, 16) for text in TEXTS])
    assert torch.allclose(together, alone, atol=1e-5)
    assert tower.mask_token is None
    assert (tower.vocabulary, tower.token_embedding) == (0, None)


def test_the_packaged_vision_tower_computes_in_bfloat16_too():
    tower = vision_tower("packaged:efficientnet-lite0")
    pixels = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(1)).float()
    with torch.no_grad():
        exact = tower.describe(pixels)
        with torch.autocast("cpu", torch.bfloat16):
            rough = tower.describe(pixels).float()
    assert torch.nn.functional.cosine_similarity(exact, rough).min() > 0.99


def test_a_packaged_tower_that_is_none_is_refused():
    with pytest.raises(UserError, match="no packaged tower 'packaged:resnet'; there are packaged:efficientnet-lite0"):
        vision_tower("packaged:resnet")
