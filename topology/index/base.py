"""The interface of an index: its entries, queries and answers."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from topology.errors import BadInput
from topology.records import PageVectors

Half = npt.NDArray[np.float16]


@dataclass(frozen=True)
class PageEntry:
    """An encoded product page, as it stands in the index.

    Attributes:
        vectors: (N, D) float16, rows L2-normalised: one row an image.
        fused: (D,) float16: title and images joined.
        terms: Keyword terms, 32-bit id to weight (float32 values), L2-normalised.
        images: The image behind each row, as its URI.
        titles: The title in all languages.
        text: (D,) float16: what the page says, by its meaning; (0,) if it says nothing.
    """

    product_id: str
    model_version: str
    vectors: Half
    fused: Half
    terms: Mapping[int, float] = field(default_factory=dict)
    title: str = ""
    category: str = ""
    images: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    text: Half = field(default_factory=lambda: np.zeros(0, np.float16))

    @classmethod
    def from_record(cls, record: PageVectors) -> "PageEntry":
        """Returns the entry of an encoded page.

        Raises:
            BadInput: The record has no vectors, or they do not fit together.
        """
        if len(record.fused) % 2 or len(record.vectors) % 2 or len(record.text) % 2:
            raise BadInput(f"page {record.product_id}: its vectors are not float16: encode it again")
        fused = np.frombuffer(record.fused, np.float16)
        rows = np.frombuffer(record.vectors, np.float16)
        text = np.frombuffer(record.text, np.float16)
        if not fused.size or not rows.size or rows.size % fused.size or text.size not in (0, fused.size):
            raise BadInput(
                f"page {record.product_id}: {rows.size} and {text.size} vector values do not make rows of "
                f"{fused.size}: encode it again"
            )
        vectors = rows.reshape(-1, fused.size)
        if not all(np.isfinite(values).all() for values in (vectors, fused, text)):
            raise BadInput(f"page {record.product_id}: its vectors are not finite numbers: encode it again")
        if not all(0 <= term < 2**32 and math.isfinite(weight) for term, weight in record.terms.items()):
            raise BadInput(f"page {record.product_id}: its terms are not 32-bit ids with weights: encode it again")
        return cls(
            product_id=record.product_id,
            model_version=record.model_version,
            vectors=vectors,
            fused=fused,
            terms={term: float(np.float32(weight)) for term, weight in record.terms.items()},
            title=record.title,
            category=record.category,
            images=record.images,
            titles=(record.title, *record.titles),
            text=text,
        )

    @cached_property
    def digest(self) -> str:
        """A hash of the page. A page whose digest the index already has need not be written again."""
        content = hashlib.blake2b(digest_size=16)
        for part in (self.product_id, self.model_version, self.title, self.category, *self.images, *self.titles):
            content.update(part.encode() + b"\0")
        content.update(self.vectors.tobytes() + self.fused.tobytes() + self.text.tobytes())
        content.update(repr(sorted(self.terms.items())).encode())
        return content.hexdigest()


@dataclass(frozen=True)
class Query:
    """A search of the index.

    Attributes:
        regions: (Q, D) region vectors: each is compared with every page image.
        embedding: (D,) a window's fused embedding: compared with every page image and fused page vector.
        terms: Keyword terms: compared with the pages' terms, weighted by inverse document frequency.
        bag: Only these products; None: the whole catalogue.
        speech: (S, D) pieces of speech: each is compared with what the pages say.
    """

    regions: npt.NDArray[Any] | None = None
    embedding: npt.NDArray[Any] | None = None
    terms: Mapping[int, float] = field(default_factory=dict)
    bag: Sequence[str] | None = None
    speech: npt.NDArray[Any] | None = None

    def dense(self) -> list[tuple[str, npt.NDArray[np.float32]]]:
        """Returns the single searches: (name of the vector searched, query vector (D,))."""
        searches = [(IMAGE, row) for row in ([] if self.regions is None else np.asarray(self.regions, np.float32))]
        if self.embedding is not None:
            row = np.asarray(self.embedding, np.float32)
            searches += [(IMAGE, row), (PAGE, row)]
        searches += [(TEXT, row) for row in ([] if self.speech is None else np.asarray(self.speech, np.float32))]
        return searches


@dataclass(frozen=True)
class Candidate:
    """A product that a search found.

    Attributes:
        dense: Best cosine of any query vector with any vector of the page; -1 if only its words were found.
        text: Score of its terms (unbounded; weighted by inverse document frequency); 0 if none matched.
    """

    product_id: str
    dense: float = -1.0
    text: float = 0.0


# Names of vectors. A product has one of each of `page`, `text` and `terms`, so document frequencies count products and
# not pictures.
IMAGE, PAGE, TEXT, TERMS = "image", "page", "text", "terms"

Hits = list[tuple[str, float]]


def merge(dense: Iterable[Hits], text: Hits) -> list[Candidate]:
    """Returns the products of all hit lists, best first.

    Order is by the best rank that a product has in any list, then by cosine: each query vector's favourite comes
    before anyone's second choice. A background region with high cosines to everything cannot crowd out the rest.

    Args:
        dense: Per query vector: (product_id, cosine), best first, each product once.
        text: The same for the terms.
    """
    rank: dict[str, int] = {}
    cosine: dict[str, float] = {}
    for hits in dense:
        for place, (product_id, score) in enumerate(hits):
            rank[product_id] = min(place, rank.get(product_id, place))
            cosine[product_id] = max(score, cosine.get(product_id, -1.0))
    for place, (product_id, _) in enumerate(text):
        rank[product_id] = min(place, rank.get(product_id, place))
    words = dict(text)
    found = [Candidate(product_id, cosine.get(product_id, -1.0), words.get(product_id, 0.0)) for product_id in rank]
    return sorted(found, key=lambda one: (rank[one.product_id], -one.dense, -one.text, one.product_id))


def group(points: Iterable[tuple[str, float]], limit: int) -> Hits:
    """Returns the best score of each product, at most `limit` products, from points that come best first."""
    best: dict[str, float] = {}
    for product_id, score in points:
        if product_id not in best:
            if len(best) == limit:
                break
            best[product_id] = score
    return sorted(best.items(), key=lambda hit: (-hit[1], hit[0]))


class Index(ABC):
    """Encoded pages, searchable. All pages stem from one model.

    All methods raise `Unavailable` where a server does not answer, and `UserError` where a folder's disk is full.

    Attributes:
        version: Name of the collection or folder that is searched, e.g. "product_pages_v1".
        model_version: The model whose vectors it takes.
    """

    version: str
    model_version: str

    @abstractmethod
    async def upsert(self, pages: Sequence[PageEntry]) -> None:
        """Adds pages, at most one of a product, each in place of what the index holds of it.

        Raises:
            BadInput: A page is from another model, or of another dimension.
        """

    @abstractmethod
    async def remove(self, product_ids: Sequence[str]) -> None:
        """Removes products; unknown ones are ignored."""

    @abstractmethod
    async def search(self, query: Query, limit: int) -> list[Candidate]:
        """Returns the products that are nearest to any part of the query, best first.

        Args:
            query: Region vectors, a window's embedding, terms; at least one of them for an answer.
            limit: Products fetched per single query vector, and for the terms; the union is returned.
        """

    @abstractmethod
    async def vectors(self, product_ids: Sequence[str]) -> dict[str, PageEntry]:
        """Returns the entries of those products that the index holds."""

    @abstractmethod
    async def digests(self) -> dict[str, str]:
        """Returns all products with their entries' digests."""

    async def count(self) -> int:
        """Returns the number of products."""
        return len(await self.digests())

    async def optimize(self) -> None:  # noqa: B027 - engines that need no such call inherit this
        """Builds what makes searches of a large catalogue fast. Called after a bulk of upserts."""

    @abstractmethod
    async def close(self) -> None:
        """Releases folder and connections."""

    def check_model(self, pages: Iterable[PageEntry]) -> None:
        """Refuses pages of another model."""
        for page in pages:
            if page.model_version != self.model_version:
                raise BadInput(
                    f"page {page.product_id} was encoded by model {page.model_version}, this index holds vectors of "
                    f"{self.model_version}: encode the page with that model"
                )


def check_dimension(page: PageEntry, dim: int) -> None:
    """Refuses a page whose vectors have another length than the index's."""
    if page.fused.shape[0] != dim:
        raise BadInput(
            f"page {page.product_id} has vectors of {page.fused.shape[0]} values, the index of {dim}: encode it again"
        )
