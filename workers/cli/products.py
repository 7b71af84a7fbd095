"""Publishes catalogues to `product_pages`, and withdraws products."""

import io
import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from PIL import Image
from rich.progress import Progress

from topology.admin import require_topics
from topology.errors import BadInput, UserError
from topology.records import PageImage, ProductPage
from topology.settings import Settings
from topology.topic_log import Producer, end_offsets, read_partition
from topology.topics import PRODUCT_PAGES
from workers.catalog.files import Catalogue, read_all
from workers.catalog.progress import wait_indexed
from workers.catalog.tables import shown
from workers.images import is_url, load_image

# The longest side of an inline image. The page encoder looks at 224 to 512 px; larger ones only cost the broker.
INLINE_IMAGE_PX = 640
# A worker loads its model in some 10 s and encodes several pages a second; after a longer silence none may be running.
QUIET_S = 20.0


async def publish_pages(settings: Settings, pages: Iterable[ProductPage]) -> dict[int, int]:
    """Sends pages to `product_pages`.

    Returns:
        The end offset of each partition after the last page, to wait for with `wait_indexed`.

    Raises:
        BadInput: A page is larger than the topic takes.
    """
    async with Producer(settings) as producer:
        for page in pages:
            await producer.send(PRODUCT_PAGES, page.product_id, page)
    return await end_offsets(settings, PRODUCT_PAGES)


async def publish_catalog(
    settings: Settings,
    place: str,
    *,
    inline: bool,
    wait: bool,
    columns: Mapping[str, str] | None = None,
    prune: bool = False,
    quiet_s: float = QUIET_S,
) -> int:
    """Publishes a catalogue and waits until the catalog worker has encoded it. What is wrong is named and left out.

    Args:
        settings: Name the broker.
        place: A file or an http(s) URL.
        inline: Send the pictures of this machine along.
        wait: Wait for the catalog worker.
        columns: See `read_catalog`.
        prune: Withdraw the products that the catalogue does not have.
        quiet_s: Without progress for so long, the line says that no worker may be there.

    Returns:
        Exit status: 1 if a page could not be published or encoded.
    """
    catalogue = read_all(place, check_images=not inline, columns=columns)
    await require_topics(settings)
    sent = await _send(settings, catalogue, inline=inline)
    for problem in catalogue.problems:
        print(problem)
    pages = [page for page in catalogue.pages if page.product_id in sent]
    print(f"{len(pages)} products published{_pictures(pages, inline=inline)}")
    if prune and catalogue.nameless:
        print(f"nothing is withdrawn: {catalogue.nameless} rows do not say which products they are")
    elif prune:
        named = {page.product_id for page in catalogue.pages} | catalogue.broken_ids
        gone = sorted(await _published(settings) - named)
        await _withdraw(settings, gone)
        print(f"{len(gone)} products withdrawn that the catalogue does not have")
    errors = await _wait(settings, quiet_s) if wait else {}
    errors = {product_id: error for product_id, error in errors.items() if product_id in sent}
    if wait:
        for product_id, error in sorted(errors.items()):
            print(f"{product_id}: {error}")
        print(f"{len(sent) - len(errors)} products indexed, {len(errors) + len(catalogue.problems)} failed")
    return 1 if errors or catalogue.problems else 0


async def withdraw(settings: Settings, product_ids: Sequence[str]) -> None:
    """Withdraws products.

    Raises:
        UserError: One of them is not there; none is withdrawn.
    """
    await require_topics(settings)
    there = await _published(settings)
    unknown = [product_id for product_id in product_ids if product_id not in there]
    if unknown:
        raise UserError(f"{shown(unknown[0])}: no such product was published; nothing is withdrawn")
    await _withdraw(settings, product_ids)


async def _send(settings: Settings, catalogue: Catalogue, *, inline: bool) -> set[str]:
    """Sends page by page; returns the ids of those sent, and adds to the problems."""
    sent: set[str] = set()
    async with Producer(settings) as producer:
        for page in catalogue.pages:
            try:
                whole = _with_inline_images(page, catalogue.problems) if inline else page
                await producer.send(PRODUCT_PAGES, page.product_id, whole)
                sent.add(page.product_id)
            except BadInput as error:
                catalogue.problems.append(f"{shown(page.product_id)}: {error}; mend it and publish it again")
    return sent


def _with_inline_images(page: ProductPage, problems: list[str]) -> ProductPage:
    """Returns the page with the bytes of its local images inside, at most 640 px a side, as JPEG."""
    images = []
    for image in page.images:
        if image.data or is_url(image.uri):
            images.append(image)
            continue
        try:
            picture = Image.fromarray(load_image(image, longest=INLINE_IMAGE_PX))
        except BadInput as error:
            problems.append(f"{shown(page.product_id)}: {error}; the picture is left out")
            continue
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=92)
        images.append(PageImage(uri=image.uri, data=buffer.getvalue()))
    if not images:
        raise BadInput("none of its pictures can be used")
    return msgspec.structs.replace(page, images=tuple(images))


def _pictures(pages: Sequence[ProductPage], *, inline: bool) -> str:
    """Describes how the catalog worker gets the pictures."""
    far = sum(is_url(image.uri) for page in pages for image in page.images)
    local = sum(len(page.images) for page in pages) - far
    parts = []
    if local and inline:
        parts.append(f"{local} pictures are sent along")
    elif local:
        parts.append(f"{local} pictures are read by the catalog worker, from paths below its COPE_ALLOWED_FOLDERS")
    if far:
        parts.append(f"{far} pictures are fetched by the catalog worker")
    return "".join(f"; {part}" for part in parts)


async def _published(settings: Settings) -> set[str]:
    there: set[str] = set()
    for partition in await end_offsets(settings, PRODUCT_PAGES):
        async for record in read_partition(settings, PRODUCT_PAGES, partition, ProductPage):
            if record.value is None:
                there.discard(record.key)
            else:
                there.add(record.key)
    return there


async def _withdraw(settings: Settings, product_ids: Sequence[str]) -> None:
    async with Producer(settings) as producer:
        for product_id in product_ids:
            await producer.send(PRODUCT_PAGES, product_id, None)


async def _wait(settings: Settings, quiet_s: float) -> dict[str, str]:
    """Waits for the catalog worker; returns the pages that it could not encode, with the reason."""
    offsets = await end_offsets(settings, PRODUCT_PAGES)
    errors: dict[str, str] = {}
    moved_s, encoded, told = time.monotonic(), -1, False
    with Progress() as bar:
        task = bar.add_task("encoded by the catalog worker", total=sum(offsets.values()))
        async for progress in wait_indexed(settings, offsets):
            bar.update(task, completed=progress.encoded)
            errors = progress.errors
            if progress.encoded != encoded:
                moved_s, encoded = time.monotonic(), progress.encoded
            elif not told and time.monotonic() - moved_s > quiet_s:
                told = True
                bar.console.print(
                    f"nothing encoded for {quiet_s:.0f} s: does a catalog worker run (cope-live worker catalog)? "
                    "All is published; Ctrl-C ends the waiting alone"
                )
    return errors
