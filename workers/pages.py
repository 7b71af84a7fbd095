"""The catalogue as a list of what is indexed, for showing products rather than searching them.

It takes products from `page_vectors`, and reads a page and its pictures only when they are asked for.
"""

import asyncio
import io
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from topology.addresses import Allowed
from topology.errors import BadInput
from topology.records import PageImage, PageVectors, ProductPage
from topology.settings import Settings
from topology.topic_log import Follower, LogRecord, RecordReader
from topology.topics import PAGE_VECTORS, PRODUCT_PAGES
from workers.images import load_image

# Pictures are shown beside others: larger ones would only cost bandwidth.
LONGEST_SIDE_PX = 480
_JPEG_QUALITY = 85
# Pictures in memory, some 30 kB each. A page of a catalogue shows 50.
_MOST_PICTURE_BYTES = 32 * 1024 * 1024
# Products whose vectors are kept to find look-alikes, 1.5 kB each. In a larger catalogue the rest have none.
_MOST_VECTORS = 100_000


@dataclass(frozen=True)
class Listed:
    """One product.

    Attributes:
        images: URIs of its pictures; empty where the page holds the bytes itself.
        error: Why it could not be encoded; empty if it was.
        partition: Partition of its page in `product_pages`.
        offset: Offset of its page there.
        encoded_at: Partition and offset of its record in `page_vectors`.
        vector: (D,) float16, L2-normalised: the mean over its pictures; None without.
    """

    product_id: str
    title: str
    images: tuple[str, ...]
    error: str
    partition: int
    offset: int
    vector: NDArray[np.float16] | None = None
    encoded_at: tuple[int, int] = (0, -1)

    def image_number(self, uri: str) -> int | None:
        """Returns which of its pictures has a URI; None without pictures."""
        if not self.images:
            return None
        return self.images.index(uri) if uri in self.images else 0


