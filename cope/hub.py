"""Towers from `transformers`, by hub name or folder: CLIP, Chinese-CLIP, SigLIP, SigLIP2, X-CLIP, ViT, BERT, RoBERTa.

Of a model with two halves a tower is one. Descriptors are the model's own pooled output where it has one, maps are
its patch tokens.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import httpx
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from cope.errors import UserError
from cope.towers import Tower

SEEING = ("clip", "chinese_clip", "siglip", "siglip2", "xclip", "vit", "clip_vision_model", "siglip_vision_model")
READING = ("clip", "chinese_clip", "siglip", "siglip2", "xclip", "bert", "roberta", "xlm-roberta")
POOLERS = ("vit", "bert", "roberta", "xlm-roberta")  # whose pooling layer is for classifying, and often untrained


class HubTower(Tower):
    """What the halves of `transformers` models have in common."""

    def __init__(self, model: Any, whole: Any) -> None:
        super().__init__()
        self.model = model
        self.whole = whole  # configuration of the model that this is a half of

    def stack(self) -> Sequence[nn.Module]:
        """See `Tower`."""
        inner = getattr(self.model, "encoder", self.model)
        layers = getattr(inner, "layers", None) or inner.layer
        return cast(Sequence[nn.Module], layers)

    def bottom(self) -> Sequence[nn.Module]:
        """See `Tower`."""
        names = ("embeddings", "pre_layrnorm", "pre_layernorm")
        return [part for name, part in self.model.named_children() if name in names]

    def save_files(self, folder: Path) -> None:
        """Writes all that `transformers` needs to build this tower but for its weights."""
        self.whole.save_pretrained(folder)


class HubVision(HubTower):
    """The half that sees. Pictures of another size than the model was trained at are resized."""

    cross_frame = False

    def __init__(self, model: Any, whole: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(model, whole)
        config = model.config
        self.stride = int(config.patch_size)
        self.side = self.stride * self.grid(config)
        self.map_channels = (int(config.hidden_size),)
        self.descriptor_width = int(config.hidden_size)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    @staticmethod
    def grid(config: Any) -> int:
        """Patches on a side."""
        return int(config.image_size) // int(config.patch_size)

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """The patch tokens as one map."""
        n = self.side // self.stride
        tokens, _ = self._walk(self._prepared(pixels), 1)
        # A class token stands in front, in some.
        return [tokens[:, -n * n :].transpose(1, 2).reshape(len(tokens), -1, n, n)]

    def describe(self, pixels: Tensor, frames: int = 1) -> Tensor:
        """(B, descriptor_width): the pooled output, or the mean patch token where the model does not pool."""
        tokens, pooled = self._walk(self._prepared(pixels), frames)
        return (tokens.mean(dim=1) if pooled is None else pooled).float()

    def save_files(self, folder: Path) -> None:
        """See `HubTower`."""
        super().save_files(folder)
        levels = {"image_mean": self._levels("mean"), "image_std": self._levels("std")}
        (folder / "preprocessor_config.json").write_text(json.dumps(levels) + "\n", encoding="utf-8")

    def _levels(self, name: str) -> list[float]:
        return [round(level / 255, 6) for level in cast(Tensor, getattr(self, name)).flatten().tolist()]

    def _prepared(self, pixels: Tensor) -> Tensor:
        if pixels.shape[-2:] != (self.side, self.side):
            shrink = pixels.shape[-2] > self.side
            pixels = functional.interpolate(
                pixels, (self.side, self.side), mode="bilinear", align_corners=False, antialias=shrink
            )
        return (pixels - cast(Tensor, self.mean)) / cast(Tensor, self.std)

    def _walk(self, x: Tensor, frames: int) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, N, C) and the pooled output (B, C)."""
        out = self.model(pixel_values=x)
        return out.last_hidden_state, out.pooler_output


