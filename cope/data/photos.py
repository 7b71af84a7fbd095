"""Public collections of product photos as a manifest, told by their folders.

    GroceryStoreDataset   dataset/classes.csv, train.txt, val.txt, test.txt    github.com/marcusklasson, MIT
    dreambooth            dataset/prompts_and_classes.txt, dataset/SUBJECT/    github.com/google, CC-BY-4.0 and Unsplash
    photos of your own    photos.jsonl beside catalog/catalog.jsonl, or beside catalog.jsonl

A studio picture with its description becomes the page, and each photo a live clip or a short video, in turns. A product
has all its photos on one side of the split, whatever the collection's own lists say: those split photos, not products.
"""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cope.domains import Domain, Split
from cope.errors import UserError

SIDES: tuple[Split, ...] = ("train", "val", "test")
_LISTS = ("train.txt", "val.txt", "test.txt")
_LIVING = {"cat", "dog"}  # subjects of dreambooth that nobody sells
_IN_TURNS: tuple[Domain, ...] = ("live", "video")


@dataclass(frozen=True)
class Photographed:
    """A product of a collection.

    Attributes:
        id: Unique in it.
        title: Of its page.
        text: What else the page says.
        category: Products of one are look-alikes.
        page: Pictures of its page; none: it is in no catalogue.
        photos: Of it.
    """

    id: str
    title: str
    text: str
    category: str
    page: tuple[Path, ...]
    photos: tuple[Path, ...]


def read_collection(folder: Path) -> list[Photographed]:
    """Reads a collection.

    Raises:
        UserError: The folder is none that is known, or a file of it is broken.
    """
    data = folder / "dataset" if (folder / "dataset").is_dir() else folder
    try:
        if (data / "classes.csv").is_file():
            return _groceries(data)
        if (data / "prompts_and_classes.txt").is_file():
            return _subjects(data)
        if (data / "photos.jsonl").is_file():
            return _own(data)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise UserError(f"{data}: its lists are not as they should be ({error!r}); clone it anew") from None
    raise UserError(
        f"{folder} is no collection that is known: it has no dataset/classes.csv (GroceryStoreDataset), "
        f"dataset/prompts_and_classes.txt (dreambooth) or photos.jsonl (your own)"
    )


def manifest_rows(
    products: Sequence[Photographed], photos_a_clip: int, shares: Sequence[int] | None, seed: int
) -> list[dict[str, Any]]:
    """The rows of a manifest (`cope.data.manifest`).

    Args:
        products: Of a collection.
        photos_a_clip: That are the frames of one clip.
        shares: Of products on the sides train, val and test; None: a hash of each product's id decides.
        seed: By which products are dealt to the sides.
    """
    sides = _dealt(products, shares, seed) if shares else [None] * len(products)
    rows: list[dict[str, Any]] = []
    for product, side in zip(products, sides, strict=True):
        about: dict[str, Any] = {"product_id": product.id, "category": product.category}
        about |= {} if side is None else {"split": side}
        if product.page:
            text = "\n".join(part for part in (product.title, product.text) if part)
            rows.append({**about, "domain": "page", "id": product.id, "images": _names(product.page), "text": text})
        for number, start in enumerate(range(0, len(product.photos), photos_a_clip)):
            clip = {"domain": _IN_TURNS[number % 2], "id": f"{product.id}/{number}", "text": ""}
            rows.append({**about, **clip, "images": _names(product.photos[start : start + photos_a_clip])})
    return rows


def _dealt(products: Sequence[Photographed], shares: Sequence[int], seed: int) -> list[Split]:
    ends = np.cumsum(shares) / max(1, sum(shares)) * len(products)
    place = np.empty(len(products))
    place[np.random.default_rng(seed).permutation(len(products))] = np.arange(len(products)) + 0.5
    return [SIDES[int(np.searchsorted(ends, one))] for one in place]


def _names(paths: Iterable[Path]) -> list[str]:
    return [str(path) for path in paths]


def _groceries(data: Path) -> list[Photographed]:
    """Classes with an iconic picture and a description each; the photos of all three lists."""
    with (data / "classes.csv").open(encoding="utf-8", newline="") as file:
        classes = [[cell.strip() for cell in row] for row in csv.reader(file)][1:]
    by_id = {row[1]: row[0] for row in classes}
    photos: dict[str, list[Path]] = {}
    for name in _LISTS:
        if not (data / name).is_file():
            continue
        for line in (data / name).read_text(encoding="utf-8").splitlines():
            path, *ids = (part.strip() for part in line.split(","))
            if path:  # some versions of the lists give the class's number, all give it as the folder's name
                photos.setdefault(by_id[ids[0]] if ids else Path(path).parent.name, []).append(data / path)
    found = []
    for name, _, coarse, _, iconic, description, *_ in classes:
        page = data / iconic.lstrip("/")
        text = _description(data / description.lstrip("/"), page.parent)
        title = name.replace("-", " ")
        found.append(Photographed(name, title, text, coarse, (page,), tuple(photos.get(name, ()))))
    return found


def _description(named: Path, folder: Path) -> str:
    """What a class says of itself; some names in the list differ from those of the files."""
    others = sorted(one for one in folder.glob("*_Description*.txt") if "Swedish" not in one.name)
    for path in (named, *others):
        if path.is_file():
            return " ".join(path.read_text(encoding="utf-8", errors="replace").split())
    return ""


def _subjects(data: Path) -> list[Photographed]:
    """Subjects with some photos each, of which the first is the page's."""
    lines = (data / "prompts_and_classes.txt").read_text(encoding="utf-8").splitlines()
    found = []
    for line in lines[lines.index("subject_name,class") + 1 :]:
        name, _, kind = line.strip().partition(",")
        if not kind:
            break
        photos = tuple(sorted((data / name).glob("*.jpg")))
        if kind not in _LIVING:
            found.append(Photographed(name, name.replace("_", " "), kind, kind, photos[:1], photos[1:]))
    return found


def _own(data: Path) -> list[Photographed]:
    """A catalogue as `cope-live watch` takes it, and photos with a label: the product's id, or that of none."""
    catalogue = next((path for path in (data / "catalog", data) if (path / "catalog.jsonl").is_file()), None)
    if catalogue is None:
        raise UserError(f"{data}: photos.jsonl needs a catalog.jsonl beside it; add it")
    pages = {str(row["product_id"]): row for row in _json_lines(catalogue / "catalog.jsonl")}
    photos: dict[str, list[Path]] = {name: [] for name in pages}
    titles: dict[str, str] = {}
    for row in _json_lines(data / "photos.jsonl"):
        label = str(row.get("product_id") or row["label"])
        photos.setdefault(label, []).append(data / row["file"])
        titles.setdefault(label, str(row.get("title") or ""))
    return [
        Photographed(
            name,
            str(pages.get(name, {}).get("title") or titles.get(name, "")),
            str(pages.get(name, {}).get("description") or ""),
            str(pages.get(name, {}).get("category") or ""),
            tuple(catalogue / image for image in pages.get(name, {}).get("images", ())),
            tuple(shown),
        )
        for name, shown in photos.items()
    ]


def _json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def about(product: Photographed, pattern: str) -> bool:
    """Whether a regular expression finds something in a product's title or category, whatever the case."""
    return re.search(pattern, f"{product.title}\n{product.category}", re.IGNORECASE) is not None
