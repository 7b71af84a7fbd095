"""What the command line writes to the topics: catalogues and announcements; and how it lists streams."""

import io
import time
from pathlib import Path

import msgspec
from PIL import Image
from rich.progress import Progress

from topology.admin import require_topics
from topology.errors import UserError
from topology.records import PageImage, ProductPage, StreamAnnounced, StreamStatus
from topology.settings import Settings
from topology.topic_log import Producer, end_offsets, read_partition
from topology.topics import LIVE_STREAMS, PRODUCT_PAGES, STREAM_STATUS
from workers.catalog.files import load_image, read_catalog
from workers.catalog.progress import wait_indexed

# The longest side of an inline image. The page encoder looks at 224 to 512 px; larger ones only cost the broker.
INLINE_IMAGE_PX = 640


async def publish_pages(settings: Settings, pages: list[ProductPage]) -> dict[int, int]:
    """Sends pages to `product_pages`.

    Returns:
        The end offset of each partition after the last page, to wait for with `wait_indexed`.
    """
    producer = Producer(settings)
    try:
        for page in pages:
            await producer.send(PRODUCT_PAGES, page.product_id, page)
    finally:
        await producer.stop()
    return await end_offsets(settings, PRODUCT_PAGES)


async def publish_catalog(settings: Settings, path: Path, *, inline: bool, wait: bool) -> int:
    """Publishes a catalogue file and waits until the catalog worker has encoded it.

    Returns:
        Exit status: 1 if a page could not be encoded.
    """
    pages = read_catalog(path, check_images=True)
    if inline:
        pages = [with_inline_images(page) for page in pages]
    await require_topics(settings)
    offsets = await publish_pages(settings, pages)
    print(f"{path}: {len(pages)} products published")
    if not wait:
        return 0
    errors: dict[str, str] = {}
    with Progress() as bar:
        task = bar.add_task("encoded by the catalog worker", total=sum(offsets.values()))
        async for progress in wait_indexed(settings, offsets):
            bar.update(task, completed=progress.encoded)
            errors |= progress.errors
    for product_id, error in sorted(errors.items()):
        print(f"{product_id}: {error}")
    print(f"{len(pages) - len(errors)} products indexed, {len(errors)} failed")
    return 1 if errors else 0


def with_inline_images(page: ProductPage) -> ProductPage:
    """Returns the page with the bytes of its local images inside, at most 640 px a side, as JPEG."""
    images = []
    for image in page.images:
        if image.data or image.uri.startswith(("http://", "https://")):
            images.append(image)
            continue
        picture = Image.fromarray(load_image(image))
        picture.thumbnail((INLINE_IMAGE_PX, INLINE_IMAGE_PX))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=92)
        images.append(PageImage(uri=image.uri, data=buffer.getvalue()))
    return msgspec.structs.replace(page, images=tuple(images))


async def announce(
    settings: Settings,
    stream_id: str,
    url: str,
    *,
    language: str | None = None,
    product_ids: tuple[str, ...] | None = None,
    realtime: bool = False,
) -> None:
    """Announces a live stream on `live_streams`."""
    announcement = StreamAnnounced(
        stream_id=stream_id, url=url, language=language, product_ids=product_ids, realtime=realtime
    )
    await _send_announcement(settings, announcement)


async def announce_end(settings: Settings, stream_id: str) -> None:
    """Announces the end of a stream.

    Raises:
        UserError: No such stream was ever announced.
    """
    known, _ = await _announced(settings)
    if stream_id not in known:
        raise UserError(f"{stream_id}: no such stream; `cope-live streams list` shows those announced")
    await _send_announcement(settings, StreamAnnounced(stream_id=stream_id, url=known[stream_id].url, state="ended"))


async def list_streams(settings: Settings, *, as_json: bool) -> list[str]:
    """Returns one line per announced stream."""
    announced, statuses = await _announced(settings)
    lines = []
    for stream_id, announcement in sorted(announced.items()):
        status = statuses.get(stream_id)
        row: dict[str, str | int] = {
            "stream_id": stream_id,
            "url": announcement.url,
            "announced": announcement.state,
            "capture": status.state if status else "waiting",
            "epoch": status.epoch if status else 0,
            "reconnects": status.reconnects if status else 0,
            "age_s": round(time.time() - status.at_ms / 1000) if status and status.at_ms else -1,
            "detail": status.detail if status else "",
        }
        if as_json:
            lines.append(msgspec.json.encode(row).decode())
        else:
            columns = (
                f"{stream_id:<20} {row['capture']:<10} epoch {row['epoch']:<3} {announcement.url}  {row['detail']}"
            )
            lines.append(columns.rstrip())
    return lines


async def _send_announcement(settings: Settings, announcement: StreamAnnounced) -> None:
    await require_topics(settings)
    producer = Producer(settings)
    try:
        await producer.send(LIVE_STREAMS, announcement.stream_id, announcement)
    finally:
        await producer.stop()


async def _announced(settings: Settings) -> tuple[dict[str, StreamAnnounced], dict[str, StreamStatus]]:
    announced: dict[str, StreamAnnounced] = {}
    statuses: dict[str, StreamStatus] = {}
    await require_topics(settings)
    for partition in await end_offsets(settings, LIVE_STREAMS):
        async for record in read_partition(settings, LIVE_STREAMS, partition, StreamAnnounced):
            if record.value is not None:
                announced[record.value.stream_id] = record.value
        async for status in read_partition(settings, STREAM_STATUS, partition, StreamStatus):
            if status.value is not None:
                statuses[status.value.stream_id] = status.value
    return announced, statuses
