"""Regions of whole batches of frames, chosen and cut on the device.

The batched counterpart of `cope.vision.regions` and `cope.vision.pictures`, for training.
"""

import torch
from torch import Tensor
from torch.nn import functional

# Cells that may become a region, per region: as in `cope.vision.regions.best_regions`.
CANDIDATES = 20


def pair_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes pair by pair: (..., 4), (..., 4) -> (...)."""
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0).prod(dim=-1)
    areas = (a[..., 2:] - a[..., :2]).clamp_min(0).prod(dim=-1) + (b[..., 2:] - b[..., :2]).clamp_min(0).prod(dim=-1)
    return inner / (areas - inner).clamp_min(1e-9)


def best_regions(boxes: Tensor, salience: Tensor, count: int, limit: float) -> tuple[Tensor, Tensor]:
    """The most salient boxes of each frame, without those that overlap a better one by more than `limit`.

    Args:
        boxes: (N, M, 4) relative xyxy.
        salience: (N, M) in [0, 1].
        count: Regions K of a frame.
        limit: IoU.

    Returns:
        Boxes (N, K, 4) and saliences (N, K), best first, the same as `cope.vision.regions.best_regions` gives
        frame by frame. Where a frame has fewer, salience is -1.
    """
    order = salience.sort(dim=1, descending=True, stable=True).indices[:, : CANDIDATES * count]  # (N, C)
    candidates = boxes.gather(1, order.unsqueeze(2).expand(-1, -1, 4))
    sure = salience.gather(1, order)
    free = torch.ones_like(sure, dtype=torch.bool)
    place = torch.arange(order.shape[1], device=order.device).expand_as(order)
    kept, how = [], []
    for _ in range(count):
        # Take the best free box, then mark the boxes that overlap it as no longer free.
        best = torch.where(free, place, order.shape[1]).amin(dim=1, keepdim=True)  # (N, 1)
        there = best < order.shape[1]
        best = best.clamp_max(order.shape[1] - 1)
        box = candidates.gather(1, best.unsqueeze(2).expand(-1, -1, 4))  # (N, 1, 4)
        kept.append(box)
        how.append(torch.where(there, sure.gather(1, best), -1.0))
        free &= (pair_iou(candidates, box) <= limit) & (place != best)
    return torch.cat(kept, dim=1), torch.cat(how, dim=1)


def square_crops(frames: Tensor, boxes: Tensor, content: Tensor, side: int, margin: float) -> Tensor:
    """Cuts the squares around boxes, framed as by `cope.vision.pictures.square_crop`.

    Args:
        frames: (N, 3, H, W) uint8 or float, in [0, 255].
        boxes: (N, K, 4) relative xyxy.
        content: (N, 4) relative xyxy, the part of a frame that is picture. What lies beyond repeats its edge.
        side: Side of a crop, in pixels.
        margin: Share of a box's longer side that is added on each side.

    Returns:
        (N, K, 3, side, side) float32 in [0, 255].
    """
    n, _, height, width = frames.shape
    k = boxes.shape[1]
    size = torch.tensor([width, height], dtype=torch.float32, device=frames.device)
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2 * size  # (N, K, 2) in pixels
    half = ((boxes[..., 2:] - boxes[..., :2]) * size).amax(dim=2) * (0.5 + margin)  # (N, K)
    half = half.clamp_min(4.0)
    # A large region shrinks, and points read from between so many pixels would miss most of them: read more, and
    # average.
    finer = max(1, round(max(height, width) / (2 * side)))
    steps = (torch.arange(side * finer, device=frames.device) + 0.5) / (side * finer) * 2 - 1  # (S,)
    at = centre.unsqueeze(2) + half[..., None, None] * steps.view(1, 1, -1, 1)  # (N, K, S, 2): x and y of each step
    low = (content[:, None, None, :2] * size) + 0.5  # centres of the outermost pixels
    high = (content[:, None, None, 2:] * size) - 0.5
    at = at.maximum(low).minimum(high) / size * 2 - 1
    x = at[..., 0].unsqueeze(2).expand(-1, -1, side * finer, -1)
    y = at[..., 1].unsqueeze(3).expand(-1, -1, -1, side * finer)
    grid = torch.stack([x, y], dim=-1).reshape(n, k * side * finer, side * finer, 2)
    crops = functional.grid_sample(frames.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    crops = crops.view(n, 3, k, side * finer, side * finer).transpose(1, 2)
    return functional.avg_pool2d(crops.flatten(0, 1), finer).view(n, k, 3, side, side)
