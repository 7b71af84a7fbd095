"""Low-rank adaptation (LoRA; Hu et al., 2022): small learned steps beside the frozen layers of attention.

Own code, since it is a page: a package would bring its own model format, and the artefact has one already.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

# Names of attention's linear layers in `transformers`: CLIP and SigLIP; ViT from 5 on; BERT, and ViT before 5.
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj", "o_proj", "query", "key", "value", "attention.output.dense")


class LoraLinear(nn.Linear):
    """A linear layer with a low-rank step: y = W x + b + up (down x). It starts as the layer itself, `up` being zero.

    Its weight and bias keep their names and are frozen. The step is scaled by 1: with `up` at zero the learning rate
    alone decides how fast it changes.
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        nn.Module.__init__(self)  # not Linear's: it would make weights only to throw them away
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        rank = min(rank, base.in_features, base.out_features)
        self.lora_down = nn.Parameter(torch.empty(rank, base.in_features, device=base.weight.device))
        self.lora_up = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        step = functional.linear(functional.linear(x, self.lora_down), self.lora_up)
        return functional.linear(x, self.weight, self.bias) + step

    def merged(self) -> nn.Linear:
        """The plain layer with the step inside its weight."""
        plain = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        plain.weight = nn.Parameter(self.weight + self.lora_up @ self.lora_down, requires_grad=False)
        plain.bias = self.bias
        return plain


def add_lora(layer: nn.Module, rank: int) -> int:
    """Puts steps beside the attention projections of a transformer layer, in place; returns how many."""
    found = [n for n, part in layer.named_modules() if isinstance(part, nn.Linear) and _is_projection(n)]
    for name in found:
        _replace(layer, name, LoraLinear(cast(nn.Linear, layer.get_submodule(name)), rank))
    return len(found)


def merge_lora(module: nn.Module) -> None:
    """Turns all layers with steps into plain ones, in place."""
    with torch.no_grad():
        for name, part in list(module.named_modules()):
            if isinstance(part, LoraLinear):
                _replace(module, name, part.merged())


def _replace(module: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, part)


def _is_projection(name: str) -> bool:
    return any(name == ending or name.endswith("." + ending) for ending in PROJECTIONS)
