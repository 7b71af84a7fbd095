"""Reads catalogue files: JSON lines, CSV or Parquet, one product a row.

Columns `product_id`, `title` and `images` are needed; `description`, `category`, `brand` and `price` are known; any
other column becomes an attribute of the product. `images` is a list of paths, relative to the catalogue's folder, or
http(s) URLs; in CSV they are separated by `|`.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow
import pyarrow.parquet

from topology.errors import BadInput, UserError
from topology.records import PageImage, ProductPage
from workers.catalog.images import file_path, is_url, load_image

__all__ = ["load_image", "read_catalog"]

REQUIRED_COLUMNS = ("product_id", "title", "images")
_KNOWN_COLUMNS = {*REQUIRED_COLUMNS, "description", "category", "brand", "price"}
_IMAGE_SEPARATOR = "|"

Row = tuple[str, Mapping[str, object]]


def read_catalog(path: str | Path, *, check_images: bool = False) -> list[ProductPage]:
    """Reads all products of a catalogue file, in its order.

    Args:
        path: A `.jsonl`, `.ndjson`, `.csv` or `.parquet` file.
        check_images: Also decode each image file (not URLs), so that a broken one is found now.

    Raises:
        UserError: The file or one of its rows is wrong; the message names file, row, column and the mend.
    """
    path = Path(path)
    pages: list[ProductPage] = []
    seen: dict[str, str] = {}
    for where, row in _rows(path):
        page = _page(where, row, path.parent)
        if page.product_id in seen:
            raise UserError(
                f"{where}: product_id {page.product_id!r} is already used in {seen[page.product_id]}; make ids unique"
            )
        seen[page.product_id] = where.removeprefix(f"{path}, ")
        if check_images:
            _check_images(where, page)
        pages.append(page)
    if not pages:
        raise UserError(f"{path}: no products in it; add one row per product with {_listed(REQUIRED_COLUMNS)}")
    return pages


def _rows(path: Path) -> Iterator[Row]:
    """Yields each row with the words that say where it is."""
    readers = {".jsonl": _json_rows, ".ndjson": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; name the catalogue file in it")
        if not path.exists():
            raise UserError(f"{path}: no such file; name a catalogue (.jsonl, .csv or .parquet)")
        reader = readers.get(path.suffix.lower())
        if reader is None:
            raise UserError(f"{path}: unknown kind of catalogue; use .jsonl (JSON lines), .csv or .parquet")
        yield from reader(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror or error}; mend its permissions or copy it"
        ) from error


def _text_of(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8, "
            f"for example: iconv -f GB18030 -t UTF-8 {path.name}"
        ) from error


def _json_rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(io.StringIO(_text_of(path), newline="\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON ({error}); write one JSON object a line") from error
        if not isinstance(row, dict):
            raise UserError(f"{where}: not a JSON object; write one object a line, with {_listed(REQUIRED_COLUMNS)}")
        yield where, row


def _csv_rows(path: Path) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(_text_of(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header)
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(header):
                raise UserError(
                    f"{where}: {len(cells)} cells under {len(header)} columns; "
                    'put values that contain a comma in quotes ("a, b")'
                )
            yield where, dict(zip(header, cells, strict=False))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: broken CSV ({error}); mend its quotes") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_header(path, list(file.schema_arrow.names))
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        summary = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a sound Parquet file ({summary}); write it again") from error


def _check_header(path: Path, names: list[str]) -> None:
    missing = [name for name in REQUIRED_COLUMNS if name not in names]
    if not names or (missing and names == [""]):
        raise UserError(f"{path}: no products in it; add a header and one row per product")
    if missing:
        found = f"it has {_listed(names)}"
        if len(names) == 1 and any(separator in names[0] for separator in ";\t"):
            found = "its cells seem to be separated by something else than commas"
        raise UserError(f"{path}: column {_listed(missing)} is missing ({found}); add or rename it")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path}: column {_listed(twice)} is there twice; rename one")


def _page(where: str, row: Mapping[str, object], folder: Path) -> ProductPage:
    for name in REQUIRED_COLUMNS:
        if name not in row:
            raise UserError(f"{where}: column {name!r} is missing (it has {_listed(list(row))}); add or rename it")
    values = {name: _text(where, name, value) for name, value in row.items() if name != "images"}
    for name in ("product_id", "title"):
        if not values[name]:
            raise UserError(f"{where}: column {name!r} is empty; give each product its own")
    images = tuple(_image(where, uri, folder) for uri in _image_uris(where, row["images"]))
    if not images:
        raise UserError(f"{where}: product {values['product_id']!r} has no images; name at least one in 'images'")
    return ProductPage(
        product_id=values["product_id"],
        title=values["title"],
        images=images,
        description=values.get("description", ""),
        category=values.get("category", ""),
        brand=values.get("brand", ""),
        price=values.get("price", ""),
        attributes={name: text for name, text in values.items() if name not in _KNOWN_COLUMNS and text},
    )


def _text(where: str, column: str, value: object) -> str:
    """Returns a cell as text; a list is joined by commas, an object stays JSON."""
    if value is None:
        text = ""
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, list | tuple):
        text = ", ".join(_text(where, column, item) for item in value)
    elif isinstance(value, dict):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: column {column!r} holds half a character (\\ud800 to \\udfff); remove it") from error
    return text.strip()


def _image_uris(where: str, value: object) -> list[str]:
    if isinstance(value, str):
        value = value.split(_IMAGE_SEPARATOR)
    if value is None:
        value = []
    if not isinstance(value, list | tuple) or not all(isinstance(uri, str) for uri in value):
        raise UserError(f"{where}: column 'images' is not a list of paths or URLs; write it as one")
    return [text for uri in value if (text := _text(where, "images", uri))]


def _image(where: str, uri: str, folder: Path) -> PageImage:
    if is_url(uri):
        return PageImage(uri=uri)
    if "\0" in uri or ("://" in uri and not uri.lower().startswith("file://")):
        raise UserError(f"{where}: image {uri}: cannot be fetched; use a path or an http(s) URL")
    return PageImage(uri=str((folder / file_path(uri)).resolve()))


def _check_images(where: str, page: ProductPage) -> None:
    for image in page.images:
        if is_url(image.uri):
            continue
        try:
            load_image(image)
        except BadInput as error:
            raise UserError(f"{where}: column 'images': {error}; mend the file or remove it from the row") from error


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(repr(str(name)) for name in names)
