"""The interface of towers, and what towers of every kind have in common.

A tower turns pictures or texts into vectors. `cope.towers.packaged` opens one by its name.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cope.errors import UserError
from cope.towers.lora import add_lora, merge_lora

Tuning = Literal["frozen", "lora", "full"]


class Tunable(Protocol):
    """What training and artefacts need of a tower."""

    tuning: Tuning

    def layers(self) -> list[list[nn.Parameter]]:
        """The parameters that are learned, layer by layer from the input up; empty lists where nothing is."""
        ...

    def enable_checkpointing(self) -> None:
        """Recomputes activations in the backward pass from now on."""
        ...

    def tuned_state(self) -> dict[str, Tensor]:
        """Returns the parameters that tuning has changed: none, the low-rank steps, or all."""
        ...

    def load_tuned(self, state: dict[str, Tensor]) -> None:
        """Takes over what another tower's `tuned_state` gave.

        Raises:
            UserError: The state belongs to another tower.
        """
        ...

    def merge(self) -> None:
        """Adds low-rank steps into the weights, which gives the same function at the tower's original speed."""
        ...


class VisionTower(Tunable, Protocol):
    """Pictures as (B, 3, H, W) float32 RGB in [0, 255], H and W multiples of `stride`.

    Attributes:
        stride: Pixels of which H and W are multiples.
        map_channels: Channels of each of its maps.
        descriptor_width: Length of its descriptors.
        colours: How many of the last values of a descriptor are a histogram of colours (`cope.towers.colours`).
        cross_frame: The frames of a clip are described together and see one another.
    """

    stride: int
    map_channels: tuple[int, ...]
    descriptor_width: int
    colours: int
    cross_frame: bool

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """Feature maps for finding regions, finest first: each (B, C, h, w)."""
        ...

    def describe(self, pixels: Tensor, frames: int = 1) -> Tensor:
        """One descriptor per picture: (B, descriptor_width).

        Args:
            pixels: (B, 3, H, W) float32 in [0, 255].
            frames: So many consecutive pictures are one clip; B is a multiple of it. Towers that are not
                `cross_frame` describe each picture for itself.
        """
        ...


class TextTower(Tunable, Protocol):
    """Texts -> vectors. Padding never changes a row.

    Attributes:
        width: Length of the vectors.
        mask_token: For masked-language training; None where the tower has no such token.
        special_tokens: Tokens that stand for no text (start, end, padding, mask).
        vocabulary: Number of tokens; 0 where the tower does not expose its token vectors.
    """

    width: int
    mask_token: int | None
    special_tokens: frozenset[int]
    vocabulary: int

    @property
    def token_embedding(self) -> nn.Parameter | None:
        """(vocabulary, W'), the vectors of the tokens as they enter; None for packed ones."""
        ...

    def tokenize(self, text: str, max_tokens: int) -> list[int]:
        """Token numbers with the specials of the tower, at most `max_tokens` and what the tower can read."""
        ...

    def encode(self, text: str, max_tokens: int) -> Tensor:
        """(width,) float32, L2-normalised."""
        ...

    def forward_tokens(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """A batch of tokenized texts.

        Args:
            tokens: (B, L) int64, padded at the end with anything.
            mask: (B, L) bool, which are tokens. A row without any gives an undefined vector.

        Returns:
            (B, width) float32, L2-normalised.
        """
        ...

    def token_states(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, L, W'): the last state of each token, for masked-language training."""
        ...


def mean_text(texts: Sequence[tuple[str, float]], vector_of: Callable[[str], Tensor]) -> Tensor:
    """Returns the weighted mean of the texts' vectors, (W,). At least one weight must be above 0."""
    total = torch.stack([vector_of(text) * weight for text, weight in texts]).sum(dim=0)
    return total / sum(weight for _, weight in texts)


class Tower(nn.Module):
    """The tuning of a tower. Subclasses say which their layers are."""

    tuning: Tuning = "frozen"

    def stack(self) -> Sequence[nn.Module]:
        """The layers proper, from the input up: what low-rank steps and layer-wise rates go by."""
        raise NotImplementedError

    def bottom(self) -> Sequence[nn.Module]:
        """What comes before the layers; all that is neither here nor in `stack` comes after."""
        raise NotImplementedError

    def tune(self, tuning: Tuning, rank: int, name: str) -> None:
        """Decides what is learned; once, after loading.

        Args:
            tuning: See `ModelConfig.tuning`.
            rank: Rank of the low-rank steps.
            name: Name of the tower, for the message.

        Raises:
            UserError: Low-rank steps are wanted of a tower without attention.
        """
        self.requires_grad_(tuning == "full")
        if tuning == "lora" and not sum(add_lora(layer, rank) for layer in self.stack()):
            raise UserError(f"the tower {name!r} has no attention layers for tuning=lora; use frozen or full")
        self.tuning = tuning
        self.eval()

    def train(self, mode: bool = True) -> "Tower":
        """A frozen tower stays as it is in service: no dropout."""
        super().train(mode and self.tuning != "frozen")
        return self

    def layers(self) -> list[list[nn.Parameter]]:
        """See `Tunable`."""
        groups = [[p for part in self.bottom() for p in part.parameters()]]
        groups += [list(layer.parameters()) for layer in self.stack()]
        taken = {id(p) for group in groups for p in group}
        groups.append([p for p in self.parameters() if id(p) not in taken])
        return [[p for p in group if p.requires_grad] for group in groups]

    def enable_checkpointing(self) -> None:
        """See `Tunable`. The switch is the one that layers of `transformers` have."""
        for module in self.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = True  # type: ignore[assignment]
                module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)  # type: ignore[assignment]

    def tuned_state(self) -> dict[str, Tensor]:
        """See `Tunable`."""
        if self.tuning == "full":
            return cast(dict[str, Tensor], self.state_dict())
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def load_tuned(self, state: dict[str, Tensor]) -> None:
        """See `Tunable`."""
        wanted = self.tuned_state()
        odd = next((n for n in {**wanted, **state} if n not in wanted or n not in state), None) or next(
            (n for n in wanted if wanted[n].shape != state[n].shape), None
        )
        if odd is not None:
            raise UserError(f"the tuned weights of the {type(self).__name__} are of another tower or rank ({odd})")
        self.load_state_dict(state, strict=False)

    def merge(self) -> None:
        """See `Tunable`."""
        merge_lora(self)
