"""Which products, and which of their items, a step looks at: a function of the seed and the step, never of the past.

So a run resumes exactly from any step, and every rank and loader process finds its share without asking the others.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cope.data.items import Source
from cope.errors import UserError


class Sampler:
    """Product-balanced batches: each step draws different products, whatever the number of their items.

    Without `balance` every epoch is a new permutation of the products, cut into steps; what does not fill a last
    step is left out of that epoch. With it, every step draws anew, by weight.

    The only thing kept is an array of a number per product, and one more of weights where there are categories.

    Attributes:
        each: Products in a batch of one rank.
    """

    def __init__(
        self, products: int, batch: int, seed: int, world: int = 1, weights: NDArray[np.float64] | None = None
    ) -> None:
        """Prepares the batches.

        Args:
            products: In the source.
            batch: Most products in a batch of one rank; a small source has fewer, the same number on every rank.
            seed: Seed of the order.
            world: Ranks; a product is in the batch of one of them at most.
            weights: (products,) chance of each; None for an even pass over all.

        Raises:
            UserError: There are fewer products than ranks.
        """
        self.each = min(batch, products // world)
        if self.each < 1:
            raise UserError(f"{products} products cannot be shared among {world} processes; add data or start fewer")
        self._products, self._seed, self._world = products, seed, world
        self._step = self.each * world
        self._log_weights = None if weights is None else np.log(weights)
        self._epoch = -1
        self._order: NDArray[np.int64] = np.zeros(0, np.int64)

    def products(self, step: int, rank: int = 0) -> NDArray[np.int64]:
        """The products of a rank's batch at a step: (each,) int64, all different, also from the other ranks'."""
        if self._log_weights is not None:
            # The largest of log weight + Gumbel noise are a weighted draw without replacement.
            noise = np.random.default_rng([self._seed, step]).gumbel(size=self._products)
            keys = self._log_weights + noise
            drawn = np.argpartition(-keys, self._step - 1)[: self._step]
            # The partition leaves an order that depends on NumPy's release: the best first is the same everywhere.
            drawn = drawn[np.argsort(-keys[drawn], kind="stable")]
            return np.asarray(drawn[rank :: self._world], np.int64)
        steps = self._products // self._step
        epoch, within = divmod(step, steps)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self._seed, epoch]).permutation(self._products)
        start = within * self._step + rank * self.each
        return self._order[start : start + self.each]


def category_sizes(source: Source) -> NDArray[np.float64]:
    """(P,) how many products share each product's category; products without one are a category together."""
    codes: dict[str, int] = {}
    code = np.fromiter((codes.setdefault(source.category(i), len(codes)) for i in range(len(source))), np.int32)
    return np.bincount(code).astype(np.float64)[code]


def long_tail(sizes: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    """Weights that lift the tail: category size to the power -power, of mean 1 over the products: (P,)."""
    weights = sizes**-power
    return np.asarray(weights / weights.mean(), np.float64)


def spread(rng: np.random.Generator | None, count: int, wanted: int) -> Sequence[int]:
    """Which frames of a clip are looked at: evenly spread, in time order, at most `wanted`.

    Args:
        rng: Moves each within its stretch of the clip; None takes the middles.
        count: Frames of the clip.
        wanted: Frames to take.
    """
    if count <= wanted:
        return range(count)
    if rng is None:
        return [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]
    edges = np.linspace(0, count, wanted + 1)
    at = edges[:-1] + (edges[1:] - edges[:-1]) * rng.random(wanted)
    return [min(int(a), count - 1) for a in at]
