"""The exact twin of the engines: brute force in numpy."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from typing_extensions import override

from topology.index.base import (
    IMAGE,
    PAGE,
    TEXT,
    Candidate,
    Half,
    Hits,
    Index,
    PageEntry,
    Query,
    check_dimension,
    group,
    merge,
)


class MemoryIndex(Index):
    """All pages in a dict; every search looks at each of them."""

    def __init__(self, model_version: str, version: str = "memory") -> None:
        self.model_version = model_version
        self.version = version
        self._pages: dict[str, PageEntry] = {}

    @override
    async def upsert(self, pages: Sequence[PageEntry]) -> None:
        self.check_model(pages)
        for page in pages:
            if self._pages:
                check_dimension(page, next(iter(self._pages.values())).fused.shape[0])
            self._pages[page.product_id] = page

    @override
    async def remove(self, product_ids: Sequence[str]) -> None:
        for product_id in product_ids:
            self._pages.pop(product_id, None)

    @override
    async def search(self, query: Query, limit: int) -> list[Candidate]:
        wanted = (
            self._pages if query.bag is None else {one: self._pages[one] for one in query.bag if one in self._pages}
        )
        dense: list[Hits] = []
        for name, row in query.dense():
            best = [
                (page.product_id, float((rows.astype(np.float32) @ row).max()))
                for page in wanted.values()
                if (rows := _rows(page, name)).size
            ]
            dense.append(group(sorted(best, key=lambda hit: (-hit[1], hit[0])), limit))
        return merge(dense, self._text(query, wanted, limit))

    def _text(self, query: Query, wanted: dict[str, PageEntry], limit: int) -> Hits:
        # Qdrant's formula: ln(1 + (N - n + 0.5) / (n + 0.5)) over all products that have terms.
        frequency = Counter(term for page in self._pages.values() for term in page.terms)
        total = sum(bool(page.terms) for page in self._pages.values())
        scores = []
        for page in wanted.values():
            shared = query.terms.keys() & page.terms.keys()
            if shared:
                score = sum(
                    query.terms[term]
                    * page.terms[term]
                    * math.log(1 + (total - frequency[term] + 0.5) / (frequency[term] + 0.5))
                    for term in sorted(shared)
                )
                scores.append((page.product_id, score))
        return group(sorted(scores, key=lambda hit: (-hit[1], hit[0])), limit)

    @override
    async def vectors(self, product_ids: Sequence[str]) -> dict[str, PageEntry]:
        return {one: self._pages[one] for one in product_ids if one in self._pages}

    @override
    async def digests(self) -> dict[str, str]:
        return {one: page.digest for one, page in self._pages.items()}

    @override
    async def close(self) -> None:
        self._pages.clear()


def _rows(page: PageEntry, name: str) -> Half:
    return {IMAGE: page.vectors, PAGE: page.fused[None], TEXT: page.text[None]}[name]
