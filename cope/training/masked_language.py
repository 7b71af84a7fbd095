"""The masked-language objective: a text tower keeps knowing its language while it learns products (BERT)."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from cope.runtime.distributed import joined_mean

SHARE = 0.15  # of the tokens are to be guessed (Devlin et al. 2019); fewer teach slowly, more hide what they mean
MASKED, REPLACED = 0.8, 0.1  # of those; the rest stay as they are, so that unmasked tokens are thought about too


class MaskedTower(Protocol):
    """A text tower that can guess its own tokens."""

    mask_token: int  # id that stands for a hidden token
    vocabulary: int  # V, number of token ids
    special_tokens: frozenset[int]  # ids that are never hidden: start, end, padding

    @property
    def token_embedding(self) -> Tensor:
        """(V, W), the input embedding, which is tied to the output."""
        ...

    def token_states(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens (B, L) int64 and what of them is real (B, L) bool -> (B, L, W)."""
        ...


def hide(tower: MaskedTower, tokens: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Chooses tokens to guess and hides most of them.

    Args:
        tower: Gives `mask_token`, `vocabulary` and `special_tokens`.
        tokens: (B, L) int64.
        mask: (B, L) bool, what of them is real.
        generator: On the CPU, so that the choice does not depend on the device.

    Returns:
        The tokens with 80 % of the chosen ones masked and 10 % replaced by random ones, (B, L) int64, and the choice,
        (B, L) bool.
    """
    special = torch.tensor(sorted(tower.special_tokens), dtype=tokens.dtype, device=tokens.device)
    choice, fate = torch.rand(2, *tokens.shape, generator=generator).to(tokens.device)
    others = torch.randint(tower.vocabulary, tokens.shape, generator=generator).to(tokens.device)
    chosen = (choice < SHARE) & mask & ~torch.isin(tokens, special)
    hidden = torch.where(chosen & (fate < MASKED), tower.mask_token, tokens)
    return torch.where(chosen & (fate >= MASKED) & (fate < MASKED + REPLACED), others, hidden), chosen


def masked_language_loss(tower: MaskedTower, tokens: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Mean cross-entropy of guessing the hidden tokens, over the joined batch of all ranks.

    Args:
        tower: Where it has no `token_states`, it cannot learn this.
        tokens: (B, L) int64, padded with anything.
        mask: (B, L) bool, what of them is real.
        generator: On the CPU; the same state gives the same loss.

    Returns:
        A scalar, the same on all ranks, gradients as in `joined_mean`; 0 if no token was chosen.
    """
    hidden, chosen = hide(tower, tokens, mask, generator)
    states = tower.token_states(hidden, mask)[chosen]  # (n, W): logits of all L tokens would fill the memory
    logits = functional.linear(states, tower.token_embedding)  # (n, V)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = functional.cross_entropy(logits, tokens[chosen], reduction="sum")
    return joined_mean(losses, chosen.sum())
