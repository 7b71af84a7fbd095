import shutil

import pytest
import torch

from cope.errors import UserError
from cope.towers.packaged import fingerprint, text_tower, vision_tower
from tests.unit.cope.towers.tiny_hub import PATCH, READING, SEEING, SIDE, WIDTH

pytestmark = pytest.mark.slow

TEXTS = ("red bag", "a blue cup with 2 handles", "x")


def pixels(count, height=SIDE, width=SIDE):
    return torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(1)).float()


def padded(tower, texts, extra=0):
    rows = [tower.tokenize(text, 16) for text in texts]
    longest = max(map(len, rows)) + extra
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[i < len(row) for i in range(longest)] for row in rows])
    return tokens, mask


@pytest.mark.parametrize("family", SEEING)
def test_pictures_give_descriptors_and_maps(hub, family):
    tower = vision_tower(str(hub[family]))
    with torch.no_grad():
        found = tower.describe(pixels(3))
        (level,) = tower.maps(pixels(3, 48, 64))
    assert found.shape == (3, tower.descriptor_width) == (3, WIDTH)
    assert level.shape == (3, *tower.map_channels, SIDE // PATCH, SIDE // PATCH)
    assert (found[0] - found[1]).norm() > 0.01 * found[0].norm()


@pytest.mark.parametrize("family", READING)
def test_a_text_without_any_token_is_a_vector(hub, family, monkeypatch):
    tower = text_tower(str(hub[family]))
    monkeypatch.setattr(tower, "tokenizer", lambda text, most: [])  # as of a tokenizer that adds no end token
    with torch.no_grad():
        assert tower.encode("", 16).norm() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("family", SEEING)
def test_a_descriptor_does_not_depend_on_the_pictures_beside_it(hub, family):
    tower = vision_tower(str(hub[family]))
    with torch.no_grad():
        assert torch.allclose(tower.describe(pixels(3))[1], tower.describe(pixels(3)[1:2])[0], atol=1e-5)


def test_descriptors_are_what_the_model_pools(hub):
    from transformers import AutoModel

    for family in ("clip", "chinese_clip", "siglip"):
        tower = vision_tower(str(hub[family]))
        level = 0.48 if family == "clip" else 0.5 if family == "siglip" else 0.45
        with torch.no_grad():
            x = (pixels(2) / 255 - level) / 0.5
            pooled = AutoModel.from_pretrained(hub[family]).vision_model(pixel_values=x).pooler_output
            assert torch.allclose(tower.describe(pixels(2)), pooled, atol=1e-4), family


def test_a_clip_of_x_clip_is_seen_as_the_model_itself_sees_it(hub):
    from transformers import AutoModel

    tower = vision_tower(str(hub["x_clip"]))
    model = AutoModel.from_pretrained(hub["x_clip"]).vision_model.eval()
    for layer in model.encoder.layers:
        layer.num_frames = 3
    with torch.no_grad():
        own = model(pixel_values=(pixels(6) / 255 - 0.45) / 0.5).pooler_output
        assert torch.allclose(tower.describe(pixels(6), frames=3), own, atol=1e-4)


def test_frames_of_x_clip_depend_on_their_clip_and_on_no_other(hub):
    tower = vision_tower(str(hub["x_clip"]))
    assert tower.cross_frame
    with torch.no_grad():
        alone, clips = tower.describe(pixels(6)), tower.describe(pixels(6), frames=3)
        first = tower.describe(pixels(6)[:3], frames=3)
    assert not torch.allclose(alone, clips, atol=1e-3)
    assert torch.allclose(clips[:3], first, atol=1e-5)


def test_other_towers_take_each_picture_of_a_clip_for_itself(hub):
    tower = vision_tower(str(hub["clip"]))
    assert not tower.cross_frame
    with torch.no_grad():
        assert torch.equal(tower.describe(pixels(4)), tower.describe(pixels(4), frames=2))


@pytest.mark.parametrize("family", READING)
def test_padding_does_not_change_a_text(hub, family):
    tower = text_tower(str(hub[family]))
    with torch.no_grad():
        tight, loose = (tower.forward_tokens(*padded(tower, TEXTS, extra)) for extra in (0, 5))
        alone = torch.stack([tower.encode(text, 16) for text in TEXTS])
    assert tight.shape == (3, tower.width)
    assert torch.allclose(tight, loose, atol=1e-5)
    assert torch.allclose(tight, alone, atol=1e-5)
    assert torch.allclose(tight.norm(dim=1), torch.ones(3), atol=1e-5)
    assert (tight[0] - tight[1]).norm() > 0.05


@pytest.mark.parametrize("family", READING)
def test_a_row_without_tokens_is_finite(hub, family):
    tower = text_tower(str(hub[family]), "full")
    vectors = tower.forward_tokens(torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 4, dtype=torch.bool))
    vectors.sum().backward()
    assert torch.isfinite(vectors).all()
    assert all(torch.isfinite(p.grad).all() for p in tower.parameters() if p.grad is not None)