class ClassTokenVision(HubVision):
    """ViT: its class token is the descriptor."""

    def _walk(self, x: Tensor, frames: int) -> tuple[Tensor, Tensor | None]:
        tokens = self.model(pixel_values=x).last_hidden_state
        return tokens, tokens[:, 0]


class PatchedVision(HubVision):
    """SigLIP2 of any aspect: takes pictures as rows of patches. Here they are square."""

    @staticmethod
    def grid(config: Any) -> int:
        """Patches on a side."""
        return int(config.num_patches**0.5)

    def _walk(self, x: Tensor, frames: int) -> tuple[Tensor, Tensor | None]:
        n, p = self.side // self.stride, self.stride
        patches = x.view(len(x), 3, n, p, n, p).permute(0, 2, 4, 3, 5, 1).reshape(len(x), n * n, -1)
        shapes = torch.full((len(x), 2), n, device=x.device)
        out = self.model(pixel_values=patches, pixel_attention_mask=None, spatial_shapes=shapes)
        return out.last_hidden_state, out.pooler_output


class CrossFrameVision(HubVision):
    """X-CLIP: in every layer the frames of a clip tell one another what they see."""

    cross_frame = True

    def _walk(self, x: Tensor, frames: int) -> tuple[Tensor, Tensor | None]:
        """The model's own forward, with the number of frames as an argument.

        `transformers` keeps that number in each layer. Set there it would be shared by the threads of a worker,
        and a layer that is recomputed in the backward pass would see the number of the batch after it.
        """
        tokens = self.model.pre_layernorm(self.model.embeddings(x))
        for layer in self.model.encoder.layers:
            if self.model.encoder.gradient_checkpointing and self.training:
                tokens = checkpoint(_cross_frame, layer, tokens, frames, use_reentrant=False)
            else:
                tokens = _cross_frame(layer, tokens, frames)
        return tokens, self.model.post_layernorm(tokens[:, 0])


def _cross_frame(layer: Any, tokens: Tensor, frames: int) -> Tensor:
    """One layer (`CrossFramelAttentionBlock`): (B, N, C) -> (B, N, C)."""
    message = layer.message_fc(tokens[:, 0]).view(-1, frames, tokens.shape[-1])
    message = message + layer.drop_path(layer.message_attn(layer.message_ln(message))[0])
    x = torch.cat([tokens, message.view(len(tokens), 1, -1)], dim=1)
    x = (x + layer.self_attn(layer.layer_norm1(x))[0])[:, :-1]
    out: Tensor = x + layer.mlp(layer.layer_norm2(x))
    return out


