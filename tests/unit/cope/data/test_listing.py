import json
import os
import shutil

import cv2
import fsspec
import pytest

from cope.config import TrainConfig
from cope.data.files import CUT_OFF, NOT_UTF8, Folder
from cope.data.items import Counts
from cope.data.listing import NO_PICTURE, NOT_OBJECTS, REPEATED, fingerprint, local_folder, read_objects, read_products
from cope.data.opening import open_source
from cope.errors import UserError
from cope.training.features import Work


def test_a_list_of_any_tool_is_read_and_what_is_wrong_is_counted(objects):
    rows = (objects / "objects.jsonl").read_bytes().splitlines()
    rows[0] = b"\xef\xbb\xbf" + rows[0]
    rows[1] = rows[1].replace(b"velvet", b"vel\xe9")
    rows[2] = rows[2].replace(b"velvet", "vel\u2028vet".encode())
    rows[3] = rows[3].replace(b"velvet", rb"cut \ud83d")
    rows[4] = rows[4].replace(b"velvet", rb"whole \ud83d\ude00 \\ud83d")
    more = [rows[5], b"", b"  ", b"{}", b"[]", b"no json", b'{"id": "a", "group": "b", "name": null, "image": "0.png"}']
    (objects / "objects.jsonl").write_bytes(b"\r\n".join([*rows, *more]))
    counts = Counts()
    read = read_objects(objects, counts)
    assert [one.id for one in read] == [f"o{number}" for number in range(60)]
    names = [one.name.removesuffix(f" thing number{number}") for number, one in enumerate(read[:5])]
    assert names == ["velvet", "vel\ufffd", "vel\u2028vet", "cut \ufffd", "whole \U0001f600 \\ud83d"]
    assert counts.as_dict() == {NOT_OBJECTS: 4, NOT_UTF8: 1, CUT_OFF: 1, REPEATED: 1}
    # Both ways of rendering read the same.
    kept, source = Counts(), open_source(str(objects))
    assert [one.id for one in read_products(objects, "train", kept)] == [
        source.product_id(i) for i in range(len(source)) if source.product_id(i).isalnum()
    ]
    assert kept.as_dict() == source.counts.as_dict() == counts.as_dict()


def test_missing_and_broken_pictures_are_left_out_and_counted(objects):
    whole = [one.id for one in read_products(objects, "train")]
    (objects / f"{whole[0][1:]}.png").unlink()
    (objects / f"{whole[3][1:]}.png").write_bytes(b"no picture")
    counts = Counts()
    assert [one.id for one in read_products(objects, "train", counts)] == [*whole[1:3], *whole[4:]]
    assert counts.as_dict() == {NO_PICTURE: 2}


def without_pictures(objects):
    for file in objects.glob("*.png"):
        file.unlink()


def without_rows(objects):
    (objects / "objects.jsonl").write_text("{}\n\nno json\n")


@pytest.mark.parametrize("spoil", [without_pictures, without_rows])
def test_a_list_with_nothing_usable_stops_with_one_line(objects, spoil):
    spoil(objects)
    for read in (lambda: read_products(objects, "train"), lambda: open_source(str(objects))):
        with pytest.raises(UserError, match=r"no objects on the train side of the split \(\d+ ") as stopped:
            read()
        assert "\n" not in str(stopped.value)


def test_a_folder_without_a_list_says_how_to_make_one(tmp_path):
    for read in (lambda: read_products(tmp_path, "train"), lambda: fingerprint(tmp_path)):
        with pytest.raises(UserError, match=r"python -m cope\.data\.collect"):
            read()


def test_objects_are_read_from_a_url_of_this_machine_and_of_no_other(objects):
    source = open_source(objects.as_uri())
    assert source.folder == objects
    assert local_folder(Folder(objects.as_uri())) == objects
    memory = fsspec.filesystem("memory")
    memory.pipe("/objects-elsewhere/objects.jsonl", b"{}\n")
    with pytest.raises(UserError, match="copy it to this machine"):
        open_source("memory://objects-elsewhere")


def work(objects):
    return Work.of(TrainConfig(), objects).key([])


def test_a_copy_elsewhere_has_the_same_fingerprint(objects, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(objects, copy)
    for file in copy.rglob("*"):
        os.utime(file, (1, 1))
    assert fingerprint(copy) == fingerprint(objects)
    assert open_source(str(copy)).fingerprint == open_source(str(objects)).fingerprint
    assert work(copy) == work(objects)


@pytest.mark.parametrize("name", ["7.png", "backgrounds/1.jpg"])
def test_other_pictures_of_the_same_names_are_other_data(objects, name):
    before = open_source(str(objects)).fingerprint, work(objects)
    picture = cv2.imread(str(objects / name))
    cv2.imwrite(str(objects / name), 255 - picture)
    after = open_source(str(objects)).fingerprint, work(objects)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_a_picture_that_comes_later_changes_the_fingerprint(objects):
    row = {"id": "o", "group": "g", "name": "late", "image": "late.png"}
    with (objects / "objects.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n" + json.dumps({**row, "image": "no\0name"}) + "\n")
    before = fingerprint(objects)
    shutil.copy(objects / "0.png", objects / "late.png")
    assert fingerprint(objects) != before
