"""Writes rendered products as files: a ROPE folder as released, or a manifest, with real JPEG pictures.

Where to try a preset before the real data are there, and what tests and measurements read.
"""

import json
import multiprocessing
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Literal

import click
import cv2

from cope.data.files import Folder
from cope.data.items import Item, RelativeBox
from cope.data.listing import local_folder
from cope.data.rendered import CLIP_FRAMES, RenderedSource
from cope.data.rope import CATEGORIES, IMAGES, PAIRS, TEXTS
from cope.domains import DOMAINS, Domain, Split
from cope.errors import UserError
from cope.runtime.command import AT_LEAST_0, AT_LEAST_1, Command, run
from cope.runtime.processes import pool, processors

Format = Literal["rope", "manifest"]

# A shop's and a stream's usual quality.
_JPEG_QUALITY = 85
_PROGRESS_EVERY_S = 5.0
_MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class _Written:
    """An item whose pictures are on disk; paths are relative to the folder."""

    product: str
    category: str
    item: Item
    images: tuple[str, ...]
    boxes: tuple[RelativeBox | None, ...]


def write(
    source: RenderedSource,
    folder: Path,
    how: Format,
    products: int,
    items: Mapping[Domain, int],
    frames: int = 4,
    processes: int = 0,
) -> None:
    """Renders products into a folder. The pictures come first, so after a kill the folder is not yet a data set.

    Args:
        source: Source of the products, of which the first ones are written.
        folder: New or empty.
        how: In which format.
        products: How many.
        items: Items of each product, by domain.
        frames: Frames of a clip.
        processes: Processes that render; 0: one per processor.

    Raises:
        UserError: The folder holds something, the disk is full, or there are fewer products or items.
    """
    if products > len(source):
        raise UserError(f"{source.name}: only {len(source)} products; lower --products or collect more objects")
    for domain, count in items.items():
        if count > (there := len(source.items(0, domain))):
            raise UserError(f"{source.name}: {there} items a product and domain at most, not {count}; ask for fewer")
    if frames > CLIP_FRAMES:
        raise UserError(f"a rendered clip has {CLIP_FRAMES} frames; lower --frames")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder}: not empty; name a new folder")
        numbers = [number * len(source) // products for number in range(products)]
        work = _Work(source, folder, items, frames)
        with ExitStack() as files:
            rows = _Rope(folder, files) if how == "rope" else _Manifest(folder, files)
            began = shown = time.monotonic()
            for done, written in enumerate(_rendered(work, numbers, processes), 1):
                for one in written:
                    rows.add(one)
                now = time.monotonic()
                if done == products or now - shown >= _PROGRESS_EVERY_S:
                    shown = now
                    line = f"render  {done:,} of {products:,} products, {now - began:.0f} s"
                    print(line, file=sys.stderr, flush=True)
        rows.keep()
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}); free space or name another"
        ) from None


