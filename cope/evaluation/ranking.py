"""Exact retrieval in blocks: where the positives of each query rank, without ever sorting a gallery.

The paper's protocol: a query has several positives and is found if any of them is among the first K; mean average
precision looks at all of them. Both need only the number of wrong items that score at least as high as each
positive, and numbers can be added up over blocks of the gallery.

Ties count against the model: a wrong item that scores within `TIE` of a positive stands before it. So a model that
maps everything to one point finds nothing, and the order of the gallery never matters. Neither does it
gain from vectors that are NaN: a positive without a score stands behind all wrong items, a wrong one before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# A block of scores is 1,024 x 8,192 float32, 34 MB. Larger ones leave the processor's caches, smaller ones pay for
# more calls.
QUERY_BLOCK = 1024
GALLERY_BLOCK = 8192

# Two cosines of equal vectors differ by up to 2e-7 in float32, by where in a block they were computed.
TIE = 1e-6

# From so many positives on, sorting a block once is faster on a CPU than comparing it with each of them.
_SORT_FROM = 64


@dataclass(frozen=True)
class Retrieval:
    """Figures of one direction, each in [0, 1].

    Attributes:
        r1: Share of queries with a positive in the first place.
        r5: Among the first five.
        r10: Among the first ten.
        mean_average_precision: Over all positives of a query, then over queries.
        queries: Those that have a positive in the gallery; the others do not count.
    """

    r1: float
    r5: float
    r10: float
    mean_average_precision: float
    queries: int


@dataclass(frozen=True)
class Ranks:
    """How each of N queries fared.

    Attributes:
        query: (N,) int64, its row. Queries without a positive in the gallery are left out.
        first: (N,) int64, the rank of its best positive, from 1.
        average_precision: (N,) float64.
    """

    query: Tensor
    first: Tensor
    average_precision: Tensor

    def figures(self, among: Tensor | None = None) -> Retrieval:
        """The mean over queries.

        Args:
            among: (rows,) bool by row of the queries, those that count; None for all.
        """
        first, precision = self.first, self.average_precision
        if among is not None:
            kept = among[self.query]
            first, precision = first[kept], precision[kept]
        n = max(len(first), 1)
        r1, r5, r10 = (int((first <= k).sum()) / n for k in (1, 5, 10))
        return Retrieval(r1, r5, r10, float(precision.sum()) / n, len(first))


def ranks(
    queries: Tensor,
    query_ids: Tensor,
    gallery: Tensor,
    gallery_ids: Tensor,
    query_block: int = QUERY_BLOCK,
    gallery_block: int = GALLERY_BLOCK,
) -> Ranks:
    """Ranks the positives of each query among the gallery, by cosine.

    Memory is that of the vectors, of one block of scores, and of one score per query and positive.

    Args:
        queries: (N, D) L2-normalised; searched on the device that it lies on.
        query_ids: (N,) int64, the product of each; negative ones match nothing.
        gallery: (M, D) L2-normalised.
        gallery_ids: (M,) int64.
        query_block: Queries at once.
        gallery_block: Rows of the gallery that are compared at once.
    """
    device = queries.device
    query_ids, gallery_ids = query_ids.to(device), gallery_ids.to(device)
    # Sorted by product, the positives of a query are neighbours, and queries of a block share them.
    gallery_order = gallery_ids.argsort(stable=True)
    ids = gallery_ids[gallery_order].contiguous()
    rows = ((query_ids >= 0) & torch.isin(query_ids, ids)).nonzero().squeeze(1)
    rows = rows[query_ids[rows].argsort(stable=True)]
    first = torch.empty(len(rows), dtype=torch.int64, device=device)
    precision = torch.empty(len(rows), dtype=torch.float64, device=device)
    lowest = torch.finfo(queries.dtype).min  # finite: only padding is not
    for at in range(0, len(rows), query_block):
        block = rows[at : at + query_block]
        vectors, wanted = queries[block], query_ids[block].contiguous()
        start, end = torch.searchsorted(ids, wanted), torch.searchsorted(ids, wanted, right=True)
        most = int((end - start).max())
        found = torch.full((len(block), most), float("-inf"), dtype=vectors.dtype, device=device)  # (b, P)
        low, high = int(start.min()), int(end.max())
        span = gallery_order[low:high]  # all positives of the block, and few others: both sides are sorted
        for begin in range(0, len(span), gallery_block):
            part = slice(low + begin, min(low + begin + gallery_block, high))
            scores = vectors @ gallery[gallery_order[part]].T
            same = wanted.unsqueeze(1) == ids[part]
            row, column = same.nonzero(as_tuple=True)
            right = scores[row, column]
            found[row, column + part.start - start[row]] = torch.where(right.isfinite(), right, lowest)
        found = found.sort(dim=1, descending=True).values
        wrong = torch.zeros(found.shape, dtype=torch.int64, device=device)  # that do not score lower
        for begin in range(0, len(ids), gallery_block):
            part = slice(begin, begin + gallery_block)
            scores = vectors @ gallery[gallery_order[part]].T
            if int(ids[part][0]) <= int(wanted[-1]) and int(ids[part][-1]) >= int(wanted[0]):
                scores.masked_fill_(wanted.unsqueeze(1) == ids[part], float("-inf"))
            wrong += _not_below(scores, found - TIE)
        place = torch.arange(1, most + 1, device=device).expand_as(found)  # among the positives
        real = found.isfinite()
        first[at : at + query_block] = 1 + wrong[:, 0]
        share = torch.where(real, place / (place + wrong).double(), 0.0)
        precision[at : at + query_block] = share.sum(dim=1) / real.sum(dim=1)
    order = rows.argsort()
    return Ranks(rows[order].cpu(), first[order].cpu(), precision[order].cpu())


def _not_below(scores: Tensor, limits: Tensor) -> Tensor:
    """How many scores of a row are not below each limit, as NaN never is: (b, m), (b, P) descending -> (b, P) int64."""
    if scores.is_cuda or limits.shape[1] > _SORT_FROM:
        ordered = scores.masked_fill(scores.isnan(), float("inf")).sort(dim=1).values
        return scores.shape[1] - torch.searchsorted(ordered, limits.contiguous())
    # NumPy counts a comparison six times faster than PyTorch does on a CPU.
    table, wanted = scores.numpy(), limits.numpy()
    below = [np.count_nonzero(table < wanted[:, p : p + 1], axis=1) for p in range(wanted.shape[1])]
    return scores.shape[1] - torch.from_numpy(np.stack(below, axis=1))


def room_ranks(
    queries: Tensor,
    query_ids: Tensor,
    rooms: Sequence[str],
    gallery: Tensor,
    gallery_ids: Tensor,
    products: Mapping[str, Sequence[int]],
) -> Ranks:
    """Ranks within galleries of rooms (as LPR4M does): an item is searched among its own room's products only.

    Args:
        queries: (N, D) L2-normalised.
        query_ids: (N,) int64.
        rooms: N, the room of each query; those without one do not count.
        gallery: (M, D) L2-normalised.
        gallery_ids: (M,) int64.
        products: Products of each room.
    """
    members: dict[str, list[int]] = {}
    for row, room in enumerate(rooms):
        if room in products:
            members.setdefault(room, []).append(row)
    found: list[Ranks] = []
    for room, rows in sorted(members.items()):
        kept = torch.isin(gallery_ids, torch.tensor(sorted(set(products[room])), dtype=gallery_ids.dtype))
        chosen = torch.tensor(rows)
        result = ranks(queries[chosen], query_ids[chosen], gallery[kept], gallery_ids[kept])
        found.append(Ranks(chosen[result.query], result.first, result.average_precision))
    none = Ranks(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0).double())
    found = found or [none]
    return Ranks(
        torch.cat([r.query for r in found]),
        torch.cat([r.first for r in found]),
        torch.cat([r.average_precision for r in found]),
    )


def nearest(queries: Tensor, gallery: Tensor, count: int, gallery_block: int = GALLERY_BLOCK) -> tuple[Tensor, Tensor]:
    """The best of the gallery for each query, by a running list: scores and rows, (N, count) each, best first.

    Of equal scores the first row comes first. What has no score (NaN) gets -inf, and comes last.
    """
    best = torch.full((len(queries), 0), float("-inf"), dtype=queries.dtype, device=queries.device)
    rows = torch.zeros((len(queries), 0), dtype=torch.int64, device=queries.device)
    for begin in range(0, len(gallery), gallery_block):
        scores = queries @ gallery[begin : begin + gallery_block].T
        scores.masked_fill_(scores.isnan(), float("-inf"))
        here = torch.arange(begin, begin + scores.shape[1], device=queries.device).expand_as(scores)
        best, rows = torch.cat([best, scores], dim=1), torch.cat([rows, here], dim=1)
        order = best.argsort(dim=1, descending=True, stable=True)[:, :count]
        best, rows = best.gather(1, order), rows.gather(1, order)
    return best, rows
