"""Qdrant Edge: Qdrant's engine inside this process, in a folder of its own."""

import asyncio
import hashlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import qdrant_edge as qdrant
from filelock import FileLock, Timeout
from typing_extensions import override

from topology.errors import UserError
from topology.index import graph
from topology.index.base import (
    IMAGE,
    PAGE,
    TERMS,
    TEXT,
    Candidate,
    Hits,
    Index,
    PageEntry,
    Query,
    check_dimension,
    group,
    merge,
)
from topology.index.points import entries, named_vectors, payload

T = TypeVar("T")

# Up to so many vectors of pictures every search is exact: each query vector takes 3 ms then. Above, a graph is built,
# whose answers may differ in rare cases from run to run; so it is not used where it is not needed.
EXACT_UP_TO = 50_000

# Points that are asked for in one search for each product wanted, since a product has several; if these are of too few
# products, so many times more.
_POINTS, _MORE = 2, 4

# The engine maps its files into memory: a write to a full disk kills the process with SIGBUS instead of failing. So
# a write is refused while less than this is free. Its files grow in steps of up to 32 MiB each.
_RESERVE_BYTES = 128 * 1024 * 1024

_WRITE_AT_ONCE = 200  # pages per operation: a few MB

# Points between two flushes: what is written in between also lies in the engine's log, 4 kB each, and is replayed at
# the next start.
_FLUSH_EVERY = 20_000

# Candidates while the graph is searched.
_EF = 512

# A point id is so many bytes of a hash of the product, then the number of its image.
_HASH_BYTES = 12

# Version of the way that points lie in a folder. A folder of another one is filled anew.
_LAYOUT = 2

_SCROLL = 1_000
_SEGMENT_KB = 1_000_000_000
_META = "cope.json"