class HubText(HubTower):
    """The half that reads: the mean state of the tokens, as sentence encoders of the BERT family are made."""

    def __init__(self, model: Any, whole: Any, tokenizer: Any, prefix: str = "") -> None:
        """Wraps a model.

        Args:
            model: Takes `input_ids` and `attention_mask`.
            whole: See `HubTower`.
            tokenizer: `tokenizer(text, max_tokens)` -> token numbers, with what `HubTokenizer` says of itself.
            prefix: Put before each text, where the model was trained so.
        """
        super().__init__(model, whole)
        self.tokenizer = tokenizer
        self.prefix = prefix
        self.mask_token: int | None = tokenizer.mask_token
        self.special_tokens: frozenset[int] = tokenizer.special_tokens
        self.padding = int(model.config.pad_token_id or 0)
        # RoBERTa counts positions from behind its padding token on.
        first = self.padding + 1 if "roberta" in model.config.model_type else 0
        self.longest = int(model.config.max_position_embeddings) - first
        self.width = self.state_width = int(model.config.hidden_size)
        table = self.token_embedding
        self.vocabulary = 0 if table is None else len(table)

    @property
    def token_embedding(self) -> nn.Parameter | None:
        """(vocabulary, W'); None for packed ones."""
        return cast("nn.Parameter | None", getattr(self.model.get_input_embeddings(), "weight", None))

    def tokenize(self, text: str, max_tokens: int) -> list[int]:
        """See `TextTower`."""
        return cast(list[int], self.tokenizer(self.prefix + text, min(max_tokens, self.longest)))

    def encode(self, text: str, max_tokens: int) -> Tensor:
        """(width,) float32, L2-normalised."""
        tokens = torch.tensor([self.tokenize(text, max_tokens)], device=self._device())
        return self._normalised(self._pooled(tokens, None))[0]

    def forward_tokens(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, L) and (B, L) bool -> (B, width) float32, L2-normalised."""
        return self._normalised(self._pooled(tokens, mask))

    def token_states(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, L) and (B, L) bool -> (B, L, W')."""
        return self._states(tokens, mask)

    def save_files(self, folder: Path) -> None:
        """See `HubTower`."""
        super().save_files(folder)
        self.tokenizer.save(folder)

    def _device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    @staticmethod
    def _normalised(vectors: Tensor) -> Tensor:
        return functional.normalize(vectors.float(), dim=-1)

    def _states(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            tokens, mask = tokens.masked_fill(~mask, self.padding), _somewhere(mask)
        return cast(Tensor, self.model(input_ids=tokens, attention_mask=mask).last_hidden_state)

    def _pooled(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        states = self._states(tokens, mask).float()
        if mask is None:
            return states.mean(dim=1)
        kept = _somewhere(mask).unsqueeze(2).to(states.dtype)
        return (states * kept).sum(dim=1) / kept.sum(dim=1)


class ClassTokenText(HubText):
    """Chinese-CLIP: the state of the first token."""

    def _pooled(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        return self._states(tokens, mask)[:, 0]


class CausalText(HubText):
    """CLIP and X-CLIP: the state of the end token. No token sees those behind it, so padding needs no mask."""

    def __init__(self, model: Any, whole: Any, tokenizer: Any) -> None:
        super().__init__(model, whole, tokenizer)
        self.mask_token = None  # a token that sees only those before it does not guess from both sides

    def _run(self, tokens: Tensor, mask: Tensor | None) -> Any:
        if mask is not None:
            tokens = tokens.masked_fill(~mask, 0)
        return self.model(input_ids=tokens)

    def _states(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        return cast(Tensor, self._run(tokens, mask).last_hidden_state)

    def _pooled(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        return cast(Tensor, self._run(tokens, mask).pooler_output)


class FixedLengthText(HubText):
    """SigLIP: trained on lower case and on texts padded to one length, padding in full view, the last place pooled."""

    def __init__(self, model: Any, whole: Any, tokenizer: Any) -> None:
        super().__init__(model, whole, tokenizer)
        self.mask_token = None  # Gemma's tokenizer has one, but the model never saw it
        self.width = int(model.head.out_features)

    def tokenize(self, text: str, max_tokens: int) -> list[int]:
        """See `TextTower`."""
        return super().tokenize(text.lower(), max_tokens)

    def _run(self, tokens: Tensor, mask: Tensor | None) -> Any:
        if mask is not None:
            tokens = tokens.masked_fill(~mask, self.padding)
        return self.model(input_ids=functional.pad(tokens, (0, self.longest - tokens.shape[1]), value=self.padding))

    def _states(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        return cast(Tensor, self._run(tokens, mask).last_hidden_state[:, : tokens.shape[1]])

    def _pooled(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        return cast(Tensor, self._run(tokens, mask).pooler_output)


def _somewhere(mask: Tensor) -> Tensor:
    """The mask; a row without tokens looks at its first place, since attention to nothing is NaN."""
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    return mask | (~mask.any(dim=1, keepdim=True) & first)


class HubTokenizer:
    """A tokenizer of `transformers` as towers use it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.mask_token: int | None = tokenizer.mask_token_id
        self.special_tokens = frozenset(tokenizer.all_special_ids)

    def __call__(self, text: str, max_tokens: int) -> list[int]:
        """Token numbers with specials, at most `max_tokens`."""
        return list(self._tokenizer(text, truncation=True, max_length=max_tokens)["input_ids"])

    def save(self, folder: Path) -> None:
        """Writes the tokenizer's files."""
        self._tokenizer.save_pretrained(folder)


_EYES: dict[str, type[HubVision]] = {"vit": ClassTokenVision, "siglip2": PatchedVision, "xclip": CrossFrameVision}
_READERS: dict[str, type[HubText]] = {
    "chinese_clip": ClassTokenText,
    "clip": CausalText,
    "xclip": CausalText,
    "siglip": FixedLengthText,
    "siglip2": FixedLengthText,
}
# What may go wrong in `transformers` and below it when a model is fetched or read.
_TROUBLE = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError, httpx.HTTPError)


def open_vision(name: str, weights: bool = True) -> HubVision:
    """Opens the half of a model that sees.

    Args:
        name: Hub name or folder.
        weights: Whether to read its weights; else they are random, to be replaced.

    Raises:
        UserError: There is no such model, it is of a family that is not known, or its files are not whole.
    """
    family, whole, half = _open(name, "vision", SEEING, weights)
    try:
        from transformers.image_processing_base import ImageProcessingMixin

        settings, _ = ImageProcessingMixin.get_image_processor_dict(name)
        mean, std = settings["image_mean"], settings["image_std"]
    except _TROUBLE as error:
        raise _unusable(name, "vision", error) from None
    return _EYES.get(family, HubVision)(half, whole, mean, std)


def open_text(name: str, weights: bool = True) -> HubText:
    """Opens the half of a model that reads; as `open_vision`."""
    family, whole, half = _open(name, "text", READING, weights)
    try:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(name)
    except _TROUBLE as error:
        raise _unusable(name, "text", error) from None
    known, words = len(tokenizer), int(half.config.vocab_size)
    if not len(tokenizer.all_special_ids) < known <= words:  # files that are missing give an empty vocabulary
        raise UserError(
            f"the text tower {name!r} has a tokenizer of {known} tokens and a model of {words}; "
            f"give a folder with the model's own tokenizer files"
        )
    return _READERS.get(family, HubText)(half, whole, HubTokenizer(tokenizer))


def _open(name: str, kind: str, families: Sequence[str], weights: bool) -> tuple[str, Any, Any]:
    """A model's family, configuration and half."""
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise UserError(f"the {kind} tower {name!r} is no model: the folder has no config.json; give a model's folder")
    if name.startswith(("/", ".")) and not Path(name).is_dir():  # else taken for a malformed hub name
        raise UserError(f"the {kind} tower {name!r} is not there; give a model's folder or hub name")
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    loudness = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns of the half that is not used; what matters is checked below
    logging.disable_progress_bar()
    try:
        whole = AutoConfig.from_pretrained(name)
        family = str(whole.model_type)
        if family not in families:
            raise UserError(
                f"the {kind} tower {name!r} is of the family {family!r}, which has no use here; "
                f"choose a model of {', '.join(families)}"
            )
        extra = {"add_pooling_layer": False} if family in POOLERS else {}
        if weights:
            model, info = AutoModel.from_pretrained(name, config=whole, output_loading_info=True, **extra)
        else:
            model, info = AutoModel.from_config(whole, **extra), {"missing_keys": ()}
    except _TROUBLE as error:
        raise _unusable(name, kind, error) from None
    finally:
        logging.set_verbosity(loudness)
    half = getattr(model, f"{kind}_model", model)
    prefix = "" if half is model else f"{kind}_model."
    missing = next((key for key in sorted(info["missing_keys"]) if key.startswith(prefix)), None)
    if missing is not None:  # `transformers` would go on with random ones
        raise UserError(f"the {kind} tower {name!r} lacks weights ({missing}); give a whole model")
    return family, whole, half.float()


def _unusable(name: str, kind: str, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return UserError(f"cannot load the {kind} tower {name!r}: {reason}; give a folder or a hub name that exists")
