"""What the towers saw of a batch of items of one domain: the one input of all that is learned on top of them."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

NOBODY = -1  # product of a row without one: a background, a thing that is not sold, a missing item


@dataclass(frozen=True)
class Views:
    """B pages, videos or live clips. A page's regions are its pictures, a clip's those of all its frames.

    Attributes:
        descriptors: (B, R, F) from the vision tower.
        salience: (B, R) in [0, 1], how surely something is shown there; 1 for a page's pictures.
        frame: (B, R) int64, the frame of each region; -1 for padding. A page's pictures count as frames.
        words: (B, W) text vectors; anything where `told` is 0.
        told: (B,) in [0, 1], how surely the words name something: 1 for a title, the best weight of keywords
            (`cope.keywords.told`), 0 where there are no words.
        product: (B,) int64, or `NOBODY`.
        right: (B, R) bool, the regions that are known to show the product; all false where nobody knows.
    """

    descriptors: Tensor
    salience: Tensor
    frame: Tensor
    words: Tensor
    told: Tensor
    product: Tensor
    right: Tensor

    def __len__(self) -> int:
        return len(self.product)

    def to(self, device: torch.device) -> "Views":
        """The same on another device."""
        return Views(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def rows(self, index: Tensor) -> "Views":
        """Some of the items: index (N,) int64 or bool mask (B,)."""
        return Views(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def without_words(self) -> "Views":
        """The same items with nothing said or written."""
        return Views(**{**vars(self), "told": torch.zeros_like(self.told)})

    def without_pictures(self) -> "Views":
        """The same items with nothing to see."""
        return Views(**{**vars(self), "frame": torch.full_like(self.frame, -1)})
