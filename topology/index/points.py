"""How a page lies in Qdrant: what is said of it once, and on a server one point an image."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from topology.index.base import IMAGE, PAGE, TERMS, TEXT, PageEntry


def page_payload(page: PageEntry) -> dict[str, Any]:
    """Returns what is held of a page beside its vectors."""
    return {
        "product_id": page.product_id,
        "model_version": page.model_version,
        "digest": page.digest,
        "title": page.title,
        "category": page.category,
        "images": list(page.images),
        "titles": list(page.titles),
    }


def page_vectors(page: PageEntry) -> dict[str, list[float]]:
    """Returns the dense vectors that a page has once."""
    dense = {PAGE: page.fused.astype(np.float32).tolist()}
    if page.text.size:
        dense[TEXT] = page.text.astype(np.float32).tolist()
    return dense


def entry(held: Mapping[str, Any], vectors: Mapping[str, Any], rows: Sequence[Sequence[float]]) -> PageEntry:
    """Returns a page.

    Args:
        held: Its payload.
        vectors: Those that it has once; terms as a sparse vector with `indices` and `values`.
        rows: Those of its images.
    """
    terms = vectors.get(TERMS)
    weights = {} if terms is None else zip(terms.indices, terms.values, strict=True)
    return PageEntry(
        product_id=held["product_id"],
        model_version=held["model_version"],
        vectors=np.array(rows, np.float16),
        fused=np.array(vectors[PAGE], np.float16),
        terms={int(term): float(np.float32(weight)) for term, weight in weights},
        title=held["title"],
        category=held["category"],
        images=tuple(held["images"]),
        titles=tuple(held["titles"]),
        text=np.array(vectors.get(TEXT, []), np.float16),
    )


def payload(page: PageEntry, number: int) -> dict[str, Any]:
    """Returns the payload of the point of a page's image."""
    held = page_payload(page)
    if number:
        held = {name: held[name] for name in ("product_id", "model_version", "digest")}
    return held | {"number": number, "image": page.images[number] if number < len(page.images) else ""}


def named_vectors(page: PageEntry, number: int) -> dict[str, list[float]]:
    """Returns the dense vectors of the point of a page's image."""
    image = {IMAGE: page.vectors[number].astype(np.float32).tolist()}
    return image if number else image | page_vectors(page)


def entries(points: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, PageEntry]:
    """Returns the pages that points of images make up.

    Args:
        points: Payload and vectors of each point.
    """
    by_product: dict[str, list[tuple[int, Mapping[str, Any], Mapping[str, Any]]]] = {}
    for held, vectors in points:
        by_product.setdefault(held["product_id"], []).append((held["number"], held, vectors))
    pages = {}
    for product_id, rows in by_product.items():
        rows.sort(key=lambda row: row[0])
        number, first, vectors = rows[0]
        if number == 0:  # else caught between the two halves of a write: as good as absent
            pages[product_id] = entry(first, vectors, [row[2][IMAGE] for row in rows])
    return pages
