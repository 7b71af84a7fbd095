"""PyAV on real files and sockets."""

import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from media_files import write_sound, write_video

from topology.settings import Settings
from workers.capture.media import SAMPLE_RATE, BadSource, MediaItem, NewEpoch, Picture, Sound, SourceDown
from workers.capture.sampler import upright
from workers.capture.source import AvSource, open_source, probe

SETTINGS = Settings(_env_file=None).model_copy(update={"open_timeout_s": 1.0, "stall_timeout_s": 1.0})
# Opening may take the time-out twice; the rest is for a busy machine.
BOUND_S = 45.0


def play(path: Path | str, **changes: object) -> tuple[AvSource, list[MediaItem]]:
    source = open_source(str(path), SETTINGS.model_copy(update=changes))
    try:
        return source, list(source)
    finally:
        source.close()


def times(items: list[MediaItem]) -> list[int]:
    return [item.pts_ms for item in items if isinstance(item, Picture)]


def sound_s(items: list[MediaItem]) -> float:
    return sum(len(item.samples) for item in items if isinstance(item, Sound)) / SAMPLE_RATE


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".flv", ".ts", ".mov"])
def test_containers_give_pictures_and_sound_from_zero(tmp_path: Path, suffix: str) -> None:
    source, items = play(write_video(tmp_path / f"a{suffix}"), frames_per_second=10)
    assert source.info.has_video and source.info.has_audio and not source.info.live
    assert source.info.duration_ms is not None and abs(source.info.duration_ms - 6_000) < 300
    assert 0 <= times(items)[0] <= 100 and 5_700 <= times(items)[-1] <= 6_100
    assert abs(sound_s(items) - 6.0) < 0.2
    assert source.detail == ""


def test_sound_is_laid_without_overlaps(tmp_path: Path) -> None:
    _, items = play(write_video(tmp_path / "a.mp4"))
    pieces = [item for item in items if isinstance(item, Sound)]
    for before, after in pairwise(pieces):
        assert abs(before.start + len(before.samples) - after.start) <= 64


