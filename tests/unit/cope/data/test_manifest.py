import json

import pytest

from cope.data.files import CUT_OFF
from cope.data.indexing import DUPLICATES, NO_IMAGES, SECOND_PRODUCT, SECOND_SPLIT
from cope.data.manifest import BAD_BOXES, FEW_FIELDS, NO_DOMAIN, NO_SPLIT, NOT_JSON
from cope.data.opening import open_source
from cope.errors import UserError
from tests.unit.cope.data.data_sets import picture


def rows(products=30):
    out = []
    for product in range(products):
        common = {"product_id": f"p{product}", "images": [f"{product}.jpg"]}
        out.append({**common, "domain": "page", "id": f"page{product}", "text": "Red mug", "category": "kitchen"})
        out.append({**common, "domain": "live", "id": f"live{product}", "room": f"room{product % 3}"})
    return out


def write(folder, items, name="manifest.jsonl", extra=()):
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(item, ensure_ascii=False) for item in items]
    (folder / name).write_text("".join(f"{line}\n" for line in [*lines, *extra]), encoding="utf-8")
    return folder


def by_id(source, domain):
    return {item.id: item for i in range(len(source)) for item in source.items(i, domain)}


def test_a_manifest_may_have_two_domains_only(tmp_path):
    source = open_source(str(write(tmp_path, rows())))
    assert source.sizes["video"] == 0
    assert source.sizes["page"] == source.sizes["live"] == len(source) > 15
    live = source.items(0, "live")[0]
    assert live.room.startswith("room")
    assert source.items(0, "page")[0].text == "Red mug"
    assert source.category(0) == "kitchen"
    assert not source.items(0, "video")


def test_a_manifest_may_be_named_in_full_or_come_in_parts(tmp_path):
    write(tmp_path / "one", rows(), "mine.jsonl")
    write(tmp_path / "parts", rows()[:30], "manifest-0.jsonl")
    write(tmp_path / "parts", rows()[30:], "manifest-1.jsonl")
    one, parts = open_source(str(tmp_path / "one" / "mine.jsonl")), open_source(str(tmp_path / "parts"))
    assert [one.product_id(i) for i in range(len(one))] == [parts.product_id(i) for i in range(len(parts))]


def test_pictures_lie_beside_the_manifest_or_anywhere(tmp_path):
    (tmp_path / "elsewhere.jpg").write_bytes(picture(1))
    items = rows()
    for item in items:
        item["images"] = [str(tmp_path / "elsewhere.jpg"), f"file://{tmp_path}/elsewhere.jpg", "near.jpg", "no.jpg"]
    source = open_source(str(write(tmp_path / "data", items)))
    (tmp_path / "data" / "near.jpg").write_bytes(picture(2))
    read = source.read(source.items(0, "live")[0])
    assert [one.pixels is not None for one in read] == [True, True, True, False]
    assert read[3].problem == "missing pictures"


def test_boxes_go_with_their_pictures(tmp_path):
    items = rows()
    for item in items[1::2]:
        item["images"] = ["a.jpg", "b.jpg"]
        item["boxes"] = [[0, 0.25, 0.5, 1], None]
    source = open_source(str(write(tmp_path, items)))
    clip = source.items(0, "live")[0]
    assert clip.boxes == ((0.0, 0.25, 0.5, 1.0), None)
    assert [one.box for one in source.read(clip)] == [(0.0, 0.25, 0.5, 1.0), None]
    assert source.items(0, "page")[0].boxes == ()


