"""Tiny real media files, made with PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE = (160, 96)
RATE = 10
SOUND_RATE = 44_100


def write_video(
    path: Path,
    seconds: float = 6.0,
    *,
    sound: bool = True,
    size: tuple[int, int] = SIZE,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    times: list[float] | None = None,
    container: str | None = None,
) -> Path:
    """Writes a scene that changes each second, with a tone.

    Args:
        path: Its suffix decides the container, unless `container` does.
        seconds: Length.
        times: Of the pictures, in seconds; default: `RATE` a second.
    """
    with av.open(str(path), "w", format=container) as output:
        video = output.add_stream(codec, rate=RATE)
        video.width, video.height, video.pix_fmt = size[0], size[1], pix_fmt
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        video.codec_context.gop_size = RATE
        if rotation:
            video.set_display_rotation(rotation)
        audio = output.add_stream("aac", rate=SOUND_RATE) if sound else None
        if audio is not None:
            audio.layout = "mono"
        sent = 0
        moments = [i / RATE for i in range(round(seconds * RATE))] if times is None else times
        for moment in moments:
            frame = av.VideoFrame.from_ndarray(_scene(moment, size), format="rgb24")
            frame.pts, frame.time_base = round(moment * 1000), Fraction(1, 1000)
            output.mux(video.encode(frame))
            while audio is not None and sent / SOUND_RATE <= moment:
                sent = _write_sound(output, audio, sent)
        while audio is not None and sent / SOUND_RATE < seconds:
            sent = _write_sound(output, audio, sent)
        for stream in (video, audio):
            if stream is not None:
                output.mux(stream.encode(None))
    return path


def write_sound(path: Path, seconds: float = 2.0) -> Path:
    """Writes a tone without a picture."""
    with av.open(str(path), "w") as output:
        audio = output.add_stream("aac", rate=SOUND_RATE)
        audio.layout = "mono"
        sent = 0
        while sent / SOUND_RATE < seconds:
            sent = _write_sound(output, audio, sent)
        output.mux(audio.encode(None))
    return path


def _scene(moment: float, size: tuple[int, int]) -> np.ndarray:
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, int(moment) % 3] = 200
    image[:, width // 2 :] = np.arange(width - width // 2, dtype=np.uint8)[None, :, None]
    return image


def _write_sound(output: "av.container.OutputContainer", audio: "av.AudioStream", sent: int) -> int:
    tone = 8_000 * np.sin(2 * np.pi * 440 * np.arange(sent, sent + 1024) / SOUND_RATE)
    frame = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, sent, Fraction(1, SOUND_RATE)
    output.mux(audio.encode(frame))
    return sent + 1024
