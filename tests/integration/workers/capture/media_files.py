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
    tones: tuple[float, ...] = (440,),
    start: float = 0.0,
    options: dict[str, str] | None = None,
    sound_codec: str = "aac",
) -> Path:
    """Writes a scene that changes each second, with a tone.

    Args:
        path: Its suffix decides the container, unless `container` does.
        seconds: Length.
        times: Of the pictures, in seconds; default: `RATE` a second.
        tones: Of the sound tracks, in hertz.
        start: Time stamp of the beginning, in seconds.
        options: Of the video encoder.
    """
    with av.open(str(path), "w", format=container) as output:
        video = output.add_stream(codec, rate=RATE, options=options or {})
        video.width, video.height, video.pix_fmt = size[0], size[1], pix_fmt
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        video.codec_context.gop_size = RATE
        if rotation:
            video.set_display_rotation(rotation)
        tracks = [_add_sound(output, tone, sound_codec) for tone in (tones if sound else ())]
        offset = round(start * 1000)
        moments = [i / RATE for i in range(round(seconds * RATE))] if times is None else times
        for moment in moments:
            frame = av.VideoFrame.from_ndarray(_scene(moment, size), format="rgb24")
            frame.pts, frame.time_base = round(moment * 1000) + offset, Fraction(1, 1000)
            output.mux(video.encode(frame))
            for track in tracks:
                track.write_until(moment, start)
        output.mux(video.encode(None))
        for track in tracks:
            track.write_until(seconds, start)
            track.finish()
    return path


def write_sound(path: Path, seconds: float = 2.0, tone: float = 440) -> Path:
    """Writes a tone without a picture."""
    with av.open(str(path), "w") as output:
        track = _add_sound(output, tone)
        track.write_until(seconds)
        track.finish()
    return path


def live_flv(folder: Path, seconds: float) -> bytes:
    """Returns an FLV as a live server sends it: nobody knows yet how long it will be."""
    data = write_video(folder / "live.flv", seconds).read_bytes()
    place = data.index(b"duration") + len(b"duration") + 1
    return data[:place] + bytes(8) + data[place + 8 :]


def _scene(moment: float, size: tuple[int, int]) -> np.ndarray:
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, int(moment) % 3] = 200
    image[:, width // 2 :] = np.arange(width - width // 2, dtype=np.uint8)[None, :, None]
    return image


class _Sound:
    """A track that is written as time goes on."""

    def __init__(self, output: "av.container.OutputContainer", stream: "av.AudioStream", tone: float) -> None:
        self._output, self._stream, self._tone = output, stream, tone
        self._sent = 0

    def write_until(self, moment: float, start: float = 0.0) -> None:
        while self._sent / SOUND_RATE <= moment:
            phase = 2 * np.pi * self._tone * np.arange(self._sent, self._sent + 1024) / SOUND_RATE
            frame = av.AudioFrame.from_ndarray((8_000 * np.sin(phase)).astype(np.int16)[None], "s16", "mono")
            frame.sample_rate, frame.time_base = SOUND_RATE, Fraction(1, SOUND_RATE)
            frame.pts = self._sent + round(start * SOUND_RATE)
            self._output.mux(self._stream.encode(frame))
            self._sent += 1024

    def finish(self) -> None:
        self._output.mux(self._stream.encode(None))


def _add_sound(output: "av.container.OutputContainer", tone: float, codec: str = "aac") -> _Sound:
    stream = output.add_stream(codec, rate=SOUND_RATE)
    stream.layout = "mono"
    return _Sound(output, stream, tone)
