import pytest

from cope.data.indexing import DUPLICATES
from cope.data.lpr4m import BAD_BOXES, FEW_COLUMNS
from cope.data.opening import open_source
from cope.errors import UserError
from tests.unit.cope.data.data_sets import picture


def row(clip, image, frames="f/1.jpg;f/2.jpg", boxes="0.1,0.2,0.5,0.6;", room="r1"):
    tags = ["small", "long", "clean"]
    return "\t".join(
        [f"v{clip}", frames, boxes, image, f"Mug, {image}", "12", "kitchen", "this mug, here", *tags, room]
    )


def rows(products=30):
    return [row(2 * product + clip, str(product)) for product in range(products) for clip in range(2)]


def write(folder, lines, name="clips.tsv"):
    (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return str(folder)


def test_a_product_is_a_shop_image_with_its_clips(tmp_path):
    heading = "video_id\tframes\tboxes\timage_id\ttitle\tcategory_id\tcategory\tasr\ta\tb\tc\troom"
    source = open_source(write(tmp_path, [heading, *rows()]))
    (tmp_path / "images").mkdir()
    number = source.product_id(0)
    (tmp_path / "images" / f"{number}.jpg").write_bytes(picture(0))
    assert source.sizes == {"page": len(source), "video": 0, "live": 2 * len(source)}
    [page] = source.items(0, "page")
    assert (page.text, page.room, page.images) == (f"Mug, {number}", "r1", (f"images/{number}.jpg",))
    assert source.pictures(page)[0].shape == (48, 64, 3)
    clip = source.items(0, "live")[1]
    assert (clip.text, clip.room, clip.images) == ("this mug, here", "r1", ("f/1.jpg", "f/2.jpg"))
    assert clip.boxes == ((0.1, 0.2, 0.5, 0.6), None)
    assert source.category(0) == "kitchen"
    assert not source.counts


def test_an_image_may_be_named_by_its_path(tmp_path):
    source = open_source(write(tmp_path, [row(i, f"shop/{i}.png") for i in range(30)]))
    assert source.items(0, "page")[0].images[0].startswith("shop/")


def test_file_names_decide_the_split(tmp_path):
    write(tmp_path, rows(6)[:8], "train.tsv")
    write(tmp_path, rows(6)[8:], "test.tsv")
    assert [open_source(str(tmp_path), "train").product_id(i) for i in range(4)] == ["0", "1", "2", "3"]
    assert [open_source(str(tmp_path), "test").product_id(i) for i in range(2)] == ["4", "5"]


def test_the_room_may_be_left_out(tmp_path):
    source = open_source(write(tmp_path, [line.rpartition("\t")[0] for line in rows()]))
    assert source.items(0, "live")[0].room == ""


def test_what_is_wrong_is_counted_by_kind_and_skipped(tmp_path):
    bad = ["v\tf.jpg", row("x", ""), row("b1", "1", boxes="0,0,1,1"), row("b2", "1", boxes="a,b,c,d;")]
    source = open_source(write(tmp_path, [*rows(), *bad, row("b3", "1", boxes="0,0,2,1;")]))
    assert source.counts.as_dict() == {BAD_BOXES: 3, FEW_COLUMNS: 2}


def test_a_clip_that_stands_twice_is_counted_once(tmp_path):
    source = open_source(write(tmp_path, [*rows(), rows()[0]]))
    assert source.counts.as_dict() == {DUPLICATES: 1}


def test_other_tables_are_named(tmp_path):
    with pytest.raises(UserError, match=r"clips\.tsv has 2 tab-separated columns, LPR4M has 11"):
        open_source(write(tmp_path, ["a\tb", "1\t2"]))


def test_clips_without_frames_leave_an_empty_domain(tmp_path):
    with pytest.raises(UserError, match="empty domain: no live clip has"):
        open_source(write(tmp_path, [row(i, str(i), frames="", boxes="") for i in range(30)]))
