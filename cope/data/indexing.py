"""Builds the index of a data set: one SQLite file, from a stream of rows, in memory that does not grow with them.

1. Each row of the data becomes a fact about an item: whose it is, what it says, one of its pictures.
2. The facts are sorted by item, on disk; so all that is known of an item comes together, in whatever order and in
   whatever files it was written. What is wrong shows here and is counted.
3. The items are sorted by product, on disk, and products get their numbers.

The file is written beside its place and moved there when it is whole. A kill leaves at most a `.part` file, which
the next run takes away.
"""

import itertools
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from cope.data.items import Counts, RelativeBox
from cope.data.objects import split_of
from cope.domains import DOMAINS, Domain, Split
from cope.errors import UserError
from cope.keywords.markup import plain
from cope.runtime.progress import Progress

FORMAT = 4  # part of an index's name: another release makes its own

# Sorting and writing take about three times this. Four times as much is no faster at a million rows, a fraction of it
# means more passes over the disk.
_MEMORY_KB = 8_000
_BATCH = 10_000
# More pictures than this under one id are a mistake in the data, and would all have to be held at once.
_MOST_IMAGES = 4_096
_TOLD_FROM_S = 2.0  # what took less and skipped nothing is not told of

_OWNER, _TEXT, _IMAGE = range(3)

DUPLICATES = "duplicated rows"
SECOND_PRODUCT = "items with a second product"
SECOND_TEXT = "items with a second text"
NO_PRODUCT = "items without a product"
NO_IMAGES = "items without pictures"
TOO_MANY_IMAGES = f"pictures beyond the first {_MOST_IMAGES} of an item"
SECOND_SPLIT = "products on a second side of the split"


@dataclass(frozen=True)
class Owner:
    """An item is of a product.

    Attributes:
        domain: Domain of the item.
        item: Identifier of the item.
        product: Id of the product.
        room: In whose gallery the item is searched.
        row: Where one row says all about an item, its number: the first one counts, others with the same id are
            duplicates. Negative where the data repeat an item by design, so that it is no mistake. 0 where an item's
            facts stand on rows of their own.
    """

    domain: Domain
    item: str
    product: str
    room: str = ""
    row: int = 0


@dataclass(frozen=True)
class Text:
    """An item says something."""

    domain: Domain
    item: str
    text: str
    row: int = 0


@dataclass(frozen=True)
class Image:
    """An item has a picture.

    Attributes:
        domain: Domain of the item.
        item: Identifier of the item.
        at: Place in the item: number of the frame, or time in ms. Equal ones keep the order of the rows.
        place: Path or URL.
        box: Box of the product, if known.
        row: As for `Owner`.
    """

    domain: Domain
    item: str
    at: int
    place: str
    box: RelativeBox | None = None
    row: int = 0


@dataclass(frozen=True)
class About:
    """A product has a category, or was dealt to a side of the split by the data."""

    product: str
    category: str = ""
    split: Split | None = None


Fact = Owner | Text | Image | About

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT);
-- `first` and the counts say which rows of `items` are the product's: its pages, then its videos, then its live clips.
CREATE TABLE products (split TEXT, number INTEGER, id TEXT, category TEXT, first INTEGER, page INTEGER, video INTEGER,
    live INTEGER, PRIMARY KEY (split, number)) WITHOUT ROWID;
