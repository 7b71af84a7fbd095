"""Qdrant Edge: Qdrant's engine inside this process, in a folder of its own.

The folder has two shards: `pages` with a point a product, `images` with a point a picture's vector. In one shard each
picture would take the room of all kinds of vectors.
"""

import asyncio
import hashlib
import json
import logging
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
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
from topology.index.points import entry, page_payload, page_vectors

_log = logging.getLogger(__name__)

T = TypeVar("T")

# Up to so many vectors of pictures every search is exact: each query vector takes 3 ms then. Above, a graph is built,
# whose answers may differ in rare cases from run to run; so it is not used where it is not needed.
EXACT_UP_TO = 50_000

# Pictures that are asked for in one search for each product wanted, since a product has several; if these are of too
# few products, so many times more.
_PICTURES, _MORE = 2, 4

# The engine maps its files into memory: a write to a full disk kills the process with SIGBUS instead of failing. So
# a write is refused while less than this is free. Its files grow in steps of up to 32 MiB each.
_RESERVE_BYTES = 128 * 1024 * 1024

_WRITE_AT_ONCE = 200  # pages per operation: a few MB

# Pictures between two flushes: what is written in between also lies in the engine's log, 4 kB each, and is replayed at
# the next start.
_FLUSH_EVERY = 20_000

# Candidates while the graph is searched: with so many, 98 of 100 products are found among up to so many pictures.
# Among ten times as many pictures it takes four times as many candidates.
_EF, _EF_UP_TO, _EF_GROWTH = 256, 400_000, 0.6

# So many times the points that are wanted are compared in full: codes of 2 bits tell roughly which are near.
_OVERSAMPLING = 4.0

# Pieces of speech whose answers are kept: 5 kB each, for some five hundred streams.
_SAID = 2_000

# Bags of streams whose filters are kept: making one takes as long as a search.
_BAGS = 200

# A point id has 128 bits: a hash of the product, then the number of its picture; on a page's point, 0.
_NUMBER_BITS = 32

# Version of the way that points lie in a folder. A folder of another one is filled anew.
_LAYOUT = 3

