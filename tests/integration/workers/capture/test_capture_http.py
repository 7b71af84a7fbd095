"""What web servers send: files without a length, live streams that stand still, playlists with holes."""

import asyncio
import queue
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.integration.workers.capture.http_media import MediaServer, media_server, playlist, whole
from tests.integration.workers.capture.media_files import live_flv, write_video
from tests.integration.workers.capture.played import SETTINGS, play, times
from tests.unit.workers.capture.capture_media import loud_detector
from topology.records import Frame, Record, StreamAnnounced, StreamStatus
from workers.capture.media import BadSource, MediaItem, NewEpoch, Picture, SourceDown
from workers.capture.playlist import target_duration_s
from workers.capture.repeats import PacketMemory
from workers.capture.source import open_source, probe
from workers.capture.stream import StreamCapture


@pytest.fixture
def server() -> Iterator[MediaServer]:
    with media_server() as serving:
        yield serving


def play_until_down(url: str, seen: PacketMemory, **changes: object) -> tuple[list[MediaItem], SourceDown]:
    """Plays a source that breaks off; returns what it gave until then."""
    items: list[MediaItem] = []
    source = open_source(url, SETTINGS.model_copy(update=changes), seen)
    try:
        with pytest.raises(SourceDown) as caught:
            items.extend(iter(source))
    finally:
        source.close()
    return items, caught.value


# ---------------------------------------------------------------------- files without a length


@pytest.mark.parametrize("suffix", [".mp4", ".flv", ".mkv"])
def test_what_says_how_long_it_is_is_a_recording(tmp_path: Path, server: MediaServer, suffix: str) -> None:
    path = write_video(tmp_path / f"a{suffix}", 6)
    if suffix == ".mp4":
        path = with_index_first(path)
    server.files["a"] = whole(path.read_bytes())
    source, items = play(server.url("a"), frames_per_second=10)
    assert not source.info.live and len(times(items)) == 60 and source.detail == ""


def with_index_first(path: Path) -> Path:
    moved = path.with_stem("moved")
    with av.open(str(path)) as given, av.open(str(moved), "w", options={"movflags": "faststart"}) as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    return moved


@pytest.mark.parametrize("header", [13, 0])
def test_what_follows_in_an_flv_and_is_not_shown_is_told(tmp_path: Path, server: MediaServer, header: int) -> None:
    first = write_video(tmp_path / "a.flv", 6).read_bytes()
    server.files["a.flv"] = (
        first + write_video(tmp_path / "b.flv", 6, codec="flv", sound_codec="mp3").read_bytes()[header:]
    )
    source, items = play(server.url("a.flv"), frames_per_second=10)
    assert len(times(items)) == 60
    assert re.search(r"\d+% of it is another recording or of another codec, and not shown", source.detail)
    server.files["a.flv"] = first
    assert play(server.url("a.flv"))[0].detail == ""


def test_a_recording_whose_index_comes_too_late_is_refused_with_the_mend(tmp_path: Path, server: MediaServer) -> None:
    data = write_video(tmp_path / "a.mp4", 6).read_bytes()
    server.files["a.mp4"] = whole(data)
    with pytest.raises(BadSource, match="its index comes last, and its server sends it only from the beginning"):
        probe(server.url("a.mp4"), SETTINGS)
    # As long as no server of these can send it from the middle, and no buffer holds it.
    server.files["b.mp4"] = with_padding_before_the_index(data, 8 << 20)
    with pytest.raises(BadSource, match="its index comes last"):
        probe(server.url("b.mp4"), SETTINGS)


def with_padding_before_the_index(data: bytes, size: int) -> bytes:
    place = data.index(b"moov") - 4
    return data[:place] + (size + 8).to_bytes(4, "big") + b"free" + bytes(size) + data[place:]


@pytest.mark.parametrize("seconds", [6, 62])
def test_a_recording_that_does_not_say_so_is_known_when_it_begins_again(
    tmp_path: Path, server: MediaServer, seconds: int
) -> None:
    server.files["a"] = whole(write_video(tmp_path / "a.ts", seconds).read_bytes())
    first, items = play(server.url("a"), frames_per_second=10)
    assert first.info.live and not first.over and len(times(items)) == 10 * seconds
    again, items = play(server.url("a"), first.seen, frames_per_second=10)
    assert again.over and items == []


