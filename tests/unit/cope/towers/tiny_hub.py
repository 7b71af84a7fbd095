"""Tiny models with random weights in the hub's folder format, one per family that `cope.towers.hub` reads.

    clip, chinese_clip, siglip, siglip2, x_clip    pictures (32 x 32, patches of 8) and text, 32 wide, 2 layers
    vit                                            pictures alone
    bert, roberta                                  text alone

`siglip` is what SigLIP2's checkpoints of one resolution call themselves, `siglip2` those of any aspect. The tokenizers
know small letters, digits and a few Chinese signs.
"""

import json
from pathlib import Path

import torch

SIDE, PATCH, WIDTH = 32, 8, 32
FAMILIES = ("clip", "chinese_clip", "siglip", "siglip2", "x_clip", "vit", "bert", "roberta")
SEEING = FAMILIES[:6]
READING = (*FAMILIES[:5], *FAMILIES[6:])

_LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789")
_SIGNS = list("红色手提包鞋蓝白黑杯子")
_LAYERS = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_EYES = {"image_size": SIDE, "patch_size": PATCH}
_MEAN = {"clip": 0.48, "siglip": 0.5, "siglip2": 0.5, "vit": 0.5}


def build(root: Path, families=FAMILIES) -> dict[str, Path]:
    """Writes the folders (a second each at most) and returns them by family."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {family: _build(family, root / family) for family in families}


def _build(family: str, folder: Path) -> Path:
    tokenizer = _tokenizer(family)
    model = _model(family, len(tokenizer) if tokenizer else 0)
    for parameter in model.parameters():  # fresh weights are near zero: every picture would look alike
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    if tokenizer:
        tokenizer.save_pretrained(folder)
    if family in SEEING:
        level = _MEAN.get(family, 0.45)
        settings = {"do_normalize": True, "image_mean": [level] * 3, "image_std": [0.5] * 3}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def _tokenizer(family: str):
    from transformers import BertTokenizer, CLIPTokenizer, RobertaTokenizer, Siglip2Tokenizer

    if family in ("bert", "chinese_clip"):
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        return BertTokenizer(vocab=_numbered([*special, *_LETTERS, *_SIGNS, *("##" + c for c in _LETTERS)]))
    if family in ("clip", "x_clip"):
        ends = ["<|startoftext|>", "<|endoftext|>"]
        return CLIPTokenizer(vocab=_numbered([*_LETTERS, *(c + "</w>" for c in _LETTERS), *ends]), merges=[])
    if family in ("siglip", "siglip2"):
        bytes_ = [f"<0x{i:02X}>" for i in range(256)]
        special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁"]
        vocabulary = _numbered([*special, *bytes_, *_LETTERS, *_SIGNS])
        return Siglip2Tokenizer(vocab=vocabulary, merges=[], padding_side="right")  # as the hub's have it
    if family == "roberta":
        return RobertaTokenizer(vocab=_numbered(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *_LETTERS]), merges=[])
    return None


def _numbered(words):
    return {word: number for number, word in enumerate(words)}


def _model(family: str, words: int):
    import transformers as hub

    read = {**_LAYERS, "vocab_size": words, "max_position_embeddings": 24}
    see = {**_LAYERS, **_EYES}
    joint = {"projection_dim": WIDTH}
    gemma = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    ends = {"eos_token_id": words - 1, "bos_token_id": words - 2, "pad_token_id": words - 1}
    match family:
        case "clip":
            return hub.CLIPModel(hub.CLIPConfig(text_config={**read, **ends}, vision_config=see, **joint))
        case "chinese_clip":
            config = hub.ChineseCLIPConfig(text_config={**read, "pad_token_id": 0}, vision_config=see, **joint)
            return hub.ChineseCLIPModel(config)
        case "siglip":
            return hub.SiglipModel(hub.SiglipConfig(text_config={**read, **gemma}, vision_config=see))
        case "siglip2":
            patches = {**_LAYERS, "patch_size": PATCH, "num_patches": (SIDE // PATCH) ** 2}
            return hub.Siglip2Model(hub.Siglip2Config(text_config={**read, **gemma}, vision_config=patches))
        case "x_clip":
            mit = {"mit_hidden_size": WIDTH, "mit_intermediate_size": 64, "mit_num_attention_heads": 2}
            clip = {**see, **mit, "num_frames": 8}
            return hub.XCLIPModel(hub.XCLIPConfig(text_config={**read, **ends}, vision_config=clip, **joint))
        case "vit":
            return hub.ViTModel(hub.ViTConfig(**see))
        case "bert":
            return hub.BertModel(hub.BertConfig(**read, pad_token_id=0))
        case "roberta":
            return hub.RobertaModel(hub.RobertaConfig(**read, pad_token_id=1, bos_token_id=0, eos_token_id=2))
    raise ValueError(family)
