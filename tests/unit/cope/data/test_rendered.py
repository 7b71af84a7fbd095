import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from cope.data.listing import NO_PICTURE, NOT_OBJECTS
from cope.data.loader import batches
from cope.data.opening import open_source
from cope.data.rendered import RenderedSource
from cope.data.writing import main
from cope.domains import DOMAINS
from cope.errors import UserError
from cope.evaluation.collecting import RENDERED_ITEMS, Sampling, rows_of
from tests.unit.cope.data.data_sets import tokenize

pytestmark = pytest.mark.slow


def test_a_source_renders_the_same_whatever_was_rendered_before(objects):
    first, second = (open_source(str(objects)) for _ in range(2))
    second.read(second.items(5, "live")[2])
    for domain in DOMAINS:
        item = first.items(3, domain)[1]
        assert item == second.items(3, domain)[1]
        read = first.read(item)
        assert all(np.array_equal(a, b) for a, b in zip(first.pictures(item), second.pictures(item), strict=True))
        assert [one.box for one in read] == [one.box for one in second.read(item)]
        # A clip's frame does not depend on which others are asked for.
        last = replace(item, images=item.images[-1:])
        assert np.array_equal(second.read(last)[0].pixels, read[-1].pixels)


def test_other_items_seeds_and_sides_look_otherwise(objects):
    source, other = RenderedSource(objects, "train"), RenderedSource(objects, "train", seed=1)
    a, b = (source.read(source.items(3, "live")[i])[0].pixels for i in range(2))
    c = other.read(other.items(3, "live")[0])[0].pixels
    assert a.shape != b.shape or not np.array_equal(a, b)
    assert a.shape != c.shape or not np.array_equal(a, c)
    assert source.fingerprint != other.fingerprint


def test_boxes_hold_the_product(objects):
    source = open_source(str(objects))
    number = next(i for i in range(len(source)) if source.product_id(i).isalnum())
    found = 0
    for at in range(6):
        for picture in source.read(source.items(number, "video")[at]):
            assert picture.pixels.shape in ((360, 640, 3), (640, 360, 3))
            if picture.box is not None:
                x0, y0, x1, y1 = picture.box
                assert 0 <= x0 < x1 <= 1
                assert 0 <= y0 < y1 <= 1
                found += 1
    assert found > 40


def test_a_clip_moves(objects):
    source = open_source(str(objects))
    boxes = [one.box for one in source.read(source.items(2, "video")[0])]
    assert len(boxes) == 8
    assert boxes[0] != boxes[3] != boxes[7]


def test_sides_share_no_object_and_no_sibling(objects):
    sides = {split: open_source(str(objects), split) for split in ("train", "val", "test")}
    groups = {split: {side.category(i) for i in range(len(side))} for split, side in sides.items()}
    real = {split: {group for group in some if group.startswith("g")} for split, some in groups.items()}
    assert sum(map(len, real.values())) == len(set.union(*real.values())) == 30
    assert any("+hue" in sides["train"].product_id(i) for i in range(len(sides["train"])))
    assert any(sides["train"].product_id(i).startswith("thing-") for i in range(len(sides["train"])))


def test_hosts_name_products_or_something_else_or_nothing(objects):
    source = open_source(str(objects))
    names = {row["id"]: row["name"] for row in map(json.loads, (objects / "objects.jsonl").read_text().splitlines())}
    number = next(i for i in range(len(source)) if source.product_id(i) in names)
    name = names[source.product_id(number)]
    texts = [item.text for item in source.items(number, "live")]
    whole, part = sum(name in text for text in texts), sum(name.split()[-1] in text for text in texts)
    assert 0 < whole < part < len(texts)
    assert any(text == "" for text in texts)
    assert any(text and "number" not in text for text in texts)
    assert all(name in item.text for item in source.items(number, "page"))


