"""Pictures and sound of unusual kinds, as an ordinary screen and speaker give them."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from tests.integration.workers.capture.media_files import SOUND_RATE
from tests.integration.workers.capture.played import play, sound
from workers.capture.media import SAMPLE_RATE, Picture
from workers.capture.mixdown import Mixdown
from workers.capture.sampler import upright

# Red, green, grey, white (203 nits in HDR), blue, dark grey: BT.709, full range.
COLOURS = ((220, 40, 40), (40, 180, 60), (128, 128, 128), (255, 255, 255), (30, 60, 200), (60, 60, 60))
# ITU-R BT.2087: linear BT.709 to linear BT.2020.
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def pq(nits: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084."""
    power = (nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(nits: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100, for a display of 1000 nits."""
    luminance = (nits @ np.array([0.2627, 0.678, 0.0593]))[..., None] / 1000
    scene = nits / 1000 * luminance ** (-0.2 / 1.2)
    upper = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), upper)


def colours() -> np.ndarray:
    return np.repeat(np.array(COLOURS, np.float64)[None], 96, axis=0).repeat(32, axis=1)


def write(path: Path, frame: av.VideoFrame, codec: str = "ffv1") -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=5)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
        context = stream.codec_context
        context.color_trc, context.color_primaries = frame.color_trc, frame.color_primaries
        context.colorspace, context.color_range = frame.colorspace, frame.color_range
        for index in range(5):
            frame.pts, frame.time_base = index, Fraction(1, 5)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def first_picture(path: Path) -> Picture:
    return next(item for item in play(path)[1] if isinstance(item, Picture))


@pytest.mark.parametrize(("curve", "transfer"), [(pq, ColorTrc.SMPTE2084), (hlg, ColorTrc.ARIB_STD_B67)])
def test_pictures_of_high_dynamic_range_are_shown_in_their_colours(
    tmp_path: Path, curve: Callable[[Any], Any], transfer: ColorTrc
) -> None:
    coded = colours() / 255
    light = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    signal = (curve(light @ TO_BT2020.T * 203) * 65_535).round().clip(0, 65_535).astype(np.uint16)
    frame = av.VideoFrame.from_ndarray(signal, format="rgb48le").reformat(
        format="yuv420p10le", dst_colorspace=Colorspace.BT2020, dst_color_range=ColorRange.MPEG
    )
    frame.color_trc, frame.color_primaries = transfer, ColorPrimaries.BT2020
    image = upright(first_picture(write(tmp_path / "a.mkv", frame)), 360)
    shown = image[48, 16::32, ::-1].astype(int)
    assert np.abs(shown - np.array(COLOURS)).max() <= 24, shown


@pytest.mark.parametrize("tagged", [True, False])
def test_high_definition_is_shown_in_its_own_colour_matrix(tmp_path: Path, tagged: bool) -> None:
    image = colours().astype(np.uint8).repeat(8, axis=0)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
    )
    if not tagged:
        frame.colorspace = 2
    shown = upright(first_picture(write(tmp_path / "a.mkv", frame)), 2000)[48, 16::32, ::-1].astype(int)
    assert np.abs(shown - np.array(COLOURS)).max() <= 4, shown


def test_an_interlaced_picture_shows_one_moment(tmp_path: Path) -> None:
    woven = np.zeros((96, 160, 3), np.uint8)
    woven[::2, 20:60] = 255  # a thing that moved
    woven[1::2, 80:120] = 255
    frame = av.VideoFrame.from_ndarray(woven, format="rgb24").reformat(format="yuv420p")
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg2video", rate=25, options={"flags": "+ildct+ilme", "b": "8M"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for index in range(5):
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    image = upright(first_picture(path), 360)
    assert image.shape == (96, 160, 3)
    assert image[:, 30:50].mean() > 230 and image[:, 90:110].mean() < 25


def test_wide_pixels_are_shown_square(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 9)
        for index in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((96, 96, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 5)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert upright(first_picture(path), 360).shape == (54, 96, 3)


def write_sides(path: Path, sides: np.ndarray, layout: str) -> Path:
    """Writes sound of several channels, (channels, N) in [-1, 1], beside a picture."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("ffv1", rate=5)
        video.width, video.height, video.pix_fmt = 64, 36, "yuv420p"
        audio = output.add_stream("flac", rate=SOUND_RATE, layout=layout)
        for index in range(sides.shape[1] * 5 // SOUND_RATE):
            picture = av.VideoFrame.from_ndarray(np.zeros((36, 64, 3), np.uint8), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, 5)
            output.mux(video.encode(picture))
        for start in range(0, sides.shape[1], 4096):
            samples = (sides[:, start : start + 4096] * 16_000).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples.T.reshape(1, -1), "s16", layout)
            frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
            output.mux(audio.encode(frame))
        output.mux(video.encode(None))
        output.mux(audio.encode(None))
    return path


def level(samples: np.ndarray) -> float:
    return float(np.sqrt((samples.astype(np.float64) ** 2).mean()))


TONE = np.sin(2 * np.pi * 440 * np.arange(SOUND_RATE * 3) / SOUND_RATE)


@pytest.mark.parametrize("right", [1.0, 0.0, -0.5, -1.0])
def test_stereo_is_heard_whatever_its_phase(tmp_path: Path, right: float) -> None:
    heard = sound(play(write_sides(tmp_path / "a.mkv", np.stack([TONE, right * TONE]), "stereo"))[1])
    assert level(heard) == pytest.approx(16_000 / np.sqrt(2) * (1 + abs(right)) / 2, rel=0.3)


def test_a_phase_that_turns_is_followed(tmp_path: Path) -> None:
    sides = np.stack([TONE, np.concatenate([TONE[:SOUND_RATE], -TONE[SOUND_RATE:]])])
    heard = sound(play(write_sides(tmp_path / "a.mkv", sides, "stereo"))[1])
    assert level(heard[16_000 * 2 :]) > 9_000


def test_speech_in_the_centre_of_six_channels_is_heard(tmp_path: Path) -> None:
    sides = np.zeros((6, len(TONE)))
    sides[2] = TONE
    assert level(sound(play(write_sides(tmp_path / "a.mkv", sides, "5.1"))[1])) > 2_000


def test_a_sound_format_that_changes_in_mid_stream_is_followed() -> None:
    mixdown, heard = Mixdown(), []
    for index, (rate, layout) in enumerate([(44_100, "stereo"), (44_100, "stereo"), (22_050, "mono"), (48_000, "5.1")]):
        channels = av.AudioLayout(layout).nb_channels
        samples = np.full((1, rate * channels), 8_000, np.int16)  # a second
        frame = av.AudioFrame.from_ndarray(samples, "s16", layout)
        frame.sample_rate = rate
        heard += [*mixdown.take(frame, index * 1_000_000)]
    heard += [*mixdown.flush(4_000_000)]
    assert sum(len(piece.samples) for piece in heard) == pytest.approx(4 * SAMPLE_RATE, abs=64)
    for before, after in pairwise(heard):
        assert abs(before.start + len(before.samples) - after.start) <= 64
