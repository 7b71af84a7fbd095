import gzip
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from topology.errors import UserError
from workers.catalog.files import read_all, read_catalog

GOOD = {"product_id": "p-1", "title": "Red bag", "images": ["bag.png"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "bag.png"), np.full((20, 30, 3), 80, np.uint8))
    return tmp_path


def json_lines(folder: Path, *rows: object) -> Path:
    path = folder / "catalog.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def csv_file(folder: Path, text: str) -> Path:
    path = folder / "catalog.csv"
    path.write_text(text, encoding="utf-8")
    return path


def error_of(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_catalog(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def test_json_lines_give_all_fields(folder: Path) -> None:
    row = GOOD | {
        "description": "Soft.",
        "category": "Bags",
        "brand": "Acme",
        "price": 59.5,
        "colour": "red",
        "sizes": ["S", "M"],
        "vegan": True,
        "note": None,
    }
    [page] = read_catalog(json_lines(folder, row), check_images=True)
    assert (page.product_id, page.title, page.description) == ("p-1", "Red bag", "Soft.")
    assert (page.category, page.brand, page.price) == ("Bags", "Acme", "59.5")
    assert page.attributes == {"colour": "red", "sizes": "S, M", "vegan": "true"}
    assert [image.uri for image in page.images] == [str(folder / "bag.png")]


GOOD_CSV = "product_id,title,images\np-1,Bag,bag.png\n"


def test_the_three_formats_give_the_same_pages(folder: Path) -> None:
    row = GOOD | {"title": "红色包", "images": ["bag.png", "https://shop.example/b.jpg"], "colour": "red"}
    csv = csv_file(folder, 'product_id,title,images,colour\np-1,红色包,"bag.png|https://shop.example/b.jpg",red\n')
    parquet = folder / "catalog.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), parquet)
    pages = read_catalog(json_lines(folder, row))
    assert read_catalog(csv) == pages
    assert read_catalog(parquet) == pages
    assert pages[0].images[1].uri == "https://shop.example/b.jpg"


def test_a_byte_order_mark_and_blank_lines_are_no_matter(folder: Path) -> None:
    csv = folder / "catalog.csv"
    csv.write_bytes(b"\xef\xbb\xbfproduct_id,title,images\r\n\r\np-1,Bag,bag.png\r\n")
    assert [page.product_id for page in read_catalog(csv)] == ["p-1"]


def test_numbers_may_be_ids(folder: Path) -> None:
    assert read_catalog(json_lines(folder, GOOD | {"product_id": 42}))[0].product_id == "42"


def test_file_urls_and_absolute_paths_are_paths(folder: Path) -> None:
    image = folder / "bag.png"
    [page] = read_catalog(json_lines(folder, GOOD | {"images": [f"file://{image}", str(image)]}), check_images=True)
    assert [image.uri for image in page.images] == [str(image), str(image)]


def test_urls_are_not_fetched_by_the_check(folder: Path) -> None:
    row = GOOD | {"images": ["http://127.0.0.1:9/none.jpg"]}
    assert len(read_catalog(json_lines(folder, row), check_images=True)) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"product_id": " "}, ["line 1", "'product_id'", "empty"]),
        ({"title": ""}, ["line 1", "'title'", "empty"]),
        ({"title": None}, ["line 1", "'title'", "empty"]),
        ({"images": []}, ["line 1", "'p-1'", "no images"]),
        ({"images": {"a": 1}}, ["line 1", "'images'", "not a list"]),
        ({"images": [1]}, ["line 1", "'images'", "not a list"]),
        ({"images": ["ftp://shop.example/a.jpg"]}, ["line 1", "ftp://shop.example/a.jpg", "http(s)"]),
        ({"title": "half \ud83d"}, ["line 1", "'title'", "half a character"]),
    ],
)
def test_a_bad_value_is_named_with_its_row_and_column(
    folder: Path, change: dict[str, object], words: list[str]
) -> None:
    message = error_of(json_lines(folder, GOOD | change))
    assert all(word in message for word in words), message


