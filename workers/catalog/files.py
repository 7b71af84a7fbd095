"""Reads catalogues: one product a row, in the columns of our own or of a shop's export (`workers.catalog.exports`).

Columns `product_id`, `title` and `images` are needed; `description`, `category`, `brand` and `price` are known; any
other column becomes an attribute of the product. `images` is a list of paths, relative to the catalogue's folder, or
http(s) URLs; in one cell they are separated by `|`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain, islice
from math import isfinite
from pathlib import Path
from urllib.parse import urljoin

from cope.keywords.markup import plain
from topology.addresses import ANYTHING
from topology.checks import check
from topology.errors import BadInput, Unavailable, UserError
from topology.records import PageImage, ProductPage
from topology.redact import redacted
from workers.catalog.exports import reader_of
from workers.catalog.tables import KINDS, Row, listed, rows_of, shown
from workers.images import fetch, file_path, is_url, load_image

REQUIRED_COLUMNS = ("product_id", "title", "images")
_KNOWN_COLUMNS = {*REQUIRED_COLUMNS, "description", "category", "brand", "price"}
_IMAGE_SEPARATOR = re.compile(r"\s*\|\s*|[\s,;]+(?=https?://)", re.IGNORECASE)
_WHOLE = re.compile(r"\d+\.0")
# Rows whose columns are examined to recognise an export, since feeds leave out empty columns.
_LOOKED_AT = 50
_MOST_FEED_BYTES = 1 << 30


@dataclass
class Catalogue:
    """What a catalogue holds.

    Attributes:
        pages: The products, in the catalogue's order.
        problems: One line for each row that cannot be used, with where it is and the mend.
        broken_ids: Products of these rows, as far as they have an id.
        nameless: How many of them have none that can be read.
    """

    pages: list[ProductPage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    broken_ids: set[str] = field(default_factory=set)
    nameless: int = 0


def read_catalog(
    place: str | Path, *, check_images: bool = False, columns: Mapping[str, str] | None = None
) -> list[ProductPage]:
    """Reads all products of a catalogue, in its order.

    Args:
        place: A file or an http(s) URL.
        check_images: Also decode each image file (not URLs), so that a broken one is found now.
        columns: The catalogue's own names of our columns: `{"title": "Name"}`.

    Raises:
        UserError: The file or one of its rows is wrong; the message names file, row, column and the mend.
    """
    found = read_all(place, check_images=check_images, columns=columns)
    if found.problems:
        raise UserError(found.problems[0])
    return found.pages


def read_all(place: str | Path, *, check_images: bool = False, columns: Mapping[str, str] | None = None) -> Catalogue:
    """As `read_catalog`, but a row that is wrong is noted and left out.

    Raises:
        UserError: The file cannot be read, or holds no product.
    """
    name, data = _read(str(place))
    rows, dialect = _rows(name, data, columns or {})
    found, seen = Catalogue(), dict[str, str]()
    for where, row in rows:
        product_id = ""
        try:
            if isinstance(row, UserError):
                raise row
            product_id = _text("product_id", row.get("product_id"))
            page = _page(row, str(place))
            if product_id in seen:
                raise UserError(
                    f"product_id {shown(product_id)} is already used in {seen[product_id]}; make ids unique"
                )
            seen[product_id] = where
            if check_images:
                _check_images(page)
            found.pages.append(page)
        except UserError as error:
            found.problems.append(f"{name}, {where}: {error}")
            found.nameless += not product_id
            if product_id and seen.get(product_id, where) == where:
                found.broken_ids.add(product_id)
    if not found.pages and not found.problems:
        raise UserError(f"{name}: no products in it; add one row per product with {dialect}")
    return found


def _read(place: str) -> tuple[str, bytes]:
    if is_url(place):
        try:
            return redacted(place), fetch(place, ANYTHING, _MOST_FEED_BYTES)
        except (BadInput, Unavailable) as error:
            raise UserError(f"{error}; check the address") from error
    path = Path(place)
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; name the catalogue file in it")
        if not path.exists():
            raise UserError(f"{path}: no such file; name a catalogue ({KINDS})")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{redacted(str(path))}: cannot be read: {why}; mend its permissions or copy it") from error
    if not data and path.suffix.lower() not in (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".xml"):
        raise UserError(f"{path}: is empty, and of an unknown kind; use {KINDS}")
    return str(path), data


def _rows(name: str, data: bytes, columns: Mapping[str, str]) -> tuple[Iterator[Row], str]:
    """Returns the rows in our columns, and the words for what a row needs."""
    rows = iter(rows_of(name, data))
    looked_at = list(islice(rows, _LOOKED_AT))
    rows = chain(looked_at, rows)
    there = dict.fromkeys(column for _, row in looked_at if isinstance(row, Mapping) for column in row)
    for ours, theirs in columns.items():
        if there and theirs not in there:
            raise UserError(
                f"{name}: no column {shown(theirs)} for --map {ours}={theirs} (it has {listed(list(there))})"
            )
    # As a person reads them: `Title` is the title.
    columns = {
        ours: found[0]
        for ours in (REQUIRED_COLUMNS if reader_of(there) is None else ())
        if ours not in there and len(found := [one for one in there if one.strip().lower() == ours]) == 1
    } | dict(columns)
    if columns:
        rows = ((where, _renamed(row, columns)) for where, row in rows)
    renamed = {theirs: ours for ours, theirs in columns.items()}
    names = [renamed.get(column, column) for column in there]
    reader = reader_of(names)
    if reader is not None:
        return _with_whole_ids(reader(rows)), "the columns of its export"
    missing = [column for column in REQUIRED_COLUMNS if column not in names]
    if there and missing:
        raise UserError(
            f"{name}: column {listed(missing)} is missing (it has {listed(names)}); rename it, or say which it is: "
            f"--map {missing[0]}=NAME"
        )
    return _with_whole_ids(rows), listed(REQUIRED_COLUMNS)


def _with_whole_ids(rows: Iterator[Row]) -> Iterator[Row]:
    """Undoes what tools do to a column of numbers with a gap in it: all ids are `42.0` in the text that they write."""
    looked_at = list(islice(rows, _LOOKED_AT))
    ids = {str(row.get("product_id") or "").strip() for _, row in looked_at if isinstance(row, Mapping)} - {""}
    if not all(map(_WHOLE.fullmatch, ids)):
        yield from chain(looked_at, rows)
        return
    for where, row in chain(looked_at, rows):
        if isinstance(row, Mapping) and isinstance(one := row.get("product_id"), str):
            row = {**row, "product_id": one.strip().removesuffix(".0")}
        yield where, row


def _renamed(row: Mapping[str, object] | UserError, columns: Mapping[str, str]) -> Mapping[str, object] | UserError:
    if isinstance(row, UserError):
        return row
    taken = {*columns, *columns.values()}
    return {column: value for column, value in row.items() if column not in taken} | {
        ours: row.get(theirs) for ours, theirs in columns.items()
    }


def _page(row: Mapping[str, object], place: str) -> ProductPage:
    for name in REQUIRED_COLUMNS:
        if name not in row:
            raise UserError(f"column {name!r} is missing (it has {listed(list(row))}); add or rename it")
    values = {name: _text(name, value) for name, value in row.items() if name != "images"}
    for name in ("product_id", "title"):
        if isinstance(row[name], dict):
            raise UserError(f"column {name!r} holds an object; write one text")
        if not values[name]:
            raise UserError(f"column {name!r} is empty; give each product its own")
    images = tuple(_image(uri, place) for uri in _image_uris(row["images"]))
    if not images:
        raise UserError(f"product {shown(values['product_id'])} has no images; name at least one in 'images'")
    page = ProductPage(
        product_id=values["product_id"],
        title=plain(values["title"]) or values["title"],
        images=images,
        description=plain(values.get("description", "")),
        category=plain(values.get("category", "")),
        brand=plain(values.get("brand", "")),
        price=values.get("price", ""),
        attributes={
            str(name): plain(text) for name, text in values.items() if name not in _KNOWN_COLUMNS and text and name
        },
    )
    try:
        check(page)
    except BadInput as error:
        raise UserError(str(error)) from error
    return page


def _text(column: str, value: object) -> str:
    """Returns a cell as text: lists are joined by commas, objects stay JSON, missing values become empty."""
    if value is None or type(value).__name__ == "NaTType":
        text = ""
    elif isinstance(value, float | Decimal) and not isfinite(value):
        text = ""
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, float | Decimal) and value == value // 1:  # an id that pandas has made a number
        text = str(int(value))
    elif isinstance(value, bytes | bytearray | memoryview):
        try:
            text = bytes(value).decode()
        except UnicodeDecodeError as error:
            raise UserError(f"column {shown(column)} holds bytes that are not UTF-8 text; write it as text") from error
    elif isinstance(value, list | tuple):
        text = ", ".join(filter(None, (_text(column, item) for item in value)))
    elif isinstance(value, dict):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"column {shown(column)} holds half a character (\\ud800 to \\udfff); remove it") from error
    return text.strip()


def _image_uris(value: object) -> list[str]:
    if isinstance(value, bytes):
        value = _text("images", value)
    if isinstance(value, str):
        value = [part for part in _IMAGE_SEPARATOR.split(value) if part]
    if value is None or value != value:
        value = []
    if isinstance(value, list | tuple):  # Shopify's JSON names pictures as objects
        value = [
            next((one[key] for key in ("src", "url") if key in one), one) if isinstance(one, dict) else one
            for one in value
        ]
    if not isinstance(value, list | tuple) or not all(isinstance(uri, str) for uri in value):
        raise UserError("column 'images' is not a list of paths or URLs; write it as one")
    return [text for uri in value if (text := _text("images", uri))]


def _image(uri: str, place: str) -> PageImage:
    if uri.startswith("//"):
        uri = f"https:{uri}"
    if is_url(uri):
        return PageImage(uri=uri)
    if (
        "\0" in uri
        or re.match(r"data:", uri, re.IGNORECASE)
        or ("://" in uri and not uri.lower().startswith("file://"))
    ):
        raise UserError(f"image {shown(redacted(uri))}: cannot be fetched; use a path or an http(s) URL")
    if is_url(place):
        return PageImage(uri=urljoin(place, uri))
    return PageImage(uri=str((Path(place).parent / file_path(uri)).resolve()))


def _check_images(page: ProductPage) -> None:
    for image in page.images:
        if is_url(image.uri):
            continue
        try:
            load_image(image)
        except BadInput as error:
            raise UserError(f"column 'images': {error}; mend the file or remove it from the row") from error
