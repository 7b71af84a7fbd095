"""A model on tiny towers: the same code as the shipped one, in milliseconds."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from cope.config import ModelConfig
from cope.model.modeling import CopeModel
from cope.model.scoring import UNCALIBRATED
from cope.serving import artefact
from cope.towers import packaged as backbones
from tests.unit.cope.towers.tiny_hub import build


class TinyVision(nn.Module):
    stride = 32
    map_channels = (8, 8)
    descriptor_width = 24
    colours = 0
    cross_frame = False

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("filters", torch.randn(8, 3, 16, 16, generator=generator) / 2000)

    def maps(self, pixels):
        fine = torch.nn.functional.conv2d(pixels - 127, self.filters, stride=16)
        return [fine, torch.nn.functional.avg_pool2d(fine, 2)]

    def describe(self, pixels, frames=1):
        fine = self.maps(pixels)[0]
        return torch.cat([fine.mean(dim=(2, 3)), fine.amax(dim=(2, 3)), fine.amin(dim=(2, 3))], dim=1)


class TinyText(nn.Module):
    width = 16

    def encode(self, text, max_tokens):
        seed = sum((i + 1) * ord(c) for i, c in enumerate(text[:max_tokens]))
        return nn.functional.normalize(torch.randn(16, generator=torch.Generator().manual_seed(seed)), dim=0)


@dataclass
class Tiny:
    config: ModelConfig
    model: CopeModel


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(backbones.PACKAGED, "tiny-vision", TinyVision)
    monkeypatch.setitem(backbones.PACKAGED, "tiny-text", TinyText)
    config = ModelConfig(
        vision="packaged:tiny-vision",
        text="packaged:tiny-text",
        finder="packaged:tiny-vision",
        dim=12,
        frame_pixels=128 * 224,
        crop_pixels=32,
        regions=4,
        hidden=8,
    )
    torch.manual_seed(0)
    model = CopeModel(config, TinyVision.map_channels, TinyVision.descriptor_width, TinyText.width)
    return Tiny(config, model)


@pytest.fixture
def folder(tiny, tmp_path):
    """An artefact of the tiny model."""
    artefact.save(tmp_path / "tiny", "tiny", tiny.config, tiny.model.state_dict(), UNCALIBRATED)
    return tmp_path / "tiny"


@pytest.fixture
def pictures():
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for height, width in ((90, 160), (160, 90), (72, 128))]


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """Folders of tiny models as a model hub hands them out, by family (see tiny_hub)."""
    return build(tmp_path_factory.mktemp("hub"))
