"""In which precision a model's towers should compute on the CPU of this machine: time and R@1 of each, and the choice.

Processor time of one thread is what is compared: it is the clock's on a machine with nothing else to do, and hardly
moves on a busy one. R@1 is that of `cope.evaluate`, on products that the model was not trained on.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import torch

from cope.errors import UserError
from cope.evaluation.describing import Describer
from cope.evaluation.evaluating import Options, as_heard, read_items
from cope.evaluation.measures import six
from cope.evaluation.space import embedded
from cope.serving import artefact
from cope.serving.artefact import Precision
from cope.serving.encoder import Encoder, PageInput

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
LEAST_GAIN = 0.1  # of the time. Measured in turn on a busy machine, two of one thing differ by up to 6 %.
MOST_LOSS = 0.005  # of mean R@1

FRAME = (360, 640)  # pixels, as capture hands them on
REPEATS = 30  # of each timing
WARM_UP = 3  # oneDNN chooses and packs its kernels in the first calls


@dataclass(frozen=True)
class Speed:
    """Processor time of one thread, in milliseconds.

    Attributes:
        frame_ms: Time to find and describe what a 640 x 360 frame shows.
        text_ms: Of encoding a phrase of four words that was not encoded before, as the title of a page: models that
            hear nothing read those too. Next to nothing where a model reads nothing at all.
    """

    frame_ms: float
    text_ms: float


@dataclass(frozen=True)
class Measured:
    """One precision.

    Attributes:
        precision: Which.
        speed: On this machine.
        r1: By direction ("L→P"), in [0, 1].
        mean_r1: Over directions.
    """

    precision: Precision
    speed: Speed
    r1: Mapping[str, float]
    mean_r1: float

    @property
    def cost_ms(self) -> float:
        """A frame and a new phrase: about what a second of a stream takes."""
        return self.speed.frame_ms + self.speed.text_ms


def choose(measured: Sequence[Measured]) -> tuple[Precision, dict[Precision, str]]:
    """The fastest precision that is faster than float32 and loses next to nothing, and what is said of each.

    Args:
        measured: Float32 among them.
    """
    full = next(m for m in measured if m.precision == "float32")
    said: dict[Precision, str] = {}
    fit = [full]
    for one in measured:
        loss = full.mean_r1 - one.mean_r1
        if one is full:
            continue
        if one.cost_ms > full.cost_ms * (1 - LEAST_GAIN):
            said[one.precision] = "not faster"
        elif loss > MOST_LOSS + 1e-9:  # a loss of just so much may come out larger in floating point
            said[one.precision] = f"loses {100 * loss:.1f} points"
        else:
            fit.append(one)
    best = min(fit, key=lambda one: one.cost_ms)
    said |= {one.precision: f"slower than {best.precision}" for one in fit if one is not best}
    said[best.precision] = "kept"
    return best.precision, said


def measure(
    folder: Path, data: str, cache: Path, options: Options, say: Callable[[str], None]
) -> tuple[list[Measured], dict[str, Any]]:
    """Measures every precision.

    Args:
        folder: Folder of an artefact, which is left in the last of the precisions.
        data: Folder or URL.
        cache: Where descriptors are kept.
        options: Which part of the data.
        say: Told what is going on.

    Returns:
        A row per precision; and of the data their name, fingerprint, split and number of products.

    Raises:
        UserError: The model or the data are not there, or the data have nothing to search.
    """
    found: list[dict[str, float]] = []
    about: dict[str, Any] = {}
    for precision in PRECISIONS:
        say(f"R@1 in {precision}")
        r1, about = _r1(_encoder(folder, precision), data, cache, options)
        found.append(r1)
    say(f"time per frame and per text, in turn: {', '.join(PRECISIONS)}")
    with one_thread():  # OpenVINO keeps the number of threads that an encoder was opened with
        speeds = timings([_encoder(folder, precision) for precision in PRECISIONS], REPEATS)
    return [
        Measured(precision, speed, r1, sum(r1.values()) / len(r1))
        for precision, speed, r1 in zip(PRECISIONS, speeds, found, strict=True)
    ], about


def timings(encoders: Sequence[Encoder], repeats: int) -> list[Speed]:
    """The speed of encoders, measured call by call in turn: what else the machine does meets all alike."""
    picture = example_frame()

    def see(encoder: Encoder, _call: int) -> None:
        encoder.encode_frames([picture])

    def read(encoder: Encoder, call: int) -> None:  # a text of its own each time, since encoders keep what they read
        encoder.encode_pages([PageInput(f"soft red handbag {call}", [])])

    with one_thread():
        frames, texts = (clocked([partial(what, encoder) for encoder in encoders], repeats) for what in (see, read))
    return [Speed(frame_ms, text_ms) for frame_ms, text_ms in zip(frames, texts, strict=True)]


def clocked(calls: Sequence[Callable[[int], object]], repeats: int) -> list[float]:
    """The median of this thread's processor time in ms, of each call.

    Args:
        calls: Called in turn, with the number of the round.
        repeats: Rounds that count, after `WARM_UP` ones.
    """
    taken: list[list[float]] = [[] for _ in calls]
    for number in range(WARM_UP + repeats):
        for call, times in zip(calls, taken, strict=True):
            began = time.thread_time()
            call(number)
            times.append(1000 * (time.thread_time() - began))
    return [statistics.median(times[WARM_UP:]) for times in taken]


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes in the calling thread alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _encoder(folder: Path, precision: Precision) -> Encoder:
    artefact.update(folder, precision=precision)
    return Encoder(folder, device="cpu")


def example_frame() -> np.ndarray:
    """Blobs of all sizes and colours: there are regions to find everywhere, as in a full frame."""
    rng = np.random.default_rng(0)
    height, width = FRAME
    layers = [
        cv2.resize(rng.integers(0, 256, (height // cell, width // cell, 3), np.uint8), (width, height))
        for cell in (8, 40, 120)
    ]
    return np.asarray(np.mean(layers, axis=0), np.uint8)


def _r1(encoder: Encoder, data: str, cache: Path, options: Options) -> tuple[dict[str, float], dict[str, Any]]:
    describer = Describer(encoder)
    items, _ = read_items(describer, data, cache, options)
    shaped = as_heard(items, options.text or encoder.live_text, encoder.modalities)
    found = six(embedded(describer.model, shaped, describer.device).fused, describer.device)
    if not found:
        raise UserError(f"{items.name}: no product has items in two domains, so there is no R@1; name other --data")
    about = {"name": items.name, "fingerprint": items.fingerprint, "split": options.split, "products": len(items)}
    return {name: one.figures().r1 for name, one in found.items()}, about
