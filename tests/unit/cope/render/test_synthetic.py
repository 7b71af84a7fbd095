from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cope.errors import UserError
from cope.render.synthetic import (
    Box,
    Camera,
    Placement,
    backgrounds,
    random_background,
    random_camera,
    random_placement,
    render_frame,
    render_page,
)
from cope.vision.cutouts import Cutout, cutout_of, thing

GREEN = np.zeros((360, 640, 3), np.uint8)
GREEN[..., 1] = 120


def square(side: int = 100, id: str = "red") -> Cutout:
    rgba = np.full((side, side, 4), 255, np.uint8)
    rgba[..., 1:3] = 0
    return Cutout(id, rgba)


def test_an_upright_square_is_where_it_was_placed() -> None:
    placement = Placement(x=0.25, y=0.5, scale=0.5)
    frame, [box] = render_frame(np.random.default_rng(0), GREEN, [(square(), placement)])
    assert box.id == "red"
    assert box[1:] == pytest.approx((70, 90, 250, 270), abs=1)
    assert tuple(frame[180, 160]) == (255, 0, 0)
    assert tuple(frame[180, 400]) == (0, 120, 0)
    assert np.array_equal(GREEN[..., 0], np.zeros((360, 640)))


def test_a_box_is_of_visible_pixels_only() -> None:
    back, front = Placement(x=0.4, scale=0.5), Placement(x=0.5, scale=0.5)
    _, boxes = render_frame(np.random.default_rng(0), GREEN, [(square(id="back"), back), (square(id="front"), front)])
    assert [box.id for box in boxes] == ["back", "front"]
    assert boxes[0].x1 == pytest.approx(boxes[1].x0, abs=1)
    _, boxes = render_frame(np.random.default_rng(0), GREEN, [(square(id="back"), back), (square(id="front"), back)])
    assert [box.id for box in boxes] == ["front"]


def test_a_thing_beyond_the_frame_has_no_box_and_one_at_its_edge_is_cut() -> None:
    outside, edge = Placement(x=-0.5, scale=0.3), Placement(x=0.0, scale=0.5)
    _, boxes = render_frame(np.random.default_rng(0), GREEN, [(square(), outside), (square(id="edge"), edge)])
    assert [box.id for box in boxes] == ["edge"]
    assert boxes[0][1:] == pytest.approx((0, 90, 90, 270), abs=1)


@pytest.mark.parametrize("cover", [0.2, 0.5])
def test_a_cover_hides_about_its_share_from_its_side(cover: float) -> None:
    below = Placement(scale=0.8, cover=cover, cover_from_deg=90, cover_rgb=(0, 0, 255))
    bare, [whole] = render_frame(np.random.default_rng(0), GREEN, [(square(), Placement(scale=0.8))])
    frame, [box] = render_frame(np.random.default_rng(0), GREEN, [(square(), below)])
    left = (frame[..., 0] == 255).sum() / (bare[..., 0] == 255).sum()
    assert left == pytest.approx(1 - cover, abs=0.08)
    assert box[:4] == whole[:4]
    covered = np.flatnonzero((frame[..., 2] > 100).any(axis=1))
    assert covered[0] > 36 + 0.8 * (1 - cover) * 288


def test_perspective_makes_the_far_side_smaller() -> None:
    frame, _ = render_frame(np.random.default_rng(0), GREEN, [(square(), Placement(scale=0.6, turn_deg=40))])
    heights = (frame[..., 0] == 255).sum(axis=0)
    columns = np.flatnonzero(heights)
    assert heights[columns[2]] != pytest.approx(heights[columns[-3]], abs=10)
    assert len(columns) < 0.6 * 360 * 0.9


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32))
def test_the_same_seed_draws_the_same_pixels_and_boxes_lie_in_the_frame(seed: int) -> None:
    def draw() -> tuple[np.ndarray, list[Box], np.ndarray]:
        rng = np.random.default_rng(seed)
        items = [(thing(rng, str(number)), random_placement(rng)) for number in range(3)]
        room = random_background(rng, backgrounds())
        frame, boxes = render_frame(rng, room, items, camera=random_camera(rng))
        return frame, boxes, render_page(rng, items[0][0], 96)

    frame, boxes, page = draw()
    again, boxes_again, page_again = draw()
    assert frame.shape == (360, 640, 3)
    assert frame.dtype == np.uint8
    assert np.array_equal(frame, again)
    assert boxes == boxes_again
    assert np.array_equal(page, page_again)
    assert page.shape == (96, 96, 3)
    for box in boxes:
        assert 0 <= box.x0 < box.x1 <= 640
        assert 0 <= box.y0 < box.y1 <= 360


def test_frames_of_other_sizes_cut_the_background() -> None:
    frame, _ = render_frame(np.random.default_rng(0), backgrounds()[0], [], size=(90, 160), camera=Camera(noise=3))
    assert frame.shape == (160, 90, 3)


def test_alpha_is_used_and_its_shadow_dropped() -> None:
    image = np.full((100, 100, 4), 200, np.uint8)
    image[..., 3] = 0
    image[30:70, 30:70, 3] = 255
    image[75:90, 20:80, 3] = 60
    cutout = cutout_of(image, "a")
    assert not cutout.card
    assert cutout.rgba.shape == (40, 40, 4)


def test_a_plain_background_is_removed_and_the_label_kept() -> None:
    image = np.full((200, 200, 3), 250, np.uint8)
    image[50:150, 60:140] = (180, 30, 30)
    image[80:120, 80:120] = 250
    cutout = cutout_of(image)
    height, width = cutout.rgba.shape[:2]
    assert (height, width) == (pytest.approx(100, abs=3), pytest.approx(80, abs=3))
    assert cutout.rgba[height // 2, width // 2, 3] == 255


def test_a_photo_without_plain_background_stays_a_card() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    cutout = cutout_of(photo)
    assert cutout.card
    assert cutout.rgba.shape == (120, 160, 4)
    assert (cutout.rgba[..., 3] == 255).all()


@pytest.mark.parametrize("shape", [(40, 40, 3), (40, 40, 4), (1, 1, 3), (3000, 20, 3)])
def test_an_empty_picture_is_a_card(shape: tuple[int, int, int]) -> None:
    assert cutout_of(np.full(shape, 255, np.uint8)).card


def test_backgrounds_come_from_a_folder(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((10, 20, 3), (0, 0, 255), np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    [photo] = backgrounds(tmp_path)
    assert photo.shape == (10, 20, 3)
    assert tuple(photo[0, 0]) == (255, 0, 0)


def test_a_folder_without_backgrounds_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no readable background"):
        backgrounds(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        backgrounds(tmp_path / "none")


def test_the_package_has_photographs() -> None:
    photos = backgrounds()
    assert len(photos) == 9
    assert all(photo.shape == (540, 960, 3) for photo in photos)