@pytest.mark.parametrize("column", ["product_id", "title", "images"])
def test_a_missing_column_is_named(folder: Path, column: str) -> None:
    row = {name: value for name, value in GOOD.items() if name != column}
    assert f"column '{column}' is missing" in error_of(json_lines(folder, row))
    parquet = folder / "catalog.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), parquet)
    assert f"column '{column}' is missing" in error_of(parquet)
    header = ",".join(row)
    assert f"column '{column}' is missing" in error_of(csv_file(folder, f"{header}\na,b\n"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_other_delimiters_and_trailing_empty_cells_are_read(folder: Path, delimiter: str) -> None:
    rows = ["product_id,title,images,,", 'p-1,"Bag, red; or | not",bag.png,,,,', ",,,,", "p-2,Box,bag.png"]
    text = "\n".join(row.replace(",", delimiter).replace(f"Bag{delimiter} red", "Bag, red") for row in rows)
    pages = read_catalog(csv_file(folder, text))
    assert [(page.product_id, page.title) for page in pages] == [("p-1", "Bag, red; or | not"), ("p-2", "Box")]


def test_excels_first_line_names_the_delimiter(folder: Path) -> None:
    path = csv_file(folder, "sep=;\r\nproduct_id;title;images\r\np-1;a,b,c,d;bag.png\r\n;x;y\r\n")
    assert "line 4" in error_of(path)
    assert len(read_all(path).pages) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_unicode_in_any_encoding_is_read(folder: Path, encoding: str, kind: str) -> None:
    text = "product_id,title,images\np-1,红色包,bag.png\n"
    if kind == "jsonl":
        text = json.dumps(GOOD | {"title": "红色包"}, ensure_ascii=False)
    path = folder / f"catalog.{kind}"
    path.write_bytes(text.encode(encoding))
    assert read_catalog(path)[0].title == "红色包"


@pytest.mark.parametrize(
    ("title", "encoding"),
    [("红色包", "gb18030"), ("Café crème à la crème brûlée", "windows-1252"), ("10 € – Größe", "windows-1252")],
)
def test_another_encoding_is_guessed_for_the_hint(folder: Path, title: str, encoding: str) -> None:
    path = folder / "catalog.csv"
    path.write_bytes(f"product_id,title,images\np-1,{title},bag.png\n".encode(encoding))
    assert f"iconv -f {encoding.upper()} " in error_of(path)


def test_a_field_longer_than_the_csv_module_takes_is_read(folder: Path) -> None:
    path = csv_file(folder, f"product_id,title,images,description\np-1,Bag,bag.png,{'word ' * 60_000}\n")
    assert len(read_catalog(path)[0].description) > 200_000


def test_values_of_tables_become_texts(folder: Path) -> None:
    rows = [
        {"product_id": 42.0, "title": b"Bag", "images": ["bag.png"], "brand": float("nan"), "price": 9.5, "n": None},
        {"product_id": 43.0, "title": b"Box", "images": ["bag.png"], "brand": 7.0, "price": 10.0, "n": 1e300},
    ]
    path = folder / "catalog.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    first, second = read_catalog(path)
    assert (first.product_id, first.title, first.brand, first.price) == ("42", "Bag", "", "9.5")
    assert (second.product_id, second.brand, second.price) == ("43", "7", "10")


def test_times_that_python_does_not_know_become_texts(folder: Path) -> None:
    columns = {name: pyarrow.array([value]) for name, value in GOOD.items()} | {
        "made": pyarrow.array([1], pyarrow.timestamp("ns")),
        "lasts": pyarrow.array([1], pyarrow.duration("ns")),
        "until": pyarrow.array([300_000_000_000], pyarrow.timestamp("s")),
    }
    path = folder / "catalog.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    [page] = read_catalog(path)
    assert page.product_id == "p-1" and page.attributes["made"] == "1970-01-01 00:00:00.000000001"


def test_what_is_no_number_is_empty(folder: Path) -> None:
    path = folder / "catalog.jsonl"
    path.write_text('{"product_id": "1", "title": "Bag", "images": ["bag.png"], "brand": NaN, "price": -Infinity}\n')
    [page] = read_catalog(path)
    assert (page.brand, page.price) == ("", "")


def test_ids_that_a_table_has_made_numbers_are_whole_in_csv_too(folder: Path) -> None:
    rows = "42.0,Bag,bag.png,5.0\n,No id,bag.png,5.0\n43.0,Box,bag.png,5.5\n"
    found = read_all(csv_file(folder, f"product_id,title,images,bluetooth\n{rows}"))
    assert [page.product_id for page in found.pages] == ["42", "43"]
    assert found.pages[0].attributes == {"bluetooth": "5.0"}
    versions = csv_file(folder, "product_id,title,images\n1.0,Bag,bag.png\n1.5,Box,bag.png\n")
    assert [page.product_id for page in read_catalog(versions)] == ["1.0", "1.5"]


@pytest.mark.parametrize(
    "data", [b"SQLite format 3\0" + bytes(100), b"ARROW1\0\0", b"%PDF-1.7\n", b"\x89PNG\r\n\x1a\n", b"BZh91AY&SY"]
)
def test_what_is_no_text_is_of_an_unknown_kind(folder: Path, data: bytes) -> None:
    path = folder / "catalog.csv"
    path.write_bytes(data)
    assert "unknown kind" in error_of(path) and "save it as CSV" in error_of(path)


def test_bytes_that_are_no_text_are_refused_with_row_and_column(folder: Path) -> None:
    path = folder / "catalog.parquet"
    rows = [GOOD | {"note": b"fine"}, GOOD | {"product_id": "p-2", "note": b"\xff\xfe\x00"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    message = error_of(path)
    assert "row 2" in message and "'note'" in message and "UTF-8" in message


def test_json_arrays_and_wrapped_arrays_are_read(folder: Path) -> None:
    for value in ([GOOD], {"products": [GOOD]}, GOOD):
        path = folder / "catalog.json"
        path.write_text(json.dumps(value, indent=2))
        assert [page.product_id for page in read_catalog(path)] == ["p-1"]


def test_a_packed_file_is_read(folder: Path) -> None:
    path = folder / "catalog.csv.gz"
    path.write_bytes(gzip.compress(b"product_id,title,images\np-1,Bag,bag.png\n"))
    assert len(read_catalog(path)) == 1
    path.write_bytes(gzip.compress(b"product_id")[:-3])
    assert "gzip" in error_of(path)


def test_other_names_of_columns_are_mapped(folder: Path) -> None:
    path = csv_file(folder, "nr,Name,foto\n1,Bag,bag.png\n")
    columns = {"product_id": "nr", "title": "Name", "images": "foto"}
    [page] = read_catalog(path, columns=columns)
    assert (page.product_id, page.title, page.attributes) == ("1", "Bag", {})
    with pytest.raises(UserError, match="no column 'Nome'"):
        read_catalog(path, columns=columns | {"title": "Nome"})
    assert "--map product_id=" in error_of(path)


def test_a_row_that_is_wrong_is_noted_and_the_others_are_read(folder: Path) -> None:
    rows = "1,Bag,bag.png\n2,,bag.png\n3,Box,none.png\n4,a,b,c\n1,Again,bag.png\n5,Cup,bag.png\n"
    found = read_all(csv_file(folder, f"product_id,title,images\n{rows}"), check_images=True)
    assert [page.product_id for page in found.pages] == ["1", "5"]
    assert [problem.split(": ")[0].rpartition(", ")[2] for problem in found.problems] == [
        f"line {line}" for line in (3, 4, 5, 6)
    ]
    assert found.broken_ids == {"2", "3"}


@pytest.mark.parametrize(
    "row",
    [
        GOOD | {"images": ["data:image/png;base64," + "A" * 44_000]},
        GOOD | {"images": ["ftp://ann:pass@h/" + "A" * 44_000]},
        GOOD | {"images": ["A" * 44_000]},
        GOOD | {"images": [], "product_id": "A" * 44_000},
        {"A" * 44_000: 1},
        {f"column {number}": 1 for number in range(9_000)},
    ],
)
def test_a_line_never_holds_a_whole_value(folder: Path, row: dict[str, object]) -> None:
    message = error_of(json_lines(folder, row), check_images=True)
    assert len(message.removeprefix(str(folder))) < 1_500
    assert "pass" not in message


def test_duplicate_ids_name_both_lines(folder: Path) -> None:
    message = error_of(json_lines(folder, GOOD, GOOD | {"product_id": "p-2"}, GOOD))
    assert "line 3" in message
    assert "line 1" in message
    assert "'p-1'" in message


@pytest.mark.parametrize("name", ["catalog.jsonl", "catalog.csv"])
def test_an_empty_file_has_no_products(folder: Path, name: str) -> None:
    (folder / name).touch()
    assert "no products" in error_of(folder / name)


def test_a_header_alone_has_no_products(folder: Path) -> None:
    assert "no products" in error_of(csv_file(folder, "product_id,title,images\n"))


def test_another_encoding_names_the_line_and_how_to_convert(folder: Path) -> None:
    path = folder / "catalog.csv"
    path.write_bytes("product_id,title,images\np-1,红色包,bag.png\n".encode("gb18030"))
    message = error_of(path)
    assert "line 2" in message
    assert "iconv" in message


@pytest.mark.parametrize("line", ["{", "[1]", "null", '"text"', "[" * 5000])
def test_a_line_that_is_no_json_object_is_named(folder: Path, line: str) -> None:
    path = folder / "catalog.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    message = error_of(path)
    assert "line 2" in message
    assert "JSON" in message


def test_too_many_cells_are_named(folder: Path) -> None:
    message = error_of(csv_file(folder, "product_id,title,images\np-1,Bag, red,bag.png\n"))
    assert "line 2" in message
    assert "4 cells under 3 columns" in message


def test_an_open_quote_is_named(folder: Path) -> None:
    assert "broken CSV" in error_of(csv_file(folder, 'product_id,title,images\np-1,"Bag,bag.png\n'))


def test_a_column_that_is_there_twice_is_named(folder: Path) -> None:
    assert "'title' is there twice" in error_of(csv_file(folder, "product_id,title,images,title\np-1,a,bag.png,b\n"))


def test_a_broken_parquet_file_is_named(folder: Path) -> None:
    path = folder / "catalog.parquet"
    path.write_bytes(b"PAR1 nothing PAR1")
    assert "Parquet" in error_of(path)


def test_an_unknown_extension_a_folder_and_no_file_are_told_apart(folder: Path) -> None:
    other = folder / "catalog.xlsx"
    other.touch()
    assert "unknown kind" in error_of(other)
    assert "folder" in error_of(folder)
    assert "no such file" in error_of(folder / "none.csv")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.png", None, "no such image file"),
        ("text.png", b"hello", "not an image"),
        ("empty.png", b"", "not an image"),
    ],
)
def test_a_broken_image_is_found_by_the_check_only(folder: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (folder / name).write_bytes(content)
    path = json_lines(folder, GOOD, GOOD | {"product_id": "p-2", "images": ["bag.png", name]})
    assert len(read_catalog(path)) == 2
    message = error_of(path, check_images=True)
    assert "line 2" in message
    assert name in message
    assert words in message


@pytest.mark.parametrize(
    "data",
    [
        GOOD_CSV.encode("utf-32"),
        GOOD_CSV.replace("Bag", "B\0ag").encode(),
        GOOD_CSV.replace("product_id,title,images", " Product_ID ,Title,IMAGES").encode(),
    ],
    ids=["utf-32", "a zero byte", "names in other letters"],
)
def test_what_tools_do_to_tables_is_undone(folder: Path, data: bytes) -> None:
    (folder / "catalog.csv").write_bytes(data)
    assert [page.title for page in read_catalog(folder / "catalog.csv")] == ["Bag"]


def test_an_encoding_that_cannot_be_told_is_not_guessed(folder: Path) -> None:
    (folder / "catalog.csv").write_bytes("product_id,title,images\n1,赤い急須,bag.png\n".encode("shift_jis"))
    with pytest.raises(UserError, match="iconv -f ITS-ENCODING"):
        read_catalog(folder / "catalog.csv")


def test_an_id_with_a_control_character_is_named_with_its_row(folder: Path) -> None:
    found = read_all(json_lines(folder, GOOD | {"product_id": "p\x1b[2J"}, GOOD))
    assert [page.product_id for page in found.pages] == ["p-1"]
    assert r"line 1: a page with a control character in its product_id 'p\x1b[2J'" in found.problems[0]
