"""Which frames are kept, crops, and that faces are blurred."""

import numpy as np
import pytest

from cope.vision.decoding import decode
from topology.evidence import KeptFrame
from topology.records import EvidenceFrame, Frame
from workers.evidence.pictures import cropped, joined, prepared, wanted
from workers.pages import jpeg


def offered(pts_ms, score, offset=0):
    return EvidenceFrame(pts_ms=pts_ms, score=score, offset=offset, box=(0.25, 0.25, 0.75, 0.75))


def kept(pts_ms, score):
    return KeptFrame(pts_ms=pts_ms, captured_at_ms=0, box=None, score=score, page_image="", jpeg=b"x")


def frame(pixels):
    data = jpeg(pixels, 95)
    height, width = pixels.shape[:2]
    return Frame(stream_id="r", epoch=0, pts_ms=1, captured_at_ms=2, width=width, height=height, jpeg=data)


def times(frames):
    return [one.pts_ms for one in frames]


def test_of_a_new_sighting_the_best_frames_are_fetched():
    frames = [offered(1, 0.3), offered(2, 0.9), offered(3, 0.5), offered(4, 0.8, offset=-1)]
    assert times(wanted((), frames, 2)) == [2, 3]


def test_later_only_a_frame_that_is_better_than_all_before_is_fetched():
    there = (kept(1, 0.6), kept(2, 0.7))
    assert wanted(there, [offered(3, 0.65), offered(2, 0.9)], 4) == []
    assert times(wanted(there, [offered(3, 0.71), offered(4, 0.8)], 4)) == [4]


def test_the_best_stay_by_time():
    assert times(joined((kept(5, 0.1), kept(2, 0.7)), (kept(3, 0.8),), 2)) == [2, 3]


def test_a_frame_without_faces_is_kept_as_it_is():
    pixels = np.zeros((90, 160, 3), np.uint8)
    pixels[30:60, 50:100] = (200, 30, 30)
    one = frame(pixels)
    found = prepared(offered(1, 0.5), one, lambda _: 0)
    assert found.jpeg == one.jpeg
    assert decode(found.crop).shape[1] >= 80


def test_a_face_is_blurred_in_the_frame_and_in_the_crop():
    pixels = np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)

    def blur(given):
        given[:] = 128
        return 1

    found = prepared(offered(1, 0.5), frame(pixels), blur)
    for data in (found.jpeg, found.crop):
        assert decode(data).std() < 3


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (0.5, 0.5, 0.5, 0.5), (0.99, 0.99, 1.0, 1.0)])
def test_any_box_makes_a_crop(box):
    crop = cropped(np.zeros((90, 160, 3), np.uint8), box)
    assert min(crop.shape[:2]) >= 64
