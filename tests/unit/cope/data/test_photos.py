"""Clones of public photo collections, in little, as `python -m cope.data.collect OUT --source CLONE` takes them."""

import json

import cv2
import numpy as np
import pytest

from cope.data.collect import main
from cope.data.opening import open_source
from cope.domains import DOMAINS

HEAD = (
    "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Iconic Image Path (str),"
    "Product Description Path (str)\n"
)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((20, 30, 3), len(path.name), np.uint8))


@pytest.fixture
def groceries(tmp_path):
    """Four classes; the list of descriptions errs as the real one does, and one photo is lost."""
    data = tmp_path / "GroceryStoreDataset" / "dataset"
    rows, lists = [HEAD], {"train": [], "test": []}
    for number, (name, coarse) in enumerate(
        (("Granny-Smith", "Apple"), ("Kiwi", "Kiwi"), ("Oatly-Oat-Milk", "Oat-Milk"), ("Arla-Milk", "Milk"))
    ):
        here = f"iconic-images-and-descriptions/{coarse}/{name}"
        picture(data / here / f"{name}_Iconic.jpg")
        (data / here / f"{name}_Description.txt").write_text(f"All about\n{name}.\n")
        (data / here / f"{name}_Description_Swedish.txt").write_text("Allt om\n")
        named = f"{name}_Description" if number == 1 else f"{name}_Description.txt"
        rows.append(f"{name},{number},{coarse},{number},/{here}/{name}_Iconic.jpg,/{here}/{named}\n")
        for photo in range(4):
            side = "train" if photo < 3 else "test"
            path = f"{side}/{coarse}/{name}/{name}_{photo:03}.jpg"
            lists[side].append(f"{path}, {number}, {number}\n" if side == "train" else f"{path}\n")
            if (number, photo) != (3, 3):
                picture(data / path)
    (data / "classes.csv").write_text("".join(rows))
    for side, lines in lists.items():
        (data / f"{side}.txt").write_text("".join(lines))
    return data.parent


@pytest.fixture
def subjects(tmp_path):
    data = tmp_path / "dreambooth" / "dataset"
    for name in ("backpack_dog", "teapot", "dog", "empty"):
        (data / name).mkdir(parents=True)
        for photo in range(0 if name == "empty" else 3):
            picture(data / name / f"0{photo}.jpg")
    lines = ["Classes", "", "subject_name,class", "backpack_dog,backpack", "dog,dog", "teapot,teapot", "empty,vase"]
    (data / "prompts_and_classes.txt").write_text("\n".join([*lines, "", "Prompts", "", "'a {0}, {1}'"]))
    return data.parent


def collected(source, out, *options):
    assert main([str(out), "--source", str(source), *options]) == 0
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_clone_of_the_grocery_store_becomes_pages_and_photos_of_them(groceries, tmp_path, capsys):
    rows = collected(groceries, tmp_path / "m", "--shares", "2", "1", "1")
    told = capsys.readouterr()
    assert told.out == f"4 products and 15 photos of them in {tmp_path / 'm' / 'manifest.jsonl'}\n"
    assert told.err == "1 files that the source names are not there, and were left out\n"
    pages = {row["product_id"]: row for row in rows if row["domain"] == "page"}
    assert pages["Granny-Smith"]["text"] == "Granny Smith\nAll about Granny-Smith."
    assert pages["Kiwi"]["text"] == "Kiwi\nAll about Kiwi."  # the list says another name than the file has
    assert pages["Oatly-Oat-Milk"]["category"] == "Oat-Milk"
    clips = [row["domain"] for row in rows if row["product_id"] == "Kiwi" and row["domain"] != "page"]
    assert clips == ["live", "video", "live", "video"]
    sides = {name: {row["split"] for row in rows if row["product_id"] == name} for name in pages}
    assert sorted(side for (side,) in sides.values()) == ["test", "train", "train", "val"]


def test_the_manifest_is_data_for_training_where_the_photos_lie(groceries, tmp_path):
    collected(groceries, tmp_path / "m", "--shares", "1", "0", "0", "--photos", "3")
    source = open_source(str(tmp_path / "m"), "train")
    assert [source.product_id(number) for number in range(len(source))].count("Kiwi") == 1
    for number in range(len(source)):
        items = {domain: list(source.items(number, domain)) for domain in DOMAINS}
        assert [len(items[domain]) for domain in ("page", "live")] == [1, 1]
        assert len(items["live"][0].images) == 3
        assert all(pixels is not None for every in items.values() for item in every for pixels in source.pictures(item))


def test_products_of_some_kind_alone(groceries, tmp_path):
    rows = collected(groceries, tmp_path / "m", "--only", "milk|kefir")
    assert {row["product_id"] for row in rows} == {"Oatly-Oat-Milk", "Arla-Milk"}
    assert not any("split" in row for row in rows)  # a hash of the id decides


def test_a_clone_of_dreambooth_becomes_the_things_in_it(subjects, tmp_path):
    rows = collected(subjects, tmp_path / "m")
    assert [(row["product_id"], row["domain"], row["text"]) for row in rows] == [
        ("backpack_dog", "page", "backpack dog\nbackpack"),
        ("backpack_dog", "live", ""),
        ("backpack_dog", "video", ""),
        ("teapot", "page", "teapot\nteapot"),
        ("teapot", "live", ""),
        ("teapot", "video", ""),
    ]


def test_photos_of_ones_own_with_a_catalogue(tmp_path):
    source = tmp_path / "own"
    for name in ("catalog/p.jpg", "photos/0.jpg", "photos/1.jpg"):
        picture(source / name)
    page = {"product_id": "a", "title": "Red Mug", "description": "Of clay.", "category": "Mugs", "images": ["p.jpg"]}
    (source / "catalog" / "catalog.jsonl").write_text(json.dumps(page) + "\n")
    photos = [{"file": "photos/0.jpg", "label": "a", "product_id": "a"}]
    photos.append({"file": "photos/1.jpg", "label": "x", "product_id": None, "title": "Blue Mug"})
    (source / "photos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in photos))
    rows = collected(source, tmp_path / "m")
    assert [(row["product_id"], row["domain"]) for row in rows] == [("a", "page"), ("a", "live"), ("x", "live")]
    assert rows[0]["text"] == "Red Mug\nOf clay."


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({}, "is no collection that is known: it has no dataset/classes.csv (GroceryStoreDataset)"),
        ({"classes.csv": HEAD}, "no photo of any product is there"),
        ({"classes.csv": HEAD + "Kiwi,0\n"}, "its lists are not as they should be"),
        ({"prompts_and_classes.txt": "Classes\n"}, "its lists are not as they should be"),
        ({"photos.jsonl": "{}\n"}, "photos.jsonl needs a catalog.jsonl beside it"),
    ],
)
def test_a_folder_of_another_kind_is_a_line(tmp_path, capsys, files, line):
    source = tmp_path / "source"
    source.mkdir()
    for name, text in files.items():
        (source / name).write_text(text)
    assert main([str(tmp_path / "m"), "--source", str(source)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and line in told[0]
    assert not (tmp_path / "m").exists()
