"""SRT through the `ffmpeg` command: a stand-in for it here, which sends what a test asks for."""

import os
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.workers.capture.media_files import write_video
from topology.settings import Settings
from workers.capture.media import BadSource, Picture, SourceDown
from workers.capture.relay import Relay
from workers.capture.source import open_source

URL = "srt://127.0.0.1:9"
SETTINGS = Settings(_env_file=None, open_timeout_s=5.0, stall_timeout_s=0.5, allowed_networks="0.0.0.0/0")


@pytest.fixture
def ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in: a script to be written by the test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder / "ffmpeg"


def script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def transport_stream(tmp_path: Path) -> Path:
    return write_video(tmp_path / "a.ts", 4)


def test_a_stream_is_played_to_its_end(ffmpeg: Path, transport_stream: Path) -> None:
    script(ffmpeg, f"exec cat {transport_stream}")
    source = open_source(URL, SETTINGS)
    try:
        assert source.info.live and source.info.has_audio
        times = [item.pts_ms for item in source if isinstance(item, Picture)]
    finally:
        source.close()
    assert times[0] <= 1_000 and times[-1] >= 3_000


def test_the_url_is_one_argument_and_never_a_command(ffmpeg: Path, tmp_path: Path) -> None:
    script(ffmpeg, f'printf "%s\\n" "$@" > {tmp_path}/arguments')
    url = "srt://host:1?streamid=$(touch x);a b"
    relay = Relay(url, 5.0, 5.0)
    assert relay.read(10) == b""
    relay.close()
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[arguments.index("-i") + 1] == url


def test_a_stream_that_falls_silent_is_down(ffmpeg: Path, transport_stream: Path) -> None:
    script(ffmpeg, f"cat {transport_stream}; exec sleep 600")
    source = open_source(URL, SETTINGS)
    try:
        with pytest.raises(SourceDown, match=r"srt://127.0.0.1:9: has sent nothing for 0.5 s"):
            list(source)
    finally:
        source.close()


@pytest.mark.parametrize(
    ("body", "reason"),
    [("echo 'srt://127.0.0.1:9: Connection refused' >&2; exit 1", "connection refused"), ("exit 3", "status 3")],
)
def test_a_server_that_is_not_there_is_told_with_ffmpegs_reason(ffmpeg: Path, body: str, reason: str) -> None:
    script(ffmpeg, body)
    with pytest.raises(SourceDown, match=rf"srt://127.0.0.1:9: cannot be reached \(.*{reason}\)"):
        open_source(URL, SETTINGS)


def test_what_is_no_stream_is_refused(ffmpeg: Path) -> None:
    script(ffmpeg, "exec head -c 200000 /dev/zero")
    with pytest.raises((BadSource, SourceDown), match=URL):
        open_source(URL, SETTINGS)


def test_without_ffmpeg_the_mend_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadSource, match=r"srt needs the `ffmpeg` command: install it, or use rtmp"):
        open_source(URL, SETTINGS)


def test_closing_ends_the_child_at_once(ffmpeg: Path) -> None:
    script(ffmpeg, "exec sleep 600")
    before = set(psutil.Process().children())
    relay = Relay(URL, 60.0, 60.0)
    [child] = set(psutil.Process().children()) - before
    began = time.monotonic()
    relay.close()
    assert not child.is_running()
    assert time.monotonic() - began < 60
