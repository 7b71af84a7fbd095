from pathlib import Path

import pytest

from topology.errors import UserError
from workers.cli.watch.session import name_sources


def test_a_stream_is_called_by_its_files_stem() -> None:
    assert name_sources(["/data/room-7.mp4"]) == {"room-7": "/data/room-7.mp4"}


def test_a_relative_file_becomes_absolute_so_that_any_worker_finds_it() -> None:
    assert name_sources(["room.mp4"]) == {"room": str(Path("room.mp4").absolute())}


def test_a_stream_is_called_by_the_last_part_of_its_url() -> None:
    assert name_sources(["rtmp://host/live/room-9", "http://host/hls/room-8.m3u8?token=a=b"]) == {
        "room-9": "rtmp://host/live/room-9",
        "room-8": "http://host/hls/room-8.m3u8?token=a=b",
    }


def test_a_name_can_be_given() -> None:
    assert name_sources(["left=rtmp://host/live/a", "right=/data/a.mp4"]) == {
        "left": "rtmp://host/live/a",
        "right": "/data/a.mp4",
    }


def test_an_equals_sign_in_a_path_is_no_name() -> None:
    assert name_sources(["/data/a=b.mp4"]) == {"a=b": "/data/a=b.mp4"}


def test_two_sources_of_one_name_are_refused_with_the_mend() -> None:
    with pytest.raises(UserError, match=r"would both be called 'a'.*other="):
        name_sources(["/x/a.mp4", "/y/a.mp4"])


def test_a_file_that_is_there_is_no_name_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("take=2.mp4").touch()
    assert name_sources(["take=2.mp4"]) == {"take=2": str(tmp_path / "take=2.mp4")}
