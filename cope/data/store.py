"""A data set behind an index on disk: random access to its products, in memory that does not grow with them."""

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cope.data.files import Folder, PictureFiles, cache_folder
from cope.data.indexing import FORMAT, Fact, build
from cope.data.items import Counts, Item, ItemsOnDemand, Picture
from cope.domains import DOMAINS, Domain, Split
from cope.errors import UserError
from cope.runtime.files import whole
from cope.vision.cutouts import Pixels
from cope.vision.decoding import MISSING, UNREADABLE, PictureError, decode

# Requests that one loader process has under way where pictures come over a network. An answer takes some 50 ms and
# decoding 3: beyond this the processor is the limit.
_REQUESTS = 16


class StoredSource:
    """A `Source` over an index that `cope.data.indexing` has built.

    Attributes:
        sizes: Usable items of this side of the split, by domain.
        concurrency: Items that are worth reading at once in one process.
    """

    def __init__(self, place: Path, files: PictureFiles, name: str, split: Split) -> None:
        self.name = name
        self._place = place
        self._files = files
        self._split = split
        self._open = threading.local()
        with whole(place):
            meta: dict[str, str] = dict(self._rows("SELECT name, value FROM meta"))
            self.fingerprint: str = meta["fingerprint"]
            self.counts = Counts(json.loads(meta["counts"]))
            totals = json.loads(meta["sizes"])[split]
            self._products: int = totals["products"]
            self.sizes: Mapping[Domain, int] = {domain: totals[domain] for domain in DOMAINS}
        example = self._rows("SELECT images FROM items LIMIT 1")
        far = bool(example) and files.is_far(json.loads(example[0][0])[0][0])
        self.concurrency = _REQUESTS if far else 1

    def __len__(self) -> int:
        return self._products

    def product_id(self, number: int) -> str:
        """The data's own name of a product."""
        return str(self._product("id", number)[0])

    def category(self, number: int) -> str:
        """The category of a product; "" if unknown."""
        return str(self._product("category", number)[0])

    def items(self, number: int, domain: Domain) -> Sequence[Item]:
        """The items of a product in a domain."""
        first, *counts = self._product("first, page, video, live", number)
        place = DOMAINS.index(domain)
        start = first + sum(counts[:place])
        return ItemsOnDemand(lambda at: self.item(number, domain, start + at), counts[place])

    def read(self, item: Item, side: int = 0) -> list[Picture]:
        """Reads the item's pictures; `Source.read`."""
        boxes = item.boxes or (None,) * len(item.images)
        return [self._picture(image, side)._replace(box=box) for image, box in zip(item.images, boxes, strict=True)]

    def pictures(self, item: Item) -> list[Pixels | None]:
        """The item's pictures in full size; None for the missing and broken."""
        return [picture.pixels for picture in self.read(item)]

    def item(self, number: int, domain: Domain, row: int) -> Item:
        """The item on a row of the index."""
        [(ident, text, room, images)] = self._rows("SELECT id, text, room, images FROM items WHERE row = ?", row)
        places = json.loads(images)
        boxes: tuple[tuple[float, float, float, float] | None, ...] = ()
        if any(len(place) > 1 for place in places):
            boxes = tuple((*place[1],) if len(place) > 1 else None for place in places)
        return Item(ident, number, domain, tuple(place[0] for place in places), text, boxes, room)

    def _picture(self, image: str, side: int) -> Picture:
        try:
            data = self._files.read(image)
        except OSError:
            return Picture(None, problem=UNREADABLE)
        if data is None:
            return Picture(None, problem=MISSING)
        try:
            return Picture(decode(data, enough=side))
        except PictureError as error:
            return Picture(None, problem=error.kind)

    def _product(self, columns: str, number: int) -> tuple[Any, ...]:
        rows = self._rows(f"SELECT {columns} FROM products WHERE split = ? AND number = ?", self._split, number)  # noqa: S608 - columns are ours
        if not rows:
            raise IndexError(f"{self.name} has {len(self)} products, not a product {number}")
        return rows[0]

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        # A connection must stay in its thread, and must not be used after a fork.
        try:
            if getattr(self._open, "process", None) != os.getpid():
                uri = f"{self._place.absolute().as_uri()}?mode=ro&immutable=1"
                self._open.db = sqlite3.connect(uri, uri=True)
                self._open.process = os.getpid()
            return list(self._open.db.execute(query, values))
        except sqlite3.DatabaseError as error:
            if not self._place.exists():
                raise UserError(f"{self._place} was removed; start the same command again to build it anew") from None
            raise UserError(f"{self._place} is damaged ({error}); remove it and start the same command again") from None

    def crosses(self) -> bool:
        """Whether any product of this side has items in two domains at least."""
        query = "SELECT 1 FROM products WHERE split = ? AND (page > 0) + (video > 0) + (live > 0) > 1 LIMIT 1"
        return bool(self._rows(query, self._split))

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_open"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._open = threading.local()


def open_store(
    folder: Folder,
    split: Split,
    kind: str,
    files: Sequence[str],
    facts: Callable[[Counts], Iterable[Fact]],
    needed: Sequence[Domain],
) -> StoredSource:
    """Opens a data set through its index, which is built if the data are new or have changed.

    Args:
        folder: Where the data lie.
        split: The side to open.
        kind: Kind of the data, such as "ROPE".
        files: Names of what the index is built of.
        facts: Reads these files.
        needed: Domains without which the data are of no use; at least two must have items in any case.

    Raises:
        UserError: A needed domain is empty, or no products are on this side.
    """

    def check(sizes: dict[Domain, int], counts: Counts) -> None:
        empty = [domain for domain in DOMAINS if not sizes[domain]]
        if len(empty) == len(DOMAINS):
            raise UserError(
                f"{folder.url}: {kind} without a usable product: no item has both a product and a picture; "
                f"check that the files' ids match ({counts})"
            )
        lacking = [domain for domain in empty if domain in needed] or (empty if len(empty) == 2 else [])
        if lacking:
            what = " and no ".join(_NAMES[domain] for domain in lacking)
            raise UserError(
                f"{folder.url}: {kind} with an empty domain: no {what} has both a product and a picture; add some, or "
                f"check that the files' ids match ({counts})"
            )

    fingerprint = folder.fingerprint(files, kind, str(FORMAT))
    place = cache_folder(folder) / f"index-{FORMAT}-{fingerprint[:16]}.sqlite"
    build(place, fingerprint, facts, check, folder.url)
    source = StoredSource(place, PictureFiles(folder), f"{folder.url} ({split})", split)
    if not len(source):
        raise UserError(
            f"{folder.url}: no products on the {split} side of the split, which the data decide where they name a side "
            "and else a hash of each product's id does; add products of that side, or leave the sides to the hash (a "
            "few dozen products put some on each)"
        )
    return source


_NAMES: dict[Domain, str] = {"page": "product page", "video": "short video", "live": "live clip"}