class _Rope:
    """The nine files, and the categories beside them."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self._folder = folder
        names = [*PAIRS.values(), *TEXTS.values(), *IMAGES.values(), CATEGORIES]
        self._files: dict[str, IO[str]] = {
            name: files.enter_context((folder / f"{name}.part").open("w", encoding="utf-8")) for name in names
        }
        self._seen = ""

    def add(self, one: _Written) -> None:
        domain = one.item.domain
        self._files[PAIRS[domain]].write(f"{one.product},{one.item.id}\n")
        self._files[TEXTS[domain]].write(f"{one.item.id},{one.item.text}\n")
        for at, image in enumerate(one.images):
            # Numbers of frames, and times in ms, as the release has them.
            middle = {"page": "", "video": f"{at},", "live": f"{at * 1000},"}[domain]
            self._files[IMAGES[domain]].write(f"{one.item.id},{middle}{image}\n")
        if one.product != self._seen:
            self._seen = one.product
            self._files[CATEGORIES].write(f"{one.product},{one.category}\n")

    def keep(self) -> None:
        for name in self._files:
            (self._folder / f"{name}.part").replace(self._folder / name)


class _Manifest:
    def __init__(self, folder: Path, files: ExitStack) -> None:
        self._folder = folder
        self._file = files.enter_context((folder / f"{_MANIFEST}.part").open("w", encoding="utf-8"))

    def add(self, one: _Written) -> None:
        row: dict[str, object] = {
            "product_id": one.product,
            "domain": one.item.domain,
            "id": one.item.id,
            "images": one.images,
            "text": one.item.text,
            "category": one.category,
            "room": one.item.room,
        }
        if any(one.boxes):
            row["boxes"] = one.boxes
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def keep(self) -> None:
        (self._folder / f"{_MANIFEST}.part").replace(self._folder / _MANIFEST)


@dataclass(frozen=True)
class _Work:
    source: RenderedSource
    folder: Path
    items: Mapping[Domain, int]
    frames: int

    def render(self, number: int) -> list[_Written]:
        """Writes the pictures of a product."""
        out = []
        for domain in DOMAINS:
            for item in self.source.items(number, domain)[: self.items[domain]]:
                step = max(1, len(item.images) // self.frames)
                item = replace(item, images=item.images[::step][: self.frames])
                images, boxes = [], []
                for at, picture in enumerate(self.source.read(item)):
                    if picture.pixels is None:
                        continue
                    image = f"images/{domain}/{number}/{item.id.rpartition('/')[2]}-{at}.jpg"
                    file = self.folder / image
                    file.parent.mkdir(parents=True, exist_ok=True)
                    bgr = cv2.cvtColor(picture.pixels, cv2.COLOR_RGB2BGR)
                    file.write_bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes())
                    images.append(image)
                    boxes.append(picture.box)
                product, category = self.source.product_id(number), self.source.category(number)
                out.append(_Written(product, category, item, tuple(images), tuple(boxes)))
        return out


_work: _Work | None = None


def _start(work: _Work) -> None:
    global _work
    _work = work
    cv2.setNumThreads(0)  # the processes share the processors


def _render(number: int) -> list[_Written]:
    assert _work is not None  # noqa: S101 - set by `_start`, which runs first in each process
    return _work.render(number)


def _rendered(work: _Work, numbers: list[int], processes: int) -> Iterator[list[_Written]]:
    processes = processes or processors()
    if processes == 1:
        yield from map(work.render, numbers)
        return
    # Forked, so that the photographs are in memory once.
    with pool(processes, multiprocessing.get_context("fork"), partial(_start, work)) as rendering:
        for future in [rendering.submit(_render, number) for number in numbers]:
            yield future.result()


@click.command(cls=Command, stopped="stopped; remove what was written, and start again")
@click.argument("objects")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--format", "kind", type=click.Choice(("rope", "manifest")), default="rope", show_default=True)
@click.option("--products", type=AT_LEAST_1, default=1000, show_default=True, help="Products to write.")
@click.option(
    "--split",
    type=click.Choice(("train", "val", "test")),
    default="train",
    show_default=True,
    help="Side of the split of the objects.",
)
@click.option("--pages", type=AT_LEAST_1, default=2, show_default=True, help="Pages of a product.")
@click.option("--clips", type=AT_LEAST_1, default=2, show_default=True, help="Videos, and live clips, of a product.")
@click.option("--frames", type=AT_LEAST_1, default=4, show_default=True, help="Frames of a clip.")
@click.option("--seed", type=AT_LEAST_0, default=0, show_default=True, help="Seed of all draws.")
def writing_command(
    objects: str,
    out: Path,
    kind: Literal["rope", "manifest"],
    products: int,
    split: Split,
    pages: int,
    clips: int,
    frames: int,
    seed: int,
) -> None:
    """Writes rendered products as a data set of files.

    OBJECTS is a folder of objects, as cope.data.collect makes it.
    """
    source = RenderedSource(local_folder(Folder(objects)), split, seed)
    each: dict[Domain, int] = {"page": pages, "video": clips, "live": clips}
    write(source, out, kind, products, each, frames)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return run(writing_command, "cope.data.writing", arguments)


if __name__ == "__main__":
    sys.exit(main())
