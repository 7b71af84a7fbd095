"""Turns the bytes of a catalogue (CSV, TSV, JSON, XML or Parquet) into rows of named values."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from html.entities import html5
from typing import Any, Literal
from xml.etree import ElementTree

import pyarrow
import pyarrow.parquet

from topology.errors import UserError

Row = tuple[str, Mapping[str, object] | UserError]
"""Where it is, as in "line 3", and its values by column; or what is wrong with it."""

KINDS = "CSV, TSV, JSON, JSON lines, XML (RSS or Atom) or Parquet"
# A feed of a million products has some 2 GB; beyond this a packed file is a bomb.
MOST_BYTES = 4 << 30
# How much of a value an error message quotes: enough to find it.
_SHOWN = 60
_NO_OBJECT = "not a JSON object; write one object a product"
# How workbooks, databases, documents, pictures and archives begin.
_OTHER_KINDS = (
    *(b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"SQLite format 3\0", b"ARROW1", b"%PDF-", b"\x89PNG", b"\xff\xd8\xff"),
    *(b"BZh91AY", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf"),
)
_DELIMITERS = ",;\t|"


def shown(value: object) -> str:
    """Returns a value for an error message: quoted, and cut if it is long."""
    text = str(value)
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def listed(names: Iterator[str] | list[str] | tuple[str, ...]) -> str:
    """Returns names for an error line, at most a dozen."""
    names = list(names)
    return ", ".join(map(shown, names[:12])) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def rows_of(name: str, data: bytes) -> Iterator[Row]:
    """Yields the rows of a catalogue, of whichever kind its content is.

    Args:
        name: Name of the file, for error messages.
        data: The file; it may be packed by gzip.

    Raises:
        UserError: The file is of no known kind, or broken; the message names file and line.
    """
    if data.startswith(b"\x1f\x8b"):
        data = _unpacked(name, data)
    if data.startswith(b"PAR1") or name.lower().endswith(".parquet"):
        return _parquet(name, data)
    if data.startswith(_OTHER_KINDS):
        raise UserError(f"{name}: a workbook, an archive or the like is an unknown kind of catalogue; save it as CSV")
    if b"\0" not in data[:1000] and data[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return _xml(name, data)
    text = _text(name, data)
    if text.lstrip().startswith("<"):
        # A parser that is given bytes would believe the encoding that the declaration names.
        return _xml(name, re.sub(r"^\s*<\?xml[^>]*\?>", "", text).encode())
    if text.lstrip().startswith(("{", "[")):
        return _json(name, text)
    if name.lower().endswith((".json", ".jsonl", ".ndjson")) and text.strip():
        return _json(name, text)
    return _csv(name, text)


def _unpacked(name: str, data: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            unpacked = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{name}: broken gzip ({error}); pack or download it again") from error
    if len(unpacked) > MOST_BYTES:
        raise UserError(f"{name}: more than {MOST_BYTES >> 30} GB when unpacked; split it")
    return unpacked


def _text(name: str, data: bytes) -> str:
    encoding = "utf-8-sig"
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        encoding = "utf-32"
    elif data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif data[:200].count(0) > len(data[:200]) // 4:  # no mark: letters of the header have a zero behind or before them
        encoding = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
    try:
        return data.decode(encoding).replace("\0", "")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        if encoding != "utf-8-sig":
            raise UserError(f"{name}, line {line}: broken {encoding[:6].upper()}; save it as UTF-8") from error
        raise UserError(
            f"{name}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8, "
            f"for example: iconv -f {_likely_encoding(data)} -t UTF-8 {name.rpartition('/')[2]}"
        ) from error


def _likely_encoding(data: bytes) -> str:
    """Guesses: Chinese characters are pairs of high bytes, while Western accents stand among plain letters."""
    runs = re.findall(rb"[\x80-\xff]+[\x40-\xff]?", data)
    paired = sum(len(run) >= 3 for run in runs)
    for encoding, fits in {"GB18030": paired * 2 > len(runs), "WINDOWS-1252": True}.items():
        with suppress(UnicodeDecodeError):
            data.decode(encoding)
            if fits:
                return encoding
    return "ITS-ENCODING"


# ---------------------------------------------------------------------- CSV


def _csv(name: str, text: str) -> Iterator[Row]:
    csv.field_size_limit(1 << 30)  # descriptions with pictures pasted into them
    skipped = 0
    if match := re.match(r"sep=(.)\r?\n", text, re.IGNORECASE):  # Excel's own first line
        delimiter, skipped, text = match[1], 1, text[match.end() :]
    else:
        delimiter = _delimiter(text)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
    if delimiter == "\t" and not _is_sound(text):
        quoting = csv.QUOTE_NONE  # Google's feeds: a cell may begin with an inch mark
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, quoting=quoting)
    try:
        header = [column.strip() for column in next(reader, [])]
        while header and not header[-1]:
            header.pop()
        if not header:
            raise UserError(f"{name}: no products in it; add a header and one row per product")
        twice = sorted({column for column in header if column and header.count(column) > 1})
        if twice:
            raise UserError(f"{name}: column {listed(twice)} is there twice; rename one")
        for cells in reader:
            where = f"line {reader.line_num + skipped}"
            if not any(cell.strip() for cell in cells):
                continue
            if any(cell.strip() for cell in cells[len(header) :]):
                yield (
                    where,
                    UserError(
                        f"{len(cells)} cells under {len(header)} columns; "
                        f'put values that contain a {_NAMES.get(delimiter, "delimiter")} in quotes ("a, b")'
                    ),
                )
                continue
            yield where, {column: cell for column, cell in zip(header, cells, strict=False) if column}
    except csv.Error as error:
        line = reader.line_num + skipped
        raise UserError(f"{name}, line {line}: broken CSV ({error}); mend its quotes") from error


_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}


def _delimiter(text: str) -> str:
    """Returns the delimiter that splits the header into the most cells."""

    def cells(delimiter: str) -> int:
        try:
            return len(next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), []))
        except csv.Error:
            return 0

    return max(_DELIMITERS, key=cells)


def _is_sound(text: str) -> bool:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True)
    try:
        for _ in reader:
            pass
    except csv.Error:
        return False
    return True


# ---------------------------------------------------------------------- JSON


def _json(name: str, text: str) -> Iterator[Row]:
    whole: Any = None
    word = "item"
    if text.lstrip().startswith("["):
        whole = _loaded(name, text)
    else:
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError):
            whole = None
        if isinstance(whole, dict):
            lists = [value for value in whole.values() if _is_table(value)]
            if len(lists) == 1 and "title" not in whole:
                whole = lists[0]
            else:
                whole, word = [whole], "line"
    if isinstance(whole, list):
        for number, row in enumerate(whole, start=1):
            yield f"{word} {number}", row if isinstance(row, dict) else UserError(_NO_OBJECT)
        return
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                row = UserError(f"not JSON ({error}); write one JSON object a line")
            yield f"line {number}", row if isinstance(row, dict | UserError) else UserError(_NO_OBJECT)


def _loaded(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise UserError(f"{name}, line {line}: not JSON ({error}); write a list of objects") from error


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


# ---------------------------------------------------------------------- XML


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses document types, which feeds do not have: entities that they declare can fill the memory."""

    def doctype(self, _name: str, _pubid: str | None, _system: str | None) -> None:
        raise UserError("a document type, which feeds have none of; remove <!DOCTYPE …>")


