"""A Qdrant server or cluster: numbered collections behind one alias."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from typing_extensions import override

from topology.errors import Unavailable, UserError
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
    merge,
)
from topology.index.points import entries, named_vectors, payload
from topology.settings import Settings

T = TypeVar("T")

_WRITE_AT_ONCE = 100  # pages per call: below gRPC's message limit at 16 images of 1,024 values
_SCROLL = 1_000

# Any fixed namespace: the id of a page's image must be the same in every process.
_NAMESPACE = uuid.UUID("6f9619ff-8b86-4d01-b42d-00cf4fc964ff")

# The codes are of 8 bits a value, since Qdrant 1.16 (docker-compose.yml) does not have the embedded engine's. They span
# this share of the values; the others are clipped.
_QUANTILE = 0.99
# Candidates while the graph is searched, and how many times the points that are wanted are compared in full.
_EF, _OVERSAMPLING = 256, 2.0

_TIMEOUT_S = 10
_SEARCH = models.SearchParams(
    hnsw_ef=_EF,
    quantization=models.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING),
)


def connect(settings: Settings) -> AsyncQdrantClient:
    """Returns a client of the server that the settings name; nothing is sent yet."""
    return AsyncQdrantClient(
        url=settings.qdrant_url,
        api_key=settings.qdrant_api_key.get_secret_value() or None,
        prefer_grpc=True,
        timeout=_TIMEOUT_S,
        check_compatibility=False,
    )


class ServerIndex(Index):
    """The collection that an alias points to, or a named one.

    Args:
        client: Client of the server; closed with the index.
        alias: Name that searches go through.
        model_version: The model whose vectors the index takes.
        collection: Read and write this collection instead of the alias' one: for filling a new one.
    """

    def __init__(
        self, client: AsyncQdrantClient, alias: str, model_version: str, collection: str | None = None
    ) -> None:
        self.model_version = model_version
        self.version = collection or f"{alias}_v1"
        self._client = client
        self._alias = alias
        self._name = collection or alias
        self._dim = 0

    async def open(self) -> None:
        """Finds out which collection stands behind the alias, and of which model it is. To be called first.

        Raises:
            UserError: It holds vectors of another model.
        """
        behind = await self._behind()
        if self._name == self._alias and behind is not None:
            self.version = behind
        if self._name != self._alias or behind is not None:
            await self._read_meta()

    async def is_searched(self) -> bool:
        """Whether the alias points to this collection, or to none that could be switched from."""
        return await self._behind() in (None, self.version)

    async def publish(self) -> None:
        """Lets the alias point to this collection."""
        await switch_alias(self._client, self._alias, self.version)

    async def _behind(self) -> str | None:
        aliases = (await _answer(self._client.get_aliases())).aliases
        return next((one.collection_name for one in aliases if one.alias_name == self._alias), None)

    async def _read_meta(self) -> None:
        if not await _answer(self._client.collection_exists(self.version)):
            return
        info = await _answer(self._client.get_collection(self.version))
        held = (info.config.metadata or {}).get("model_version", "unknown")
        if held != self.model_version:
            raise UserError(
                f"index {self.version} holds vectors of model {held}, this worker runs {self.model_version}: let the "
                "catalog role fill a new collection, or run the worker with that model (COPE_MODEL)"
            )
        vectors = info.config.params.vectors
        self._dim = vectors[IMAGE].size if isinstance(vectors, dict) else 0

    async def _create(self, dim: int) -> None:
        dense = models.VectorParams(
            size=dim,
            distance=models.Distance.DOT,
            datatype=models.Datatype.FLOAT16,
            hnsw_config=models.HnswConfigDiff(
                m=graph.M, ef_construct=graph.EF_CONSTRUCT, full_scan_threshold=graph.FULL_SCAN_KB
            ),
            quantization_config=models.ScalarQuantization(
                scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=_QUANTILE)
            ),
        )
        if not await _answer(self._client.collection_exists(self.version)):
            await _answer(
                self._client.create_collection(
                    self.version,
                    vectors_config={IMAGE: dense, PAGE: dense, TEXT: dense},
                    sparse_vectors_config={TERMS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                    metadata={"model_version": self.model_version},
                )
            )
            for name, kind in (
                ("product_id", models.PayloadSchemaType.KEYWORD),
                ("number", models.PayloadSchemaType.INTEGER),
            ):
                await _answer(self._client.create_payload_index(self.version, name, kind))
        if self._name == self._alias and await self._behind() is None:
            await switch_alias(self._client, self._alias, self.version)
        await self._read_meta()

    @override
    async def upsert(self, pages: Sequence[PageEntry]) -> None:
        self.check_model(pages)
        if pages and not self._dim:
            await self._create(pages[0].fused.shape[0])
        for page in pages:
            check_dimension(page, self._dim)
        for start in range(0, len(pages), _WRITE_AT_ONCE):
            some = pages[start : start + _WRITE_AT_ONCE]
            points = [
                models.PointStruct(
                    id=str(uuid.uuid5(_NAMESPACE, f"{page.product_id}|{number}")),
                    vector=_vectors(page, number),
                    payload=payload(page, number),
                )
                for page in some
                for number in range(len(page.vectors))
            ]
            await _answer(self._client.upsert(self._name, points, wait=True))
            # Images that an earlier edition of a page had, and this one has not.
            others = models.MatchExcept(**{"except": [page.digest for page in some]})
            surplus: list[models.Condition] = [
                _any_of([page.product_id for page in some]),
                models.FieldCondition(key="digest", match=others),
            ]
            await self._delete(models.Filter(must=surplus))

    @override
    async def remove(self, product_ids: Sequence[str]) -> None:
        if product_ids and await self._exists():
            await self._delete(models.Filter(must=[_any_of(product_ids)]))

    async def _delete(self, chosen: models.Filter) -> None:
        await _answer(self._client.delete(self._name, models.FilterSelector(filter=chosen), wait=True))

    @override
    async def search(self, query: Query, limit: int) -> list[Candidate]:
        if (query.bag is not None and not query.bag) or not await self._exists():
            return []
        chosen = None if query.bag is None else models.Filter(must=[_any_of(query.bag)])
        searches: list[tuple[str, Any]] = [(name, row.tolist()) for name, row in query.dense()]
        if query.terms:
            searches.append((TERMS, models.SparseVector(indices=list(query.terms), values=list(query.terms.values()))))
        hits = await asyncio.gather(*(self._grouped(name, vector, chosen, limit) for name, vector in searches))
        return merge(hits[:-1], hits[-1]) if query.terms else merge(hits, [])

    async def _grouped(self, name: str, vector: Any, chosen: models.Filter | None, limit: int) -> Hits:
        found = await _answer(
            self._client.query_points_groups(
                self._name,
                "product_id",
                query=vector,
                using=name,
                query_filter=chosen,
                search_params=_SEARCH,
                limit=limit,
                group_size=1,
            )
        )
        return sorted(
            ((str(one.id), one.hits[0].score) for one in found.groups if one.hits), key=lambda hit: (-hit[1], hit[0])
        )

    @override
    async def vectors(self, product_ids: Sequence[str]) -> dict[str, PageEntry]:
        if not product_ids or not await self._exists():
            return {}
        chosen = models.Filter(must=[_any_of(product_ids)])
        points = [point async for point in self._scroll(chosen, vectors=True)]
        found = entries((point.payload or {}, point.vector) for point in points)
        for page in found.values():
            if page.model_version != self.model_version:  # the alias has been switched since `open`
                raise UserError(
                    f"the index {self._alias} now holds vectors of model {page.model_version}, this worker runs "
                    f"{self.model_version}: start it with that model (COPE_MODEL)"
                )
        return found

    @override
    async def digests(self) -> dict[str, str]:
        if not await self._exists():
            return {}
        return {
            point.payload["product_id"]: point.payload["digest"]
            async for point in self._scroll(_first_images(), vectors=False)
        }

    @override
    async def count(self) -> int:
        if not await self._exists():
            return 0
        return int((await _answer(self._client.count(self._name, count_filter=_first_images()))).count)

    async def _scroll(self, chosen: models.Filter, vectors: bool) -> AsyncIterator[Any]:
        offset = None
        while True:
            points, offset = await _answer(
                self._client.scroll(self._name, chosen, _SCROLL, offset=offset, with_payload=True, with_vectors=vectors)
            )
            for point in points:
                yield point
            if offset is None:
                return

    async def _exists(self) -> bool:
        if not self._dim:
            await self.open()
        return bool(self._dim)

    @override
    async def close(self) -> None:
        await self._client.close()


async def open_to_fill(client: AsyncQdrantClient, alias: str, model_version: str) -> ServerIndex:
    """Returns the index that pages of a model belong into, for the role that writes.

    That is the collection behind the alias if it is of this model, or if there is none yet. Otherwise it is another
    collection of the same alias and model, the next free number if there is none: searches go on in the old one
    until `switch_alias`.
    """
    aliases = (await _answer(client.get_aliases())).aliases
    behind = next((one.collection_name for one in aliases if one.alias_name == alias), None)
    collections: dict[int, str] = {}
    for one in (await _answer(client.get_collections())).collections:
        if match := re.fullmatch(rf"{re.escape(alias)}_v(\d+)", one.name):
            info = await _answer(client.get_collection(one.name))
            collections[int(match.group(1))] = str((info.config.metadata or {}).get("model_version", ""))
    if behind is None or collections.get(_number(behind)) == model_version:
        index = ServerIndex(client, alias, model_version)
    else:
        ours = [number for number, version in collections.items() if version == model_version]
        number = max(ours) if ours else max(collections, default=0) + 1
        index = ServerIndex(client, alias, model_version, f"{alias}_v{number}")
    await index.open()
    return index


def _number(collection: str) -> int:
    return int(collection.rpartition("_v")[2])


async def switch_alias(client: AsyncQdrantClient, alias: str, collection: str) -> None:
    """Lets the alias point to the collection, in one step: a search sees either the old or the new collection."""
    aliases = (await _answer(client.get_aliases())).aliases
    steps: list[Any] = []
    if any(one.alias_name == alias for one in aliases):
        steps.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
    steps.append(
        models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=alias))
    )
    await _answer(client.update_collection_aliases(steps))


async def _answer(call: Awaitable[T]) -> T:
    """Awaits a call to the server; a server that does not answer now raises `Unavailable`."""
    try:
        return await call
    except (ResponseHandlingException, TimeoutError, ConnectionError) as error:
        raise Unavailable(f"Qdrant does not answer: {error}") from error
    except UnexpectedResponse as error:
        if error.status_code in (401, 403):
            raise UserError("Qdrant refuses the API key: check COPE_QDRANT_API_KEY") from error
        raise Unavailable(f"Qdrant answers {error.status_code}: {error.reason_phrase}") from error
    except grpc.RpcError as error:
        status = error.code()
        if status in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise UserError("Qdrant refuses the API key: check COPE_QDRANT_API_KEY") from error
        raise Unavailable(f"Qdrant does not answer: {status.name}") from error


def _vectors(page: PageEntry, number: int) -> dict[str, Any]:
    named: dict[str, Any] = dict(named_vectors(page, number))
    if number == 0 and page.terms:
        named[TERMS] = models.SparseVector(indices=list(page.terms), values=list(page.terms.values()))
    return named


def _any_of(product_ids: Sequence[str]) -> models.FieldCondition:
    return models.FieldCondition(key="product_id", match=models.MatchAny(any=list(product_ids)))


def _first_images() -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key="number", match=models.MatchValue(value=0))])
