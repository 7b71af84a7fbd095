"""PyAV on real files and sockets."""

import os
import random
import re
import socket
import stat
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.integration.workers.capture.media_files import live_flv, write_sound, write_video
from tests.integration.workers.capture.played import SETTINGS, play, times
from workers.capture.media import SAMPLE_RATE, BadSource, MediaItem, NewEpoch, Picture, Sound, SourceDown
from workers.capture.sampler import upright
from workers.capture.source import open_source, probe

# Opening may take the time-out twice; the rest is for a busy machine.
BOUND_S = 45.0


def sound_s(items: list[MediaItem]) -> float:
    return sum(len(item.samples) for item in items if isinstance(item, Sound)) / SAMPLE_RATE


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".flv", ".ts", ".mov"])
def test_containers_give_pictures_and_sound_from_zero(tmp_path: Path, suffix: str) -> None:
    source, items = play(write_video(tmp_path / f"a{suffix}"), frames_per_second=10)
    assert source.info.has_audio and not source.info.live
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


@pytest.mark.parametrize("start", [0.0, 5_000.0])
@pytest.mark.parametrize("suffix", ["ts", "flv", "mp4", "mkv"])
def test_joined_files_are_read_to_the_end_and_nothing_is_wrong_with_them(
    tmp_path: Path, suffix: str, start: float
) -> None:
    joined = tmp_path / f"c.{suffix}"
    second = write_video(tmp_path / f"b.{suffix}", start=start)
    joined.write_bytes(write_video(tmp_path / f"a.{suffix}").read_bytes() + second.read_bytes())
    source, items = play(joined, frames_per_second=10)
    assert len(times(items)) == 120 and sum(isinstance(item, NewEpoch) for item in items) == 1
    assert source.detail == ""


@pytest.mark.parametrize("sampling", ["fixed", "keyframes"])
@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4"])
def test_a_codec_that_changes_in_a_recording_is_played_in_a_new_epoch(
    tmp_path: Path, suffix: str, sampling: str
) -> None:
    x265 = {"x265-params": "log-level=none:keyint=10"}
    start = 6.2 if suffix == "ts" else 0.0
    second = write_video(tmp_path / f"b.{suffix}", 6, codec="libx265", start=start, options=x265).read_bytes()
    joined = tmp_path / f"c.{suffix}"
    joined.write_bytes(write_video(tmp_path / f"a.{suffix}", 6).read_bytes() + second)
    source, items = play(joined, frames_per_second=10, sampling=sampling)
    (epoch,) = (index for index, item in enumerate(items) if isinstance(item, NewEpoch))
    # Up to the length of a group of pictures goes with a change.
    expected = (50, 60) if sampling == "fixed" else (5, 6)
    for shown in (times(items[:epoch]), times(items[epoch:])):
        assert expected[0] <= len(shown) <= expected[1]
    assert "no picture" not in source.detail and (sampling == "keyframes" or source.detail == "")


@pytest.mark.parametrize(
    ("codec", "sound_codec"), [("flv", "aac"), ("libx265", "aac"), ("libx264", "mp3"), ("flv", "mp3")]
)
def test_a_codec_that_changes_within_an_flv_is_played_in_a_new_epoch(
    tmp_path: Path, codec: str, sound_codec: str
) -> None:
    options = {"x265-params": "log-level=none:keyint=10"} if codec == "libx265" else {}
    first = write_video(tmp_path / "a.flv", 6)
    second = write_video(tmp_path / "b.flv", 6, codec=codec, sound_codec=sound_codec, options=options)
    later = shifted(bytearray(second.read_bytes()), 6_100, 0xFFFFFFFF)[13:]
    if sound_codec == "aac":  # it goes on as it was, and is not set up again
        setup = later.index(b"\xaf\x00") - 11
        later = later[:setup] + later[setup + 15 + int.from_bytes(later[setup + 1 : setup + 4]) :]
    (tmp_path / "c.flv").write_bytes(first.read_bytes() + later)
    source, items = play(tmp_path / "c.flv", frames_per_second=10)
    (epoch,) = (index for index, item in enumerate(items) if isinstance(item, NewEpoch))
    for part in (items[:epoch], items[epoch:]):
        assert 48 <= len(times(part)) <= 65 and sound_s(part) > 5.5
    # If the sound alone changes, pictures go on with the next keyframe.
    assert len(times(items)) >= (118 if codec != "libx264" else 110) and source.detail == ""


