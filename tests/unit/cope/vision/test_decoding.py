import io
import threading
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageOps

from cope.vision.decoding import BROKEN, FORMATS, TOO_LARGE, TOO_SMALL, PictureError, Room, decode


def encoded(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))


@pytest.mark.parametrize("options", [{"format": "PNG"}, {"format": "WEBP", "lossless": True}])
def test_pixels_come_back_as_rgb(options):
    pixels = decode(encoded(NOISE, **options))
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
    pixels = decode(encoded(image, format, **({"lossless": True} if format == "WEBP" else {})))
    assert (pixels[:20] == 255).all()
    assert pixels[20:].std() > 20


def test_a_picture_lies_as_its_viewer_sees_it():
    exif = Image.Exif()
    exif[0x112] = 6
    assert decode(encoded(NOISE, "JPEG", exif=exif)).shape == (60, 40, 3)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colour_spaces_become_rgb(mode):
    assert decode(encoded(NOISE.convert(mode), "JPEG")).shape == (40, 60, 3)


def test_deep_grey_becomes_8_bits():
    deep = Image.fromarray(np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20))
    pixels = decode(encoded(deep, "PNG"))
    assert (pixels.shape, pixels.dtype, pixels.max()) == ((20, 20, 3), np.uint8, 255)


@pytest.mark.parametrize(("side", "longest"), [(0, 480), (480, 480), (241, 480), (240, 240), (120, 120), (1, 60)])
def test_a_jpeg_is_decoded_no_larger_than_needed_and_never_smaller(side, longest):
    photo = Image.fromarray(np.full((320, 480, 3), (200, 30, 30), np.uint8))
    pixels = decode(encoded(photo, "JPEG"), enough=side)
    assert max(pixels.shape) == longest
    assert pixels[10, 10].tolist() == pytest.approx([200, 30, 30], abs=3)


def kind_of(data):
    with pytest.raises(PictureError) as caught:
        decode(data)
    return caught.value.kind


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"hello", encoded(NOISE, "JPEG")[:300], encoded(NOISE, "PNG")[:300]])
def test_what_is_no_picture_is_broken(data):
    assert kind_of(data) == BROKEN


def test_bombs_and_tracking_pixels_are_refused_by_their_header():
    assert kind_of(encoded(Image.new("1", (9000, 9000)), "PNG")) == TOO_LARGE
    assert kind_of(encoded(Image.new("RGB", (7, 100)), "PNG")) == TOO_SMALL


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_that_shops_use_is_read(format):
    pixels = decode(encoded(Image.new("RGB", (60, 40), (200, 30, 30)), format))
    assert pixels.shape == (40, 60, 3)
    assert pixels[20, 30].tolist() == pytest.approx([200, 30, 30], abs=4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_is_as_pillow_has_it(orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    data = encoded(NOISE, "JPEG", exif=exif)
    assert np.array_equal(decode(data), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))


def test_transparency_is_kept_on_demand():
    assert decode(encoded(NOISE.convert("RGBA"), "PNG"), transparency=True).shape == (40, 60, 4)


def test_a_picture_is_shrunk_on_demand_and_never_enlarged():
    assert decode(encoded(NOISE, "PNG"), longest=30).shape == (20, 30, 3)
    assert decode(encoded(NOISE, "PNG"), longest=100).shape == (40, 60, 3)


@pytest.mark.parametrize("values", [np.float32, np.int32, np.uint16])
def test_deep_grey_in_strips_is_as_in_one(values):
    deep = np.linspace(0, 60000, 600 * 12).reshape(600, 12).astype(values)
    pixels = decode(encoded(Image.fromarray(deep), "TIFF"))
    assert np.abs(pixels[..., 1].astype(float) - deep * (255 / 65535)).max() <= 1


def test_no_more_is_held_at_once_than_there_is_room_for():
    room, held, most, failed = Room(10), [0], [0], []
    lock = threading.Lock()

    def hold(amount):
        with room.take(amount):
            with lock:
                held[0] += amount
                most[0] = max(most[0], held[0])
                if held[0] > 10 and held[0] != amount:
                    failed.append(held[0])
            with lock:
                held[0] -= amount

    threads = [threading.Thread(target=hold, args=(1 + number % 12,)) for number in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and most[0] <= 12


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_deep_grey_takes_little_memory_beyond_its_pixels(format):
    """A whole picture in floating point took 8 bytes a pixel, several times."""
    data = encoded(Image.fromarray(np.zeros((2000, 2000), np.uint16)), format)
    tracemalloc.start()
    try:
        decode(data)
        assert tracemalloc.get_traced_memory()[1] < 2000 * 2000 * 5
    finally:
        tracemalloc.stop()
