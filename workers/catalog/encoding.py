"""Turns a product page into its vectors: fetches the pictures, encodes, collects the words."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from cope.keywords import further_titles, page_names, page_terms
from cope.keywords.markup import plain
from cope.serving.encoder import PageInput, PageOutput
from topology.errors import BadInput, Unavailable
from topology.records import PageImage, PageVectors, ProductPage
from topology.redact import redacted

_log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

# The encoder crops pictures to less than half of that; full photographs of a batch of pages would fill the memory.
LONGEST_SIDE_PX = 640

# Pages with more pictures than this are galleries; each picture is a point in the index.
MOST_IMAGES = 64

# An image host that is down must not stop the catalogue for ever: after this many attempts, in about 4 s, its picture
# counts as missing. The page is encoded again when it is published again.
FETCH_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.5


class Encoder(Protocol):
    """The part of `cope.serving.encoder.Encoder` that pages need."""

    version: str

    def encode_pages(self, pages: Sequence[PageInput]) -> list[PageOutput]:
        """See `cope.serving.encoder.Encoder.encode_pages`."""
        ...


@dataclass(frozen=True)
class Pictures:
    """The pictures of a page that could be read.

    Attributes:
        images: (H, W, 3) uint8 RGB each, at most 640 px a side.
        uris: Where each is from.
        problems: One line for each that could not be read.
    """

    images: list[Pixels] = field(default_factory=list)
    uris: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


async def fetch_pictures(
    page: ProductPage, load: Callable[[PageImage], Pixels], pause: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> Pictures:
    """Reads a page's pictures, in threads.

    Args:
        page: Names or holds them.
        load: Reads one, at most `LONGEST_SIDE_PX` a side; raises `BadInput` if it is no usable picture, `Unavailable`
            if its host does not answer.
        pause: Waits between tries.
    """
    found = Pictures()
    if len(page.images) > MOST_IMAGES:
        found.problems.append(f"{len(page.images)} images: the first {MOST_IMAGES} are used")
    for image in page.images[:MOST_IMAGES]:
        try:
            pixels = await _fetch(image, load, pause)
        except (BadInput, Unavailable) as error:
            found.problems.append(str(error))
        else:
            found.images.append(pixels)
            found.uris.append(image.uri)
    return found


async def _fetch(
    image: PageImage, load: Callable[[PageImage], Pixels], pause: Callable[[float], Awaitable[None]]
) -> Pixels:
    for attempt in range(1, FETCH_ATTEMPTS):
        try:
            return await asyncio.to_thread(load, image)
        except Unavailable as error:
            _log.info("an image host does not answer, trying again", extra={"attempt": attempt, "error": str(error)})
            await pause(_FIRST_PAUSE_S * 2 ** (attempt - 1))
    return await asyncio.to_thread(load, image)


def without_markup(page: ProductPage) -> ProductPage:
    """Returns the page without HTML, which any producer may have written."""
    return msgspec.structs.replace(
        page,
        title=plain(page.title) or page.title,
        description=plain(page.description),
        category=plain(page.category),
        brand=plain(page.brand),
        attributes={name: plain(value) for name, value in page.attributes.items()},
    )


def page_input(page: ProductPage, pictures: Pictures) -> PageInput:
    """Returns the model's input for a page."""
    parts = [page.brand, page.category, *(page.attributes[name] for name in sorted(page.attributes)), page.description]
    return PageInput(page.title, pictures.images, ". ".join(part for part in parts if part))


def page_vectors(
    page: ProductPage,
    partition: int,
    offset: int,
    pictures: Pictures,
    output: PageOutput,
    model_version: str,
    read: Sequence[str] | None = None,
) -> PageVectors:
    """Returns the record of an encoded page.

    Args:
        page: As published.
        partition: Partition of the page in `product_pages`.
        offset: Offset of the page there.
        pictures: The pictures that were encoded.
        output: Output of the model.
        model_version: Version of the model.
        read: Lines read in the pictures; None if the model reads no words.
    """
    return PageVectors(
        product_id=page.product_id,
        source_partition=partition,
        source_offset=offset,
        model_version=model_version,
        title=page.title,
        category=page.category,
        vectors=output.vectors.astype("<f2").tobytes(),
        fused=output.fused.astype("<f2").tobytes(),
        images=tuple(uri for uri in pictures.uris for _ in range(len(output.vectors) // len(pictures.uris))),
        terms=page_terms(page.title, page.brand, page.category, page.attributes, page.description),
        names=() if read is None else page_names(page.title, page.brand, page.attributes),
        read=tuple(read or ()),
        titles=further_titles(page.attributes),
        text=output.text.astype("<f2").tobytes(),
    )


def failed(product_id: str, partition: int, offset: int, error: Exception, model_version: str) -> PageVectors:
    """Returns the record of a page that cannot be encoded. It takes an earlier edition out of the index."""
    return PageVectors(
        product_id=product_id,
        source_partition=partition,
        source_offset=offset,
        model_version=model_version,
        error=redacted(str(error)) or type(error).__name__,
    )


def withdrawn(product_id: str, partition: int, offset: int, model_version: str) -> PageVectors:
    """Returns the record of a page that its owner has withdrawn."""
    return PageVectors(
        product_id=product_id,
        source_partition=partition,
        source_offset=offset,
        model_version=model_version,
        withdrawn=True,
    )
