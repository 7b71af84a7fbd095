"""ROPE as released (Bai et al., ICCV 2023): nine text files, and pictures by their addresses.

| file | row |
|---|---|
| `training_product_pages_pair.txt`, `..._videos_pair.txt`, `..._lives_pair.txt` | product id, item id |
| `training_page_titles.txt` | page id, title |
| `training_video_asrs.txt`, `training_live_asrs.txt` | item id, what was said |
| `training_page_images.txt` | page id, address of a JPEG |
| `training_video_frames.txt` | video id, number of the frame, address |
| `training_live_clips.txt` | clip id, time in ms, address |

Columns are parted by commas and nothing is quoted: of a text only the first comma parts, so its own commas and
quotes stay. The addresses on the web are read through fsspec, or from a mirror in the folder `images`
(`cope.data.files.PictureFiles`), which is what to use for more than a look. An address that is no URL is a path in
the data's folder.

The release holds no categories. A file `training_product_categories.txt` (product id, category) beside the nine is
read if there is one: long-tail options and results by head and tail need it.
"""

import math
from collections.abc import Iterator

from cope.data.files import Folder
from cope.data.indexing import About, Fact, Image, Owner, Text
from cope.data.items import Counts
from cope.data.store import StoredSource, open_store
from cope.domains import DOMAINS, Domain, Split
from cope.errors import UserError

PAIRS: dict[Domain, str] = {
    "page": "training_product_pages_pair.txt",
    "video": "training_product_videos_pair.txt",
    "live": "training_product_lives_pair.txt",
}
TEXTS: dict[Domain, str] = {
    "page": "training_page_titles.txt",
    "video": "training_video_asrs.txt",
    "live": "training_live_asrs.txt",
}
IMAGES: dict[Domain, str] = {
    "page": "training_page_images.txt",
    "video": "training_video_frames.txt",
    "live": "training_live_clips.txt",
}
CATEGORIES = "training_product_categories.txt"
FILES = (*PAIRS.values(), *TEXTS.values(), *IMAGES.values())

FEW_COLUMNS = "rows with too few columns"
NO_NUMBER = "rows with a frame number or time that is no number"
# A time in ms beyond it is a mistake, and no float holds it exactly.
_LATEST = 2.0**53


def is_here(folder: Folder) -> bool:
    """Whether the folder holds any of the nine files."""
    return any(name in FILES for name in folder.names)


def open_folder(folder: Folder, split: Split) -> StoredSource:
    """Opens ROPE.

    Raises:
        UserError: One of the nine files is missing, or a domain is empty.
    """
    missing = [name for name in FILES if name not in folder.names]
    if missing:
        raise UserError(
            f"{folder.url}: ROPE without {', '.join(missing)}; copy {'it' if len(missing) == 1 else 'them'} from the "
            "release (all nine files are needed)"
        )
    files = (*FILES, *([CATEGORIES] if CATEGORIES in folder.names else []))
    return open_store(folder, split, "ROPE", files, lambda counts: facts(folder, counts), DOMAINS)


def facts(folder: Folder, counts: Counts) -> Iterator[Fact]:
    """Yields what the nine files say, row by row."""
    for domain in DOMAINS:
        for product, item in _rows(folder, PAIRS[domain], 2, counts):
            yield Owner(domain, item, product)
        for item, text in _rows(folder, TEXTS[domain], 2, counts, may_be_empty=True):
            yield Text(domain, item, text)
        if domain == "page":
            for item, place in _rows(folder, IMAGES[domain], 2, counts):
                yield Image(domain, item, 0, place)
        else:
            yield from _frames(folder, domain, counts)
    if CATEGORIES in folder.names:
        for product, category in _rows(folder, CATEGORIES, 2, counts, may_be_empty=True):
            yield About(product, category)


def _frames(folder: Folder, domain: Domain, counts: Counts) -> Iterator[Fact]:
    for item, at, place in _rows(folder, IMAGES[domain], 3, counts):
        try:
            time = float(at)
        except ValueError:
            time = math.nan
        if not abs(time) < _LATEST:
            counts.add(NO_NUMBER)
            continue
        yield Image(domain, item, round(time), place)


def _rows(folder: Folder, name: str, columns: int, counts: Counts, may_be_empty: bool = False) -> Iterator[list[str]]:
    """Splits at the first commas; the last column may hold more. `may_be_empty` is about that one."""
    for line in folder.lines(name, counts):
        row = [column.strip() for column in line.split(",", columns - 1)]
        if len(row) < columns or not row[0] or not (row[-1] or may_be_empty):
            counts.add(FEW_COLUMNS)
            continue
        yield row
