"""Announces, ends and lists streams."""

import time

import msgspec

from topology.admin import require_topics
from topology.checks import check
from topology.errors import BadInput, UserError
from topology.records import StreamAnnounced, StreamStatus, decode, encode
from topology.redact import redacted
from topology.settings import Settings
from topology.topic_log import Producer, end_offsets, read_partition
from topology.topics import LIVE_STREAMS, STREAM_STATUS


async def announce(
    settings: Settings,
    stream_id: str,
    url: str,
    *,
    language: str | None = None,
    product_ids: tuple[str, ...] | None = None,
    realtime: bool = False,
) -> None:
    """Announces a live stream on `live_streams`.

    Raises:
        UserError: Capture would not take it.
    """
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
            "url": redacted(announcement.url),
            "announced": announcement.state,
            "capture": status.state if status else "waiting",
            "epoch": status.epoch if status else 0,
            "reconnects": status.reconnects if status else 0,
            "age_s": round(time.time() - status.at_ms / 1000) if status and status.at_ms else -1,
            "detail": redacted(status.detail) if status else "",
        }
        if as_json:
            lines.append(msgspec.json.encode(row).decode())
        else:
            columns = f"{stream_id:<20} {row['capture']:<10} epoch {row['epoch']:<3} {row['url']}  {row['detail']}"
            lines.append(columns.rstrip())
    return lines


async def _send_announcement(settings: Settings, announcement: StreamAnnounced) -> None:
    try:
        check(decode(encode(announcement), StreamAnnounced))
    except BadInput as error:
        raise UserError(str(error)) from error
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
            if record.value is None:
                announced.pop(record.key, None)
            elif record.value.stream_id == record.key:  # others capture refuses
                announced[record.key] = record.value
        async for status in read_partition(settings, STREAM_STATUS, partition, StreamStatus):
            if status.value is not None:
                statuses[status.value.stream_id] = status.value
    return announced, statuses
