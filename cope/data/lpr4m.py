"""LPR4M (Yang et al., ICCV 2023): live clips of rooms, each paired with a shop image. Tab-separated rows.

| column | what |
|---|---|
| 1 video_id | the live clip |
| 2 frames | paths or URLs of its frames in time order, parted by `;` |
| 3 boxes | one per frame, parted by `;`: the product's `x0,y0,x1,y1` as shares of width and height; empty if unknown |
| 4 image_id | the shop image, which is the product: a path or URL, or an id `i` for the file `images/i.jpg` |
| 5 title | of the product |
| 6, 7 category | id and name |
| 8 ASR | what was said |
| 9, 10, 11 | difficulty: scale, duration and clutter; read past |
| 12 room | optional: the room whose shopping bag is the gallery. The release's search is within it |

The columns are the release's; how it writes frames and boxes inside a column, and where it names the room, was not
at hand, so columns 2, 3, 4 and 12 are this reader's own syntax: convert to it. A first row with `video_id` is a
heading. All files `*.tsv` in the folder are read; those named `train*`, `val*` and `test*` decide the split of their
products, so that results on the release's test part compare with published ones, and of others a hash does.

A product's page is its shop image with its title. One image in the bags of several rooms is one product, and its
page carries the first room.
"""

from collections.abc import Iterator

from cope.data.files import Folder
from cope.data.indexing import About, Fact, Image, Owner, Text
from cope.data.items import Counts, RelativeBox
from cope.data.store import StoredSource, open_store
from cope.domains import Split
from cope.errors import UserError
from cope.vision.decoding import SUFFIXES

COLUMNS = 11

FEW_COLUMNS = "rows with too few columns"
BAD_BOXES = "rows with boxes that are not x0,y0,x1,y1 in [0, 1] for each frame"

_SPLITS: tuple[Split, ...] = ("train", "val", "test")


def is_here(folder: Folder) -> bool:
    """Whether the folder holds tab-separated files, or is one."""
    return bool(_files(folder))


def open_folder(folder: Folder, split: Split) -> StoredSource:
    """Opens LPR4M.

    Raises:
        UserError: The files hold something else, or a domain is empty.
    """
    files = _files(folder)
    for name in files:
        first = next(folder.lines(name, Counts()), "")
        if first and first.count("\t") + 1 < COLUMNS:
            raise UserError(
                f"{folder.url}: {name} has {first.count(chr(9)) + 1} tab-separated columns, LPR4M has {COLUMNS} "
                "(video_id, frames, boxes, image_id, title, category id and name, ASR, three tags); convert it, or "
                "write a manifest.jsonl"
            )
    return open_store(folder, split, "LPR4M", files, lambda counts: facts(folder, counts), ("page", "live"))


def facts(folder: Folder, counts: Counts) -> Iterator[Fact]:
    """Yields what the files say, row by row."""
    number = 0
    for name in _files(folder):
        split = next((side for side in _SPLITS if name.startswith(side)), None)
        for line in folder.lines(name, counts):
            row = [column.strip() for column in line.split("\t")]
            if row[0] == "video_id":
                continue
            if len(row) < COLUMNS or not (row[0] and row[3]):
                counts.add(FEW_COLUMNS)
                continue
            number += 1
            yield from _clip(number, row, split, counts)


def _clip(at_row: int, row: list[str], split: Split | None, counts: Counts) -> Iterator[Fact]:
    clip, frames, boxes, image, title, number, category, speech = row[:8]
    room = row[11] if len(row) > 11 else ""
    places = [place.strip() for place in frames.split(";") if place.strip()]
    found = _boxes(boxes, len(places))
    if found is None:
        counts.add(BAD_BOXES)
        found = [None] * len(places)
    yield Owner("live", clip, image, room, at_row)
    yield Text("live", clip, speech, at_row)
    for at, (place, box) in enumerate(zip(places, found, strict=True)):
        yield Image("live", clip, at, place, box, at_row)
    # Every clip of a product repeats its page.
    yield Owner("page", image, image, room, -at_row)
    yield Text("page", image, title, -at_row)
    is_place = "/" in image or image.lower().endswith(tuple(SUFFIXES))
    yield Image("page", image, 0, image if is_place else f"images/{image}.jpg", row=-at_row)
    yield About(image, category or number, split)


def _files(folder: Folder) -> list[str]:
    return [name for name in folder.names if name.endswith(".tsv")]


def _boxes(column: str, count: int) -> list[RelativeBox | None] | None:
    """The boxes; None if they are not what they should be."""
    if not column:
        return [None] * count
    parts = [part.strip() for part in column.split(";")]
    if len(parts) != count:
        return None
    boxes: list[RelativeBox | None] = []
    for part in parts:
        if not part:
            boxes.append(None)
            continue
        try:
            x0, y0, x1, y1 = (float(value) for value in part.split(","))
        except ValueError:
            return None
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            return None
        boxes.append((x0, y0, x1, y1))
    return boxes
