"""Encodes a stream (H.264, AAC) into a file, or pushes it to a server in real time."""

import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from cope.vision.cutouts import Pixels
from topology.errors import UserError
from workers.cli.simulate.sound import blocks
from workers.cli.simulate.voices import SAMPLE_RATE, Samples

FILE_FORMATS = {".mp4": "mp4", ".mkv": "matroska", ".flv": "flv"}
URL_FORMATS = {"rtmp": "flv", "rtmps": "flv"}
# Live platforms ask for a keyframe every 2 s: viewers join, and players switch quality, at keyframes.
_KEYFRAME_S = 2
# Samples in a frame of AAC.
_AAC_BLOCK = 1024
# FLV knows few sampling rates; this one is in all containers.
_SOUND_RATE = 44_100
_SOUND_BITS = 64_000
# A push that the server does not take for this long has failed.
_PUSH_TIMEOUT_S = 10.0
# Numbers of OpenCV's CpuFeatures, which have no names in Python.
_AVX_512 = 13


def container_format(target: str) -> str:
    """Returns FFmpeg's name of the container for a file or URL.

    Raises:
        UserError: Nothing can be written there.
    """
    scheme, separator, _ = target.partition("://")
    if separator:
        if scheme.lower() not in URL_FORMATS:
            raise UserError(f"{target}: cannot push to {scheme}://; use rtmp:// or rtmps://")
        return URL_FORMATS[scheme.lower()]
    suffix = Path(target).suffix.lower()
    if suffix not in FILE_FORMATS:
        raise UserError(
            f"{target}: unknown kind of video file; name it {', '.join('*' + name for name in FILE_FORMATS)}"
        )
    if not Path(target).absolute().parent.is_dir():
        raise UserError(f"{target}: its folder does not exist; create it first")
    return FILE_FORMATS[suffix]


def write_stream(
    target: str,
    frame: Callable[[int], Pixels],
    frames: int,
    track: Samples,
    *,
    size: tuple[int, int],
    fps: int,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Encodes a stream; to a URL at the speed of its clock.

    Args:
        target: File or URL.
        frame: Returns frame number i, (H, W, 3) uint8 RGB.
        frames: How many.
        track: Mono samples at `voices.SAMPLE_RATE`.
        size: Width and height.
        fps: Frames per second.
        progress: Told the number of frames that are done.

    Raises:
        UserError: The file cannot be written, or the server does not take the stream.
    """
    kind = container_format(target)
    push = "://" in target
    options = {"movflags": "+faststart"} if kind == "mp4" else {}
    try:
        with av.open(target, "w", format=kind, options=options, timeout=_PUSH_TIMEOUT_S if push else None) as container:
            picture = container.add_stream("libx264", rate=fps)
            picture.width, picture.height = size
            picture.pix_fmt = "yuv420p"
            picture.time_base = Fraction(1, fps)
            picture.gop_size = _KEYFRAME_S * fps
            # One thread: the same bytes on any machine. No scene cuts: keyframes on the clock only.
            picture.options = {"crf": "25", "preset": "medium", "threads": "1", "sc_threshold": "0"}
            if cv2.checkHardwareSupport(_AVX_512):
                # Not its AVX-512 code: at some widths (192, 320, 360) that lets bytes beside the picture decide.
                picture.options |= {"x264-params": "asm=avx2"}
            if push:
                # A live encoder must not wait for later frames.
                picture.options |= {"tune": "zerolatency", "preset": "veryfast"}
            sound = container.add_stream("aac", rate=_SOUND_RATE)
            sound.bit_rate = _SOUND_BITS
            sound.layout = "mono"
            voice = _sound_frames(track)
            heard_s = 0.0
            started = time.monotonic()
            for index in range(frames):
                if push:
                    time.sleep(max(0.0, started + index / fps - time.monotonic()))
                coded = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame(index)), format="rgb24")
                coded.pts = index
                coded.time_base = Fraction(1, fps)
                container.mux(picture.encode(coded))
                while heard_s <= (index + 1) / fps and (samples := next(voice, None)) is not None:
                    heard_s = float((samples.pts + samples.samples) * samples.time_base)
                    container.mux(sound.encode(samples))
                if progress:
                    progress(index + 1)
            for samples in voice:
                container.mux(sound.encode(samples))
            container.mux(picture.encode(None))
            container.mux(sound.encode(None))
    except (av.FFmpegError, OSError) as error:
        mend = "is the server up, and does it take this stream?" if push else "mend the path or free some space"
        raise UserError(f"{target}: cannot be written ({error.strerror or error}); {mend}") from error


def _sound_frames(track: Samples) -> Iterator[av.AudioFrame]:
    """Yields the track at the rate of the encoder, in its block size."""
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=_SOUND_RATE, frame_size=_AAC_BLOCK)
    for number, block in enumerate(blocks(track, SAMPLE_RATE // 10)):
        samples = av.AudioFrame.from_ndarray(block.astype(np.float32)[None], format="fltp", layout="mono")
        samples.sample_rate = SAMPLE_RATE
        samples.pts = number * (SAMPLE_RATE // 10)
        samples.time_base = Fraction(1, SAMPLE_RATE)
        yield from resampler.resample(samples)
    yield from resampler.resample(None)