# Shops write entities of HTML and control characters, which XML does not allow.
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r"))
_HTML_ENTITY = re.compile(rb"&(?!(?:amp|lt|gt|quot|apos);)([A-Za-z][A-Za-z0-9]{1,30});")


def _tidied(data: bytes) -> bytes:
    return _HTML_ENTITY.sub(_numbered, data.translate(None, _CONTROL).lstrip())


def _numbered(entity: re.Match[bytes]) -> bytes:
    text = html5.get(f"{entity[1].decode()};", "")
    return "".join(f"&#{ord(letter)};" for letter in text).encode() or entity[0]


def _xml(name: str, data: bytes) -> Iterator[Row]:
    if re.match(rb"\s*(<!doctype\s+html|<html)\b", data.removeprefix(b"\xef\xbb\xbf")[:1000], re.IGNORECASE):
        raise UserError(f"{name}: a web page, not a feed; check its address, and that it needs no login")
    # The tree builder above refuses what makes XML dangerous: document types, and with them entities of their own.
    parser = ElementTree.XMLParser(target=_NoDoctype())  # noqa: S314
    try:
        root = ElementTree.fromstring(_tidied(data), parser)  # noqa: S314
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        line = error.position[0] if isinstance(error, ElementTree.ParseError) else 1
        raise UserError(f"{name}, line {line}: broken XML ({error}); export it again") from error
    items = [element for element in root.iter() if _local(element.tag) in ("item", "entry")]
    if not items:
        raise UserError(f"{name}: XML without <item> (RSS) or <entry> (Atom); export a Google Merchant feed")
    for number, item in enumerate(items, start=1):
        row: dict[str, object] = {}
        for element in item:
            _add(row, element)
        yield f"item {number}", row


def _add(row: dict[str, object], element: ElementTree.Element) -> None:
    column = _local(element.tag)
    if len(element) and column not in ("title", "description", "summary", "content"):
        return  # shipping, taxes, instalments
    value = "".join(element.itertext()).strip() or element.get("href", "")
    before = row.get(column)
    if before is None or before == "":
        row[column] = value
    elif value and column.endswith("image_link"):
        row[column] = [*before, value] if isinstance(before, list) else [before, value]
    elif "base.google.com" in element.tag and value:
        row[column] = value  # <g:title> beside RSS's own <title>


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


# ---------------------------------------------------------------------- Parquet


def _parquet(name: str, data: bytes) -> Iterator[Row]:
    try:
        with pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data)) as file:
            number = 0
            for batch in file.iter_batches():
                for row in zip(*map(_values, batch.columns), strict=True):
                    number += 1
                    yield f"row {number}", dict(zip(batch.schema.names, row, strict=True))
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        summary = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{name}: not a sound Parquet file ({summary}); write it again") from error


def _values(column: pyarrow.Array) -> list[object]:
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):  # times that Python does not know: nanoseconds, the year 10000
        return list(column.cast(pyarrow.string()).to_pylist())