class Pages:
    """All products of the catalogue.

    Args:
        settings: Settings of the worker.
        reader: Reads pages.
        alike: Whether to keep vectors to find look-alikes.
        longest: Longer side of its pictures.
    """

    def __init__(
        self, settings: Settings, reader: RecordReader, *, alike: bool = False, longest: int = LONGEST_SIDE_PX
    ) -> None:
        self._reader = reader
        self._longest = longest
        self._allowed = Allowed.of(settings)
        self._alike = alike
        self._follower = Follower(settings, PAGE_VECTORS, PageVectors)
        self._listed: dict[str, Listed] = {}
        self._order: list[str] | None = None
        self._vectors = 0
        self._matrix: tuple[list[str], NDArray[np.float32]] | None = None
        self._pictures: OrderedDict[tuple[str, int, int, int], bytes] = OrderedDict()
        self._picture_bytes = 0
        self.caught_up = self._follower.caught_up

    async def follow(self) -> None:
        """Works until cancelled."""
        async for record in self._follower:
            self.take(record)

    def take(self, record: LogRecord[PageVectors]) -> None:
        """Takes a record of `page_vectors`."""
        key, value = record.key, record.value
        before = self._listed.pop(key, None)
        if before is not None and before.vector is not None:
            self._vectors -= 1
        self._order = self._matrix = None
        if value is None or value.withdrawn:
            return
        vector = _mean(value) if self._alike and not value.error and self._vectors < _MOST_VECTORS else None
        if vector is not None:
            self._vectors += 1
        self._listed[key] = Listed(
            key,
            value.title,
            value.images,
            value.error,
            value.source_partition,
            value.source_offset,
            vector,
            (record.partition, record.offset),
        )

    def get(self, product_id: str) -> Listed | None:
        """Returns a product; None if the id is unknown."""
        return self._listed.get(product_id)

    def title(self, product_id: str) -> str:
        """Returns a product's title, or its id if it has no title."""
        found = self._listed.get(product_id)
        return found.title if found is not None and found.title else product_id

    def search(self, text: str, after: str, limit: int) -> list[Listed]:
        """Returns products whose title or id has all words of the text, by id.

        Args:
            text: Words; empty: all products.
            after: Id after which the list begins.
            limit: At most so many.
        """
        if self._order is None:
            self._order = sorted(self._listed)
        words = text.casefold().split()
        found: list[Listed] = []
        for number in range(bisect_right(self._order, after), len(self._order)):
            one = self._listed[self._order[number]]
            told = f"{one.product_id} {one.title}".casefold()
            if len(found) >= limit:
                break
            if all(word in told for word in words):
                found.append(one)
        return found

    def look_alikes(self, product_id: str, most: int) -> list[tuple[Listed, float]]:
        """Returns the products whose pictures are nearest to those of one, with their cosines, nearest first."""
        own = self._listed.get(product_id)
        return [] if own is None or own.vector is None else self.nearest(own.vector, most, without=product_id)

    def nearest(self, vector: NDArray[np.float16], most: int, without: str = "") -> list[tuple[Listed, float]]:
        """Returns the products whose pictures are nearest to a vector, (D,)."""
        if self._matrix is None:
            vectors = {key: one.vector for key, one in self._listed.items() if one.vector is not None}
            rows = [row.astype(np.float32) for row in vectors.values() if row.shape == vector.shape]
            ids = [key for key, row in vectors.items() if row.shape == vector.shape]
            self._matrix = ids, np.stack(rows) if rows else np.zeros((0, len(vector)), np.float32)
        ids, matrix = self._matrix
        if matrix.shape[1] != len(vector):
            return []  # made by another model
        cosines = matrix @ vector.astype(np.float32)
        order = np.argsort(-cosines, kind="stable")[: most + 1]
        return [(self._listed[ids[i]], float(cosines[i])) for i in order if ids[i] != without][:most]

    async def page(self, product_id: str) -> ProductPage | None:
        """Reads a product's page from the topic; None if it is not there (any more)."""
        one = self._listed.get(product_id)
        if one is None:
            return None
        record = await self._reader.read(PRODUCT_PAGES, one.partition, one.offset, ProductPage)
        return record.value if record is not None and record.key == product_id else None

    async def picture(self, product_id: str, number: int) -> bytes | None:
        """Returns one of a product's pictures as JPEG; None if there is no such picture.

        Only pictures of products that are listed here are ever opened, from where the page says.

        Raises:
            Unavailable: Broker or picture cannot be reached now.
        """
        one = self._listed.get(product_id)
        if one is None or not 0 <= number < len(one.images):
            return None
        key = (product_id, one.partition, one.offset, number)
        if key in self._pictures:
            self._pictures.move_to_end(key)
            return self._pictures[key]
        page = await self.page(product_id)
        image = None if page is None else _image(page, one.images[number], number)
        if image is None:
            return None
        try:
            found = await asyncio.to_thread(self._jpeg, image)
        except BadInput:
            return None
        self._keep(key, found)
        return found

    def _jpeg(self, image: PageImage) -> bytes:
        return jpeg(load_image(image, self._allowed, longest=self._longest))

    def _keep(self, key: tuple[str, int, int, int], found: bytes) -> None:
        self._pictures[key] = found
        self._picture_bytes += len(found)
        while self._picture_bytes > _MOST_PICTURE_BYTES:
            _, old = self._pictures.popitem(last=False)
            self._picture_bytes -= len(old)


def jpeg(pixels: NDArray[np.uint8], quality: int = _JPEG_QUALITY) -> bytes:
    """Returns (H, W, 3) uint8 RGB as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _image(page: ProductPage, uri: str, number: int) -> PageImage | None:
    named = [image for image in page.images if uri and image.uri == uri]
    at_number = [page.images[number]] if number < len(page.images) else []
    return next(iter([*named, *at_number]), None)


def _mean(record: PageVectors) -> NDArray[np.float16] | None:
    row_bytes = len(record.fused) & ~1
    if not row_bytes or not record.vectors or len(record.vectors) % row_bytes:
        return None
    rows = np.frombuffer(record.vectors, "<f2").astype(np.float32).reshape(-1, row_bytes // 2)
    if not np.isfinite(rows).all():
        return None
    mean = rows.mean(axis=0)
    length = max(float(np.linalg.norm(mean)), 1e-6)
    return np.asarray(mean / length, np.float16)
