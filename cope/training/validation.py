"""Figures during training: one item of each domain of some products that are not trained on.

They compare the checkpoints of a run. `cope.evaluate` measures a model.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cope.config import TrainConfig
from cope.data.items import Counts, Source
from cope.data.live_text import LiveText
from cope.data.loader import ItemBatch, Tokenize, item_batch
from cope.domains import DOMAINS, Domain
from cope.evaluation.ranking import ranks
from cope.runtime.processes import Caught, begin_reading, received
from cope.training.pixels import PixelObjective

# Enough to tell which of two checkpoints is better: the standard error of a share of 512 is two points.
PRODUCTS = 512
# In a batch: memory is that of the forward pass only.
TOGETHER = 32


class _Unseen(Dataset[tuple[dict[Domain, ItemBatch], dict[str, int]]]):
    """Products in batches, the first item of each domain, without jitter; and what could not be read."""

    def __init__(self, source: Source, config: TrainConfig, tokenize: Tokenize) -> None:
        step = max(1, len(source) // PRODUCTS)
        numbers = range(0, len(source), step)[:PRODUCTS]  # over all of the data, whatever its order
        self._chunks = [numbers[at : at + TOGETHER] for at in range(0, len(numbers), TOGETHER)]
        self._source, self._config, self._tokenize = source, config, tokenize
        self._text = LiveText(source, config)

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, at: int) -> tuple[dict[Domain, ItemBatch], dict[str, int]]:
        numbers, counts = self._chunks[at], Counts()
        with self._text.among(list(numbers)):
            items = {domain: self._items(numbers, domain, counts) for domain in DOMAINS}
        return items, counts.as_dict()

    def _items(self, numbers: Sequence[int], domain: Domain, counts: Counts) -> ItemBatch:
        items = [next(iter(self._source.items(number, domain)), None) for number in numbers]
        words = [self._text.read(item) for item in items]
        return item_batch(self._source, self._config, domain, items, words, self._tokenize, counts)


def figures_on(
    source: Source, config: TrainConfig, tell: Callable[[str], None]
) -> Callable[[nn.Module], dict[str, float]]:
    """The evaluation of a pixel stage: mean R@1 over the six directions, and each of them, of fused vectors.

    Args:
        source: Products that are not trained on.
        config: Configuration of the training run.
        tell: Gets a line where pictures could not be read.

    Returns:
        The evaluation. Its figures are none if there is nothing to search for.
    """

    def evaluate(module: nn.Module) -> dict[str, float]:
        pixels = cast(PixelObjective, module)
        unseen = _Unseen(source, config, pixels.towers[1].tokenize)
        vectors: dict[Domain, list[Tensor]] = {domain: [] for domain in DOMAINS}
        products: dict[Domain, list[Tensor]] = {domain: [] for domain in DOMAINS}
        skipped = Counts()
        ready = DataLoader(
            Caught(unseen),
            batch_size=None,
            num_workers=config.workers,
            worker_init_fn=begin_reading,
            generator=torch.Generator(),
        )
        for items, lost in received(ready):
            skipped.merge(lost)
            views = pixels.views({domain: one.to(pixels.device) for domain, one in items.items()})
            for domain, one in views.items():
                shown = pixels.objective.shaped(one, domain)
                vectors[domain].append(pixels.model.embed(shown, domain).fused.float().cpu())
                products[domain].append(one.product.cpu())
        sides = {domain: (torch.cat(vectors[domain]), torch.cat(products[domain])) for domain in DOMAINS}
        sides = {domain: (v[p >= 0], p[p >= 0]) for domain, (v, p) in sides.items()}
        if skipped:
            tell(f"evaluated without {skipped}: {source.name}")
        return directions(sides)

    return evaluate


def directions(sides: Mapping[Domain, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Mean R@1 over the six directions, and each of them; those without a query that has a positive are left out.

    Nothing where all are.

    Args:
        sides: By domain, vectors (N, D), L2-normalised, and the product of each, (N,).
    """
    figures = {(a, b): ranks(*sides[a], *sides[b]).figures() for a in DOMAINS for b in DOMAINS if a != b}
    found = {f"{a[0].upper()}->{b[0].upper()} R@1": one.r1 for (a, b), one in figures.items() if one.queries}
    return {"mean R@1": sum(found.values()) / len(found), **found} if found else {}
