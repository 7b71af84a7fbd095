"""From a picture to the crops that a tower describes: the same in service, in evaluation and in training."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cope.config import ModelConfig
from cope.towers.interface import VisionTower
from cope.vision.cutouts import Pixels
from cope.vision.pictures import fit_area, page_crops, square_crop
from cope.vision.regions import best_regions

WHOLE = np.array([[0.0, 0.0, 1.0, 1.0]], np.float32)


class Looker:
    """Finds what is shown in pictures, and cuts it out."""

    def __init__(
        self,
        config: ModelConfig,
        finder: nn.Module,
        tower: VisionTower | None,
        device: torch.device,
        computing: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Loads nothing.

        Args:
            config: For sizes.
            finder: The region finder.
            tower: The tower whose maps it reads; None where pictures are taken as a whole.
            device: Where both are.
            computing: What the tower runs under.
        """
        self.config = config
        self._finder, self._tower, self._device, self._computing = finder, tower, device, computing

    @torch.inference_mode()
    def find(self, image: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Where something is shown in a picture, (H, W, 3) uint8 RGB.

        Returns:
            Boxes (K, 4) relative x0, y0, x1, y1, and saliences (K,), most salient first; all of it for a model without
            a finder.
        """
        config = self.config
        if self._tower is None:
            return WHOLE, np.ones(1, np.float32)
        small = fit_area(image, config.frame_pixels, self._tower.stride)
        with self._computing():
            maps = self._tower.maps(as_tensor([small], self._device))
        logits, boxes = self._finder([level.float() for level in maps])
        kept, salience = best_regions(
            boxes[0].reshape(-1, 4).float().cpu().numpy(),
            logits[0].sigmoid().reshape(-1).float().cpu().numpy(),
            config.regions,
            config.region_overlap,
        )
        return kept.astype(np.float32), salience

    def crops(self, image: Pixels, boxes: NDArray[np.float32]) -> list[Pixels]:
        """Cuts regions out of a frame."""
        config = self.config
        margin = config.crop_margin if config.regions else 0.0
        return [square_crop(image, box, config.crop_pixels, margin) for box in boxes]

    def page_crops(self, image: Pixels) -> list[Pixels]:
        """The views of a page picture, (H, W, 3) uint8 RGB; of all pictures equally many."""
        config = self.config
        box = self.find(image)[0][0] if config.multi_view and self._tower is not None else None
        return page_crops(image, config.crop_pixels, config.crop_margin, config.multi_view, box)


def as_tensor(images: Sequence[Pixels], device: torch.device) -> Tensor:
    """Pictures of one size -> (B, 3, H, W) float32 in [0, 255]."""
    return torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).float()
