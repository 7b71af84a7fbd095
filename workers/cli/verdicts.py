"""`cope-live verdicts export`: people's verdicts on detections as training data, and as truth for `score`."""

import asyncio
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from cope.data.manifest import ANYTHING_BUT
from cope.keywords.terms import is_title
from topology.admin import require_topics
from topology.errors import UserError
from topology.evidence import EvidenceStore, Kept, evidence_url
from topology.records import PageVectors, ProductPage, Verdict
from topology.settings import Settings
from topology.topic_log import RecordReader, end_offsets, read_partition
from topology.topics import DETECTION_VERDICTS, PAGE_VECTORS
from workers.cli.main import tool_settings
from workers.cli.truth import Showing, StreamTruth, Unlisted, write_truth
from workers.pages import Pages

# The largest size at which the page encoder sees pictures.
_LONGEST_SIDE_PX = 640
_LAST_MS = 2**53 - 1  # as far as truth reads
_PICTURES = 4  # pictures of a page that are exported: training uses as many


@dataclass
class Export:
    """What was written, and what could not be written.

    Attributes:
        clips: Verdicts of which frames are kept.
        unlisted: Clips among them of things that are in no catalogue.
        refused: Clips among them of anything but what was detected.
        pages: Products with a page.
        without_frames: Verdicts of which no frame is kept (any more).
        showings: Lines of truth.
        without_pictures: Products of which no picture can be read here.
    """

    clips: int = 0
    unlisted: int = 0
    refused: int = 0
    pages: int = 0
    without_frames: int = 0
    showings: int = 0
    without_pictures: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        """A summary for people."""
        lines = [
            f"{self.clips} clips ({self.unlisted} of things in no catalogue, {self.refused} of anything but what was "
            f"detected) and {self.pages} pages in manifest.jsonl, {self.showings} showings in truth.jsonl"
        ]
        if self.without_frames:
            lines.append(f"{self.without_frames} verdicts are left out of the manifest: no frames are kept of them")
        if self.without_pictures:
            lines.append(
                f"{self.without_pictures} pages are left out: none of their pictures can be read here "
                "(COPE_ALLOWED_FOLDERS and COPE_ALLOWED_NETWORKS list what pages may name)"
            )
        return "\n".join(lines)


@click.group("verdicts")
def verdicts_command() -> None:
    """Make data to learn from of what people said of detections."""


@verdicts_command.command("export", short_help="Write a manifest and truth.")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--split",
    type=click.Choice(("val", "train", "test")),
    default="val",
    show_default=True,
    help="Side of the split: calibration reads val, training train.",
)
@click.option(
    "--products",
    type=click.IntRange(0),
    default=600,
    show_default=True,
    help="Pages of at most so many products of the catalogue beside those that verdicts name.",
)
def export_command(out: Path, split: str, products: int) -> int:
    """Write what `train` and `calibrate` read (manifest.jsonl) and what `score` reads (truth.jsonl) to the folder OUT.

    A clip is made of each verdict of which frames are kept: of the product that was detected ("right"), of another
    one ("other"), of something that is in no catalogue, or of anything but the product that was detected ("wrong").
    Status 1 if there was none.
    """
    export = asyncio.run(_export(tool_settings(), out, split, products))
    click.echo(str(export))
    return 0 if export.clips else 1