class EdgeIndex(Index):
    """An index in a folder that belongs to one process.

    Args:
        folder: Made if it does not exist; None for a temporary one that `close` removes.
        model_version: The model whose vectors the index takes.
        version: Name of the index.

    Raises:
        UserError: The folder cannot be written, has no space, is in use by another process, or holds the vectors of
            another model.
    """

    def __init__(self, folder: Path | None, model_version: str, version: str = "product_pages_v1") -> None:
        self.model_version = model_version
        self.version = version
        self._temporary = folder is None
        self._folder = Path(tempfile.mkdtemp(prefix="cope-index-")) if folder is None else folder / version
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="index")  # the engine's calls block, and stay in order
        self._shard: Any = None
        self._dim = 0
        self._names: dict[bytes, str] = {}  # by the hash in a point id
        self._unflushed = 0
        self._lock: FileLock | None = None
        try:
            self._open()
        except BaseException:
            self._unlock()
            raise

    # -- the folder ----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self._folder / ".lock")
            self._lock.acquire(timeout=0)
            self._require_space()
            meta = self._folder / _META
            if meta.exists():
                held = json.loads(meta.read_text())
                if held["model_version"] != self.model_version:
                    raise UserError(
                        f"index folder {self._folder} holds vectors of model {held['model_version']}, this worker runs "
                        f"{self.model_version}: remove the folder, or set COPE_INDEX_DIR to another one"
                    )
                if held.get("layout") == _LAYOUT:
                    self._dim = held["dim"]
                    self._shard = self._guarded(lambda: qdrant.EdgeShard.load(str(self._folder / "shard")))
        except Timeout as error:
            raise UserError(
                f"index folder {self._folder} is in use by another process: stop it, or set COPE_INDEX_DIR to a "
                "folder of this worker's own"
            ) from error
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"index folder {self._folder} cannot be used ({error}): set COPE_INDEX_DIR to a folder of your own"
            ) from error

    def _create(self, dim: int) -> None:
        shard = self._folder / "shard"
        dense = qdrant.EdgeVectorParams(
            dim,
            qdrant.Distance.Dot,
            datatype=qdrant.VectorStorageDatatype.Float16,
            hnsw_config=qdrant.HnswIndexConfig(graph.M, graph.EF_CONSTRUCT, graph.FULL_SCAN_KB),
            # Of 2 bits a value: a search takes some two thirds of the time that 8 bits take, and finds nearly as much.
            quantization_config=qdrant.TurboQuantQuantizationConfig(bits=qdrant.TurboQuantBitSize.Bits2),
        )
        config = qdrant.EdgeConfig(
            vectors={IMAGE: dense, PAGE: dense, TEXT: dense},
            sparse_vectors={TERMS: qdrant.EdgeSparseVectorParams(modifier=qdrant.Modifier.Idf)},
            # One graph for all: each segment is searched for itself.
            optimizers=qdrant.EdgeOptimizersConfig(default_segment_number=1, max_segment_size=_SEGMENT_KB),
        )
        if shard.exists():  # of an older layout, or left by a process that died before it had written the meta file
            shutil.rmtree(shard)
        self._shard = self._guarded(lambda: qdrant.EdgeShard.create(str(shard), config))
        for name, kind in (
            ("product_id", qdrant.PayloadSchemaType.Keyword),
            ("number", qdrant.PayloadSchemaType.Integer),
        ):
            self._shard.update(qdrant.UpdateOperation.create_field_index(name, kind))
        self._shard.flush()
        meta = {"model_version": self.model_version, "dim": dim, "layout": _LAYOUT}
        (self._folder / _META).write_text(json.dumps(meta))
        self._dim = dim

    def _require_space(self) -> None:
        free = shutil.disk_usage(self._folder).free
        if free < _RESERVE_BYTES:
            raise UserError(
                f"index folder {self._folder} has {free / 1e6:.0f} MB of free space, {_RESERVE_BYTES / 1e6:.0f} MB are "
                "needed: free some, or set COPE_INDEX_DIR to a folder on another disk"
            )

    def _guarded(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:
            raise UserError(
                f"index folder {self._folder} cannot be used ({error}): remove it (it is filled again from the topic "
                "page_vectors), or set COPE_INDEX_DIR to another one"
            ) from error

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    # -- writing -------------------------------------------------------------------------------------------------

    @override
    async def upsert(self, pages: Sequence[PageEntry]) -> None:
        self.check_model(pages)
        for start in range(0, len(pages), _WRITE_AT_ONCE):
            some = pages[start : start + _WRITE_AT_ONCE]
            await self._run(lambda some=some: self._upsert(some))  # type: ignore[misc]

    def _upsert(self, pages: Sequence[PageEntry]) -> None:
        self._require_space()
        if self._shard is None:
            self._create(pages[0].fused.shape[0])
        for page in pages:
            check_dimension(page, self._dim)
        points = [
            qdrant.Point(_point_id(_hash(page.product_id), number), _vectors(page, number), payload(page, number))
            for page in pages
            for number in range(len(page.vectors))
        ]
        self._guarded(lambda: self._shard.update(qdrant.UpdateOperation.upsert_points(points)))
        self._names |= {_hash(page.product_id): page.product_id for page in pages}
        self._unflushed += len(points)
        if self._unflushed >= _FLUSH_EVERY:
            self._guarded(lambda: self._shard.flush())
            self._unflushed = 0
        # Images that an earlier edition of a page had, and this one has not.
        others = qdrant.MatchExcept([page.digest for page in pages])
        self._delete(
            qdrant.Filter(
                must=[_any_of([page.product_id for page in pages]), qdrant.FieldCondition("digest", match=others)]
            )
        )

    @override
    async def remove(self, product_ids: Sequence[str]) -> None:
        if product_ids:
            await self._run(lambda: self._remove(list(product_ids)))

    def _remove(self, product_ids: list[str]) -> None:
        if self._shard is not None:
            chosen = qdrant.Filter(must=[_any_of(product_ids)])
            self._delete(chosen)
            for product_id in product_ids:
                self._names.pop(_hash(product_id), None)

    def _delete(self, chosen: Any) -> None:
        self._guarded(lambda: self._shard.update(qdrant.UpdateOperation.delete_points_by_filter(chosen)))

    @override
    async def optimize(self) -> None:
        await self._run(self._optimize)

    def _optimize(self) -> None:
        if self._shard is not None and self._points() > EXACT_UP_TO:
            self._guarded(lambda: self._shard.optimize())

    # -- reading -------------------------------------------------------------------------------------------------

    @override
    async def search(self, query: Query, limit: int) -> list[Candidate]:
        return await self._run(lambda: self._search(query, limit))

    def _search(self, query: Query, limit: int) -> list[Candidate]:
        if self._shard is None or (query.bag is not None and not query.bag):
            return []
        searches = [(name, row.tolist()) for name, row in query.dense()]
        if query.terms:
            searches.append((TERMS, qdrant.SparseVector(list(query.terms), list(query.terms.values()))))
        chosen = None if query.bag is None else qdrant.Filter(must=[_any_of(list(query.bag))])
        hits = self._grouped(searches, chosen, limit)
        return merge(hits[:-1], hits[-1]) if query.terms else merge(hits, [])

    def _grouped(self, searches: list[tuple[str, Any]], chosen: Any, limit: int) -> list[Hits]:
        """Runs searches until each has `limit` products or no more points: the engine cannot group by itself."""
        params = qdrant.SearchParams(
            hnsw_ef=_EF,
            exact=self._points() <= EXACT_UP_TO,
            quantization=qdrant.QuantizationSearchParams(rescore=True, oversampling=graph.OVERSAMPLING),
        )
        found: list[Hits] = [[] for _ in searches]
        open_searches, fetch = list(range(len(searches))), limit * _POINTS
        while open_searches:
            requests = [
                qdrant.QueryRequest(
                    limit=fetch,
                    query=qdrant.Query.Nearest(searches[number][1], using=searches[number][0]),
                    filter=chosen,
                    params=params,
                    with_payload=False,  # of all points it would cost nearly as much as the search
                    with_vector=False,
                )
                for number in open_searches
            ]
            answers = self._shard.query_batch(qdrant.QueryBatchRequest(requests))
            names = self._names_of({point.id.bytes[:_HASH_BYTES] for points in answers for point in points})
            still_open = []
            for number, points in zip(open_searches, answers, strict=True):
                hits = ((names.get(point.id.bytes[:_HASH_BYTES]), point.score) for point in points)
                found[number] = group(((name, score) for name, score in hits if name is not None), limit)
                if len(found[number]) < limit and len(points) == fetch:
                    still_open.append(number)
            open_searches, fetch = still_open, fetch * _MORE
        return found

    def _names_of(self, hashes: set[bytes]) -> dict[bytes, str]:
        """Returns the products that hashes in point ids stand for."""
        new = hashes - self._names.keys()
        if new:  # written before this process has opened the folder
            firsts = self._shard.retrieve([_point_id(one, 0) for one in new], ["product_id"], False)
            self._names |= {first.id.bytes[:_HASH_BYTES]: first.payload["product_id"] for first in firsts}
        return self._names

    def _points(self) -> int:
        return int(self._shard.count(qdrant.CountRequest(exact=False)))

    @override
    async def vectors(self, product_ids: Sequence[str]) -> dict[str, PageEntry]:
        return await self._run(lambda: self._vectors(list(product_ids)))

    def _vectors(self, product_ids: list[str]) -> dict[str, PageEntry]:
        if self._shard is None or not product_ids:
            return {}
        chosen = qdrant.Filter(must=[_any_of(product_ids)])
        return entries((point.payload, point.vector) for point in self._scroll(chosen, vectors=True))

    @override
    async def digests(self) -> dict[str, str]:
        return await self._run(self._digests)

    def _digests(self) -> dict[str, str]:
        if self._shard is None:
            return {}
        firsts = self._scroll(_first_images(), vectors=False)
        return {point.payload["product_id"]: point.payload["digest"] for point in firsts}

    @override
    async def count(self) -> int:
        return await self._run(
            lambda: 0 if self._shard is None else int(self._shard.count(qdrant.CountRequest(filter=_first_images())))
        )

    def _scroll(self, chosen: Any, vectors: bool) -> Iterator[Any]:
        offset = None
        while True:
            points, offset = self._shard.scroll(
                qdrant.ScrollRequest(offset, _SCROLL, chosen, with_payload=True, with_vector=vectors)
            )
            yield from points
            if offset is None:
                return

    @override
    async def close(self) -> None:
        await self._run(self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        if self._shard is not None:
            self._shard.flush()
            self._shard.close()
            self._shard = None
        self._unlock()
        if self._temporary:
            shutil.rmtree(self._folder, ignore_errors=True)


def _hash(product_id: str) -> bytes:
    return hashlib.blake2b(product_id.encode(), digest_size=_HASH_BYTES).digest()


def _point_id(product: bytes, number: int) -> uuid.UUID:
    """Returns the id of the point of an image, counted from 0, of the product with this hash."""
    return uuid.UUID(bytes=product + number.to_bytes(16 - _HASH_BYTES))


def _vectors(page: PageEntry, number: int) -> dict[str, Any]:
    named: dict[str, Any] = dict(named_vectors(page, number))
    if number == 0 and page.terms:
        named[TERMS] = qdrant.SparseVector(list(page.terms), list(page.terms.values()))
    return named


def _any_of(product_ids: list[str]) -> Any:
    return qdrant.FieldCondition("product_id", match=qdrant.MatchAny(product_ids))


def _first_images() -> Any:
    return qdrant.Filter(must=[qdrant.FieldCondition("number", match=qdrant.MatchValue(0))])
