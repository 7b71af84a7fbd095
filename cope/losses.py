"""The losses that COPE learns from. Each has a small independent reference in its tests."""

import torch
from torch import Tensor
from torch.nn import functional


def info_nce(
    a: Tensor, a_ids: Tensor, b: Tensor, b_ids: Tensor, scale: Tensor | float, smoothing: float = 0.0
) -> Tensor:
    """Symmetric InfoNCE between two domains in which a product may appear several times.

    A row's target is spread evenly over all its positives; with a diagonal target, two pages of one product
    would push each other away. Rows without a positive on the other side only serve as negatives.

    Args:
        a: (N, D) L2-normalised.
        a_ids: (N,) product of each; negative ones match nothing.
        b: (M, D) L2-normalised.
        b_ids: (M,).
        scale: Inverse temperature.
        smoothing: Share of the target spread over everything.

    Returns:
        A scalar.
    """
    logits = scale * (a @ b.T)  # (N, M)
    same = (a_ids.unsqueeze(1) == b_ids.unsqueeze(0)) & (a_ids >= 0).unsqueeze(1)  # (N, M)
    return 0.5 * (_soft_cross_entropy(logits, same, smoothing) + _soft_cross_entropy(logits.T, same.T, smoothing))


def _soft_cross_entropy(logits: Tensor, same: Tensor, smoothing: float) -> Tensor:
    rows = same.any(dim=1)
    if not bool(rows.any()):
        return logits.sum() * 0.0
    log_p = functional.log_softmax(logits[rows], dim=1)
    target = same[rows].to(log_p.dtype)
    target = target / target.sum(dim=1, keepdim=True)
    target = (1.0 - smoothing) * target + smoothing / log_p.shape[1]
    return -(target * log_p).sum(dim=1).mean()


def pairwise_sigmoid(a: Tensor, a_ids: Tensor, b: Tensor, b_ids: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Each pair judged alone: the same product or not (Zhai et al. 2023, SigLIP).

    InfoNCE only ranks. This one gives the cosine an absolute meaning, which refusing unknown products needs.

    Args:
        a: (N, D) L2-normalised.
        a_ids: (N,) product of each; negative ones match nothing.
        b: (M, D) L2-normalised.
        b_ids: (M,).
        scale: Inverse temperature.
        bias: Added to the logits; negative, since most pairs differ.

    Returns:
        A scalar: positives and negatives weigh the same in all.
    """
    logits = scale * (a @ b.T) + bias
    same = (a_ids.unsqueeze(1) == b_ids.unsqueeze(0)) & (a_ids >= 0).unsqueeze(1)
    nothing = logits.sum() * 0.0
    positive = functional.softplus(-logits[same]).mean() if bool(same.any()) else nothing
    negative = functional.softplus(logits[~same]).mean() if bool((~same).any()) else nothing
    return 0.5 * (positive + negative)


def pair_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes pair by pair: (..., 4), (..., 4) -> (...)."""
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0).prod(dim=-1)
    areas = (a[..., 2:] - a[..., :2]).clamp_min(0).prod(dim=-1) + (b[..., 2:] - b[..., :2]).clamp_min(0).prod(dim=-1)
    return inner / (areas - inner).clamp_min(1e-9)


def finder_loss(logits: Tensor, boxes: Tensor, truths: list[Tensor], core: float = 0.4) -> tuple[Tensor, Tensor]:
    """Loss of the region finder: quality focal loss on the salience, -log IoU on the boxes.

    Cells within the core of a true box answer for it (of overlapping ones, for the smallest). Their salience is
    to equal the IoU that their box reaches, so salience says how well a region fits (Li et al. 2020, GFL).

    Args:
        logits: (B, h, w).
        boxes: (B, h, w, 4) relative.
        truths: Per picture (n, 4) relative.
        core: Side of the core as a share of the box's.

    Returns:
        The two losses, scalars.
    """
    batch, h, w = logits.shape
    xs = (torch.arange(w, device=logits.device) + 0.5) / w
    ys = (torch.arange(h, device=logits.device) + 0.5) / h
    target = torch.zeros_like(boxes)
    owner_area = torch.full((batch, h, w), float("inf"), device=logits.device)
    cell = torch.tensor([1.0 / w, 1.0 / h], device=logits.device)
    for i, truth in enumerate(truths):
        for box in truth:
            centre, side = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
            half = torch.maximum(side * core / 2, cell * 0.75)  # at least the nearest cell
            inside = ((xs - centre[0]).abs() <= half[0]).unsqueeze(0) & ((ys - centre[1]).abs() <= half[1]).unsqueeze(1)
            take = inside & (side.prod() < owner_area[i])
            owner_area[i][take] = side.prod()
            target[i][take] = box
    positive = owner_area.isfinite()
    iou = pair_iou(boxes, target)
    quality = torch.where(positive, iou.detach(), torch.zeros_like(iou))
    probability = logits.sigmoid()
    focus = (quality - probability).abs().pow(2)
    count = positive.sum().clamp_min(1)
    salience = (focus * functional.binary_cross_entropy_with_logits(logits, quality, reduction="none")).sum() / count
    fit = -(iou[positive].clamp_min(0.01).log()).mean() if bool(positive.any()) else boxes.sum() * 0.0
    return salience, fit
