"""The learned part of COPE: finds regions, projects them into the shared space, and fuses them with words.

Networks here know tensors only; `cope.serving.encoder.Encoder` is the door for pictures and strings. Letters in the
shapes: B items or pictures, R regions, T frames, K regions of a frame, D the embedding space, C channels.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cope.config import ModelConfig
from cope.domains import DOMAINS, Domain
from cope.errors import UserError
from cope.model.integration import FrameIntegration, FusionEncoder
from cope.model.views import Views
from cope.towers.colours import COLOURS


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
    """Tower descriptors -> the shared space: a linear map, a learned correction, a step per domain.

    It starts as orthogonal axes, which keep the angles between the tower's features as far as fewer numbers can, and
    with correction and steps at zero. So with little data it stays close to what a million photographs have taught.
    A whitened one is its axes, which `cope.training.whitening` computes in closed form, and beside them the colours
    that a descriptor ends with, as far as they are unlike the mean of all pictures.
    """

    colours: Tensor | None  # the mean of all pictures

    def __init__(
        self, width: int, dim: int, per_domain: bool = True, whitened: bool = False, colour: float = 0.0
    ) -> None:
        """Builds a projection with fresh weights.

        Args:
            width: Of the descriptors.
            dim: D.
            per_domain: A step for each domain; else one for all.
            whitened: Axes alone.
            colour: Share of the colours in the cosine of two pictures, which a learned one leaves to its axes.

        Raises:
            UserError: There is no room for the colours.
        """
        super().__init__()
        self.whitened = whitened
        self.colour = colour if whitened else 0.0
        self.width = width
        apart = COLOURS if self.colour else 0
        if apart and min(width, dim) <= apart:
            raise UserError(f"colours take {apart} of {dim} dimensions: set model.dim above, or model.colour=0")
        self.register_buffer("colours", torch.zeros(apart) if apart else None)
        self.axes = nn.Linear(width - apart, dim - apart)
        nn.init.orthogonal_(self.axes.weight)
        nn.init.zeros_(self.axes.bias)
        if whitened:
            self.axes.requires_grad_(False)
            return
        hidden = 512
        last = nn.Linear(hidden, dim)
        self.correction = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.2), last)
        self.per_domain = per_domain
        steps: dict[str, nn.Linear] = {name: nn.Linear(dim, dim) for name in (DOMAINS if per_domain else ("all",))}
        for layer in (last, *steps.values()):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.domains = nn.ModuleDict(steps)

    def forward(self, descriptors: Tensor, domain: Domain) -> Tensor:
        """(N, width) -> (N, D), L2-normalised."""
        if self.whitened:
            what = functional.normalize(self.axes(descriptors[:, : self.axes.in_features]), dim=-1)
            if self.colours is None:
                return what
            colours = functional.normalize(descriptors[:, self.axes.in_features :] - self.colours, dim=-1)
            return torch.cat([(1 - self.colour) ** 0.5 * what, self.colour**0.5 * colours], dim=-1)
        z = self.axes(descriptors) + self.correction(descriptors)
        return functional.normalize(z + self.domains[domain if self.per_domain else "all"](z), dim=-1)


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


@dataclass(frozen=True)
class Embedded:
    """B items of one domain in the shared space; all rows L2-normalised.

    Attributes:
        regions: (B, R, D); of no meaning where there is no region.
        visual: (B, D) what is seen; the placeholder where nothing is.
        fused: (B, D) what is seen and said or written.
        words: (B, D) what is said or written; of no meaning where nothing is.
    """

    regions: Tensor
    visual: Tensor
    fused: Tensor
    words: Tensor


class CopeModel(nn.Module):
    """Everything that is learned on top of the towers. The towers are not part of it."""

    def __init__(self, config: ModelConfig, map_channels: Sequence[int], vision_width: int, text_width: int) -> None:
        """Builds the model with fresh weights.

        Args:
            config: What it is built of.
            map_channels: Channels of the maps of the finder's tower; not read if `config.regions` is 0.
            vision_width: Width of the vision tower's descriptors.
            text_width: Width of the text tower's vectors.
        """
        super().__init__()
        self.config = config
        dim = config.dim
        self.finder: nn.Module = (
            RegionFinder(map_channels, config.hidden, grid=min(1, len(map_channels) - 1))
            if config.regions
            else nn.Identity()
        )
        whitened = config.projection == "whitened"
        self.visual = VisualProjection(vision_width, dim, config.domain_projections, whitened, config.colour)
        self.text = TextProjection(text_width, dim)
        if config.vision == config.text and vision_width == text_width:
            # The two halves of one model already share a space (SigLIP): they start out on the same axes.
            self.text.axes.load_state_dict(self.visual.axes.state_dict())
        self.attention = nn.Parameter(torch.tensor([2.0, 4.0]))  # salience, persistence
        self.frames = FrameIntegration(dim, config.temporal_layers) if config.temporal == "transformer" else None
        self.fusion = FusionEncoder(dim, config.fusion_layers) if config.fusion == "transformer" else None
        weighed = DOMAINS if config.fusion == "sum" else ()  # how much words count beside pictures
        self.text_share = nn.ParameterDict({name: nn.Parameter(torch.tensor(0.5)) for name in weighed})
        self.no_picture = nn.Parameter(torch.randn(dim) * 0.02)
        self.no_text = nn.Parameter(torch.zeros(dim))

    def embed(self, views: Views, domain: Domain) -> Embedded:
        """All that is known of items of one domain, as vectors of the shared space.

        Args:
            views: B items with R regions each; either of pictures and words may be missing.
            domain: Domain of the items. The pictures of a page are averaged, the frames of clips integrated.
        """
        b, r = views.frame.shape
        regions = self.visual(views.descriptors.flatten(0, 1), domain).view(b, r, -1)
        # What is not told may hold anything, NaN too. Ones, since zeros may have no direction, and so no gradient.
        words = self.text(torch.where((views.told > 0).unsqueeze(1), views.words, 1.0))
        real = views.frame >= 0
        shown: tuple[Tensor, Tensor] | None = None
        if domain == "page":
            shown = (regions, real)
            mean = (regions * real.unsqueeze(2)).sum(dim=1) / real.sum(dim=1, keepdim=True).clamp_min(1)
            picture = functional.normalize(mean, dim=-1)
        else:
            picture = self.pool(regions, views.salience, views.frame)
        pictured = real.any(dim=1)
        visual = torch.where(pictured.unsqueeze(1), picture, functional.normalize(self.no_picture, dim=-1))
        fused = self.fuse(picture, pictured, words, views.told, domain, shown)
        return Embedded(regions, visual, fused, words)

    def pool(self, regions: Tensor, salience: Tensor, frame: Tensor) -> Tensor:
        """Integrates all regions of clips.

        A region weighs more if it is salient, and if something like it is seen in the other frames too (what a
        host shows stays; clutter that the finder takes for a product once does not). With the integration
        transformer, regions are weighed within their frame and it goes over the frames.

        Args:
            regions: (B, R, D) regions of all frames.
            salience: (B, R) in [0, 1].
            frame: (B, R) int64, the frame of each region; -1 for padding.

        Returns:
            (B, D), L2-normalised; of no meaning in rows without regions.
        """
        numbers = torch.arange(max(int(frame.max()) + 1, 1), device=frame.device)
        within = frame.unsqueeze(1) == numbers.view(1, -1, 1)  # (B, T, R)
        logits = self._attention(regions, salience, within)
        least = torch.finfo(logits.dtype).min  # not -inf, which makes NaN of a row without regions
        if self.frames is None:
            weights = logits.masked_fill(frame < 0, least).softmax(dim=1)  # (B, R)
            return functional.normalize((weights.unsqueeze(1) @ regions).squeeze(1), dim=-1)
        weights = logits.unsqueeze(1).masked_fill(~within, least).softmax(dim=2)  # (B, T, R)
        vectors = functional.normalize(weights @ regions, dim=-1)  # (B, T, D)
        return functional.normalize(self.frames(vectors, within.any(dim=2)), dim=-1)

    def _attention(self, regions: Tensor, salience: Tensor, within: Tensor) -> Tensor:
        """(B, R) logits; `within` is (B, T, R) bool, which region lies in which frame."""
        alike = regions @ regions.transpose(1, 2)  # (B, R, R)
        seen = torch.zeros(within.transpose(1, 2).shape, device=regions.device, dtype=alike.dtype)  # (B, R, T)
        for t in range(within.shape[1]):
            there = within[:, t]  # (B, R)
            best = alike.masked_fill(~there.unsqueeze(1), 0.0).amax(dim=2)  # (B, R)
            seen[..., t] = torch.where(there, torch.zeros_like(best), best.clamp_min(0.0))
        others = within.any(dim=2).sum(dim=1, keepdim=True) - 1  # (B, 1)
        persistence = seen.sum(dim=2) / others.clamp_min(1)
        return self.attention[0] * salience.clamp_min(1e-3).log() + self.attention[1] * persistence

    def fuse(
        self,
        picture: Tensor,
        pictured: Tensor,
        words: Tensor,
        told: Tensor,
        domain: Domain,
        shown: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Joins what is seen and what is said or written; learned placeholders stand in for what is missing.

        Args:
            picture: (B, D).
            pictured: (B,) bool, whether there is a picture.
            words: (B, D).
            told: (B,) in [0, 1], how surely the words name something; 0 where there are none. They count as much.
            domain: Domain, which has its own weight of words beside pictures.
            shown: The single pictures of pages, (B, N, D), and which of them are there, (B, N) bool. The fusion
                encoder looks at each.

        Returns:
            (B, D), L2-normalised.
        """
        seen = torch.where(pictured.unsqueeze(1), picture, functional.normalize(self.no_picture, dim=-1))
        named = torch.lerp(self.no_text.expand_as(words), words, told.unsqueeze(1))
        if self.config.fusion == "none":
            return torch.where(((told > 0) & ~pictured).unsqueeze(1), functional.normalize(named, dim=-1), seen)
        if self.fusion is not None:
            tokens, there = seen.unsqueeze(1), torch.ones_like(pictured).unsqueeze(1)
            if shown is not None:
                tokens, there = torch.cat([tokens, shown[0]], dim=1), torch.cat([there, shown[1]], dim=1)
            return functional.normalize(seen + named + self.fusion(tokens, there, named), dim=-1)
        return functional.normalize(seen + self.text_share[domain] * named, dim=-1)


def weights_hash(module: nn.Module) -> str:
    """A hash of a module's weights as an artefact keeps them, in half precision."""
    digest = hashlib.sha256()
    for name, weight in module.state_dict().items():
        digest.update(name.encode() + weight.half().cpu().numpy().tobytes())
    return digest.hexdigest()
