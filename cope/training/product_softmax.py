"""Product classification: an additive-margin softmax whose cost does not grow with the number of products."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cope.errors import UserError
from cope.runtime.distributed import average, gather, joined_mean

# Radians by which a class turns at its first gradient. A product is met a few dozen times in a run, and has to come
# from a random direction within them: of 5,000 products that were met 38 times each (a toy encoder), the loss ended
# at 32 with a rate of 0.2, at 15 with 0.5, at 2.7 with 1 and at 1.9 with 2.
RATE = 1.0


def cosface(vectors: Tensor, classes: Tensor, label: Tensor, margin: float, scale: float) -> Tensor:
    """Additive-margin softmax (CosFace, Wang et al. 2018): the right class must win by a cosine of `margin`.

    Args:
        vectors: (N, D) L2-normalised.
        classes: (C, D), of any length.
        label: (N,) int64 in [0, C).
        margin: Taken off the cosine with the right class.
        scale: Factor of the cosines.

    Returns:
        (N,) losses, in float32 or better even under autocast: at a scale of 64 bfloat16 would be off by 0.2.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        kind = torch.promote_types(torch.promote_types(vectors.dtype, classes.dtype), torch.float32)
        logits = scale * (vectors.to(kind) @ functional.normalize(classes.to(kind), dim=1).T)  # (N, C)
        lowered = torch.full_like(label, -scale * margin, dtype=kind)
        logits = logits.scatter_add(1, label.unsqueeze(1), lowered.unsqueeze(1))
        return functional.cross_entropy(logits, label, reduction="none")


class _Drawn(NamedTuple):
    rows: Tensor  # (S,) int64, classes that a forward pass compared with
    leaf: Tensor  # (S, D), their vectors, whose gradient the backward pass fills


