"""A page picture is seen in several views, of which the best counts."""

import numpy as np

from cope.serving.encoder import Encoder, PageInput
from cope.vision.pictures import page_crops, square_crop


def scene() -> np.ndarray:
    """A red thing, right of the middle, on a busy ground."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (200, 300, 3)).astype(np.uint8)
    image[60:140, 170:230] = [200, 20, 20]
    return image


def test_the_views_are_the_cut_out_the_centres_and_the_finders_box():
    image, box = scene(), np.array([170 / 300, 60 / 200, 230 / 300, 140 / 200], np.float32)
    views = page_crops(image, 64, 0.1, True, box)
    assert len(views) == 4
    assert all(view.shape == (64, 64, 3) for view in views)
    assert np.array_equal(views[3], square_crop(image, box, 64, 0.1))
    reddest = [int((view[..., 0].astype(int) - view[..., 1]).clip(0).mean()) for view in views]
    assert reddest.index(max(reddest)) == 3
    assert len(page_crops(image, 64, 0.1, False, box)) == 1
    assert len(page_crops(image, 64, 0.1, True, None)) == 3


def test_each_picture_of_a_page_has_equally_many_rows():
    encoder = Encoder("cope-mini", threads=1)
    plain = np.full((120, 80, 3), 255, np.uint8)
    plain[20:100, 20:60] = [10, 90, 30]
    out = encoder.encode_pages([PageInput("Red thing", [scene(), plain])])[0]
    assert len(out.vectors) == 8
    alone = encoder.encode_pages([PageInput("Red thing", [plain])])[0]
    assert np.array_equal(out.vectors[4:], alone.vectors)