def test_the_manifest_may_decide_the_split(tmp_path):
    items = rows(6)
    for at, item in enumerate(items):
        item["split"] = ("train", "val", "test")[at // 2 % 3]
    items[0]["split"] = None  # its product's live clip still says
    items.append({**items[2], "id": "more", "split": "test"})
    sides = {split: open_source(str(write(tmp_path, items)), split) for split in ("train", "val", "test")}
    assert {split: {side.product_id(i) for i in range(len(side))} for split, side in sides.items()} == {
        "train": {"p0", "p3"},
        "val": {"p1", "p4"},
        "test": {"p2", "p5"},
    }
    assert sides["val"].counts.as_dict() == {SECOND_SPLIT: 1}


def test_what_is_wrong_is_counted_by_kind_and_skipped(tmp_path):
    good = rows()
    base = good[1]
    bad = [
        {k: v for k, v in base.items() if k != "product_id"},
        {**base, "id": ""},
        {**base, "id": "x1", "images": []},
        {**base, "id": "x2", "images": "a.jpg"},
        {**base, "id": "x3", "domain": "photo"},
        {**base, "id": "x4", "images": [None, 3]},
        {**base, "id": "b1", "boxes": [[0, 0, 2, 1]]},
        {**base, "id": "b2", "boxes": [[0, 0, 1, 1], None]},
        {**base, "id": "b3", "boxes": "none"},
        {**base, "id": "s", "split": "dev"},
    ]
    source = open_source(str(write(tmp_path, [*good, *bad], extra=["{", "[]", "[" * 100_000])))
    assert source.counts.as_dict() == {
        FEW_FIELDS: 4,
        BAD_BOXES: 3,
        NOT_JSON: 3,
        NO_DOMAIN: 1,
        NO_IMAGES: 1,
        NO_SPLIT: 1,
    }
    splits = [open_source(str(tmp_path), split) for split in ("train", "val", "test")]
    assert {"b1", "b2", "b3", "s"} <= {ident for side in splits for ident in by_id(side, "live")}


def test_of_rows_with_one_id_the_first_counts(tmp_path):
    items = rows()
    again = [{**items[1], "images": ["x.jpg"], "text": "again"}, {**items[3], "product_id": "p0", "images": ["y.jpg"]}]
    splits = [open_source(str(write(tmp_path, [*items, *again])), split) for split in ("train", "val", "test")]
    live = {ident: (side, item) for side in splits for ident, item in by_id(side, "live").items()}
    assert len(live) == 30
    assert (live["live0"][1].images, live["live0"][1].text) == (("0.jpg",), "")
    side, item = live["live1"]
    assert (side.product_id(item.product), item.images) == ("p1", ("1.jpg",))
    assert splits[0].counts.as_dict() == {DUPLICATES: 1, SECOND_PRODUCT: 1}


def test_numbers_are_names_too(tmp_path):
    items = [{**row, "product_id": at // 2, "id": at} for at, row in enumerate(rows())]
    source = open_source(str(write(tmp_path, items)))
    assert source.product_id(0) == "0"


def test_values_of_tables_and_html_are_read_as_in_catalogues(tmp_path):
    items = rows()
    for number, row in enumerate(items):
        row |= {"product_id": float(number // 2), "split": "train"}  # as tables keep ids of which some are missing
    items[0]["text"] = "<b>Red</b> mug &amp; saucer"
    items[2] |= {"text": float("nan"), "category": float("nan")}
    items.append({**items[0], "id": "lost", "product_id": float("nan")})
    source = open_source(str(write(tmp_path, items)))
    pages = by_id(source, "page")
    assert (pages["page0"].text, pages["page1"].text) == ("Red mug & saucer", "")
    assert {source.product_id(number) for number in range(len(source))} == {str(number) for number in range(30)}
    assert "nan" not in {source.category(number) for number in range(len(source))}
    assert source.counts[FEW_FIELDS] == 1


@pytest.mark.parametrize("keep", ["page", "live"])
def test_one_domain_alone_is_no_data_set(tmp_path, keep):
    write(tmp_path, [row for row in rows() if row["domain"] == keep])
    with pytest.raises(UserError, match=r"empty domain: no .* and no "):
        open_source(str(tmp_path))


def test_an_empty_manifest_has_no_usable_product(tmp_path):
    with pytest.raises(UserError, match="without a usable product"):
        open_source(str(write(tmp_path, [])))


def test_half_a_character_is_replaced_and_counted(tmp_path):
    common = r'"product_id": "p\udc00", "text": "cut \ud83d", "category": "c\ud83d", "room": "r\ud83d"'
    extra = [
        rf'{{{common}, "domain": "page", "id": "page\ud83d", "images": ["x\ud83d.jpg"], "split": "train"}}',
        rf'{{{common}, "domain": "live", "id": "live\ud83d", "images": ["x.jpg"]}}',
        r'{"product_id": "q", "domain": "page", "id": "q", "images": ["q.jpg"], "text": "\ud83d\ude00 \\ud83d"}',
    ]
    source = open_source(str(write(tmp_path, rows(), extra=extra)))
    assert source.counts[CUT_OFF] == 2
    number = next(i for i in range(len(source)) if source.product_id(i) == "p\ufffd")
    [page], [live] = (source.items(number, domain) for domain in ("page", "live"))
    assert (page.id, page.text, page.images, page.room) == ("page\ufffd", "cut \ufffd", ("x\ufffd.jpg",), "r\ufffd")
    assert (live.id, source.category(number)) == ("live\ufffd", "c\ufffd")
    sides = [open_source(str(tmp_path), split) for split in ("train", "val", "test")]
    texts = {one.text for side in sides for one in by_id(side, "page").values()}
    assert "\U0001f600 \\ud83d" in texts


def test_a_frame_that_stands_twice_in_a_clip_is_a_still(tmp_path):
    items = [{**row, "images": row["images"] * 3} if row["domain"] == "live" else row for row in rows()]
    source = open_source(str(write(tmp_path, items)))
    assert len(source.items(0, "live")[0].images) == 3
    assert not source.counts


def test_a_manifest_named_as_a_file_has_the_mirror_beside_it(tmp_path):
    items = [{**row, "images": [f"https://shop.example/{row['images'][0]}"]} for row in rows()]
    write(tmp_path, items, "mine.jsonl")
    (tmp_path / "images" / "shop.example").mkdir(parents=True)
    for product in range(30):
        (tmp_path / "images" / "shop.example" / f"{product}.jpg").write_bytes(picture(product))
    source = open_source(str(tmp_path / "mine.jsonl"))
    assert source.concurrency == 1
    assert source.pictures(source.items(0, "live")[0])[0] is not None


def test_a_side_that_the_data_leave_empty_is_named(tmp_path):
    folder = write(tmp_path, [{**row, "split": "train"} for row in rows()])
    with pytest.raises(UserError, match=r"no products on the val side of the split, which the data decide where they"):
        open_source(str(folder), "val")