class SampledProductSoftmax(nn.Module):
    """CosFace over all products of a data set, computed on a sample of them (partial FC, An et al. 2022).

    A step compares with the products of its batch, those of all ranks, and with others drawn at random, `sampled`
    in all. Only their rows are copied into a small leaf, get gradients, and are moved by `update`; time and memory are
    those of `sampled` classes. With `sampled` at least `classes` it is the full CosFace.

    Every rank holds all classes and moves them alike: the sample is a function of the seed, the step and the joined
    batch, and gradients are averaged over the ranks. The class matrix is kept out of DDP's sight, which would reduce
    a dense gradient of all classes, or broadcast the matrix as a buffer, in each step. So it is neither a parameter
    nor a buffer: it goes into `state_dict` as extra state and follows the module to a device, but keeps float32.

    The rule by which rows are moved is row-wise Adagrad, as embedding tables of recommenders have it:

    * A row of 190,000 is drawn every fiftieth step or so. By then a momentum, or the moments of Adam, say where the
      encoder was, not where it is; without them there is no second matrix to keep either.
    * One number per row suffices, for only a row's direction counts and no coordinate is special.
    * What a row is told as a rare positive outweighs the many little pushes that it gets as a negative. A moving
      average, as Adam's, would have forgotten the size of the last positive and overshoot at the next.
    * Unlike plain descent, it does not depend on the weight of the loss or the size of the batch.

    Rows keep length 1, so that a rate means the same angle for all of them.

    Attributes:
        weight: (classes, D) float32, L2-normalised.
        squares: (classes,) float32, sums of squared gradient lengths.
        step: Samples drawn so far.
    """

    def __init__(
        self,
        classes: int,
        dim: int,
        sampled: int,
        margin: float = 0.4,
        scale: float = 64.0,
        rate: float = RATE,
        seed: int = 0,
    ) -> None:
        """Starts classes in random directions, the same for a seed.

        Args:
            classes: Products of the data.
            dim: Width D of the vectors.
            sampled: Classes that a step compares with; more if its batch shows more.
            margin: CosFace m.
            scale: CosFace s.
            rate: Angle in radians by which a row turns at its first gradient, at the peak of the schedule.
            seed: Seed of the first weights and of the samples.

        Raises:
            UserError: There is nothing to choose between, or no room for a sample.
        """
        super().__init__()
        if classes < 2:
            raise UserError(f"classification needs 2 products or more, not {classes}; set classification = 0")
        if sampled < 2:
            raise UserError(f"classes_sampled must be 2 or more, not {sampled}; a few thousand are usual")
        self.classes, self.sampled, self.margin, self.scale = classes, sampled, margin, scale
        self.rate, self.seed = rate, seed
        start = torch.randn(classes, dim, generator=torch.Generator().manual_seed(seed))
        self.weight = functional.normalize(start, dim=1, out=start)
        self.squares = torch.zeros(classes)
        self.step = 0
        self._drawn: list[_Drawn] = []

    def forward(self, vectors: Tensor, product: Tensor, weight: Tensor | None = None) -> Tensor:
        """The mean loss of the rows that show a product, over the joined batch of all ranks.

        Args:
            vectors: (N, D) L2-normalised, of any domains; N must be the same on all ranks.
            product: (N,) int64 in [0, classes); rows of `NOBODY` are left out.
            weight: (N,) how much each row counts, relative to the others; None: all the same.

        Returns:
            A scalar, the same on all ranks; its gradients are right after DDP's average (`joined_mean`). 0 if no
            row shows a product.

        Raises:
            IndexError: A product number is not one of the classes.
        """
        there = product >= 0
        rows = self._sample(gather(product)).to(self.weight.device)
        leaf = self.weight[rows]
        if self.training and torch.is_grad_enabled():
            leaf.requires_grad_()
            self._drawn.append(_Drawn(rows, leaf))
            self.step += 1
        shown = product[there]
        losses = cosface(vectors[there], leaf, torch.searchsorted(rows, shown), self.margin, self.scale)
        counts = torch.ones_like(losses) if weight is None else weight[there].to(losses.dtype)
        return joined_mean((losses * counts).sum(), counts.sum())

    def _sample(self, product: Tensor) -> Tensor:
        """(S,) int64, ascending, on the CPU: the batch's products and random others."""
        positives: NDArray[np.int64] = np.unique(product.cpu().numpy())
        positives = positives[positives >= 0]
        if len(positives) and positives[-1] >= self.classes:
            raise IndexError(f"product {positives[-1]} of {self.classes} classes")
        others = self.classes - len(positives)
        count = min(others, max(0, self.sampled - len(positives)))
        # NumPy's generator: the same on all ranks whatever their device, and its cost is that of the sample.
        drawn = np.random.default_rng((self.seed, self.step)).choice(others, count, replace=False, shuffle=False)
        # The n-th class that is not a positive: as many positives come before it as have `positive - position` <= n.
        drawn += np.searchsorted(positives - np.arange(len(positives)), drawn, side="right")
        return torch.from_numpy(np.sort(np.concatenate([positives, drawn])))

    @torch.no_grad()
    def update(self, share: float) -> None:
        """Moves the classes that were drawn since the last update, on all ranks. Call it after the backward pass.

        After several passes (gradient accumulation) their gradients are added up.

        Args:
            share: Share of the peak learning rate, in [0, 1], as the schedule says.
        """
        if not self._drawn:
            return
        rows, place = torch.unique(torch.cat([drawn.rows for drawn in self._drawn]), return_inverse=True)
        moved = self.weight.new_zeros(len(rows), self.weight.shape[1])  # the gradient; in place all the way
        for to in place.split([len(drawn.rows) for drawn in self._drawn]):
            leaf = self._drawn.pop(0).leaf
            if leaf.grad is not None:
                moved.index_add_(0, to, leaf.grad)
        average(moved)
        squares = self.squares[rows] + torch.linalg.vector_norm(moved, dim=1).square_()
        lengths = squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt_()
        moved *= (-share * self.rate / lengths).unsqueeze(1)
        moved += self.weight[rows]
        self.weight[rows] = functional.normalize(moved, dim=1, out=moved)
        self.squares[rows] = squares

    def get_extra_state(self) -> dict[str, Any]:
        """What an exact resume needs, between two updates."""
        return {"weight": self.weight, "squares": self.squares, "step": self.step}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes over a saved state.

        Raises:
            UserError: It is of another number of products or another width.
        """
        if state["weight"].shape != self.weight.shape:
            saved, here = (" x ".join(map(str, shape)) for shape in (state["weight"].shape, self.weight.shape))
            raise UserError(
                f"the checkpoint classifies {saved} (products x width), this run {here}; "
                f"resume with the data and the model that it was made with"
            )
        self.weight.copy_(state["weight"])
        self.squares.copy_(state["squares"])
        self.step = state["step"]
        self._drawn.clear()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SampledProductSoftmax":
        """Follows `to(device)`; what it does to types concerns parameters, and these are none."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = fn(self.squares[:0]).device
        self.weight, self.squares = self.weight.to(device), self.squares.to(device)
        return self