CREATE TABLE items (row INTEGER PRIMARY KEY, id TEXT, text TEXT, room TEXT, images TEXT);
"""
_WORK = """
CREATE TABLE work.facts (domain INTEGER, item TEXT, kind INTEGER, at INTEGER, value TEXT, more TEXT, row INTEGER);
CREATE TABLE work.about (product TEXT PRIMARY KEY, category TEXT, split TEXT) WITHOUT ROWID;
CREATE TABLE work.found (product TEXT, domain INTEGER, id TEXT, text TEXT, room TEXT, images TEXT);
"""


def build(
    place: Path,
    fingerprint: str,
    facts: Callable[[Counts], Iterable[Fact]],
    check: Callable[[dict[Domain, int], Counts], None],
    what: str,
) -> None:
    """Makes the index of a data set, unless it is there. Of several processes one builds and the others wait.

    Args:
        place: The file.
        fingerprint: Fingerprint of the data.
        facts: Reads the data, counting what is wrong with them.
        check: Gets the number of usable items by domain and what was skipped, and may raise.
        what: The data's name, for the progress line.

    Raises:
        UserError: There is nothing to learn from, or the disk is full.
    """
    if place.is_file():
        return
    with FileLock(place.with_suffix(".lock")):  # the kernel lets go of it if its holder is killed
        if place.is_file():  # another process has built it in the meantime
            return
        part, work = place.with_suffix(".part"), place.with_suffix(".work.part")
        for left_over in (part, work):
            left_over.unlink(missing_ok=True)
        counts = Counts()
        try:
            with _temporary_files_in(place.parent):
                _build(part, work, fingerprint, facts(counts), check, counts, what)
            os.replace(part, place)
        except sqlite3.OperationalError as error:
            if "full" not in str(error) and "I/O" not in str(error):
                raise
            raise UserError(f"{place.parent}: the disk is full ({error}); free some space and start again") from None
        finally:
            for left_over in (part, work):
                left_over.unlink(missing_ok=True)


def _build(
    part: Path,
    work: Path,
    fingerprint: str,
    facts: Iterable[Fact],
    check: Callable[[dict[Domain, int], Counts], None],
    counts: Counts,
    what: str,
) -> None:
    began = time.monotonic()
    progress = Progress(unit="rows")
    db = sqlite3.connect(part, isolation_level=None)
    try:
        db.execute("ATTACH ? AS work", (str(work),))
        for name in ("main", "work"):  # nothing to keep after a kill, so nothing to journal
            db.execute(f"PRAGMA {name}.journal_mode = OFF")
            db.execute(f"PRAGMA {name}.synchronous = OFF")
            db.execute(f"PRAGMA {name}.cache_size = -{_MEMORY_KB}")
        db.execute("PRAGMA temp_store = FILE")
        db.executescript(_SCHEMA + _WORK)
        db.execute("BEGIN")
        _write_facts(db, facts, counts, progress)
        sizes = _join_items(db, counts, progress)
        check(sizes, counts)
        totals = _number_products(db, counts, progress)
        meta = {"fingerprint": fingerprint, "counts": json.dumps(counts.as_dict()), "sizes": json.dumps(totals)}
        db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        db.execute("COMMIT")
    finally:
        progress.close()
        db.close()
    spent = time.monotonic() - began
    if spent >= _TOLD_FROM_S or counts:
        print(f"index {what}: {sum(sizes.values()):,} items in {spent:.0f} s; {counts}", file=sys.stderr, flush=True)


def _write_facts(db: sqlite3.Connection, facts: Iterable[Fact], counts: Counts, progress: Progress) -> None:
    rows: list[tuple[int, str, int, int, str, str, int]] = []
    for number, fact in enumerate(facts):
        if isinstance(fact, About):
            _write_about(db, fact, counts)
            continue
        domain = DOMAINS.index(fact.domain)
        if isinstance(fact, Owner):
            rows.append((domain, fact.item, _OWNER, 0, fact.product, fact.room, fact.row))
        elif isinstance(fact, Text):
            rows.append((domain, fact.item, _TEXT, 0, plain(fact.text), "", fact.row))
        else:
            box = "" if fact.box is None else json.dumps(fact.box)
            rows.append((domain, fact.item, _IMAGE, fact.at, fact.place, box, fact.row))
        if len(rows) == _BATCH:
            db.executemany("INSERT INTO work.facts VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            rows.clear()
            progress("index: reading", number)
    db.executemany("INSERT INTO work.facts VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def _write_about(db: sqlite3.Connection, fact: About, counts: Counts) -> None:
    row = db.execute("SELECT category, split FROM work.about WHERE product = ?", (fact.product,)).fetchone()
    if row is None:
        db.execute("INSERT INTO work.about VALUES (?, ?, ?)", (fact.product, fact.category, fact.split or ""))
        return
    category, split = row
    if split and fact.split and split != fact.split:
        counts.add(SECOND_SPLIT)
    if (fact.category and not category) or (fact.split and not split):
        values = (category or fact.category, split or fact.split or "", fact.product)
        db.execute("UPDATE work.about SET category = ?, split = ? WHERE product = ?", values)


def _join_items(db: sqlite3.Connection, counts: Counts, progress: Progress) -> dict[Domain, int]:
    """Joins the facts about each item, and returns how many usable ones each domain has."""
    sizes = dict.fromkeys(DOMAINS, 0)
    facts = db.execute(
        "SELECT domain, item, kind, value, more, row FROM work.facts ORDER BY domain, item, kind, at, rowid"
    )
    insert = "INSERT INTO work.found VALUES (?, ?, ?, ?, ?, ?)"
    for number, ((domain, item), group) in enumerate(itertools.groupby(facts, key=lambda row: row[:2])):
        found = _item(group, counts)
        if found is not None:
            product, text, room, images = found
            db.execute(insert, (product, domain, item, text, room, images))
            sizes[DOMAINS[domain]] += 1
        if number % _BATCH == 0:
            progress("index: joining", number)
    return sizes


def _item(group: Iterator[tuple[int, str, int, str, str, int]], counts: Counts) -> tuple[str, str, str, str] | None:
    """Product, text, room and pictures of an item, from its sorted facts; None if it is of no use."""
    product = text = None
    room = ""
    first = 0  # the row that counts
    images: list[tuple[str, str]] = []
    seen: set[tuple[str, str]] = set()
    for _, _, kind, value, more, row in group:
        if kind == _OWNER:
            if product is None:
                product, room, first = value, more, row
            elif value != product:
                counts.add(SECOND_PRODUCT)
            elif row >= 0:
                counts.add(DUPLICATES)
        elif product is not None and row != first:
            continue
        elif kind == _TEXT:
            if text is None:
                text = value
            else:
                counts.add(DUPLICATES if value == text else SECOND_TEXT)
        elif not row and (value, more) in seen:  # one row that names a picture twice means a still
            counts.add(DUPLICATES)
        elif len(images) == _MOST_IMAGES:
            counts.add(TOO_MANY_IMAGES)
        else:
            images.append((value, more))
            seen.add((value, more))
    if product is None:
        counts.add(NO_PRODUCT)
        return None
    if not images:
        counts.add(NO_IMAGES)
        return None
    places = [[place, json.loads(box)] if box else [place] for place, box in images]
    return product, text or "", room, json.dumps(places, ensure_ascii=False)


def _number_products(db: sqlite3.Connection, counts: Counts, progress: Progress) -> dict[Split, dict[str, int]]:
    """Sorts the items by product and numbers the products on each side; returns the sizes of each side."""
    totals: dict[Split, dict[str, int]] = {
        split: dict.fromkeys(("products", *DOMAINS), 0) for split in ("train", "val", "test")
    }
    found = db.execute(
        "SELECT product, domain, f.id, text, room, images, category, split FROM work.found f "
        "LEFT JOIN work.about USING (product) ORDER BY product, domain, f.rowid"
    )
    row = 0
    for product, group in itertools.groupby(found, key=lambda one: one[0]):
        first, here = row, dict.fromkeys(DOMAINS, 0)
        category, split = "", split_of(product)
        for _, domain, item, text, room, images, known_category, dealt in group:
            db.execute("INSERT INTO items VALUES (?, ?, ?, ?, ?)", (row, item, text, room, images))
            row += 1
            here[DOMAINS[domain]] += 1
            category, split = known_category or "", dealt or split
        total = totals[split]
        sizes = [here[domain] for domain in DOMAINS]
        db.execute(
            "INSERT INTO products VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (split, total["products"], product, category, first, *sizes),
        )
        total["products"] += 1
        for domain in DOMAINS:
            total[domain] += here[domain]
        if sum(size > 0 for size in sizes) == 1:
            counts.add("products in one domain only, which teach nothing across domains")
        progress("index: sorting", row)
    return totals


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """SQLite sorts in /var/tmp unless told otherwise, and there is rarely room for a data set."""
    before = os.environ.get("SQLITE_TMPDIR")
    os.environ["SQLITE_TMPDIR"] = before or str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SQLITE_TMPDIR"]