def test_a_recording_that_breaks_off_goes_on_where_it_was(tmp_path: Path, server: MediaServer) -> None:
    data = write_video(tmp_path / "a.ts", 66).read_bytes()

    def breaks() -> Iterator[bytes]:
        yield data[: len(data) * 63 // 66]
        raise OSError("the server has gone")

    server.files["a"] = breaks
    seen = PacketMemory()
    _, before = play(server.url("a"), seen, frames_per_second=10)
    server.files["a"] = whole(data)
    again, after = play(server.url("a"), seen, frames_per_second=10)
    assert not again.over and abs(len(times(before)) + len(times(after)) - 660) <= 2
    assert play(server.url("a"), seen, frames_per_second=10)[0].over


def test_a_recording_without_a_length_is_captured_once(tmp_path: Path, server: MediaServer) -> None:
    server.files["a"] = whole(write_video(tmp_path / "a.ts", 6).read_bytes())
    frames, statuses = capture(server.url("a"))
    assert [frame.pts_ms for frame in frames if not frame.end_of_epoch] == [0, 1000, 2000, 3000, 4000, 5000]
    assert {frame.epoch for frame in frames} == {0} and statuses[-1].state == "ended"


def test_a_live_stream_of_which_the_server_sends_the_last_pictures_again_goes_on(
    tmp_path: Path, server: MediaServer
) -> None:
    data = live_flv(tmp_path, 20)
    server.files["a"] = whole(data[: len(data) // 2])
    first, before = play(server.url("a"), frames_per_second=10)
    server.files["a"] = whole(data)
    second, after = play(server.url("a"), first.seen, frames_per_second=10)
    assert first.info.live and not first.over and not second.over
    assert abs(len(times(before)) + len(times(after)) - 200) <= 2
    assert times(after)[0] < 300, "its epoch begins with what is new"


def capture(url: str, **changes: object) -> tuple[list[Frame], list[StreamStatus]]:
    """Captures a stream to its end."""
    sent: list[Record] = []

    async def send(topic: str, key: str, record: Record) -> None:
        sent.append(record)

    settings = SETTINGS.model_copy(update={"reconnect_give_up_s": 2.0, "reconnect_max_s": 0.5, **changes})
    announced = StreamAnnounced(stream_id="s", url=url)
    made = StreamCapture(
        settings,
        send,
        lambda url, seen: open_source(url, settings, seen),
        announced,
        offset=0,
        partition=0,
        detector=loud_detector,
    )
    asyncio.run(made.run())
    return [r for r in sent if isinstance(r, Frame)], [r for r in sent if isinstance(r, StreamStatus)]


# ---------------------------------------------------------------------- HLS


def serve_segments(server: MediaServer, folder: Path, count: int, seconds: float = 1.0) -> list[str]:
    names = []
    for index in range(count):
        path = write_video(folder / f"{index}.ts", seconds, start=10 + index * seconds)
        server.files[f"{index}.ts"] = path.read_bytes()
        names.append(f"{index}.ts")
    return names


def test_a_playlist_that_stands_still_ends_and_repeats_nothing(tmp_path: Path, server: MediaServer) -> None:
    segments = serve_segments(server, tmp_path, 3)
    server.files["a.m3u8"] = playlist(*segments, seconds=1, closed=False).encode()
    frames, statuses = capture(server.url("a.m3u8"), frames_per_second=10.0)
    times_ms = [frame.pts_ms for frame in frames if not frame.end_of_epoch]
    assert len(times_ms) == len(set(times_ms)) >= 28 and {frame.epoch for frame in frames} == {0}
    states = [status.state for status in statuses]
    assert states[-1] == "ended" and "live" not in states[states.index("stalled") :]
    stalled = next(status for status in statuses if status.state == "stalled")
    assert "playlist has had no new segment" in stalled.detail
    assert server.asked.count("a.m3u8") > 4


def test_a_playlist_that_goes_on_after_a_stall_goes_on_where_it_was(tmp_path: Path, server: MediaServer) -> None:
    segments = serve_segments(server, tmp_path, 5)
    server.files["a.m3u8"] = playlist(*segments[:3], seconds=1, closed=False).encode()
    seen = PacketMemory()
    before, _ = play_until_down(server.url("a.m3u8"), seen, frames_per_second=10)
    nothing, _ = play_until_down(server.url("a.m3u8"), seen, frames_per_second=10)
    server.files["a.m3u8"] = playlist(*segments[2:], seconds=1, first=2, closed=False).encode()
    after, _ = play_until_down(server.url("a.m3u8"), seen, frames_per_second=10)
    assert nothing == []
    assert 28 <= len(times(before)) <= 30 and 18 <= len(times(after)) <= 22


def test_what_a_channel_shows_twice_is_shown_twice(tmp_path: Path, server: MediaServer) -> None:
    segments = serve_segments(server, tmp_path, 2, seconds=2)
    looped = playlist(segments[1], segments[0], segments[0], seconds=2, closed=False)
    server.files["a.m3u8"] = looped.replace("#EXTINF", "#EXT-X-DISCONTINUITY\n#EXTINF").encode()
    items, _ = play_until_down(server.url("a.m3u8"), PacketMemory(), frames_per_second=10)
    assert len(times(items)) >= 56 and sum(isinstance(item, NewEpoch) for item in items) == 2


def test_segments_that_are_lost_are_told(tmp_path: Path, server: MediaServer) -> None:
    segments = serve_segments(server, tmp_path, 8, seconds=2)
    del server.files["3.ts"]
    server.files["a.m3u8"] = playlist(*segments, seconds=2).encode()
    source, items = play(server.url("a.m3u8"), frames_per_second=10)
    assert len(times(items)) == 140 and not any(isinstance(item, NewEpoch) for item in items)
    assert re.fullmatch(
        r"2\.0 s of the picture were lost, last at 0:00:0[56]; 2\.0 s of the sound were lost, last at 0:00:0[56]",
        source.detail,
    )


@pytest.mark.parametrize("suffix", ["", ".jpg", ".ts?token=a%2Fb&n=1"])
def test_segments_may_have_any_name(tmp_path: Path, server: MediaServer, suffix: str) -> None:
    data = write_video(tmp_path / "a.ts", 3).read_bytes()
    server.files[f"segment{suffix}"] = data
    server.files["a.m3u8"] = playlist(f"segment{suffix}").encode()
    assert len(times(play(server.url("a.m3u8"), frames_per_second=10)[1])) == 30


def test_variants_that_are_gone_leave_the_others(tmp_path: Path, server: MediaServer) -> None:
    serve_segments(server, tmp_path, 3)
    server.files["a.m3u8"] = playlist("0.ts", "1.ts", "2.ts", seconds=1).encode()
    server.files["master.m3u8"] = b"#EXTM3U\n" + b"".join(
        b"#EXT-X-STREAM-INF:BANDWIDTH=%d\n%s.m3u8\n" % (rate, name) for rate, name in ((1, b"gone"), (2, b"a"))
    )
    first, items = play(server.url("master.m3u8"), frames_per_second=10)
    assert len(times(items)) == 30
    again, items = play(server.url("master.m3u8"), first.seen, frames_per_second=10)
    assert again.over and items == []


def test_a_segment_may_take_as_long_as_the_playlist_says(tmp_path: Path, server: MediaServer) -> None:
    segments = serve_segments(server, tmp_path, 2)
    server.files["a.m3u8"] = playlist(*segments, seconds=3, closed=False).encode()
    server.files["master.m3u8"] = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\na.m3u8\n"
    assert target_duration_s(server.url("master.m3u8"), 5) == 3
    assert target_duration_s(server.url("gone.m3u8"), 5) == 0
    _, error = play_until_down(server.url("master.m3u8"), PacketMemory())
    waited = re.search(r"no new segment for (\d+) s", str(error))
    assert waited is not None and int(waited[1]) >= 4


# ---------------------------------------------------------------------- live, but without pictures or sound


def test_packets_that_give_no_pictures_are_no_live_stream(tmp_path: Path, server: MediaServer) -> None:
    good, bad = write_video(tmp_path / "a.ts", 3), bytearray(write_video(tmp_path / "b.ts", 30, start=3.2).read_bytes())
    for start in range(0, len(bad), 188):
        if bad[start + 1] & 0x1F == 1 and bad[start + 2] == 0 and not bad[start + 1] & 0x40:  # picture, no header
            bad[start + 8 : start + 188] = bytes(180)
        elif bad[start + 1] & 0x1F == 1 and bad[start + 2] == 0:
            bad[start + 60 : start + 188] = bytes(128)

    def stream() -> Iterator[bytes]:
        yield good.read_bytes()
        yield from slowly(bytes(bad))

    server.files["a"] = stream
    items, error = play_until_down(server.url("a"), PacketMemory(), frames_per_second=10)
    assert len(times(items)) >= 25
    assert "no picture for 1 s, only data that cannot be decoded" in str(error)


def test_a_codec_that_changes_is_played_in_a_new_epoch(tmp_path: Path, server: MediaServer) -> None:
    first = write_video(tmp_path / "a.ts", 3).read_bytes()
    x265 = {"x265-params": "log-level=none:keyint=10"}
    second = write_video(tmp_path / "b.ts", 30, codec="libx265", start=3.2, options=x265).read_bytes()
    rest: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # whoever is connected gets what comes next
    for start in range(0, len(second), len(second) // 100 // 188 * 188):
        rest.put(second[start : start + len(second) // 100 // 188 * 188])

    def stream() -> Iterator[bytes]:
        if server.asked.count("a") == 1:
            yield first
        while not rest.empty():
            yield rest.get()
            threading.Event().wait(0.05)

    server.files["a"] = stream
    frames, statuses = capture(server.url("a"), frames_per_second=10.0)
    shown = [sum(frame.epoch == epoch and not frame.end_of_epoch for frame in frames) for epoch in (0, 1)]
    assert shown[0] >= 25 and shown[1] >= 50, shown
    assert any("no picture for 1 s" in status.detail for status in statuses if status.state == "stalled")


def test_a_sound_codec_that_changes_is_no_live_sound(tmp_path: Path, server: MediaServer) -> None:
    second = write_video(tmp_path / "b.ts", 30, start=3.2, sound_codec="ac3").read_bytes()

    def stream() -> Iterator[bytes]:
        yield write_video(tmp_path / "a.ts", 3).read_bytes()
        yield from slowly(second)

    server.files["a"] = stream
    items, error = play_until_down(server.url("a"), PacketMemory(), frames_per_second=10)
    assert len(times(items)) >= 35
    assert "no sound for 1 s, only data that cannot be decoded" in str(error)


def slowly(data: bytes, pieces: int = 100) -> Iterator[bytes]:
    step = len(data) // pieces // 188 * 188
    for start in range(0, len(data), step):
        yield data[start : start + step]
        threading.Event().wait(0.05)


def test_sound_that_stops_is_told_while_the_stream_goes_on(tmp_path: Path, server: MediaServer) -> None:
    heard = write_video(tmp_path / "a.ts", 4).read_bytes()
    server.files["a"] = whole(heard + write_video(tmp_path / "b.ts", 16, start=4, sound=False).read_bytes())
    source = open_source(server.url("a"), SETTINGS)
    details = [source.detail for item in source if isinstance(item, Picture)]
    source.close()
    assert details[0] == "" and any("no sound since 0:00:04" in detail for detail in details)


def test_few_keyframes_are_no_stall_where_only_they_are_decoded(tmp_path: Path, server: MediaServer) -> None:
    data = write_video(tmp_path / "a.ts", 20, options={"g": "100", "keyint_min": "100", "sc_threshold": "0"})

    server.files["a"] = lambda: slowly(data.read_bytes())
    source, items = play(server.url("a"), sampling="keyframes")
    assert source.info.live and len(times(items)) >= 2


def test_a_camera_that_sends_pictures_without_times_runs_by_the_wall_clock(server: MediaServer) -> None:
    jpeg = cv2.imencode(".jpg", np.zeros((96, 160, 3), np.uint8))[1].tobytes()
    part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(jpeg), jpeg)

    def camera() -> Iterator[bytes]:
        for _ in range(20):
            yield part
            threading.Event().wait(0.1)

    server.files["video.mjpg"] = camera
    source, items = play(server.url("video.mjpg"), frames_per_second=10)
    assert source.info.live and len(times(items)) >= 10
    told = times(items)
    assert (told[-1] - told[0]) / (len(told) - 1) > 60, "not the 40 ms that FFmpeg assumes"


# ---------------------------------------------------------------------- web pages


def test_a_web_page_is_told_from_a_video(server: MediaServer) -> None:
    server.files["watch.html"] = b"<!doctype html><title>Live</title>" + b"<p>Shop with us.</p>" * 500
    with pytest.raises(BadSource, match="answers, but not with a video") as caught:
        probe(server.url("watch.html"), SETTINGS)
    assert "\n" not in str(caught.value)


def test_a_list_of_channels_is_told_as_such(tmp_path: Path, server: MediaServer) -> None:
    server.files["a.m3u"] = f"#EXTM3U\n#EXTINF:-1,One\n{server.url('one.m3u8')}\n".encode()
    (tmp_path / "a.m3u").write_text("#EXTM3U\n#EXTINF:-1,One\none.mkv\n")
    for source in (server.url("a.m3u"), tmp_path / "a.m3u"):
        with pytest.raises(BadSource, match="a list of channels or recordings, not a stream"):
            play(source)


MPD = b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period/></MPD>'


def test_dash_is_told_as_such(tmp_path: Path, server: MediaServer) -> None:
    server.files["a.mpd"] = MPD
    (tmp_path / "a.mpd").write_bytes(MPD)
    for source in (server.url("a.mpd"), tmp_path / "a.mpd"):
        with pytest.raises(BadSource, match=r"MPEG-DASH.*name its HLS playlist"):
            play(source)
