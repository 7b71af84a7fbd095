"""The reader, on drawn text."""

import os
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest

from cope.errors import UserError
from cope.towers.reading import open_reader

pytestmark = pytest.mark.slow

rapidocr = pytest.importorskip("rapidocr")
pytest.importorskip("openvino")


def picture(text: str, size: tuple[int, int] = (360, 640), at: tuple[int, int] = (60, 200), scale: float = 1.5):
    pixels = np.full((*size, 3), 230, np.uint8)
    cv2.putText(pixels, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (20, 20, 20), 3, cv2.LINE_AA)
    return pixels


def test_reads_drawn_words_offline_where_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the reader must not use a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    folder = Path(rapidocr.__file__).parent
    before = {path for path, *_ in os.walk(folder)} | set(folder.rglob("*.onnx"))
    reader = open_reader("packaged:ppocr", 1)
    image = picture("ORANGE JUICE")
    (line,) = reader.read(image)
    assert line.text.replace(" ", "").upper() == "ORANGEJUICE"
    assert 0.6 <= line.confidence <= 1
    x0, y0, x1, y1 = line.box
    assert 0.05 < x0 < 0.15 and 0.5 < x1 < 0.75 and 0.4 < y0 < y1 < 0.65
    assert reader.read(image) == [line]  # the same picture, the same lines
    assert {path for path, *_ in os.walk(folder)} | set(folder.rglob("*.onnx")) == before


def test_a_region_s_lines_come_in_coordinates_of_the_frame() -> None:
    image = picture("APPLE", at=(400, 300), scale=0.8)
    lines = open_reader("packaged:ppocr", 1).read_frame(image, [(0.55, 0.7, 0.95, 0.95)])
    assert [line.text for line in lines] == ["APPLE", "APPLE"]
    assert np.allclose(lines[0].box, lines[1].box, atol=0.02)


def test_a_page_says_each_line_once() -> None:
    image = picture("LEMON", size=(120, 200), at=(30, 70), scale=1.0)
    assert open_reader("packaged:ppocr", 1).read_page([image, image]) == ["LEMON"]


def test_nothing_is_read_where_nothing_stands() -> None:
    assert open_reader("packaged:ppocr", 1).read(np.full((360, 640, 3), 90, np.uint8)) == []
    assert open_reader("packaged:ppocr", 1).read(np.zeros((2, 2, 3), np.uint8)) == []


def test_an_unknown_reader_is_a_user_s_mistake() -> None:
    with pytest.raises(UserError, match="does not know"):
        open_reader("packaged:other")
