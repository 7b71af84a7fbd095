"""The learned part of COPE: finds regions, projects them into the shared space, and fuses them with words.

Networks here know tensors only; `cope.encoder.Encoder` is the door for pictures and strings. Letters in the
shapes: B pictures, R regions, K regions of a frame, D the embedding space, C channels.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cope.config import ModelConfig

Domain = Literal["page", "video", "live"]
DOMAINS: tuple[Domain, ...] = ("page", "video", "live")


class RegionFinder(nn.Module):
    """Says of each cell of a grid whether a shown thing lies there, and its box (FCOS, Tian et al. 2019).

    It knows no products: what is found is described and compared afterwards.
    """

    def __init__(self, map_channels: Sequence[int], hidden: int, grid: int) -> None:
        super().__init__()
        self.grid = grid  # index of the map whose cells are the grid
        self.laterals = nn.ModuleList(nn.Conv2d(c, hidden, 1) for c in map_channels)
        self.mix = nn.Sequential(
            nn.GroupNorm(8, hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden),
            nn.Conv2d(hidden, hidden, 1),
            nn.GroupNorm(8, hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden),
            nn.Conv2d(hidden, hidden, 1),
            nn.GroupNorm(8, hidden),
            nn.ReLU(),
        )
        self.out = nn.Conv2d(hidden, 5, 1)
        nn.init.zeros_(self.out.weight)
        # Before training: everything is rarely a product, and a few cells large.
        self.out.bias = nn.Parameter(torch.tensor([-3.0, 1.0, 1.0, 1.0, 1.0]))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Feature maps, each (B, C, h, w) -> salience logits (B, h, w) and relative boxes (B, h, w, 4) xyxy."""
        h, w = maps[self.grid].shape[-2:]
        size = (h, w)
        total = torch.zeros((), device=maps[0].device)
        for lateral, level in zip(self.laterals, maps, strict=True):
            x = lateral(level)
            if x.shape[-2:] != size:
                shrink = x.shape[-2] > size[0]
                x = (
                    functional.adaptive_avg_pool2d(x, size)
                    if shrink
                    else functional.interpolate(x, size, mode="bilinear", align_corners=False)
                )
            total = total + x
        out = self.out(self.mix(total))  # (B, 5, h, w)
        reach = out[:, 1:].clamp(max=5.0).exp()  # cells to the left, top, right, bottom edge
        xs = (torch.arange(w, device=out.device) + 0.5).view(1, 1, w)
        ys = (torch.arange(h, device=out.device) + 0.5).view(1, h, 1)
        boxes = torch.stack(
            [(xs - reach[:, 0]) / w, (ys - reach[:, 1]) / h, (xs + reach[:, 2]) / w, (ys + reach[:, 3]) / h], dim=-1
        )
        return out[:, 0], boxes.clamp(0.0, 1.0)


