"""`cope-live timeline`: the chapters of a recording, one for each sighting, with pictures."""

import asyncio
import base64
import html
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from topology.admin import require_topics
from topology.codec import decode_value
from topology.errors import BadInput, UserError
from topology.evidence import EvidenceStore, Kept, evidence_url
from topology.records import PageVectors, ProductDetected, Verdict
from topology.settings import Settings, load_settings
from topology.topic_log import end_offsets, partition_of, read_partition
from topology.topics import PAGE_VECTORS, PRODUCT_DETECTED
from workers.cli.main import tool_settings
from workers.cli.verdicts import read_verdicts
from workers.cli.watch.view import counted


@dataclass(frozen=True)
class Chapter:
    """One showing of a product.

    Attributes:
        start_ms: Media time of the epoch.
        picture: A JPEG of the product in the stream, as a data URI; empty if none is kept.
    """

    start_ms: int
    end_ms: int
    product_id: str
    title: str
    confidence: float
    detection_id: str
    picture: str = ""


@click.command("timeline")
@click.argument("room", metavar="ROOM")
@click.option("--format", "kind", type=click.Choice(("vtt", "json", "html")), default="vtt", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write instead of printing.")
@click.option(
    "--events",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Events as `watch --events` writes them; no broker is asked then.",
)
@click.option("--epoch", type=click.IntRange(0), help="Connection to the stream, whose media time counts. [the newest]")
@click.option("--video", default="", help="Address of the recording, to which the HTML page leads.")
def timeline_command(
    room: str, kind: str, out: Path | None, events: Path | None, epoch: int | None, video: str
) -> None:
    """Write the chapters of the recording of a room, one for each product that was shown.

    vtt is a file of chapters as players take it (WebVTT); json and html have pictures, where evidence is kept. What a
    person has called wrong is left out, and what they have named instead is told.
    """
    settings = load_settings() if events else tool_settings()
    found, titles, verdicts = (_of_file(events), {}, {}) if events else asyncio.run(_of_topics(settings, room))
    mine = [event for event in found if event.stream_id == room]
    if not mine:
        raise UserError(f"{room}: no events of this stream are kept; `cope-live events` prints those that are")
    chosen = max(event.epoch for event in mine) if epoch is None else epoch
    store = EvidenceStore(evidence_url(settings))
    chapters = chapters_of([event for event in mine if event.epoch == chosen], titles, verdicts, store)
    text = {"vtt": _vtt, "json": _json, "html": _html}[kind](room, chosen, chapters, video)
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}: name another file") from None
    click.echo(f"{counted(len(chapters), 'chapter')} in {out}")


def chapters_of(
    events: Iterable[ProductDetected], titles: dict[str, str], verdicts: dict[str, Verdict], store: EvidenceStore
) -> list[Chapter]:
    """Returns one chapter for each sighting, by start.

    Args:
        events: Events of one epoch of one stream.
        titles: Titles by product.
        verdicts: Verdicts by detection.
        store: Kept evidence: pictures, and titles of products that are gone.
    """
    newest: dict[str, ProductDetected] = {}
    for event in events:
        if event.detection_id not in newest or newest[event.detection_id].emitted_media_ms <= event.emitted_media_ms:
            newest[event.detection_id] = event
    chapters = []
    for event in newest.values():
        verdict = verdicts.get(event.detection_id)
        if verdict is not None and verdict.verdict in ("wrong", "not_in_catalogue"):
            continue
        product_id = (verdict.product_id if verdict is not None else "") or event.product_id
        kept = store.get(event.detection_id)
        title = titles.get(product_id, "") or (kept.title if kept and kept.product_id == product_id else "")
        chapters.append(
            Chapter(
                event.media_start_ms,
                max(event.media_end_ms, event.media_start_ms + 1),
                product_id,
                title or product_id,
                event.confidence,
                event.detection_id,
                _picture(kept),
            )
        )
    return sorted(chapters, key=lambda one: (one.start_ms, one.detection_id))


def _of_file(path: Path) -> list[ProductDetected]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [decode_value(line.encode(), ProductDetected) for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError, BadInput) as error:
        raise UserError(f"{path}: not events as `watch --events` writes them: {str(error)[:200]}") from None


async def _of_topics(settings: Settings, room: str) -> tuple[list[ProductDetected], dict[str, str], dict[str, Verdict]]:
    await require_topics(settings)
    partition = partition_of(room, len(await end_offsets(settings, PRODUCT_DETECTED)))
    records = read_partition(settings, PRODUCT_DETECTED, partition, ProductDetected)
    events = [record.value async for record in records if record.value is not None]
    titles: dict[str, str] = {}
    for number in await end_offsets(settings, PAGE_VECTORS):
        async for page in read_partition(settings, PAGE_VECTORS, number, PageVectors):
            titles[page.key] = page.value.title if page.value is not None else ""
    return events, titles, {one.detection_id: one for one in await read_verdicts(settings)}


def _picture(kept: Kept | None) -> str:
    best = max(kept.frames, key=lambda frame: frame.score, default=None) if kept is not None else None
    data = b"" if best is None else best.crop or best.jpeg
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" if data else ""


def _vtt(room: str, _epoch: int, chapters: list[Chapter], _video: str) -> str:
    cues = []
    for one in chapters:
        title = html.escape(_line(one.title), quote=False)
        cues.append(f"{one.detection_id}\n{_time(one.start_ms)} --> {_time(one.end_ms)}\n{title}\n")
    return "\n".join([f"WEBVTT - {_line(room).replace('-->', '')}\n", *cues])


def _json(room: str, epoch: int, chapters: list[Chapter], _video: str) -> str:
    told = [asdict(one) | {"picture": one.picture or None} for one in chapters]
    return json.dumps({"stream_id": room, "epoch": epoch, "chapters": told}, ensure_ascii=False, indent=1) + "\n"


def _html(room: str, _epoch: int, chapters: list[Chapter], video: str) -> str:
    rows = []
    for one in chapters:
        picture = f'<img src="{one.picture}" alt="">' if one.picture else ""
        name = f"{_time(one.start_ms)[:8]} {html.escape(one.title)}"
        if video:
            name = f'<a href="{html.escape(video)}#t={one.start_ms / 1000:g}">{name}</a>'
        rows.append(
            f"<li>{picture}<div>{name}<br><small>{html.escape(one.product_id)}, "
            f"{(one.end_ms - one.start_ms) / 1000:.0f} s, confidence {one.confidence:.2f}</small></div></li>"
        )
    return _PAGE.format(title=html.escape(room), rows="\n".join(rows))


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 1rem auto; padding: 0 1rem }}
ol {{ list-style: none; padding: 0 }}
li {{ display: flex; gap: 1rem; align-items: center; padding: .5rem 0 }}
img {{ width: 6rem; height: 6rem; object-fit: contain }}
</style>
<h1>{title}</h1>
<ol>
{rows}
</ol>
</html>
"""


def _line(text: str) -> str:
    return " ".join(text.split())


def _time(ms: int) -> str:
    seconds, ms = divmod(max(ms, 0), 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{ms:03}"
