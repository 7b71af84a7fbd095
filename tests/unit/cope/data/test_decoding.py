import io

import numpy as np
import pytest
from PIL import Image

from cope.vision.decoding import BROKEN, TOO_LARGE, TOO_SMALL, decode


def encoded(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))


@pytest.mark.parametrize("options", [{"format": "PNG"}, {"format": "WEBP", "lossless": True}])
def test_pixels_come_back_as_rgb(options):
    pixels, problem = decode(encoded(NOISE, **options))
    assert problem == ""
    assert np.array_equal(pixels, np.asarray(NOISE))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_what_is_transparent_becomes_white(mode, format):
    image = NOISE.convert("RGBA")
    alpha = np.full((40, 60), 255, np.uint8)
    alpha[:20] = 0
    image.putalpha(Image.fromarray(alpha))
    image = image.quantize(64) if mode == "P" else image.convert(mode)
    if format == "WEBP":
        image = image.convert("RGBA")
    pixels, _ = decode(encoded(image, format, **({"lossless": True} if format == "WEBP" else {})))
    assert (pixels[:20] == 255).all()
    assert pixels[20:].std() > 20


def test_a_picture_lies_as_its_viewer_sees_it():
    exif = Image.Exif()
    exif[0x112] = 6
    assert decode(encoded(NOISE, "JPEG", exif=exif))[0].shape == (60, 40, 3)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colour_spaces_become_rgb(mode):
    assert decode(encoded(NOISE.convert(mode), "JPEG"))[0].shape == (40, 60, 3)


def test_deep_grey_becomes_8_bits():
    deep = Image.fromarray(np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20))
    pixels, _ = decode(encoded(deep, "PNG"))
    assert (pixels.shape, pixels.dtype, pixels.max()) == ((20, 20, 3), np.uint8, 255)


@pytest.mark.parametrize(("side", "longest"), [(0, 480), (480, 480), (241, 480), (240, 240), (120, 120), (1, 60)])
def test_a_jpeg_is_decoded_no_larger_than_needed_and_never_smaller(side, longest):
    photo = Image.fromarray(np.full((320, 480, 3), (200, 30, 30), np.uint8))
    pixels, _ = decode(encoded(photo, "JPEG"), side)
    assert max(pixels.shape) == longest
    assert pixels[10, 10].tolist() == pytest.approx([200, 30, 30], abs=3)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"hello", encoded(NOISE, "JPEG")[:300], encoded(NOISE, "PNG")[:300]])
def test_what_is_no_picture_is_broken(data):
    assert decode(data) == (None, BROKEN)


def test_bombs_and_tracking_pixels_are_refused_by_their_header():
    assert decode(encoded(Image.new("1", (9000, 9000)), "PNG")) == (None, TOO_LARGE)
    assert decode(encoded(Image.new("RGB", (7, 100)), "PNG")) == (None, TOO_SMALL)