class VisualProjection(nn.Module):
    """Tower descriptors -> the shared space: whitened principal axes, a learned correction, a step per domain.

    It starts as the principal axes of the frozen features and what it learns is added to them, so that with
    little data it stays close to features that were learned from a million photographs.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, dim: int, hidden: int = 512) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.axes = nn.Linear(width, dim)
        nn.init.orthogonal_(self.axes.weight)
        nn.init.zeros_(self.axes.bias)
        last = nn.Linear(hidden, dim)
        self.correction = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.2), last)
        steps: dict[str, nn.Linear] = {name: nn.Linear(dim, dim) for name in DOMAINS}
        for layer in (last, *steps.values()):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.domains = nn.ModuleDict(steps)

    def forward(self, descriptors: Tensor, domain: Domain) -> Tensor:
        """(N, width) -> (N, D), L2-normalised."""
        x = (descriptors - self.mean) * self.scale
        z = self.axes(x) + self.correction(x)
        return functional.normalize(z + self.domains[domain](z), dim=-1)


class TextProjection(nn.Module):
    """Text vectors -> the shared space. Centred first: the vectors of E5 all lie within a narrow cone."""

    mean: Tensor

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.axes = nn.Linear(width, dim)
        nn.init.orthogonal_(self.axes.weight)
        nn.init.zeros_(self.axes.bias)

    def forward(self, texts: Tensor) -> Tensor:
        """(N, width) -> (N, D), L2-normalised."""
        return functional.normalize(self.axes(texts - self.mean), dim=-1)


class CopeModel(nn.Module):
    """Everything that is learned. The towers are not part of it."""

    def __init__(self, config: ModelConfig, map_channels: Sequence[int], vision_width: int, text_width: int) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.finder = RegionFinder(map_channels, config.hidden, grid=min(1, len(map_channels) - 1))
        self.visual = VisualProjection(vision_width, dim)
        self.text = TextProjection(text_width, dim)
        self.looks_like = nn.Linear(dim, dim, bias=False)  # words -> how the named thing looks, to guide attention
        nn.init.zeros_(self.looks_like.weight)
        self.attention = nn.Parameter(torch.tensor([2.0, 4.0, 0.0]))  # salience, persistence, words
        # How much words count beside pictures, live and on pages.
        self.text_share = nn.ParameterDict(
            {"page": nn.Parameter(torch.tensor(0.5)), "live": nn.Parameter(torch.tensor(0.5))}
        )
        self.no_picture = nn.Parameter(torch.randn(dim) * 0.02)
        self.no_text = nn.Parameter(torch.zeros(dim))

    def pool(self, regions: Tensor, salience: Tensor, frame: Tensor, words: Tensor, told: Tensor) -> Tensor:
        """Attention over all regions of clips.

        A region weighs more if it is salient, if something like it is seen in the other frames too (what a
        host shows stays; clutter that the finder takes for a product once does not), and if it looks like
        what the words name.

        Args:
            regions: (B, R, D) regions of all frames.
            salience: (B, R) in [0, 1].
            frame: (B, R) int64, the frame of each region; -1 for padding.
            words: (B, D).
            told: (B,) bool, whether there are words.

        Returns:
            (B, D), L2-normalised.
        """
        alike = regions @ regions.transpose(1, 2)  # (B, R, R)
        real = frame >= 0
        frames = int(frame.max()) + 1
        seen = torch.zeros(*frame.shape, frames, device=regions.device, dtype=regions.dtype)  # (B, R, T)
        for t in range(frames):
            there = (frame == t).unsqueeze(1)  # (B, 1, R)
            best = alike.masked_fill(~there, 0.0).amax(dim=2)  # (B, R)
            seen[..., t] = torch.where(frame == t, torch.zeros_like(best), best.clamp_min(0.0))
        persistence = seen.sum(dim=2) / max(frames - 1, 1)
        named = (regions @ functional.normalize(self.looks_like(words), dim=-1).unsqueeze(2)).squeeze(2)
        logits = self.attention[0] * salience.clamp_min(1e-3).log() + self.attention[1] * persistence
        logits = logits + self.attention[2] * torch.where(told.unsqueeze(1), named, torch.zeros_like(named))
        weights = logits.masked_fill(~real, float("-inf")).softmax(dim=1)  # (B, R)
        return functional.normalize((weights.unsqueeze(1) @ regions).squeeze(1), dim=-1)

    def fuse(
        self, picture: Tensor, pictured: Tensor, words: Tensor, told: Tensor, domain: Literal["page", "live"]
    ) -> Tensor:
        """Joins what is seen and what is said or written; learned placeholders stand in for what is missing.

        Args:
            picture: (B, D).
            pictured: (B,) bool, whether there is a picture.
            words: (B, D).
            told: (B,) bool, whether there are words.
            domain: Its own weight of words beside pictures.

        Returns:
            (B, D), L2-normalised.
        """
        seen = torch.where(pictured.unsqueeze(1), picture, functional.normalize(self.no_picture, dim=-1))
        named = torch.where(told.unsqueeze(1), words, self.no_text)
        return functional.normalize(seen + self.text_share[domain] * named, dim=-1)
