"""The two small transformers of the paper: over the frames of a clip, and over picture and words.

Letters in the shapes: B items, T frames, N tokens, D the embedding space.
"""

import torch
from torch import Tensor, nn

# Learned positions along a clip. Frames fall between them by their share of the clip's length, so that a clip of
# four frames in training and a window of eight in service look alike. Fewer blur the order, more see too few clips.
ANCHORS = 8


class FrameIntegration(nn.Module):
    """X-CLIP's multi-frame integration transformer (Ni et al., ECCV 2022): what it adds to frames, then their mean."""

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(ANCHORS, dim) * 0.02)
        self.encoder = _encoder(dim, layers)

    def forward(self, frames: Tensor, there: Tensor) -> Tensor:
        """Frames by time -> one vector.

        Args:
            frames: (B, T, D).
            there: (B, T) bool; frames that are not there count for nothing.

        Returns:
            (B, D), not normalised; of no meaning in rows without frames.
        """
        number = there.cumsum(dim=1) - 1  # (B, T): 0, 1, ... over the frames that are there
        last = number[:, -1:].clamp_min(1)
        place = (number.clamp_min(0) / last) * (ANCHORS - 1)  # (B, T)
        below = place.floor().long().clamp(max=ANCHORS - 2)
        share = (place - below).unsqueeze(2)
        position = torch.lerp(self.position[below], self.position[below + 1], share.to(self.position.dtype))
        added = self.encoder(frames + position, src_key_padding_mask=_ignored(there))
        kept = there.unsqueeze(2).to(frames.dtype)
        mean: Tensor = ((frames + added) * kept).sum(dim=1) / kept.sum(dim=1).clamp_min(1.0)
        return mean


class FusionEncoder(nn.Module):
    """The paper's fusion encoder: a learned token gathers from pictures and words what their sum does not say."""

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(dim) * 0.02)
        self.kinds = nn.Parameter(torch.randn(2, dim) * 0.02)  # says which tokens are pictures, which words
        self.encoder = _encoder(dim, layers)

    def forward(self, pictures: Tensor, there: Tensor, words: Tensor) -> Tensor:
        """What is to be added to the sum of picture and words.

        Args:
            pictures: (B, N, D).
            there: (B, N) bool.
            words: (B, D).

        Returns:
            (B, D).
        """
        token = self.token.expand(len(words), 1, -1)
        tokens = torch.cat([token, pictures + self.kinds[0], (words + self.kinds[1]).unsqueeze(1)], dim=1)
        always = torch.ones(len(words), 1, dtype=torch.bool, device=there.device)
        out: Tensor = self.encoder(tokens, src_key_padding_mask=~torch.cat([always, there, always], dim=1))
        return out[:, 0]


def _ignored(there: Tensor) -> Tensor:
    """The padding mask; a row without anything attends to its first token, since attention to nothing is NaN."""
    empty = ~there.any(dim=1, keepdim=True)
    first = torch.arange(there.shape[1], device=there.device) == 0
    return ~(there | (empty & first))


def _encoder(dim: int, layers: int) -> nn.TransformerEncoder:
    heads = next(n for n in range(max(1, dim // 64), 0, -1) if dim % n == 0)
    layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, activation="gelu", batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(dim), enable_nested_tensor=False)