def test_a_sound_codec_that_changes_in_a_recording_is_played_in_a_new_epoch(tmp_path: Path) -> None:
    second = write_video(tmp_path / "b.ts", 6, start=6.2, sound_codec="ac3").read_bytes()
    (tmp_path / "c.ts").write_bytes(write_video(tmp_path / "a.ts", 6).read_bytes() + second)
    _, items = play(tmp_path / "c.ts", frames_per_second=10)
    (epoch,) = (index for index, item in enumerate(items) if isinstance(item, NewEpoch))
    assert sound_s(items[:epoch]) > 5 and sound_s(items[epoch:]) > 5
    assert len(times(items)) >= 110


def test_a_recording_whose_pictures_end_before_it_does_says_so(tmp_path: Path) -> None:
    data = bytearray(write_video(tmp_path / "a.ts", 12).read_bytes())
    for start in range(len(data) // 2 // 188 * 188, len(data), 188):
        if data[start + 1] & 0x1F == 1 and data[start + 2] == 0:  # a picture's
            keep = 60 if data[start + 1] & 0x40 else 8
            data[start + keep : start + 188] = bytes(188 - keep)
    (tmp_path / "c.ts").write_bytes(bytes(data))
    source, items = play(tmp_path / "c.ts", frames_per_second=10)
    assert not any(isinstance(item, NewEpoch) for item in items)
    assert len(times(items)) >= 50 and sound_s(items) > 11
    assert re.search("no picture from 0:00:0[56] to 0:00:1[12]$", source.detail)


@pytest.mark.parametrize("suffix", ["ts", "flv", "mp4", "mkv"])
def test_a_recording_whose_clock_begins_late_is_whole(tmp_path: Path, suffix: str) -> None:
    source, items = play(write_video(tmp_path / f"a.{suffix}", start=5_000), frames_per_second=10)
    assert len(times(items)) == 60 and source.detail == ""


def test_a_recording_whose_sound_ends_before_it_does_says_so(tmp_path: Path) -> None:
    silent = write_video(tmp_path / "b.ts", 14, sound=False, start=6.2)
    (tmp_path / "c.ts").write_bytes(write_video(tmp_path / "a.ts", 6).read_bytes() + silent.read_bytes())
    source, _ = play(tmp_path / "c.ts")
    assert source.detail == "no sound since 0:00:06"


def test_of_joined_files_a_broken_one_is_told_and_left_out(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.flv").read_bytes()
    (tmp_path / "c.flv").write_bytes(whole + b"FLV\x01\x05\0\0\0\x09\0\0\0\0" + whole)
    source, items = play(tmp_path / "c.flv", frames_per_second=10)
    assert len(times(items)) == 120
    assert "recording 2 of 3 in it cannot be read" in source.detail


@pytest.mark.parametrize("gap_s", [0.5, 1.0, 4.0, 10.0])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_slow_pictures_without_decoding_times_are_all_shown(tmp_path: Path, codec: str, gap_s: float) -> None:
    moments = [index * gap_s for index in range(20)]
    options = {"bf": "3", "x265-params": "log-level=none"} if codec == "libx265" else {"bf": "3"}
    path = write_video(tmp_path / "a.mkv", 0, times=moments, sound=False, codec=codec, options=options)
    source, items = play(path, frames_per_second=10)
    assert times(items) == [round(moment * 1000) for moment in moments]
    assert not any(isinstance(item, NewEpoch) for item in items) and source.detail == ""


@pytest.mark.parametrize("start_ms", [2**31 - 3_000, 2**31 + 500_000, 2**32 - 3_000])
def test_an_flv_goes_on_where_its_time_stamps_have_no_more_bits(tmp_path: Path, start_ms: int) -> None:
    data = bytearray(write_video(tmp_path / "a.flv").read_bytes())
    for bits, name in ((31, "b.flv"), (32, "c.flv")):  # as FFmpeg writes them, and as others do
        path = tmp_path / name
        path.write_bytes(shifted(data, start_ms, (1 << bits) - 1))
        source, items = play(path, frames_per_second=10)
        assert len(times(items)) == 60 and times(items)[-1] - times(items)[0] == 5_900
        assert not any(isinstance(item, NewEpoch) for item in items) and source.detail == ""


def shifted(flv: bytearray, by_ms: int, mask: int) -> bytes:
    """Returns an FLV whose tags are later."""
    data, place = bytearray(flv), 13
    while place + 11 <= len(data):
        size = int.from_bytes(data[place + 1 : place + 4], "big")
        time_ms = int.from_bytes(data[place + 4 : place + 7], "big") | data[place + 7] << 24
        time_ms = time_ms if data[place] == 18 else (time_ms + by_ms) & mask
        data[place + 4 : place + 7], data[place + 7] = (time_ms & 0xFFFFFF).to_bytes(3, "big"), time_ms >> 24
        place += 11 + size + 4
    return bytes(data)


def test_an_flv_that_is_damaged_is_used_as_far_as_it_can_be(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.flv", 6).read_bytes()
    shown = []
    for seed in range(40):
        noise = random.Random(seed)
        data = bytearray(whole)
        for _ in range(noise.choice([1, 5, 30])):
            data[noise.randrange(600, len(data))] = noise.randrange(256)
        path = tmp_path / "b.flv"
        path.write_bytes(data)
        shown.append(len(times(play(path, frames_per_second=10)[1])))
    assert sum(count > 10 for count in shown) > 30, shown


def test_tracks_that_are_found_on_the_way_do_not_stop_an_flv(tmp_path: Path) -> None:
    # A tag of another kind in mid-stream makes FFmpeg add a track; PyAV does not know it.
    data = bytearray(write_video(tmp_path / "a.flv", 6, sound=False).read_bytes())
    sound = b"\x08" + (5).to_bytes(3, "big") + (5_000).to_bytes(3, "big") + bytes(4) + b"\x2f\x00\x00\x00\x00"
    (tmp_path / "b.flv").write_bytes(data + sound + (16).to_bytes(4, "big"))
    for _ in range(5):
        assert len(times(play(tmp_path / "b.flv", frames_per_second=10)[1])) == 60


def test_a_picture_that_stands_still_for_long_in_a_file_is_no_jump(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 0, times=[0, 0.1, 0.2, 30, 30.1, 95], sound=False)
    source, items = play(path, frames_per_second=10)
    assert times(items) == [0, 100, 200, 30_000, 30_100, 95_000] and source.detail == ""
    assert not any(isinstance(item, NewEpoch) for item in items)


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
    assert "damaged packets were skipped" in source.detail


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


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadSource, match="is neither a file nor a camera"):
        probe(str(tmp_path / "pipe"), SETTINGS)


def test_a_camera_that_is_not_there_is_told(tmp_path: Path) -> None:
    device = tmp_path / "video9"
    try:
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(81, 9))
        device.open("rb").close()
    except PermissionError:
        pytest.skip("only root can make a device, and not in every container")
    except OSError:
        pass  # no driver behind it, as here
    with pytest.raises(BadSource, match=r"video9: gives no picture .*: check that it is a camera, and not in use"):
        probe(str(device), SETTINGS)


def test_a_camera_that_is_there_is_live() -> None:
    if not Path("/dev/video0").exists():
        pytest.skip("no camera here")
    source = open_source("/dev/video0", SETTINGS)
    assert source.info.live and isinstance(next(iter(source)), Picture)
    source.close()


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
    yield from serve(live_flv(tmp_path, 20)[:60_000], hang=True)


@pytest.fixture
def closing_server(tmp_path: Path) -> Iterator[int]:
    yield from serve(live_flv(tmp_path, 3), hang=False)


def test_a_server_that_hangs_in_mid_stream_is_left_within_the_bound(hanging_server: int) -> None:
    source = open_source(f"http://127.0.0.1:{hanging_server}/a.flv", SETTINGS)
    assert source.info.live
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
