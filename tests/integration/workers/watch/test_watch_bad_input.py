"""What `cope-live watch` says of input that it cannot use: one line that names the thing and the mend, status 2."""

import json
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workers.__main__ import main

SAMPLES = Path(__file__).parents[4] / "samples"
CATALOG = SAMPLES / "catalog.jsonl"
STREAM = min((SAMPLES / "streams").glob("*.mp4"))

Refused = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs `cope-live` in this process, which must end with status 2 and one line; returns that line."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["cope-live", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        lines = capsys.readouterr().err.strip().splitlines()
        assert ended.value.code == 2, lines
        assert len(lines) == 1, lines
        return lines[0]

    return run


def write_catalog(folder: Path, *rows: dict[str, object]) -> Path:
    path = folder / "catalog.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def picture(folder: Path) -> str:
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(folder / "picture.png")
    return "picture.png"


def product(folder: Path, **other: object) -> dict[str, object]:
    return {"product_id": "p-1", "title": "A thing", "images": [picture(folder)], **other}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.mp4", b"these are notes, not a video\n" * 50),
        ("empty.mp4", b""),
        ("truncated.mp4", STREAM.read_bytes()[:20_000]),
        ("noise.mkv", bytes(range(256)) * 40),
    ],
)
def test_a_file_that_is_no_playable_video(refused: Refused, tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert str(path) in refused("watch", path, "--catalog", CATALOG)


def test_a_file_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    line = refused("watch", tmp_path / "gone.mp4", "--catalog", CATALOG)
    assert "gone.mp4" in line


def test_a_folder_in_place_of_a_file(refused: Refused, tmp_path: Path) -> None:
    assert str(tmp_path) in refused("watch", tmp_path, "--catalog", CATALOG)


def test_an_unreachable_url(refused: Refused) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"rtmp://127.0.0.1:{closed.getsockname()[1]}/live/room"
        assert url in refused("watch", url, "--catalog", CATALOG)


def test_two_sources_of_one_name(refused: Refused, tmp_path: Path) -> None:
    assert "other=" in refused("watch", STREAM, tmp_path / STREAM.name, "--catalog", CATALOG)


def test_a_catalogue_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    assert "none.csv" in refused("watch", STREAM, "--catalog", tmp_path / "none.csv")


def test_a_catalogue_without_rows(refused: Refused, tmp_path: Path) -> None:
    assert "catalog.jsonl" in refused("watch", STREAM, "--catalog", write_catalog(tmp_path))


def test_a_catalogue_without_a_required_column(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "catalog.csv"
    path.write_text("product_id,name\np-1,A thing\n")
    line = refused("watch", STREAM, "--catalog", path)
    assert "title" in line
    assert str(path) in line


def test_columns_are_called_as_map_says(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "catalog.csv"
    path.write_text("product_id,Name,images\np-1,A thing,nowhere.jpg\n")
    watch = ("watch", STREAM, "--catalog", path)
    assert "nowhere.jpg" in refused(*watch, "--map", "title=Name"), "its columns were found"
    assert "no column 'Title' for --map title=Title" in refused(*watch, "--map", "title=Title")
    assert "--map Name: write it as OURS=THEIRS" in refused(*watch, "--map", "Name")


def test_a_catalogue_with_one_id_twice(refused: Refused, tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path, product(tmp_path), product(tmp_path))
    assert "p-1" in refused("watch", STREAM, "--catalog", catalog)


def test_a_catalogue_in_another_encoding(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "catalog.csv"
    path.write_bytes("product_id,title,images\np-1,Café,a.png\n".encode("latin-1"))
    assert "UTF-8" in refused("watch", STREAM, "--catalog", path)


def test_a_missing_image(refused: Refused, tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path, product(tmp_path, images=["nowhere.jpg"]))
    assert "nowhere.jpg" in refused("watch", STREAM, "--catalog", catalog)


def test_a_corrupt_image(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    catalog = write_catalog(tmp_path, product(tmp_path, images=["broken.jpg"]))
    assert "broken.jpg" in refused("watch", STREAM, "--catalog", catalog)


def test_an_image_of_a_hundred_megapixels(refused: Refused, tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(10_001) * 10_000)
    (tmp_path / "huge.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
    catalog = write_catalog(tmp_path, product(tmp_path, images=["huge.png"]))
    line = refused("watch", STREAM, "--catalog", catalog)
    assert "huge.png" in line
    assert "megapixel" in line


def test_a_model_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    assert "no-model" in refused("watch", STREAM, "--catalog", CATALOG, "--model", tmp_path / "no-model")


def test_a_model_of_another_format(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"format": 999}))
    assert str(tmp_path) in refused("watch", STREAM, "--catalog", CATALOG, "--model", tmp_path)


def test_a_busy_port(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        monkeypatch.setenv("COPE_HTTP_PORT", str(port))
        line = refused("watch", STREAM, "--catalog", CATALOG)
    assert str(port) in line
    assert "COPE_HTTP_PORT" in line


def test_an_events_file_that_cannot_be_written(refused: Refused, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    line = refused("watch", STREAM, "--catalog", CATALOG, "--events", blocked / "events.jsonl")
    assert "events.jsonl" in line


@pytest.mark.parametrize("option", ["source", "catalog"])
def test_an_events_file_that_would_overwrite_what_is_read(refused: Refused, tmp_path: Path, option: str) -> None:
    stream, catalog = tmp_path / "room.mp4", write_catalog(tmp_path, product(tmp_path))
    stream.write_bytes(STREAM.read_bytes())
    target = stream if option == "source" else catalog
    before = target.read_bytes()
    assert str(target) in refused("watch", stream, "--catalog", catalog, "--events", target)
    assert target.read_bytes() == before


@pytest.mark.parametrize("command", [["index", CATALOG], ["topics", "create"], ["streams", "list"]])
def test_a_broker_that_does_not_answer(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, command: list[object]
) -> None:
    monkeypatch.setattr("topology.admin.PATIENCE_S", 0.5)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("COPE_BROKER", address)
        line = refused(*command)
    assert address in line
    assert "COPE_BROKER" in line


def test_an_index_folder_that_cannot_be_used(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPE_INDEX_DIR", "/proc/no-such-folder")
    line = refused("watch", STREAM, "--catalog", CATALOG)
    assert "/proc/no-such-folder" in line
    assert "COPE_INDEX_DIR" in line


def test_a_simulation_that_cannot_be_written(refused: Refused, tmp_path: Path) -> None:
    assert "x.avi" in refused("simulate", CATALOG, "--out", tmp_path / "x.avi")


def test_a_setting_that_cannot_be(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPE_THRESHOLD", "2")
    assert "COPE_THRESHOLD" in refused("config")


@pytest.mark.parametrize("command", [["worker", "embed"], ["topics", "create"], ["streams", "list"]])
def test_a_command_that_needs_a_broker_of_ones_own(refused: Refused, command: list[str]) -> None:
    assert "COPE_BROKER" in refused(*command)
