"""What the kernels of `watch` cost alone: the least that a stream-minute can take with these models on this machine.

    OMP_NUM_THREADS=1 python -m benchmarks.limit      # a table, and build/benchmark-limit.json

On the sample streams, in one thread a core, with nothing around them, in CPU seconds per stream-minute. All cores work
at once, as with `watch`, since they share caches and memory.

* decode: all pictures and the sound, by PyAV
* jpeg: one frame a second, written and read again
* frames: finding, cutting out and describing the regions of that frame
* read: finding and reading words in those frames that are read, and in their most salient regions
* voice: finding speech in the sound, and cutting it into the pieces that capture sends
* speech: Whisper on these pieces, four at once

`benchmarks.watch` prints how much more the whole flow takes.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch

from cope.evaluation.precision import one_thread
from cope.serving.encoder import Encoder
from topology.settings import load_settings
from workers.capture.speech import SileroDetector, SpeechCutter
from workers.embed.encoding import is_read
from workers.reading import reader_of
from workers.transcribe.recognizer import SAMPLE_RATE
from workers.transcribe.whisper import open_recognizer

ROOT = Path(__file__).parents[1]
STREAMS = sorted((ROOT / "samples/streams").glob("*.mp4"))
RESULT = ROOT / "build/benchmark-limit.json"


def measure() -> dict[str, float]:
    """CPU seconds per stream-minute, by kernel, with all cores at work."""
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        each = list(pool.map(of_one_core, range(cores)))
    return {kernel: statistics.mean(one[kernel] for one in each) for kernel in each[0]}


def of_one_core(_: int) -> dict[str, float]:
    """CPU seconds per stream-minute, by kernel."""
    settings = load_settings(device="cpu", threads=1)
    with one_thread(), torch.inference_mode():
        encoder = Encoder(settings.model, "cpu", 1, settings.precision == "auto")
        recognizer, reader = open_recognizer(settings), reader_of(settings, encoder.reading)
        seconds, minutes = dict[str, float](), 0.0

        def clocked(kernel: str, work: Callable[..., Any], *arguments: Any) -> Any:
            began = time.process_time()
            done = work(*arguments)
            seconds[kernel] = seconds.get(kernel, 0.0) + time.process_time() - began
            return done

        for number, path in enumerate(STREAMS):
            frames, sound = clocked("decode", decoded, path, settings.frames_per_second)
            pieces = clocked("voice", spoken, sound, settings.speech_chunk_s)
            if number == 0:  # kernels are chosen and packed in the first calls
                seen = encoder.encode_frames(frames[:1])[0]
                recognizer.transcribe([(pieces[0], "en")])
                if reader is not None:
                    reader.read_frame(frames[0], seen.boxes[: settings.read_regions])
            for second, frame in enumerate(frames):
                clocked("jpeg", written_and_read, frame, settings.jpeg_quality)
                seen = clocked("frames", encoder.encode_frames, [frame])[0]
                if reader is not None and is_read(round(1000 * second / settings.frames_per_second), settings):
                    clocked("read", reader.read_frame, frame, seen.boxes[: settings.read_regions])
            for at in range(0, len(pieces), recognizer.at_once):
                some = [(piece, path.stem[-2:]) for piece in pieces[at : at + recognizer.at_once]]
                clocked("speech", recognizer.transcribe, some)
            minutes += len(sound) / SAMPLE_RATE / 60
    return {kernel: value / minutes for kernel, value in seconds.items()}


def written_and_read(frame: np.ndarray, quality: int) -> np.ndarray:
    """A frame after its way through a JPEG file."""
    data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def spoken(sound: np.ndarray, longest_s: float) -> list[np.ndarray]:
    """The pieces of sound, (N,) int16, in which somebody speaks: (M,) float32 each."""
    cutter = SpeechCutter(SileroDetector(), longest_s)
    stretches = [*cutter.feed(sound), *cutter.finish()]
    return [np.frombuffer(one.audio, "<i2").astype(np.float32) / 32_768 for one in stretches if one.audio]


def decoded(path: Path, frames_per_second: float) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames as capture samples them, (H, W, 3) uint8 each, and the sound, (N,) int16 at 16 kHz."""
    frames, sound, due = [], [], 0.0
    resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
    with av.open(str(path)) as container:
        for stream in container.streams.video:
            stream.codec_context.thread_count = 1
        for decoded in container.decode(video=0, audio=0):
            if isinstance(decoded, av.AudioFrame):
                sound += [piece.to_ndarray()[0] for piece in resampler.resample(decoded)]
            elif decoded.time is not None and decoded.time >= due:
                frames.append(decoded.to_ndarray(format="rgb24"))
                due += 1 / frames_per_second
    return frames, np.concatenate(sound)


def main() -> None:
    """Prints the table and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULT, help="where the JSON goes")
    options = parser.parse_args()
    kernels = measure()
    print("CPU seconds per stream-minute: " + "  ".join(f"{name} {value:.2f}" for name, value in kernels.items()))
    print(f"together {sum(kernels.values()):.2f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(kernels, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
