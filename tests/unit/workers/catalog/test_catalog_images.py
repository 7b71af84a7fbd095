import http.server
import io
import ipaddress
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from topology.addresses import Allowed, NotAllowedError
from topology.errors import BadInput, Unavailable
from topology.records import PageImage
from workers import images
from workers.images import load_image

RGB = np.zeros((40, 60, 3), np.uint8)
RGB[:, :30] = (200, 30, 60)
RGB[:, 30:] = (20, 90, 180)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> PageImage:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return PageImage(data=buffer.getvalue())


def test_rgb_is_kept() -> None:
    assert np.array_equal(load_image(encoded(Image.fromarray(RGB))), RGB)


def test_transparency_is_flattened_on_white_and_kept_on_demand() -> None:
    alpha = np.full((40, 60, 1), 255, np.uint8)
    alpha[:20] = 0
    page = encoded(Image.fromarray(np.concatenate([RGB, alpha], axis=2)))
    flat = load_image(page)
    assert flat.shape == (40, 60, 3)
    assert (flat[:20] == 255).all()
    assert np.array_equal(flat[20:], RGB[20:])
    assert load_image(page, transparency=True).shape == (40, 60, 4)


def test_palette_with_transparency() -> None:
    palette = Image.fromarray(RGB).quantize(4)
    index = palette.getpixel((0, 0))
    pixels = load_image(encoded(palette, transparency=index))
    assert (pixels[5, 5] == 255).all()
    assert np.abs(pixels[5, 50].astype(int) - RGB[5, 50]).max() < 8


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P"])
def test_other_kinds_become_rgb(mode: str) -> None:
    pixels = load_image(encoded(Image.fromarray(RGB).convert(mode)))
    assert pixels.shape == (40, 60, 3)
    assert pixels.dtype == np.uint8


def test_cmyk_keeps_its_colours() -> None:
    pixels = load_image(encoded(Image.fromarray(RGB).convert("CMYK"), "TIFF"))
    assert np.abs(pixels.astype(int) - RGB).mean() < 10


def test_16_bit_grey_is_scaled() -> None:
    deep = np.linspace(0, 65535, 60, dtype=np.uint16)[None].repeat(40, axis=0)
    pixels = load_image(encoded(Image.fromarray(deep)))
    assert (pixels[0, 0], pixels[0, -1]) == (pytest.approx([0] * 3), pytest.approx([255] * 3))
    assert 120 < pixels[0, 30, 0] < 136


def test_exif_turns_the_picture_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # Turned by 90 degrees.
    pixels = load_image(encoded(Image.fromarray(RGB), "JPEG", exif=exif, quality=95))
    assert pixels.shape == (60, 40, 3)
    assert np.abs(pixels[5, 20].astype(int) - RGB[20, 5]).max() < 12


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be large and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [7_100, 10_000, 20_000, 60_000])
def test_a_picture_above_50_megapixels_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(BadInput, match="more than 50 megapixels"):
        load_image(PageImage(data=png_header(side, side)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_picture_is_bad_input(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = encoded(Image.fromarray(noise), kind).data
    with pytest.raises(BadInput):
        load_image(PageImage(data=data[: len(data) // 2]))


def test_what_is_no_picture_is_bad_input(tmp_path: Path) -> None:
    for image in (
        PageImage(data=b"%PDF-1.4 nothing"),
        PageImage(uri=str(tmp_path / "none.png")),
        PageImage(uri=str(tmp_path)),
        PageImage(uri="a\0b"),
        PageImage(uri=""),
        encoded(Image.fromarray(RGB[:4, :4])),
    ):
        with pytest.raises(BadInput):
            load_image(image)


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 10)
    (tmp_path / "a.png").write_bytes(b"x" * 11)
    with pytest.raises(BadInput, match="more than"):
        load_image(PageImage(uri=str(tmp_path / "a.png")))


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the status in the path, or a picture."""

    def do_GET(self) -> None:
        name = self.path.strip("/")
        if name in ("loop", "elsewhere"):
            self.send_response(302)
            _, port = cast(tuple[str, int], self.server.server_address)
            self.send_header("Location", "/loop" if name == "loop" else f"http://127.0.0.1:{port}/a.png")
            self.end_headers()
            return
        self.send_response(int(name) if name.isdecimal() else 200)
        self.end_headers()
        self.wfile.write(encoded(Image.fromarray(RGB)).data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_urls_are_fetched(server: str) -> None:
    assert np.array_equal(load_image(PageImage(uri=f"{server}/a.png")), RGB)


@pytest.mark.parametrize("path", ["404", "403", "410", "loop"])
def test_a_final_answer_is_bad_input(server: str, path: str) -> None:
    with pytest.raises(BadInput, match=r"the server answers|redirect"):
        load_image(PageImage(uri=f"{server}/{path}"))


@pytest.mark.parametrize("path", ["500", "503", "429"])
def test_a_passing_answer_is_unavailable(server: str, path: str) -> None:
    with pytest.raises(Unavailable, match="answers"):
        load_image(PageImage(uri=f"{server}/{path}"))


def test_a_server_that_is_down_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="no answer"):
        load_image(PageImage(uri="http://127.0.0.1:9/a.png"))


def test_an_endless_answer_is_cut_off(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 10)
    with pytest.raises(BadInput, match="more than"):
        load_image(PageImage(uri=f"{server}/a.png"))


def test_a_private_network_is_refused_unless_allowed(server: str) -> None:
    with pytest.raises(NotAllowedError, match="COPE_ALLOWED_NETWORKS"):
        load_image(PageImage(uri=f"{server}/a.png"), Allowed())
    allowed = Allowed((ipaddress.IPv4Network("127.0.0.0/8"),))
    assert load_image(PageImage(uri=f"{server}/a.png"), allowed).shape == RGB.shape


def test_a_redirect_leads_no_further_than_what_is_allowed(server: str) -> None:
    named = server.replace("127.0.0.1", "localhost")
    allowed = Allowed(hosts=frozenset({"localhost"}))
    assert load_image(PageImage(uri=f"{named}/a.png"), allowed).shape == RGB.shape
    with pytest.raises(NotAllowedError, match=r"127[.]0[.]0[.]1"):
        load_image(PageImage(uri=f"{named}/elsewhere"), allowed)
    assert load_image(PageImage(uri=f"{named}/elsewhere")).shape == RGB.shape


def test_a_file_is_read_below_allowed_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(RGB)).data)
    image = PageImage(uri=str(tmp_path / "a.png"))
    with pytest.raises(NotAllowedError, match="COPE_ALLOWED_FOLDERS"):
        load_image(image, Allowed())
    assert load_image(image, Allowed(folders=(tmp_path,))).shape == RGB.shape


def test_a_line_holds_neither_secrets_nor_whole_pictures() -> None:
    for uri in ("data:image/png;base64," + "A" * 44_000, "http://ann:pass@127.0.0.1:9/a?token=s", "a" * 44_000):
        with pytest.raises((BadInput, Unavailable)) as caught:
            load_image(PageImage(uri=uri))
        line = str(caught.value)
        assert len(line) < 500 and "pass" not in line and "token" not in line
