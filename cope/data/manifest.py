"""Anyone's own data: a manifest of JSON lines, one item each.

    {"product_id": "p-42", "domain": "page", "id": "p-42/1", "images": ["images/p-42.jpg"], "text": "Red mug"}
    {"product_id": "p-42", "domain": "live", "id": "room-7/90", "images": ["f/1.jpg", "f/2.jpg"], "room": "room-7",
     "text": "and this mug here", "boxes": [[0.3, 0.2, 0.6, 0.8], null], "category": "kitchen"}

| field | what |
|---|---|
| `product_id` | required; `not p-42`: of a clip that shows something, which is not that product |
| `domain` | required: `page`, `video` or `live` |
| `id` | required: unique in its domain |
| `images` | required: paths relative to the manifest's folder, absolute paths or fsspec URLs; frames in time order |
| `text` | a page's title, and on further lines what else it says; or what was said in a clip |
| `category` | of the product; one of its items is enough |
| `boxes` | the product in each image: x0, y0, x1, y1 as shares of width and height, or null |
| `room` | the live room in whose shopping bag the item is |
| `split` | `train`, `val` or `test`, on any item of the product; without it a hash of `product_id` decides |

Other fields are left alone. The file is `manifest.jsonl`, or several `manifest-*.jsonl`, in the data's folder; any
other name is given in full in place of the folder's.
"""

import math
from collections.abc import Iterator
from typing import Any

from cope.data.files import Folder, json_row
from cope.data.indexing import About, Fact, Image, Owner, Text
from cope.data.items import Counts, RelativeBox
from cope.data.store import StoredSource, open_store
from cope.domains import DOMAINS, Split

ANYTHING_BUT = "not "  # before the id of a product that a clip does not show
NOT_JSON = "rows that are not JSON objects"
FEW_FIELDS = "rows without product_id, domain, id or images"
NO_DOMAIN = "rows of an unknown domain"
BAD_BOXES = "rows with boxes that are not x0 < x1 and y0 < y1 in [0, 1] for each image"
NO_SPLIT = "rows with an unknown side of the split"


def is_here(folder: Folder) -> bool:
    """Whether the folder holds a manifest, or is one."""
    return bool(_files(folder))


def open_folder(folder: Folder, split: Split) -> StoredSource:
    """Opens a manifest.

    Raises:
        UserError: No item is usable, or only one domain has any.
    """
    files = _files(folder)
    return open_store(folder, split, "a manifest", files, lambda counts: facts(folder, counts), ())


def facts(folder: Folder, counts: Counts) -> Iterator[Fact]:
    """Yields what the manifest says, row by row."""
    lines = (line for name in _files(folder) for line in folder.lines(name, counts))
    for number, line in enumerate(lines, 1):
        row = json_row(line, counts)
        if row is None:
            counts.add(NOT_JSON)
        else:
            yield from _item(number, row, counts)


def _files(folder: Folder) -> list[str]:
    if folder.file:
        return [folder.file] if folder.file.endswith(".jsonl") else []
    return [name for name in folder.names if name.startswith("manifest") and name.endswith(".jsonl")]


def _item(number: int, row: dict[str, Any], counts: Counts) -> Iterator[Fact]:
    product, item = _name(row.get("product_id")), _name(row.get("id"))
    images = row.get("images")
    if not product or not item or "domain" not in row or not isinstance(images, list) or not images:
        counts.add(FEW_FIELDS)
        return
    domain = row["domain"]
    if domain not in DOMAINS:
        counts.add(NO_DOMAIN)
        return
    boxes = _boxes(row.get("boxes"), len(images))
    if boxes is None:
        counts.add(BAD_BOXES)
        boxes = [None] * len(images)
    split = row.get("split")
    if split is not None and split not in ("train", "val", "test"):
        counts.add(NO_SPLIT)
        split = None
    yield Owner(domain, item, product, _name(row.get("room")), number)
    yield Text(domain, item, _name(row.get("text")), number)
    for at, (place, box) in enumerate(zip(images, boxes, strict=True)):
        if isinstance(place, str) and place:
            yield Image(domain, item, at, place, box, number)
    category = _name(row.get("category"))
    if category or split:
        yield About(product, category, split)


def _name(value: object) -> str:
    """A string or number as written, 42.0 as 42 (tables keep ids so), and "" for anything else, such as NaN."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        value = int(value) if value.is_integer() else value
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _boxes(value: object, count: int) -> list[RelativeBox | None] | None:
    """The boxes; None if they are not what they should be."""
    if value is None or value == []:
        return [None] * count
    if not isinstance(value, list) or len(value) != count:
        return None
    boxes: list[RelativeBox | None] = []
    for box in value:
        if box is None:
            boxes.append(None)
            continue
        numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
        if not numbers or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            return None
        boxes.append((float(box[0]), float(box[1]), float(box[2]), float(box[3])))
    return boxes
