"""How a page lies on a Qdrant server: one point an image."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from topology.index.base import IMAGE, PAGE, TERMS, TEXT, PageEntry


def payload(page: PageEntry, number: int) -> dict[str, Any]:
    """Returns the payload of the point of a page's image."""
    common = {
        "product_id": page.product_id,
        "number": number,
        "image": page.images[number] if number < len(page.images) else "",
        "model_version": page.model_version,
        "digest": page.digest,
    }
    if number:
        return common
    return common | {
        "title": page.title,
        "category": page.category,
        "images": list(page.images),
        "titles": list(page.titles),
    }


def named_vectors(page: PageEntry, number: int) -> dict[str, list[float]]:
    """Returns the dense vectors of the point of a page's image."""
    dense = {IMAGE: page.vectors[number].astype(np.float32).tolist()}
    if number == 0:
        dense[PAGE] = page.fused.astype(np.float32).tolist()
        if page.text.size:
            dense[TEXT] = page.text.astype(np.float32).tolist()
    return dense


def entries(points: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, PageEntry]:
    """Returns the pages that points make up.

    Args:
        points: Payload and vectors of each point; terms as a sparse vector with `indices` and `values`.
    """
    by_product: dict[str, list[tuple[int, Mapping[str, Any], Mapping[str, Any]]]] = {}
    for held, vectors in points:
        by_product.setdefault(held["product_id"], []).append((held["number"], held, vectors))
    pages = {}
    for product_id, rows in by_product.items():
        rows.sort(key=lambda row: row[0])
        number, first, vectors = rows[0]
        if number != 0:  # caught between the two halves of a write: as good as absent
            continue
        terms = vectors.get(TERMS)
        pages[product_id] = PageEntry(
            product_id=product_id,
            model_version=first["model_version"],
            vectors=np.array([row[2][IMAGE] for row in rows], np.float16),
            fused=np.array(vectors[PAGE], np.float16),
            terms={}
            if terms is None
            else {
                int(term): float(np.float32(weight)) for term, weight in zip(terms.indices, terms.values, strict=True)
            },
            title=first["title"],
            category=first["category"],
            images=tuple(first["images"]),
            titles=tuple(first["titles"]),
            text=np.array(vectors.get(TEXT, []), np.float16),
        )
    return pages