def test_two_plays_give_the_same(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 2)
    first, second = play(path)[1], play(path)[1]
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert type(a) is type(b)
        if isinstance(a, Picture) and isinstance(b, Picture):
            assert a.pts_ms == b.pts_ms and (a.render() == b.render()).all()
        if isinstance(a, Sound) and isinstance(b, Sound):
            assert a.start == b.start and (a.samples == b.samples).all()


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "size"),
    [
        ("libx264", "yuv444p", (161, 97)),
        ("libx264", "yuv420p10le", (162, 98)),
        ("ffv1", "gray", (33, 17)),
        ("ffv1", "bgr0", (64, 48)),
        ("ffv1", "yuva420p", (64, 48)),
        ("mjpeg", "yuvj422p", (64, 48)),
    ],
)
def test_odd_pixel_formats_and_sizes_are_shown(tmp_path: Path, codec: str, pix_fmt: str, size: tuple[int, int]) -> None:
    _, items = play(write_video(tmp_path / "a.mkv", 1, codec=codec, pix_fmt=pix_fmt, size=size, sound=False))
    image = upright(next(item for item in items if isinstance(item, Picture)), 360)
    assert image.shape == (size[1], size[0], 3)
    left = image[:, : size[0] // 2 - 2].reshape(-1, 3).mean(axis=0)
    if pix_fmt != "gray":
        assert left[2] > 120 > max(left[0], left[1]), "red on the left"


def test_a_rotated_picture_is_turned_upright(tmp_path: Path) -> None:
    _, items = play(write_video(tmp_path / "a.mp4", 1, rotation=90))
    image = upright(next(item for item in items if isinstance(item, Picture)), 360)
    assert image.shape == (160, 96, 3)


def test_a_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    moments = [0.0, 0.1, 0.15, 1.2, 3.9, 4.0, 9.5]
    source, items = play(write_video(tmp_path / "a.mp4", 10, times=moments, sound=False))
    assert times(items) == [round(m * 1000) for m in moments]
    assert not any(isinstance(item, NewEpoch) for item in items)
    assert source.detail == ""


def test_keyframes_only_are_decoded_where_no_more_is_asked_for(tmp_path: Path) -> None:
    _, items = play(write_video(tmp_path / "a.mp4"), sampling="keyframes")
    assert times(items) == [0, 1000, 2000, 3000, 4000, 5000]


def test_a_clock_that_begins_anew_opens_an_epoch(tmp_path: Path) -> None:
    once = write_video(tmp_path / "a.ts").read_bytes()
    twice = tmp_path / "b.ts"
    twice.write_bytes(once + once)
    _, items = play(twice, frames_per_second=10)
    epochs = [index for index, item in enumerate(items) if isinstance(item, NewEpoch)]
    assert len(epochs) == 1
    first, second = items[: epochs[0]], items[epochs[0] + 1 :]
    assert times(first) == times(second)
    assert abs(sound_s(first) - sound_s(second)) < 0.2


def test_a_truncated_file_is_used_as_far_as_it_goes_and_says_so(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv", 30)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    source, items = play(cut)
    assert 5_000 < times(items)[-1] < 25_000
    assert "truncated or damaged" in source.detail


def test_a_damaged_file_is_used_around_the_damage(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", 20, size=(320, 192))
    data = bytearray(path.read_bytes())
    for start in range(len(data) // 3, len(data) // 2, 188):
        data[start + 20 : start + 60] = b"\x55" * 40
    path.write_bytes(data)
    source, items = play(path)
    assert times(items)[-1] > 19_000
    assert source.corrupt > 0 and "damaged packets were skipped" in source.detail


@pytest.mark.parametrize("name", ["missing.mp4", "empty.mp4", "text.mp4", "text.txt", "folder", "cut.mp4", "tone.m4a"])
def test_what_is_no_video_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("This is no video.\n" * 100)
    (tmp_path / "text.txt").write_text("This is no video.\n" * 100)
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut.mp4").write_bytes(write_video(tmp_path / "a.mp4").read_bytes()[:2_000])
    write_sound(tmp_path / "tone.m4a")
    with pytest.raises(BadSource) as caught:
        probe(str(tmp_path / name), SETTINGS)
    message = str(caught.value)
    assert name in message and "\n" not in message and ": " in message.split(name)[1]


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(BadSource, match="unknown scheme `gopher`"):
        probe("gopher://host/x", SETTINGS)


def test_a_probe_tells_what_is_in_a_file(tmp_path: Path) -> None:
    info = probe(str(write_video(tmp_path / "a.mp4", 2, sound=False)), SETTINGS)
    assert (info.width, info.height, info.has_audio, info.live) == (160, 96, False, False)


@pytest.fixture
def silent_server() -> Iterator[int]:
    """Accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    connections.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        for connection in connections:
            connection.close()


@pytest.mark.parametrize(
    "url", ["http://{}/a.flv", "http://{}/a.m3u8", "rtmp://{}/live/a", "rtsp://{}/a", "https://{}/a"]
)
def test_a_server_that_accepts_and_stays_silent_is_left_within_the_bound(silent_server: int, url: str) -> None:
    before = time.monotonic()
    with pytest.raises(SourceDown, match=r"127\.0\.0\.1"):
        open_source(url.format(f"127.0.0.1:{silent_server}"), SETTINGS)
    assert time.monotonic() - before < BOUND_S


def test_an_address_where_nobody_listens_is_told_at_once() -> None:
    with pytest.raises(BadSource, match="cannot be reached"):
        probe("http://127.0.0.1:9/a.flv", SETTINGS)


def serve(data: bytes, *, hang: bool) -> Iterator[int]:
    """An HTTP server that sends a part of a live FLV, then hangs or ends the response."""
    released = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: video/x-flv\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                connection.sendall(b"%x\r\n%s\r\n" % (len(data), data))
                if hang:
                    released.wait(60)
                else:
                    connection.sendall(b"0\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]
        released.set()


@pytest.fixture
def hanging_server(tmp_path: Path) -> Iterator[int]:
    yield from serve(write_video(tmp_path / "a.flv", 20).read_bytes()[:60_000], hang=True)


@pytest.fixture
def closing_server(tmp_path: Path) -> Iterator[int]:
    yield from serve(write_video(tmp_path / "a.flv", 3).read_bytes(), hang=False)


def test_a_server_that_hangs_in_mid_stream_is_left_within_the_bound(hanging_server: int) -> None:
    source = open_source(f"http://127.0.0.1:{hanging_server}/a.flv", SETTINGS)
    assert source.info.live, "an FLV without a length is live, whatever its header says"
    pictures = 0
    before = time.monotonic()
    with pytest.raises(SourceDown, match="has sent nothing for 1 s"):
        for item in source:
            pictures += isinstance(item, Picture)
            before = time.monotonic()
    assert time.monotonic() - before < BOUND_S
    assert pictures > 10
    source.close()


def test_a_live_stream_that_is_closed_comes_to_an_end(closing_server: int) -> None:
    source, items = play(f"http://127.0.0.1:{closing_server}/a.flv", frames_per_second=10)
    assert source.info.live and times(items)[-1] > 2_500