async def _export(settings: Settings, out: Path, split: str, most_products: int) -> Export:
    try:
        (out / "images").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}: name another folder") from None
    await require_topics(settings)
    verdicts = await read_verdicts(settings)
    reader = RecordReader(settings)
    export = Export()
    try:
        pages = Pages(settings, reader, longest=_LONGEST_SIDE_PX)
        categories = await _read_pages(settings, pages)
        store = EvidenceStore(evidence_url(settings))
        for verdict in verdicts:
            kept = await asyncio.to_thread(store.get, verdict.detection_id)
            if kept is None or not kept.frames:
                export.without_frames += 1
                continue
            export.rows.append(_clip(out, verdict, kept, split, categories))
            export.clips += 1
            export.unlisted += verdict.verdict == "not_in_catalogue"
            export.refused += verdict.verdict == "wrong"
        named = [one for verdict in verdicts for one in (verdict.product_id, verdict.detected) if one]
        others = [one.product_id for one in pages.search("", "", most_products)]
        for product_id in dict.fromkeys([*named, *others]):
            row = await _page(out, pages, product_id, split, categories)
            if row is not None:
                export.rows.append(row)
                export.pages += 1
            elif pages.get(product_id) is not None:
                export.without_pictures += 1
    finally:
        await reader.stop()
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in export.rows)
    (out / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")
    truths = truth_of(verdicts)
    write_truth(out / "truth.jsonl", truths)
    export.showings = sum(len(truth.showings) + len(truth.unlisted) for truth in truths)
    return export


async def read_verdicts(settings: Settings) -> list[Verdict]:
    """Reads the newest verdict on each detection, by id."""
    found: dict[str, Verdict] = {}
    for partition in await end_offsets(settings, DETECTION_VERDICTS):
        async for record in read_partition(settings, DETECTION_VERDICTS, partition, Verdict):
            found.pop(record.key, None)
            if record.value is not None:
                found[record.key] = record.value
    return [found[key] for key in sorted(found)]


def truth_of(verdicts: Iterable[Verdict]) -> list[StreamTruth]:
    """Returns what verdicts say that streams show, each showing as long as its sighting was.

    Streams that began anew (a later epoch) are left out: `score` knows one media time of a stream.
    """
    showings: dict[str, list[Showing]] = {}
    unlisted: dict[str, list[Unlisted]] = {}
    for one in verdicts:
        start_ms = min(max(0, one.media_start_ms), _LAST_MS - 1)
        end_ms = min(max(one.media_end_ms, start_ms + 1), _LAST_MS)
        if one.verdict == "wrong" or one.epoch or not one.stream_id:
            continue
        if one.verdict == "not_in_catalogue":
            unlisted.setdefault(one.stream_id, []).append(Unlisted(start_ms, end_ms))
        else:
            product_id = one.product_id or one.detected
            showings.setdefault(one.stream_id, []).append(Showing(product_id, start_ms, end_ms))
    return [
        StreamTruth(
            stream_id,
            max(one.end_ms for one in (*showings.get(stream_id, ()), *unlisted.get(stream_id, ()))),
            tuple(sorted(showings.get(stream_id, ()), key=lambda one: one.start_ms)),
            tuple(sorted(unlisted.get(stream_id, ()), key=lambda one: one.start_ms)),
        )
        for stream_id in sorted({*showings, *unlisted})
    ]


async def _read_pages(settings: Settings, pages: Pages) -> dict[str, str]:
    """Reads the catalogue; returns the category of each product."""
    categories: dict[str, str] = {}
    for partition in await end_offsets(settings, PAGE_VECTORS):
        async for record in read_partition(settings, PAGE_VECTORS, partition, PageVectors):
            pages.take(record)
            categories[record.key] = record.value.category if record.value is not None else ""
    return categories


def _clip(out: Path, verdict: Verdict, kept: Kept, split: str, categories: dict[str, str]) -> dict[str, Any]:
    images = []
    clip = hashlib.sha256(verdict.detection_id.encode()).hexdigest()[:16]  # an id may be no file's name
    for frame in kept.frames:
        name = f"images/{clip}-{frame.pts_ms}.jpg"
        (out / name).write_bytes(frame.jpeg)
        images.append(name)
    product_id = verdict.product_id or verdict.detected
    if verdict.verdict == "not_in_catalogue":
        product_id = f"unlisted {verdict.detection_id}"  # an id without a page
    elif verdict.verdict == "wrong":
        product_id = ANYTHING_BUT + verdict.detected
    return {
        "product_id": product_id,
        "domain": "live",
        "id": verdict.detection_id,
        "images": images,
        "boxes": [frame.box if _is_box(frame.box) else None for frame in kept.frames],
        "text": " ".join(dict.fromkeys(word for event in kept.events for word in event.evidence.keywords)),
        "room": kept.stream_id,
        "category": categories.get(verdict.product_id or verdict.detected, ""),
        "split": split,
    }


async def _page(
    out: Path, pages: Pages, product_id: str, split: str, categories: dict[str, str]
) -> dict[str, Any] | None:
    listed = pages.get(product_id)
    if listed is None or listed.error:
        return None
    page = await pages.page(product_id)
    images = []
    for number in range(min(len(listed.images), _PICTURES)):
        picture = await pages.picture(product_id, number)
        if picture is not None:
            name = f"images/page-{listed.partition}-{listed.offset}-{number}.jpg"
            (out / name).write_bytes(picture)
            images.append(name)
    if page is None or not images:
        return None
    return {
        "product_id": product_id,
        "domain": "page",
        "id": product_id,
        "images": images,
        "text": _text(page),
        "category": categories.get(product_id, ""),
        "split": split,
    }


def _text(page: ProductPage) -> str:
    """Returns a page's text as recognition reads it. A manifest has one title, which joins those of all languages."""
    from workers.catalog.encoding import Pictures, page_input, without_markup  # which bring PyTorch along

    page = without_markup(page)
    titles = [page.title, *(value for name, value in sorted(page.attributes.items()) if is_title(name))]
    rest = page_input(page, Pictures()).text
    return "\n".join(" ".join(text.split()) for text in (" / ".join(filter(None, titles)), rest) if text)


def _is_box(box: Sequence[float] | None) -> bool:
    return box is not None and 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1
