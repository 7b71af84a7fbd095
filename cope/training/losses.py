"""The losses that COPE learns from. Each has a small independent reference in its tests.

Cosines are computed in float32 even under autocast: at a scale of 20 a bfloat16 logit is off by 0.06, as much as
siblings of a product differ. On several ranks a loss over rows that went through `cope.runtime.distributed.gather` is
the loss of the joined batch.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from cope.errors import UserError
from cope.model.views import NOBODY
from cope.vision.cropping import pair_iou

LARGEST_SCALE = 100.0  # of a learned temperature, as CLIP bounds it; above, only a batch's few hardest pairs count


class Temperature(nn.Module):
    """Temperature of InfoNCE, fixed or learned (Radford et al. 2021, CLIP).

    Called, it gives the inverse temperature, which the losses take as `scale`. It is learned as a logarithm, so a step
    is a share of it.
    """

    log_scale: Tensor

    def __init__(self, temperature: float, learned: bool) -> None:
        """Starts at `temperature`.

        Raises:
            UserError: The temperature is not above 0.
        """
        super().__init__()
        if not temperature > 0:
            raise UserError(f"temperature must be above 0, not {temperature}; 0.05 to 0.1 is usual")
        start = torch.tensor(-math.log(temperature))
        self.learned = learned
        if learned:
            self.log_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_scale", start)

    def forward(self) -> Tensor:
        """The scale, a scalar."""
        if self.learned:
            with torch.no_grad():  # the parameter itself, not its value: a clamped value has no gradient to come back
                self.log_scale.clamp_(max=math.log(LARGEST_SCALE))
        return self.log_scale.exp()


def info_nce(
    a: Tensor,
    a_ids: Tensor,
    b: Tensor,
    b_ids: Tensor,
    scale: Tensor | float,
    smoothing: float = 0.0,
    a_weight: Tensor | None = None,
    b_weight: Tensor | None = None,
) -> Tensor:
    """Symmetric InfoNCE between two domains in which a product may appear several times.

    A row's target is spread evenly over all its positives; with a diagonal target, two pages of one product
    would push each other away. Rows without a positive on the other side only serve as negatives.

    Weighted losses are divided by the sum of the weights that took part. So weights are relative, as category sizes
    to some power are: neither the learning rate nor the balance with other losses moves with their scale. (Divided
    by the number of rows instead, sizes of 10,000 to the power -1 would switch the loss off.) The price is that a
    batch of head products alone pulls as hard as any other, which in batches of dozens hardly happens.

    Args:
        a: (N, D) L2-normalised.
        a_ids: (N,) product of each; negative ones match nothing.
        b: (M, D) L2-normalised.
        b_ids: (M,).
        scale: Inverse temperature.
        smoothing: Share of the target spread over everything.
        a_weight: (N,) how much each row of `a` counts when it looks for its positives; None: all the same. As a
            negative or a positive of others every row counts once.
        b_weight: (M,) likewise.

    Returns:
        A scalar; 0 where no product is on both sides.
    """
    logits = scale * _cosines(a, b)  # (N, M)
    same = _same(a_ids, b_ids)
    forth = _soft_cross_entropy(logits, same, smoothing, a_weight)
    return 0.5 * (forth + _soft_cross_entropy(logits.T, same.T, smoothing, b_weight))


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """(..., N, D), (M, D) -> (..., N, M), in float32 or better."""
    with torch.autocast(a.device.type, enabled=False):
        kind = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
        return a.to(kind) @ b.to(kind).T


def _same(a_ids: Tensor, b_ids: Tensor) -> Tensor:
    """(N,), (M,) -> (N, M) bool: shows the same product."""
    return (a_ids.unsqueeze(1) == b_ids.unsqueeze(0)) & (a_ids >= 0).unsqueeze(1)


def _soft_cross_entropy(logits: Tensor, same: Tensor, smoothing: float, weight: Tensor | None) -> Tensor:
    log_p = functional.log_softmax(logits, dim=1)
    positives = same.sum(dim=1)  # (N,)
    target = same.to(log_p.dtype) / positives.clamp_min(1).unsqueeze(1)
    target = (1.0 - smoothing) * target + smoothing / max(log_p.shape[1], 1)
    counts = (positives > 0).to(log_p.dtype)
    if weight is not None:
        counts = counts * weight.to(log_p.dtype)
    total = counts.sum()
    losses = -(target * log_p).sum(dim=1)
    return (losses * counts).sum() / torch.where(total > 0, total, torch.ones_like(total))


def region_loss(
    regions: Tensor,
    frame: Tensor,
    right: Tensor,
    product: Tensor,
    page: Tensor,
    page_product: Tensor,
    scale: Tensor | float,
    smoothing: float = 0.0,
    weight: Tensor | None = None,
    page_weight: Tensor | None = None,
) -> Tensor:
    """Symmetric InfoNCE between single regions of clips and pages.

    Where the regions that show the product are known, they are its positives and the clip's other regions are
    negatives. Where nobody knows, the region that comes closest to a page of the product is taken to show it, as
    multiple-instance learning does (hard expectation maximisation), and the others are left out: most of them show
    the product in another frame. All regions of clips that show no product are negatives.

    Args:
        regions: (B, R, D) L2-normalised, of B clips.
        frame: (B, R) int64; -1 for padding, which is ignored.
        right: (B, R) bool, the regions known to show the product; all false where nobody knows.
        product: (B,) int64, or `NOBODY`.
        page: (M, D) L2-normalised.
        page_product: (M,) int64, or `NOBODY`.
        scale: Inverse temperature.
        smoothing: Share of the target spread over everything.
        weight: (B,) how much each clip counts, however many of its regions are right; None: all the same.
        page_weight: (M,) likewise of pages.

    Returns:
        A scalar; 0 where no clip shows the product of a page.
    """
    real = frame >= 0  # (B, R)
    shows = (product >= 0).unsqueeze(1)
    known = right & real & shows
    with torch.no_grad():
        own = _same(product, page_product)  # (B, M)
        nearest = _cosines(regions, page).masked_fill(~own.unsqueeze(1), float("-inf")).amax(dim=2)  # (B, R)
        nearest = nearest.masked_fill(~real, float("-inf"))
        guess = functional.one_hot(nearest.argmax(dim=1), regions.shape[1]).bool() & nearest.isfinite()
    labelled = known.any(dim=1, keepdim=True)
    chosen = torch.where(labelled, known, guess)
    used = chosen | (real & (labelled | ~shows))
    ids = torch.where(chosen, product.unsqueeze(1), NOBODY)
    share = chosen / chosen.sum(dim=1, keepdim=True).clamp_min(1)  # a clip counts once
    if weight is not None:
        share = share * weight.unsqueeze(1)
    return info_nce(regions[used], ids[used], page, page_product, scale, smoothing, share[used], page_weight)


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
