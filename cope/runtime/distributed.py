"""Ranks of a `torchrun`, and what losses need of them. In one process everything here is the identity.

DDP averages gradients over the ranks. A loss is therefore right if its *average over the ranks* is the loss of the
joined batch, gradients included. There are two ways to get there, and they can be mixed:

* `gather` the rows and compute the joined loss of all of them on every rank.
* Keep to the own rows and end with `joined_mean`, which knows how many rows the others had.

Neither communicates in the backward pass. DDP reduces its buckets there as soon as they are full, which comes at
another point on a rank that has left a tower unused; a collective of ours in between would meet another rank's bucket.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


def world() -> int:
    """Number of ranks W; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        return _joined(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # All ranks compute one and the same loss, so the sum over the ranks of the gradients with respect to these
        # rows, which DDP's average divides by W, is W times the one that this rank has.
        return gradients[0][rank() * ctx.count : (rank() + 1) * ctx.count] * world()


def _joined(rows: Tensor) -> Tensor:
    plain = rows.detach().contiguous()
    sent = plain.view(torch.uint8) if plain.dtype == torch.bool else plain  # not every back end knows bool
    out = sent.new_empty(world(), *sent.shape)
    dist.all_gather(list(out.unbind(0)), sent)
    return out.flatten(0, 1).view(plain.dtype)


def gather(rows: Tensor) -> Tensor:
    """All ranks' rows in the order of the ranks, with gradients for a loss that every rank computes alike.

    Under DDP the gradients of parameters are then those of that loss in one process. A loss of which each rank
    computes another part is not meant: use `joined_mean` for it, over rows that have not been gathered.

    Args:
        rows: (N, ...) of any type; shape and type must be the same on all ranks (the back end hangs or fails
            otherwise), so pad with `NOBODY` rows instead of dropping some.

    Returns:
        (W * N, ...), the same on all ranks.
    """
    if world() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


def each_rank(value: T) -> list[T]:
    """The values of all ranks, in their order. They travel pickled: for a few small ones."""
    values = [value] * world()
    if world() > 1:
        dist.all_gather_object(values, value)
    return values


def average(tensor: Tensor) -> Tensor:
    """Mean over the ranks, elementwise, without gradients; in place where there are several."""
    if world() > 1:
        dist.all_reduce(tensor)
        tensor /= world()
    return tensor


def joined_mean(total: Tensor, count: Tensor) -> Tensor:
    """Sum over all ranks of `total` by that of `count`: the mean over the joined batch. 0 if there is nothing.

    Args:
        total: Scalar, this rank's sum of (weighted) losses, with gradients.
        count: Scalar, this rank's number (or weight) of rows.

    Returns:
        A scalar of the same value on all ranks. Its gradient is that of this rank's part times W, so that DDP's
        average is the gradient of the joined mean.
    """
    if world() == 1:
        return total / _not_zero(count.detach())
    sums = torch.stack([total.detach(), count.detach().to(total.dtype)])
    dist.all_reduce(sums)
    share = total * (world() / _not_zero(sums[1]))
    return share + (sums[0] / _not_zero(sums[1]) - share).detach()


def _not_zero(count: Tensor) -> Tensor:
    """Where nothing was counted the sum is 0 too, so any divisor will do."""
    return torch.where(count > 0, count, torch.ones_like(count))