@pytest.mark.parametrize("family", READING)
def test_long_texts_are_cut_to_what_a_tower_can_read(hub, family):
    tower = text_tower(str(hub[family]))
    long = "red bag " * 50
    assert len(tower.tokenize(long, 8)) == 8
    with torch.no_grad():
        assert torch.isfinite(tower.encode(long, 1000)).all()


def test_texts_are_what_the_models_pool(hub):
    from transformers import AutoModel, AutoTokenizer

    for family, length in (("clip", 0), ("x_clip", 0), ("siglip", 24), ("siglip2", 24)):
        tower = text_tower(str(hub[family]))
        tokenizer = AutoTokenizer.from_pretrained(hub[family])
        padding = {"padding": "max_length", "max_length": length} if length else {}
        ids = tokenizer("red bag", return_tensors="pt", **padding)["input_ids"]
        with torch.no_grad():
            pooled = AutoModel.from_pretrained(hub[family]).text_model(input_ids=ids).pooler_output[0]
        assert torch.allclose(tower.encode("red bag", 24), pooled / pooled.norm(), atol=1e-5), family


def test_siglip_reads_in_lower_case(hub):
    tower = text_tower(str(hub["siglip"]))
    assert tower.tokenize("Red BAG", 16) == tower.tokenize("red bag", 16)


@pytest.mark.parametrize("family", ["bert", "roberta", "chinese_clip"])
def test_what_masked_language_training_needs_is_laid_open(hub, family):
    tower = text_tower(str(hub[family]))
    tokens, mask = padded(tower, TEXTS)
    with torch.no_grad():
        states, loose = tower.token_states(tokens, mask), tower.token_states(*padded(tower, TEXTS, 4))
    assert tower.token_embedding.shape == (tower.vocabulary, WIDTH)
    assert tower.mask_token in tower.special_tokens
    assert states.shape == (*tokens.shape, WIDTH)
    assert torch.allclose(states[mask], loose[:, : tokens.shape[1]][mask], atol=1e-5)


def test_the_model_of_a_folder_is_known_by_its_content(hub, tmp_path):
    other = shutil.copytree(hub["bert"], tmp_path / "moved")
    assert fingerprint(str(other)) == fingerprint(str(hub["bert"])) != fingerprint(str(hub["roberta"]))
    assert fingerprint("google/siglip2-base-patch16-256") == "google/siglip2-base-patch16-256"


@pytest.mark.parametrize(
    ("kind", "family", "message"),
    [("text", "vit", "family 'vit'"), ("vision", "bert", "family 'bert'")],
)
def test_a_family_of_the_other_kind_is_refused(hub, kind, family, message):
    with pytest.raises(UserError, match=message):
        (text_tower if kind == "text" else vision_tower)(str(hub[family]))


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no model: the folder has no config\.json"):
        vision_tower(str(tmp_path))


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"the text tower '.*nowhere' is not there"):
        text_tower(str(tmp_path / "nowhere"))


def copied(hub, family, tmp_path, drop):
    folder = shutil.copytree(hub[family], tmp_path / family)
    (folder / drop).unlink()
    return str(folder)


@pytest.mark.parametrize("drop", ["model.safetensors", "preprocessor_config.json"])
def test_a_missing_file_of_a_vision_model_is_one_line(hub, tmp_path, drop):
    with pytest.raises(UserError, match="cannot load the vision tower") as caught:
        vision_tower(copied(hub, "clip", tmp_path, drop))
    assert "\n" not in str(caught.value)


def test_a_missing_tokenizer_is_one_line(hub, tmp_path):
    folder = copied(hub, "bert", tmp_path, "tokenizer.json")
    with pytest.raises(UserError, match=r"has a tokenizer of 5 tokens and a model of \d+; give a folder"):
        text_tower(folder)


def test_damaged_weights_are_one_line(hub, tmp_path):
    folder = shutil.copytree(hub["bert"], tmp_path / "bert")
    (folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="cannot load the text tower") as caught:
        text_tower(str(folder))
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_there_are_not_made_up(hub, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(hub["bert"], tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if name.endswith("layer.1.output.dense.weight")))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks weights \(encoder\.layer\.1\.output\.dense\.weight\)"):
        text_tower(str(folder))


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="cannot load the text tower 'nobody/nothing'") as caught:
        text_tower("nobody/nothing")
    assert "\n" not in str(caught.value)
