"""Vision halves of models: descriptors are the pooled output where the model has one, maps are its patch tokens."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from cope.towers.hub.tower import HubTower

# Attention logit of a frame that is not there. Nearer to 0 it would count; below -65,504 it would be infinite in
# float16, and a clip without frames NaN.
UNHEARD = -1e4


class HubVision(HubTower):
    """The vision half of a model. Pictures of another size than the model was trained at are resized."""

    colours = 0
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
    """X-CLIP: in every layer the frames of a clip exchange messages."""

    cross_frame = True

    def describe_clips(self, pixels: Tensor, there: Tensor) -> Tensor:
        """As `describe`, for clips of unlike length: each is described as if it had its own frames alone.

        Args:
            pixels: (B, T, 3, H, W).
            there: (B, T) bool, the frames of each clip; the others may hold any picture.

        Returns:
            (B, T, descriptor_width); undefined where there is no frame.
        """
        _, pooled = self._walk(self._prepared(pixels.flatten(0, 1)), there.shape[1], there)
        return pooled.float().view(*there.shape, -1)

    def _walk(self, x: Tensor, frames: int, there: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The model's own forward, with the number of frames as an argument, and which of them there are.

        `transformers` keeps that number in each layer. Set there it would be shared by the threads of a worker,
        and a layer that is recomputed in the backward pass would see the number of the batch after it.
        """
        mask = None if there is None else torch.where(there, 0.0, UNHEARD)[:, None, None]  # (B, 1, 1, T), added
        tokens = self.model.pre_layernorm(self.model.embeddings(x))
        for layer in self.model.encoder.layers:
            if self.model.encoder.gradient_checkpointing and self.training:
                tokens = checkpoint(_cross_frame, layer, tokens, frames, mask, use_reentrant=False)
            else:
                tokens = _cross_frame(layer, tokens, frames, mask)
        return tokens, self.model.post_layernorm(tokens[:, 0])


def _cross_frame(layer: Any, tokens: Tensor, frames: int, mask: Tensor | None) -> Tensor:
    """One layer (`CrossFramelAttentionBlock`): (B, N, C) -> (B, N, C)."""
    message = layer.message_fc(tokens[:, 0]).view(-1, frames, tokens.shape[-1])
    message = message + layer.drop_path(layer.message_attn(layer.message_ln(message), mask)[0])
    x = torch.cat([tokens, message.view(len(tokens), 1, -1)], dim=1)
    x = (x + layer.self_attn(layer.layer_norm1(x))[0])[:, :-1]
    out: Tensor = x + layer.mlp(layer.layer_norm2(x))
    return out
