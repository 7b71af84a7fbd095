"""Pictures and strings as the towers see them, exactly as in service but before anything learned is applied."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cope.keywords import readings
from cope.model.modeling import weights_hash
from cope.serving.encoder import Encoder
from cope.serving.looking import as_tensor
from cope.towers.interface import TextTower, mean_text
from cope.towers.packaged import VisionTower, fingerprint

Pixels = NDArray[np.uint8]

# Crops through the tower at once: 64 of 256 px are 50 MB as they go in, ten times that inside the tower.
CROPS_AT_ONCE = 64


@dataclass(frozen=True)
class Clip:
    """The regions of a clip's frames, frame by frame.

    Attributes:
        descriptors: (R, F) float16.
        salience: (R,) float32.
        frame: (R,) int64.
        boxes: (R, 4) float32, relative.
    """

    descriptors: NDArray[np.float16]
    salience: NDArray[np.float32]
    frame: NDArray[np.int64]
    boxes: NDArray[np.float32]


class Describer:
    """The towers and the region finder of an encoder."""

    def __init__(self, encoder: Encoder, tuned: bool = True) -> None:
        """Takes them; the text tower is opened with this, if it was not yet.

        Args:
            encoder: The encoder whose towers describe.
            tuned: Whether to use the towers as trained, or as they were before any training, on the same regions.

        Raises:
            UserError: A tower is not there.
        """
        self.config = encoder.config
        self.model = encoder.model
        self.device = encoder.device
        self._looker = encoder.looker
        self._computing = encoder.computing
        if tuned or encoder.config.tuning == "frozen":
            self._vision, self._text_tower = encoder.vision, encoder.text
        else:
            self._vision = cast(VisionTower, encoder.tower("vision", tuned=False))
            self._text_tower = cast(TextTower, encoder.tower("text", tuned=False))
        # Where nothing of the towers was tuned, all models on them share what they see.
        self._version = encoder.version if tuned and encoder.config.tuning != "frozen" else encoder.precision
        self._texts: dict[str, Tensor] = {}
        self.descriptor_width = self._vision.descriptor_width  # F
        self.text_width = self._text_tower.width  # W

    @property
    def views(self) -> int:
        """Of each page picture."""
        return len(self._looker.page_crops(np.zeros((32, 32, 3), np.uint8)))

    @property
    def key(self) -> str:
        """A hash of all that the outcome depends on: trainings on the same frozen towers and finder share it."""
        config = self.config
        looks = [config.vision, config.text, config.finder, config.frame_pixels, config.crop_pixels]
        looks += [config.crop_margin, config.multi_view, config.regions, config.region_overlap]
        looks += [config.text_tokens, config.keywords]
        looks += [self._version, fingerprint(config.vision), fingerprint(config.text), weights_hash(self.model.finder)]
        return hashlib.sha256(json.dumps(looks).encode()).hexdigest()[:16]

    @torch.inference_mode()
    def find(self, frame: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Finds what is shown in a frame: relative boxes, (K, 4), and their saliences, (K,), most salient first."""
        return self._looker.find(frame)

    @torch.inference_mode()
    def clip(self, frames: Sequence[Pixels]) -> Clip:
        """Finds and describes what is shown in frames, (H, W, 3) uint8 RGB each."""
        config = self.config
        boxes: list[NDArray[np.float32]] = []
        salience: list[NDArray[np.float32]] = []
        crops: list[Pixels] = []
        for frame in frames:
            kept, sure = self.find(frame)
            crops += self._looker.crops(frame, kept)
            boxes.append(kept)
            salience.append(sure)
        number = np.repeat(np.arange(len(frames)), [len(one) for one in boxes])
        together = 1 if config.regions else len(frames)  # whole frames of a clip may see one another
        return Clip(self._describe(crops, together), np.concatenate(salience), number, np.concatenate(boxes))

    @torch.inference_mode()
    def pages(self, images: Sequence[Pixels]) -> NDArray[np.float16]:
        """Describes page pictures, (H, W, 3) uint8 RGB each: (N, V, F) float16, V views of each."""
        crops = [crop for one in images for crop in self._looker.page_crops(one)]
        return self._describe(crops, 1).reshape(len(images), -1, self.descriptor_width)

    @torch.inference_mode()
    def words(self, keywords: Sequence[tuple[str, float]]) -> Tensor | None:
        """Keywords as one vector, (W,) float32 on the CPU; None if there are none."""
        texts = readings(keywords, self.config.keywords)
        return mean_text(texts, self._text) if texts else None

    def _text(self, text: str) -> Tensor:
        """Kept for ever: an evaluation set has some ten thousand texts of 1.5 kB each."""
        if text not in self._texts:
            with self._computing():
                self._texts[text] = self._text_tower.encode(text, self.config.text_tokens).float().cpu()
        return self._texts[text]

    def _describe(self, crops: Sequence[Pixels], frames: int) -> NDArray[np.float16]:
        tower = self._vision
        found = [np.zeros((0, tower.descriptor_width), np.float16)]
        at_once = max(1, CROPS_AT_ONCE // frames) * frames
        for at in range(0, len(crops), at_once):
            with self._computing():
                described = tower.describe(as_tensor(crops[at : at + at_once], self.device), frames)
            found.append(described.half().cpu().numpy())
        return np.concatenate(found)
