"""Which tracks of a container are played."""

import shutil
import subprocess
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.integration.workers.capture.http_media import playlist
from tests.integration.workers.capture.media_files import write_sound, write_video
from tests.integration.workers.capture.played import SETTINGS, play, sound, times
from workers.capture.media import SAMPLE_RATE, BadSource
from workers.capture.source import probe


def heard_hz(items: list) -> float:
    """Returns the loudest frequency."""
    samples = sound(items)
    return float(np.abs(np.fft.rfft(samples)).argmax()) * SAMPLE_RATE / len(samples)


def ffmpeg(*arguments: str | Path) -> None:
    command = shutil.which("ffmpeg")
    if command is None:
        pytest.skip("ffmpeg is not installed: PyAV cannot write these files")
    subprocess.run([command, "-v", "error", "-y", "-nostdin", *map(str, arguments)], check=True)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".ts"])
def test_of_two_sound_tracks_the_first_is_heard(tmp_path: Path, suffix: str) -> None:
    source, items = play(write_video(tmp_path / f"a{suffix}", 3, tones=(440, 880)), frames_per_second=10)
    assert len(times(items)) == 30 and source.detail == ""
    assert abs(heard_hz(items) - 440) < 5


def test_of_two_sound_tracks_the_default_is_heard(tmp_path: Path) -> None:
    first = write_video(tmp_path / "a.mkv", 3, tones=(440, 880))
    second = tmp_path / "b.mkv"
    ffmpeg("-i", first, "-map", "0", "-c", "copy", "-disposition:a:0", "0", "-disposition:a:1", "default", second)
    assert abs(heard_hz(play(second)[1]) - 880) < 5


def test_subtitles_a_timecode_and_attachments_are_left_alone(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "a.mp4", 3)
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHello\n")
    (tmp_path / "font.ttf").write_bytes(b"0" * 100)
    timecode = ("-timecode", "01:00:00:00")
    ffmpeg("-i", plain, "-i", tmp_path / "a.srt", "-c", "copy", "-c:s", "mov_text", *timecode, tmp_path / "b.mov")
    attached = ("-attach", tmp_path / "font.ttf", "-metadata:s:t", "mimetype=application/x-truetype-font")
    ffmpeg("-i", plain, "-i", tmp_path / "a.srt", "-c", "copy", "-c:s", "srt", *attached, tmp_path / "b.mkv")
    for name in ("b.mov", "b.mkv"):
        source, items = play(tmp_path / name, frames_per_second=10)
        assert (len(times(items)), source.detail) == (30, "")
        assert abs(len(sound(items)) / SAMPLE_RATE - 3) < 0.2


def test_of_a_multiplex_the_first_programme_is_played_with_its_sound(tmp_path: Path) -> None:
    one, two = (
        write_video(tmp_path / "1.ts", 3),
        write_video(tmp_path / "2.ts", 3, size=(320, 192), tones=(880,)),
    )
    both = tmp_path / "both.ts"
    tracks = ("-map", "1:a", "-map", "0:v", "-map", "0:a", "-map", "1:v", "-c", "copy")
    ffmpeg("-i", one, "-i", two, *tracks, "-program", "st=1:st=2", "-program", "st=0:st=3", both)
    source, items = play(both, frames_per_second=10)
    assert (source.info.width, len(times(items))) == (160, 30)
    assert abs(heard_hz(items) - 440) < 5


def test_of_a_master_playlist_the_smallest_sufficient_variant_is_played_with_its_sound(tmp_path: Path) -> None:
    for name, size, tone in (("small", (160, 96), 440), ("middle", (320, 192), 660), ("large", (480, 288), 880)):
        write_video(tmp_path / f"{name}.ts", 3, size=size, tones=(tone,))
        (tmp_path / f"{name}.m3u8").write_text(playlist(f"{name}.ts"))
    variants = [
        f"#EXT-X-STREAM-INF:BANDWIDTH={rate}\n{name}.m3u8\n"
        for rate, name in ((3000, "large"), (1000, "small"), (2000, "middle"))
    ]
    (tmp_path / "master.m3u8").write_text("#EXTM3U\n" + "".join(variants))
    source, items = play(tmp_path / "master.m3u8", frames_per_second=10, frame_height=180)
    assert (source.info.width, len(times(items)), source.info.live) == (320, 30, False)
    assert abs(heard_hz(items) - 660) < 5


def test_a_sound_of_its_own_in_a_master_playlist_is_heard(tmp_path: Path) -> None:
    write_video(tmp_path / "v.ts", 3, sound=False)
    for name, tone in (("de", 440), ("en", 880)):
        write_sound(tmp_path / f"{name}.ts", 3, tone)
        (tmp_path / f"{name}.m3u8").write_text(playlist(f"{name}.ts"))
    (tmp_path / "v.m3u8").write_text(playlist("v.ts"))
    media = '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="s",NAME="{0}",URI="{0}.m3u8",DEFAULT={1}\n'
    (tmp_path / "master.m3u8").write_text(
        "#EXTM3U\n"
        + media.format("de", "NO")
        + media.format("en", "YES")
        + '#EXT-X-STREAM-INF:BANDWIDTH=1000,AUDIO="s"\nv.m3u8\n'
    )
    _, items = play(tmp_path / "master.m3u8", frames_per_second=10)
    assert len(times(items)) == 30 and abs(heard_hz(items) - 880) < 5


def test_a_cover_is_not_what_a_recording_shows(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "cover.jpg"), np.zeros((90, 90, 3), np.uint8))
    write_sound(tmp_path / "a.m4a")
    cover = ("-i", tmp_path / "cover.jpg", "-map", "0", "-map", "1", "-c", "copy", "-disposition:v", "attached_pic")
    ffmpeg("-i", tmp_path / "a.m4a", *cover, tmp_path / "b.m4a")
    with pytest.raises(BadSource, match="has sound but no picture"):
        probe(str(tmp_path / "b.m4a"), SETTINGS)
    with av.open(str(tmp_path / "b.m4a")) as container:
        assert len(container.streams.video) == 1, "it is there"
