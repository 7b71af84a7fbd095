"""Text halves of models. Each family pads and pools in its own way; padding never changes a row."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cope.towers.hub.tower import HubTower


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


class HubText(HubTower):
    """A text half that pools by the mean state of its tokens, as sentence encoders of the BERT family do."""

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
        self.width = int(model.config.hidden_size)
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
        # "" may yield no token, not even an end; attention over no tokens is NaN.
        tokens = self.tokenize(text, max_tokens) or [self.padding]
        return self.encode_tokens(torch.tensor([tokens], device=self._device()))[0]

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """(B, L) int64, texts of one length -> (B, width) float32, L2-normalised."""
        return self._normalised(self._pooled(tokens, None))

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
        self.mask_token = None  # masked-language training needs tokens that see both sides

    def _run(self, tokens: Tensor, mask: Tensor | None) -> Any:
        if mask is not None:
            tokens = tokens.masked_fill(~mask, 0)
        return self.model(input_ids=tokens)

    def _states(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        return cast(Tensor, self._run(tokens, mask).last_hidden_state)

    def _pooled(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        return cast(Tensor, self._run(tokens, mask).pooler_output)


class FixedLengthText(HubText):
    """SigLIP: lower case, texts padded to one length, padding attended to, pooled at the last position."""

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
    """Returns the mask; a row without tokens attends to its first position, since attention over nothing is NaN."""
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    return mask | (~mask.any(dim=1, keepdim=True) & first)
