"""What a frame and a text cost on one thread by the precision of the towers, and whether ONNX would be faster.

    python -m benchmarks.precision [MODEL] [--repeats 30]     # table, and build/benchmark-precision.json

Torch in float32, bfloat16 and int8 as an artefact has them, and the vision tower by onnxruntime where the package
`onnx` is there to export it. All are measured call by call in turn, in processor time of one thread, the median:

* maps: the finder's feature maps of one frame of `frame_pixels`
* crops: the descriptors of as many crops as a frame has regions
* frame: the whole of `Encoder.encode_frames` for a 640 x 360 frame
* text: the whole of `Encoder.encode_pages` for a title of four words

Beside them: the least cosine between the frame's vectors and those of float32; whether a crop gets the same bits alone
as among others; and the sum of the files of ONNX. ONNX counts for a model whose finder and descriptions share one
frozen tower.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from cope.evaluation.precision import PRECISIONS, clocked, example_frame, one_thread, timings
from cope.export import machine
from cope.serving import artefact
from cope.serving.encoder import Encoder
from cope.serving.identity import locate
from cope.vision.pictures import fit_area

RESULT = Path(__file__).parents[1] / "build/benchmark-precision.json"


class OnnxTower:
    """A vision tower whose maps and descriptors onnxruntime computes, in float32 and in the calling thread."""

    cross_frame = False

    def __init__(self, tower: nn.Module, side: int, folder: Path) -> None:
        self.stride, self.map_channels = tower.stride, tower.map_channels
        self.descriptor_width = tower.descriptor_width
        self._maps = session(Maps(tower), torch.rand(1, 3, 320, 576), folder / "maps.onnx", {2: "height", 3: "width"})
        self._describe = session(Descriptors(tower), torch.rand(8, 3, side, side), folder / "crops.onnx", {0: "crops"})
        self.size_bytes = sum(path.stat().st_size for path in folder.glob("*.onnx"))

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """See `VisionTower`."""
        return [torch.from_numpy(one) for one in self._maps.run(None, {"pixels": pixels.numpy()})]

    def describe(self, pixels: Tensor, frames: int = 1) -> Tensor:
        """See `VisionTower`."""
        return torch.from_numpy(self._describe.run(None, {"pixels": pixels.numpy()})[0])


class Maps(nn.Module):
    """A tower's maps as the one thing that it does."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, H, W) in [0, 255] -> maps."""
        return tuple(self.tower.maps(pixels))


class Descriptors(Maps):
    """A tower's descriptors as the one thing that it does."""

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 255] -> (B, F)."""
        return self.tower.describe(pixels)


def session(module: nn.Module, example: Tensor, path: Path, free: dict[int, str]) -> onnxruntime.InferenceSession:
    """Exports a module and opens it.

    Args:
        module: Of one input.
        example: The input.
        path: Of the file that is written.
        free: Axes of the input that may have other lengths.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # The operator of oneDNN that the tower calls on CPUs has no counterpart in ONNX; the general one has.
    with mock.patch("torch.backends.mkldnn.is_available", return_value=False), torch.no_grad():
        axes = {"pixels": free}
        torch.onnx.export(module, (example,), str(path), input_names=["pixels"], dynamic_axes=axes, dynamo=False)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextmanager
def variants(model: str) -> Iterator[dict[str, Encoder]]:
    """The encoders that are compared, by name."""
    with tempfile.TemporaryDirectory() as kept:
        found = {}
        for precision in PRECISIONS:
            folder = shutil.copytree(locate(model), Path(kept) / precision)
            artefact.update(folder, precision=precision)
            found[f"torch {precision}"] = Encoder(folder, device="cpu")
        if find_spec("onnx") is not None:
            encoder = Encoder(Path(kept) / "float32", device="cpu")
            tower = OnnxTower(encoder.vision, encoder.config.crop_pixels, Path(kept))
            encoder.vision = encoder.finder = tower
            found["onnx float32"] = encoder
        else:
            print("the package onnx is not installed, so ONNX is left out")
        yield found


def parts(encoder: Encoder) -> dict[str, Any]:
    """The calls to the towers of which a frame consists."""
    config = encoder.config
    small = encoder._tensor([fit_area(example_frame(), config.frame_pixels, encoder.finder.stride)])
    crops = torch.rand(config.regions, 3, config.crop_pixels, config.crop_pixels) * 255

    @torch.inference_mode()
    def maps(_call: int) -> None:
        with encoder.computing():
            encoder.finder.maps(small)

    @torch.inference_mode()
    def describe(_call: int) -> None:
        with encoder.computing():
            encoder.vision.describe(crops)

    return {"maps": maps, "crops": describe}


@torch.inference_mode()
def same_alone(encoder: Encoder) -> bool:
    """Whether each of some crops gets the same bits alone."""
    config = encoder.config
    generator = torch.Generator().manual_seed(1)
    crops = torch.rand(config.regions, 3, config.crop_pixels, config.crop_pixels, generator=generator) * 255
    with encoder.computing():
        together = encoder.vision.describe(crops)
        return all(torch.equal(encoder.vision.describe(crops[i : i + 1])[0], row) for i, row in enumerate(together))


def agreement(encoder: Encoder, full: Encoder) -> float:
    """The least cosine between the vectors of a frame's regions, region by region of the same box."""
    one, two = (e.encode_frames([example_frame()])[0] for e in (encoder, full))
    order = [int(np.abs(two.boxes - box).sum(axis=1).argmin()) for box in one.boxes]
    return float((one.regions.astype(np.float32) * two.regions[order].astype(np.float32)).sum(axis=1).min())


def measure(model: str, repeats: int) -> list[dict[str, Any]]:
    """A row per precision, and one for ONNX where it can be exported."""
    with variants(model) as encoders, one_thread():
        full = encoders["torch float32"]
        speeds = timings(list(encoders.values()), repeats)
        calls = [parts(encoder) for encoder in encoders.values()]
        maps, crops = (clocked([one[part] for one in calls], repeats) for part in ("maps", "crops"))
        return [
            {
                "towers": name,
                "maps_ms": maps[i],
                "crops_ms": crops[i],
                "frame_ms": speeds[i].frame_ms,
                "text_ms": speeds[i].text_ms,
                "times_faster": speeds[0].frame_ms / speeds[i].frame_ms,
                "least_cosine": agreement(encoder, full),
                "same_alone": same_alone(encoder),
                "onnx_bytes": getattr(encoder.vision, "size_bytes", 0),
            }
            for i, (name, encoder) in enumerate(encoders.items())
        ]


def main() -> None:
    """Prints the table and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="cope-mini", help="with one frozen tower (default: cope-mini)")
    parser.add_argument("--repeats", type=int, default=30, help="timed calls of each (default: 30)")
    args = parser.parse_args()
    rows = measure(args.model, args.repeats)
    times = ("maps_ms", "crops_ms", "frame_ms", "text_ms")
    print(f"{'towers':16s}" + "".join(f"{name.replace('_', ' '):>10s}" for name in times) + "  faster  cosine  alone")
    for row in rows:
        cells = "".join(f"{row[name]:10.1f}" for name in times)
        alone = "same" if row["same_alone"] else "other"
        print(f"{row['towers']:16s}{cells} {row['times_faster']:6.2f}x  {row['least_cosine']:.4f}  {alone}")
    RESULT.parent.mkdir(exist_ok=True)
    about = {"model": args.model, "machine": machine(), "torch": torch.__version__, "repeats": args.repeats}
    about |= {"onnxruntime": onnxruntime.__version__}
    RESULT.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
