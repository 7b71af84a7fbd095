"""Reads a folder of objects: its list `objects.jsonl`, and the pictures that it names. `cope.data.objects` says what
the folder holds; this is the one reader of it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cope.data.files import Folder, json_row
from cope.data.items import Counts
from cope.data.objects import Product, read_cutout, split_of
from cope.domains import Split
from cope.errors import UserError

LIST = "objects.jsonl"

NOT_OBJECTS = "rows that are not objects with id, group, name and image"
REPEATED = "rows that repeat the id of an object"
NO_PICTURE = "missing or unreadable pictures of objects"


@dataclass(frozen=True)
class Listed:
    """An object before its picture is read; see `cope.data.objects.Product`.

    Attributes:
        id: Unique.
        group: Group of the same object in other colours and styles.
        name: What a host would call it.
        image: Path of the picture, relative to the folder.
    """

    id: str
    group: str
    name: str
    image: str


def local_folder(folder: Folder) -> Path:
    """The folder as a path.

    Raises:
        UserError: It is not on this machine.
    """
    if folder.local is None:
        raise UserError(f"{folder.url}: objects are rendered from a local folder; copy it to this machine")
    return folder.local


def read_objects(folder: Path, counts: Counts) -> list[Listed]:
    """The objects of the list, in its order.

    Args:
        folder: Folder of objects and backgrounds.
        counts: Gets the rows that are left out.

    Raises:
        UserError: There is no list.
    """
    objects: dict[str, Listed] = {}
    try:
        for line in Folder(str(folder)).lines(LIST, counts):
            row = json_row(line, counts) or {}
            values = [row.get(field) for field in ("id", "group", "name", "image")]
            if not all(isinstance(value, str | int | float) for value in values):
                counts.add(NOT_OBJECTS)
            elif str(values[0]) in objects:
                counts.add(REPEATED)
            else:
                objects[str(values[0])] = Listed(*map(str, values))
    except OSError:
        raise UserError(
            f"{folder}: no training data here ({LIST}); make it with: python -m cope.data.collect {folder}"
        ) from None
    return list(objects.values())


def read_products(folder: Path, split: Split, counts: Counts | None = None) -> list[Product]:
    """The products of one side of the split, in the order of the list.

    Args:
        folder: Folder of objects and backgrounds.
        split: Side of the split.
        counts: Gets the rows and pictures that are left out.

    Raises:
        UserError: There is no list, or nothing usable in it.
    """
    counts = Counts() if counts is None else counts
    products = []
    for one in read_objects(folder, counts):
        if split_of(one.group) == split:
            cutout = read_cutout(folder / one.image, one.id)
            if cutout is None:
                counts.add(NO_PICTURE)
            else:
                products.append(Product(one.id, one.group, one.name, cutout))
    if not products:
        raise nothing_usable(folder, split, counts)
    return products


def nothing_usable(folder: Path, split: Split, counts: Counts) -> UserError:
    """What to say of a list without a usable object on this side of the split."""
    why = f" ({counts})" if counts else ""
    return UserError(f"{folder}: no objects on the {split} side of the split{why}; add some to {LIST}")


def fingerprint(folder: Path) -> str:
    """A hash of the list and of what is in each picture and background: equal for copies of the folder anywhere.

    2,000 pictures and 90 backgrounds (150 MB) take half a second.

    Raises:
        UserError: There is no list.
    """
    names = {one.image for one in read_objects(folder, Counts())}
    names |= {f"backgrounds/{file.name}" for file in (folder / "backgrounds").glob("*.*")}
    digest = hashlib.sha256()
    for name in [LIST, *sorted(names)]:
        try:
            content = (folder / name).read_bytes()
        except (OSError, ValueError):  # missing, or no name of a file
            content = b""
        digest.update(f"{name} {len(content)} ".encode(errors="surrogateescape"))
        digest.update(content)
    return digest.hexdigest()
