"""A stretch of a file, read once more."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from topology.addresses import allowing
from topology.settings import Settings
from workers.capture.media import BadSource, Picture
from workers.capture.sampler import Sampler
from workers.capture.source import open_source
from workers.capture.stretch import read_stretch

RATE, SECONDS = 10, 12


@pytest.fixture(scope="module", params=["mp4", "mkv", "ts", "flv", "avi"])
def video(request, tmp_path_factory):
    """A recording whose time stamps begin at 7 s, with a keyframe every 5 s; each picture has a grey of its own."""
    path = tmp_path_factory.mktemp("stretch") / f"v.{request.param}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4" if request.param == "avi" else "libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 5 * RATE
        for number in range(RATE * SECONDS):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 2 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number + (0 if request.param == "avi" else 7 * RATE), Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def settings_for(path: Path) -> Settings:
    return allowing(Settings(_env_file=None), urls=[], files=[path])


def test_it_has_the_pictures_that_capture_has_sent(video):
    settings = settings_for(video)
    source, sampler = open_source(str(video), settings), Sampler(settings)
    sent = [one for item in source if isinstance(item, Picture) and (one := sampler.take(item)) is not None]
    source.close()
    for from_ms, to_ms in ((0, 3_000), (6_000, 10_000), (8_500, 60_000)):
        read = read_stretch(str(video), settings, from_ms, to_ms)
        wanted = [one for one in sent if from_ms <= one.pts_ms < to_ms]
        assert [one.pts_ms for one in read] == [one.pts_ms for one in wanted] != []
        assert all(np.array_equal(one.image, other.image) for one, other in zip(read, wanted, strict=True))


def test_what_no_file_is_and_files_that_may_not_be_read_are_refused(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(BadSource, match="COPE_ALLOWED_FOLDERS"):
        read_stretch(str(path), Settings(_env_file=None), 0, 1_000)
    with pytest.raises(BadSource, match="not a file"):
        read_stretch("rtmp://media.example/live", settings_for(path), 0, 1_000)
    with pytest.raises(BadSource):
        read_stretch(str(path), settings_for(path), 0, 1_000)