_SHARDS = "images", "pages"
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
        self._pages: Any = None
        self._images: Any = None
        self._dim = 0
        self._names: dict[int, str] = {}  # by the hash in a point id
        self._said: dict[tuple[bytes, int], Hits] = {}  # by the vector of speech, and `limit`
        self._bags: dict[tuple[str, ...], tuple[Any, Any, int]] = {}
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
                    self._guarded(lambda: self._load(held["dim"]))
        except Timeout as error:
            raise UserError(
                f"index folder {self._folder} is in use by another process: stop it, or set COPE_INDEX_DIR to a "
                "folder of this worker's own"
            ) from error
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"index folder {self._folder} cannot be used ({error}): set COPE_INDEX_DIR to a folder of your own"
            ) from error

    def _load(self, dim: int) -> None:
        self._images, self._pages = (qdrant.EdgeShard.load(str(self._folder / name)) for name in _SHARDS)
        self._dim = dim
        rows: dict[int, int] = {}
        for page in _scroll(self._pages, ["product_id", "rows"]):
            product = page.id.int >> _NUMBER_BITS
            self._names[product], rows[product] = page.payload["product_id"], page.payload["rows"]
        # A killed process may have left pictures without their page, a power loss a page without all its pictures.
        found, stray = Counter[int](), []
        for picture in _scroll(self._images, False):
            product, number = divmod(picture.id.int, 1 << _NUMBER_BITS)
            if number < rows.get(product, 0):
                found[product] += 1
            else:
                stray.append(picture.id)
        lost = [self._names[product] for product, count in rows.items() if found[product] < count]
        if lost or stray:
            _log.warning("the index was left half written", extra={"folder": str(self._folder), "lost": len(lost)})
            self._remove(lost)
            self._drop(self._images, stray)

    def _create(self, dim: int) -> None:
        (self._folder / _META).unlink(missing_ok=True)  # first: with it, a folder is taken to be whole
        for name in ("shard", *_SHARDS):  # of an older layout, or left by a process that died before its meta file
            shutil.rmtree(self._folder / name, ignore_errors=True)
        dense = qdrant.EdgeVectorParams(
            dim,
            qdrant.Distance.Dot,
            datatype=qdrant.VectorStorageDatatype.Float16,
            hnsw_config=qdrant.HnswIndexConfig(graph.M, graph.EF_CONSTRUCT, graph.FULL_SCAN_KB),
            # Of 2 bits a value: a search takes some two thirds of the time that 8 bits take, and finds nearly as much.
            quantization_config=qdrant.TurboQuantQuantizationConfig(bits=qdrant.TurboQuantBitSize.Bits2),
        )
        # One graph for all: each segment is searched for itself.
        one_graph = qdrant.EdgeOptimizersConfig(default_segment_number=1, max_segment_size=_SEGMENT_KB)
        images = qdrant.EdgeConfig(vectors={IMAGE: dense}, optimizers=one_graph)
        pages = qdrant.EdgeConfig(
            vectors={PAGE: dense, TEXT: dense},
            sparse_vectors={TERMS: qdrant.EdgeSparseVectorParams(modifier=qdrant.Modifier.Idf)},
            optimizers=one_graph,
        )
        self._images, self._pages = map(self._made, _SHARDS, (images, pages))
        meta = {"model_version": self.model_version, "dim": dim, "layout": _LAYOUT}
        (self._folder / _META).write_text(json.dumps(meta))
        self._dim = dim

    def _made(self, name: str, config: Any) -> Any:
        folder = self._folder / name
        folder.mkdir()
        shard = self._guarded(lambda: qdrant.EdgeShard.create(str(folder), config))
        shard.flush()
        return shard

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
        except UserError:
            raise
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
        if self._pages is None:
            self._create(pages[0].fused.shape[0])
        for page in pages:
            check_dimension(page, self._dim)
        changes = self._remove([page.product_id for page in pages])
        pictures = [
            qdrant.Point(_point_id(_hash(page.product_id), number), {IMAGE: row.tolist()}, {})
            for page in pages
            for number, row in enumerate(page.vectors.astype(np.float32))
        ]
        # Pictures first: a page that is held is not written again. If it has other pictures of the same number, that is
        # not seen when the folder is opened, so they are safe on the disk before.
        self._guarded(lambda: self._images.update(qdrant.UpdateOperation.upsert_points(pictures)))
        if changes and not self._temporary:
            self._guarded(self._images.flush)
        points = [
            qdrant.Point(
                _point_id(_hash(page.product_id), 0), _vectors(page), page_payload(page) | {"rows": len(page.vectors)}
            )
            for page in pages
        ]
        self._guarded(lambda: self._pages.update(qdrant.UpdateOperation.upsert_points(points)))
        self._names |= {_hash(page.product_id): page.product_id for page in pages}
        self._unflushed += len(pictures)
        if self._unflushed >= _FLUSH_EVERY:
            for shard in (self._images, self._pages):
                self._guarded(shard.flush)
            self._unflushed = 0

    @override
    async def remove(self, product_ids: Sequence[str]) -> None:
        if product_ids:
            await self._run(lambda: self._remove(list(product_ids)))

    def _remove(self, product_ids: list[str]) -> bool:
        """Removes products; returns whether any was here."""
        self._said.clear()  # what was kept of the catalogue as it was
        self._bags.clear()
        held = [] if self._pages is None else self._held(product_ids)
        self._drop(self._pages, [point.id for point in held])
        self._drop(self._images, [one for point in held for one in _picture_ids(point)])
        for point in held:
            del self._names[point.id.int >> _NUMBER_BITS]
        return bool(held)

    def _drop(self, shard: Any, ids: list[Any]) -> None:
        if ids:
            self._guarded(lambda: shard.update(qdrant.UpdateOperation.delete_points(ids)))

    @override
    async def optimize(self) -> None:
        await self._run(self._optimize)

    def _optimize(self) -> None:
        if self._pages is not None and self._pictures() > EXACT_UP_TO:
            for shard in (self._images, self._pages):
                self._guarded(shard.optimize)

    # -- reading -------------------------------------------------------------------------------------------------

    @override
    async def search(self, query: Query, limit: int) -> list[Candidate]:
        return await self._run(lambda: self._search(query, limit))

    def _search(self, query: Query, limit: int) -> list[Candidate]:
        if self._pages is None or (query.bag is not None and not query.bag):
            return []
        rows: dict[str, list[Any]] = {IMAGE: [], PAGE: [], TEXT: []}
        for name, row in query.dense():
            rows[name].append(row)
        pictures = self._pictures()
        params = qdrant.SearchParams(
            hnsw_ef=round(_EF * max(1.0, pictures / _EF_UP_TO) ** _EF_GROWTH),
            exact=pictures <= EXACT_UP_TO,
            quantization=qdrant.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING),
        )
        pages, images, count = (None, None, pictures) if query.bag is None else self._chosen(query.bag)
        near = partial(self._near_pages, limit=limit, chosen=pages, params=params)
        dense = self._near_images(rows[IMAGE], limit, images, count, params)
        dense += near(PAGE, rows[PAGE])
        dense += near(TEXT, rows[TEXT]) if pages is not None else self._near_speech(rows[TEXT], limit, near)
        return merge(dense, *(near(TERMS, [_sparse(query.terms)]) if query.terms else [[]]))

    def _chosen(self, bag: Sequence[str]) -> tuple[Any, Any, int]:
        """Returns filters for the pages of a bag and for their pictures, and the number of these."""
        key = tuple(bag)
        if key not in self._bags:
            held = self._held(bag)
            ids = [one for point in held for one in _picture_ids(point)]
            if len(self._bags) == _BAGS:
                self._bags.clear()
            self._bags[key] = _only(point.id for point in held), _only(ids), len(ids)
        return self._bags[key]

    def _near_images(self, rows: list[Any], limit: int, chosen: Any, count: int, params: Any) -> list[Hits]:
        """Searches pictures until each row has `limit` products or no more pictures: the engine does not group them."""
        found: list[Hits] = [[] for _ in rows]
        open_rows, fetch = list(range(len(rows))), limit * _PICTURES
        while open_rows:
            answers = self._ask(self._images, IMAGE, [rows[number] for number in open_rows], fetch, chosen, params)
            for number, hits in zip(open_rows, answers, strict=True):
                found[number] = group(hits, limit)
            open_rows = [number for number in open_rows if len(found[number]) < limit and fetch < count]
            fetch *= _MORE
        return found

    def _near_speech(self, rows: list[Any], limit: int, near: Callable[[str, list[Any]], list[Hits]]) -> list[Hits]:
        """Searches what all pages say, with answers kept: a piece of speech is in several windows in a row."""
        asked = [(row.tobytes(), limit) for row in rows]
        new = {key: row for key, row in zip(asked, rows, strict=True) if key not in self._said}
        self._said |= zip(new, near(TEXT, list(new.values())), strict=True)
        found = [self._said[key] for key in asked]
        while len(self._said) > _SAID:
            del self._said[next(iter(self._said))]
        return found

    def _near_pages(self, name: str, searches: list[Any], limit: int, chosen: Any, params: Any) -> list[Hits]:
        return [group(hits, limit) for hits in self._ask(self._pages, name, searches, limit, chosen, params)]

    def _ask(self, shard: Any, name: str, searches: list[Any], fetch: int, chosen: Any, params: Any) -> list[Hits]:
        """Returns the product and score of each point found; of those that the filter `chosen` lets through."""
        requests = [
            qdrant.QueryRequest(
                limit=fetch,
                query=qdrant.Query.Nearest(one.tolist() if isinstance(one, np.ndarray) else one, using=name),
                filter=chosen,
                params=params,
                with_payload=False,  # of all points it would cost nearly as much as the search
                with_vector=False,
            )
            for one in searches
        ]
        return [
            [(self._names[point.id.int >> _NUMBER_BITS], point.score) for point in points]
            for points in shard.query_batch(qdrant.QueryBatchRequest(requests))
        ]

    def _pictures(self) -> int:
        return int(self._images.count(qdrant.CountRequest(exact=False)))

    def _held(self, product_ids: Iterable[str]) -> list[Any]:
        """Returns the points of those pages that are here, with the number of their rows."""
        ids = _page_ids(product_ids)
        return self._guarded(lambda: list(self._pages.retrieve(ids, ["rows"], False)))

    @override
    async def vectors(self, product_ids: Sequence[str]) -> dict[str, PageEntry]:
        return await self._run(lambda: self._vectors(list(product_ids)))

    def _vectors(self, product_ids: list[str]) -> dict[str, PageEntry]:
        if self._pages is None:
            return {}
        points = self._pages.retrieve(_page_ids(product_ids), True, True)
        ids = {point.payload["product_id"]: _picture_ids(point) for point in points}
        found = self._images.retrieve([one for some in ids.values() for one in some], False, True)
        rows = {point.id: point.vector[IMAGE] for point in found}
        return {
            product_id: entry(point.payload, point.vector, [rows[one] for one in some])
            for point, (product_id, some) in zip(points, ids.items(), strict=True)
        }

    @override
    async def digests(self) -> dict[str, str]:
        return await self._run(self._digests)

    def _digests(self) -> dict[str, str]:
        if self._pages is None:
            return {}
        return {
            point.payload["product_id"]: point.payload["digest"]
            for point in _scroll(self._pages, ["product_id", "digest"])
        }

    @override
    async def count(self) -> int:
        return await self._run(lambda: 0 if self._pages is None else int(self._pages.count(qdrant.CountRequest())))

    @override
    async def close(self) -> None:
        await self._run(self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        for shard in (self._images, self._pages):
            if shard is not None:
                shard.flush()
                shard.close()
        self._images = self._pages = None
        self._unlock()
        if self._temporary:
            shutil.rmtree(self._folder, ignore_errors=True)


def _hash(product_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(product_id.encode(), digest_size=16 - _NUMBER_BITS // 8).digest())


def _point_id(product: int, number: int) -> uuid.UUID:
    """Returns the id of a point of the product with this hash."""
    return uuid.UUID(int=product << _NUMBER_BITS | number)


def _page_ids(product_ids: Iterable[str]) -> list[uuid.UUID]:
    return [_point_id(_hash(product_id), 0) for product_id in product_ids]


def _picture_ids(page: Any) -> list[uuid.UUID]:
    return [uuid.UUID(int=page.id.int | number) for number in range(page.payload["rows"])]


def _only(ids: Iterable[Any]) -> Any:
    return qdrant.Filter(must=[qdrant.HasIdCondition(set(ids))])


def _scroll(shard: Any, payload: Any) -> Iterator[Any]:
    """Yields all points of the shard, without vectors."""
    offset = None
    while True:
        points, offset = shard.scroll(qdrant.ScrollRequest(offset, _SCROLL, with_payload=payload, with_vector=False))
        yield from points
        if offset is None:
            return


def _vectors(page: PageEntry) -> dict[str, Any]:
    named: dict[str, Any] = dict(page_vectors(page))
    if page.terms:
        named[TERMS] = _sparse(page.terms)
    return named


def _sparse(terms: Mapping[int, float]) -> Any:
    return qdrant.SparseVector(list(terms), list(terms.values()))
