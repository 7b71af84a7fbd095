"""Frames a second on a GPU, against the same tower on pixels that are there already. Skips with a line without one.

python -m benchmarks.gpu [MODEL] [--frames 256]     # table, and build/benchmark-gpu.json
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from cope.evaluation.precision import example_frame
from cope.serving.encoder import Encoder
from cope.serving.looking import as_tensor
from cope.vision.pictures import fit_area

RESULT = Path(__file__).parents[1] / "build/benchmark-gpu.json"


def main() -> None:
    """Prints the figures and writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="cope-mini")
    parser.add_argument("--frames", type=int, default=256)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here: nothing was measured")
        return
    encoder, frame = Encoder(args.model, "cuda", native=True), example_frame()
    config = encoder.config
    crops = torch.rand(max(1, config.regions), 3, config.crop_pixels, config.crop_pixels, device="cuda") * 255
    small = None if encoder.finder is None else fit_area(frame, config.frame_pixels, encoder.finder.stride)

    @torch.inference_mode()
    def kernels() -> None:
        with encoder.computing(live=True):
            if encoder.finder is not None:
                encoder.finder.maps(there)
            encoder.vision.describe(crops)

    there = torch.empty(0) if small is None else as_tensor([small], encoder.device)
    figures = {
        "encoder": rate(lambda: encoder.encode_frames([frame]), args.frames),
        "tower": rate(kernels, args.frames),
    }
    figures["share"] = figures["encoder"] / figures["tower"]
    print(f"{torch.cuda.get_device_name()}: {figures['encoder']:.0f} frames/s of {figures['tower']:.0f}")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"model": args.model, "gpu": torch.cuda.get_device_name(), **figures}) + "\n")


def rate(work: Callable[[], object], count: int) -> float:
    """Calls a second, after a warm-up."""
    for _ in range(10):
        work()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(count):
        work()
    torch.cuda.synchronize()
    return count / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
