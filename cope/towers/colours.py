"""The colours of a picture as a histogram: variants of a product differ in colour, which networks capture poorly."""

import torch
from torch import Tensor
from torch.nn import functional

_SIDE = 32  # side in pixels to which a picture is shrunk, so that noise does not count
_CHROMA, _LIGHT = 7, 2  # bins a side of the plane of opponent colours, and of lightness
_REACH = 120.0  # opponent colours beyond count as this far
# Standard deviation of the weight about the middle, as a share of the side: the border is mostly background.
_MIDDLE = 0.25

COLOURS = _CHROMA * _CHROMA * _LIGHT


def colours(pixels: Tensor) -> Tensor:
    """Square roots of the shares of colours, (B, `COLOURS`), rows L2-normalised.

    The axes are red against green, yellow against blue, and lightness. A pixel falls into the bins around it by its
    distance from each, and counts by its distance from the picture's middle. The dot product of two rows is the
    Bhattacharyya coefficient of the two pictures.

    Args:
        pixels: (B, 3, H, W) float32 RGB in [0, 255].
    """
    red, green, blue = functional.adaptive_avg_pool2d(pixels, _SIDE).flatten(2).unbind(1)  # (B, P) each
    warmth = _bins(red - green, _CHROMA, -_REACH, _REACH).unsqueeze(3)
    chroma = warmth * _bins((red + green) / 2 - blue, _CHROMA, -_REACH, _REACH).unsqueeze(2)  # (B, P, 7, 7)
    light = _bins((red + green + blue) / 3, _LIGHT, 0.0, 255.0)
    at = (torch.arange(_SIDE, device=pixels.device) - (_SIDE - 1) / 2) / (_SIDE * _MIDDLE)
    along = torch.exp(-at.square() / 2)
    weight = torch.outer(along, along).flatten() / along.sum().square()
    shares = (light * weight.unsqueeze(1)).transpose(1, 2) @ chroma.flatten(2)  # (B, 2, 49)
    return shares.flatten(1).sqrt()


def _bins(values: Tensor, count: int, low: float, high: float) -> Tensor:
    """(B, P) -> (B, P, count): how much each value falls into each bin; a value's shares add up to 1."""
    centres = torch.linspace(low, high, count, device=values.device)
    apart = (values.clamp(low, high).unsqueeze(2) - centres).abs() * (count - 1) / (high - low)
    return (1.0 - apart).clamp_min(0.0)
