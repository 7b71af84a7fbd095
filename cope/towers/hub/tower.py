"""What the halves of `transformers` models have in common."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from torch import nn

from cope.towers.interface import Tower


class HubTower(Tower):
    """The vision or text half of a model, or a model that has only one of them."""

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
        """Writes all files but the weights that `transformers` needs to build this tower."""
        self.whole.save_pretrained(folder)