def test_training_has_many_items_and_a_measurement_few(objects):
    assert len(open_source(str(objects)).items(0, "live")) > 20
    test = open_source(str(objects), "test")
    assert 8 < len(test.items(0, "live")) < 20  # 8 shots
    rows = rows_of(test, Sampling())
    assert {len(items) for items in rows.items.values()} == {RENDERED_ITEMS * len(test)}
    rows = rows_of(test, Sampling(items=9))
    assert {len(items) for items in rows.items.values()} == {9 * len(test)}
    with pytest.raises(UserError, match=r"\(test, rendered\): --items 11, and there are 10; give 10 or fewer"):
        rows_of(test, Sampling(items=11))


def test_rendered_products_have_no_rooms_of_their_own_so_that_those_drawn_are_dealt_out_to_whole_ones(objects):
    rows = rows_of(open_source(str(objects)), Sampling(products=12, items=1))
    assert {item.room for items in rows.items.values() for item in items} == {""}


def test_a_rendered_source_feeds_the_loader_in_processes(objects, config):
    source = open_source(str(objects))
    streams = [batches(source, replace(config, workers=workers), tokenize) for workers in (0, 1)]
    here, there = (next(stream) for stream in streams)
    assert torch.equal(here.live.pixels, there.live.pixels)
    assert torch.equal(here.video.tokens, there.video.tokens)
    assert here.live.boxes.any()
    copy = pickle.loads(pickle.dumps(source))
    assert np.array_equal(copy.pictures(copy.items(1, "page")[0])[0], source.pictures(source.items(1, "page")[0])[0])


def test_objects_that_cannot_be_read_are_counted(objects, config):
    for number in range(0, 60, 2):
        (objects / f"{number}.png").write_bytes(b"no picture")
    with (objects / "objects.jsonl").open("a") as file:
        file.write("{}\n[]\nno json\n")
    source = open_source(str(objects))
    next(batches(source, replace(config, batch_products=30), tokenize))
    assert source.counts[NOT_OBJECTS] == 3
    assert source.counts[NO_PICTURE] > 0


def test_no_objects_on_a_side_and_no_photographs_are_named(objects):
    rows = (objects / "objects.jsonl").read_text().splitlines()
    (objects / "objects.jsonl").write_text(rows[0])
    with pytest.raises(UserError, match="no objects on the"):
        [open_source(str(objects), split) for split in ("train", "val", "test")]
    (objects / "objects.jsonl").write_text("\n".join(rows))
    for file in (objects / "backgrounds").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="no photographs"):
        open_source(str(objects))


@pytest.mark.parametrize("format", ["rope", "manifest"])
def test_what_is_written_reads_as_it_was_rendered(objects, tmp_path, capsys, format):
    out = tmp_path / "written"
    main([str(objects), "--out", str(out), "--format", format, "--products", "16", "--clips", "1", "--frames", "2"])
    rendered = RenderedSource(objects, "train")
    titles = {rendered.product_id(i): rendered.items(i, "page")[0].text for i in range(len(rendered))}
    source = open_source(str(out))
    assert not source.counts
    assert source.sizes == {"page": 2 * len(source), "video": len(source), "live": len(source)}
    for number in range(len(source)):
        assert source.items(number, "page")[0].text == titles[source.product_id(number)]
        [clip] = source.items(number, "live")
        assert [image.shape[2] for image in source.pictures(clip)] == [3, 3]
        assert bool(clip.boxes) == (format == "manifest" and any(clip.boxes))
        assert source.category(number)
    capsys.readouterr()
    assert main([str(objects), "--out", str(out), "--format", format, "--products", "2"]) == 2
    assert "not empty; name a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--products", "5000"], "only 72 products; lower --products"),
        (["--products", "0"], "'--products': 0 is not in the range x>=1"),
        (["--products", "4", "--pages", "99"], "64 items a product and domain at most, not 99"),
        (["--products", "4", "--frames", "9"], "a rendered clip has 8 frames"),
        (["--seed", "-1"], "'--seed': -1 is not in the range x>=0"),
    ],
)
def test_what_cannot_be_rendered_is_refused_before_anything_is_written(objects, tmp_path, capsys, arguments, told):
    assert main([str(objects), "--out", str(tmp_path / "written"), *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("cope.data.writing: ")
    assert told in line
    assert not (tmp_path / "written").exists()
