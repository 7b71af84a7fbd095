import numpy as np
import pytest

from cope.config import ModelConfig
from cope.data.transforms import canvas_side, enough, frame_picture, light, page_picture, window
from cope.vision.pictures import fit_area, page_crop

WHOLE = (0.0, 0.0, 1.0, 1.0)
CONFIG = ModelConfig(frame_pixels=320 * 576, crop_pixels=64)
FRAMES = ModelConfig(regions=0, crop_pixels=64)


def marked(height, width):
    """A grey-blue picture with a red rectangle over its middle, and its box."""
    image = np.full((height, width, 3), (60, 60, 160), np.uint8)
    image[height // 4 : height // 2, width // 4 : width // 2] = (255, 0, 0)
    return image, (0.25, 0.25, 0.5, 0.5)


def red(pixels):
    """The relative box of what is red."""
    where = (pixels[..., 0] > 180) & (pixels[..., 2] < 90)
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    side = len(pixels)
    return [columns[0] / side, rows[0] / side, (columns[-1] + 1) / side, (rows[-1] + 1) / side]


def test_the_canvas_holds_a_frame_either_way_up():
    assert canvas_side(CONFIG) == 576
    assert canvas_side(ModelConfig(frame_pixels=64 * 96)) == 128


@pytest.mark.parametrize("config", [CONFIG, FRAMES])
@pytest.mark.parametrize("size", [(360, 640), (640, 360), (480, 640), (500, 500), (90, 1200), (900, 90)])
def test_content_is_where_the_picture_is_and_the_box_where_the_product_is(config, size):
    image, box = marked(*size)
    pixels, content, seen = frame_picture(config, image, box, WHOLE, None)
    side = canvas_side(config) if config.regions else config.crop_pixels
    assert pixels.shape == (side, side, 3)
    assert red(pixels) == pytest.approx(seen.tolist(), abs=1.6 / side)
    inside = np.zeros((side, side), bool)
    x0, y0, x1, y1 = np.round(content * side).astype(int)
    inside[y0:y1, x0:x1] = True
    blue = pixels[..., 2].astype(int) - pixels[..., 1] > 30
    reds = pixels[..., 0] > 180
    assert ((blue | reds) == inside).mean() > 0.98
    if not config.regions:
        assert inside.all()


def test_a_frame_on_the_canvas_is_what_service_sees():
    image, box = marked(360, 640)
    pixels, content, _ = frame_picture(CONFIG, image, box, WHOLE, None)
    expected = fit_area(image, CONFIG.frame_pixels, 32)
    assert expected.shape == (320, 576, 3)
    assert np.array_equal(pixels[:320, :576], expected)
    assert content.tolist() == pytest.approx([0, 0, 1, 320 / 576])


@pytest.mark.parametrize("config", [CONFIG, FRAMES])
def test_boxes_follow_the_window(config):
    image, box = marked(360, 640)
    for part in [(0.1, 0.2, 1.0, 0.9), (0.2, 0.0, 0.9, 0.6)]:
        pixels, _, seen = frame_picture(config, image, box, part, None)
        assert red(pixels) == pytest.approx(seen.tolist(), abs=3 / len(pixels))
    _, _, gone = frame_picture(config, image, box, (0.6, 0.6, 1.0, 1.0), None)
    assert not gone.any()


def test_an_unknown_box_is_zeros():
    image, _ = marked(360, 640)
    assert not frame_picture(CONFIG, image, None, WHOLE, None)[2].any()
    assert not frame_picture(FRAMES, image, None, WHOLE, None)[2].any()


def test_augmentation_neither_mirrors_nor_recolours():
    image = np.full((100, 100, 3), (200, 60, 60), np.uint8)
    image[30:70, 20:40] = (40, 40, 200)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pixels, _, _ = frame_picture(FRAMES, image, None, window(rng), light(rng))
        blue = pixels[..., 2] > pixels[..., 0]
        assert np.flatnonzero(blue.any(axis=0)).mean() < 31
        assert (pixels[..., 0][~blue] > 2 * pixels[..., 1][~blue]).mean() > 0.95
        assert 0.5 < pixels.mean() / image.mean() < 1.5


def test_a_page_in_an_evaluation_is_what_service_sees():
    image = np.full((200, 150, 3), 255, np.uint8)
    image[50:150, 40:110] = (180, 30, 30)
    plain = page_picture(CONFIG, image, None)
    assert np.array_equal(plain, page_crop(image, 64, CONFIG.crop_margin))
    jittered = page_picture(CONFIG, image, np.random.default_rng(0))
    assert jittered.shape == plain.shape
    assert not np.array_equal(jittered, plain)


def test_files_are_decoded_as_large_as_they_can_be_shown():
    assert enough(CONFIG, page=False) == 576
    assert enough(FRAMES, page=False) >= FRAMES.crop_pixels
    assert enough(CONFIG, page=True) >= 512
