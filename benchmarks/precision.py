"""What a frame and a text cost on one thread by the precision of the towers, and what OpenVINO brings.

    python -m benchmarks.precision [MODEL] [--repeats 30]     # table, and build/benchmark-precision.json

The towers as workers open them (packaged ones by OpenVINO) in float32, bfloat16 and int8, and by PyTorch in float32.
All are measured call by call in turn, in processor time of one thread, the median:

* maps: the finder's feature maps of one frame of `frame_pixels`
* crops: the descriptors of as many crops as a frame has regions
* frame: the whole of `Encoder.encode_frames` for a 640 x 360 frame
* text: the whole of `Encoder.encode_pages` for a title of four words

Beside them: the least cosine between the vectors of a frame's crops and those of PyTorch in float32; and whether a
crop gets the same bits alone as among others. Only a model with a frozen vision tower can be measured.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch

from cope.evaluation.precision import PRECISIONS, clocked, example_frame, one_thread, timings
from cope.export import machine
from cope.runtime.openvino import version
from cope.serving import artefact
from cope.serving.encoder import Encoder
from cope.serving.identity import locate
from cope.serving.looking import Looker, as_tensor
from cope.towers.packaged import TextTower, VisionTower, text_tower, vision_tower
from cope.vision.pictures import fit_area

RESULT = Path(__file__).parents[1] / "build/benchmark-precision.json"


@contextmanager
def variants(model: str) -> Iterator[dict[str, Encoder]]:
    """The encoders that are compared, by name."""
    with tempfile.TemporaryDirectory() as kept:
        found = {"torch float32": by_torch(Encoder(model, device="cpu"))}
        for precision in PRECISIONS:
            folder = shutil.copytree(locate(model), Path(kept) / precision)
            artefact.update(folder, precision=precision)
            found[precision] = Encoder(folder, device="cpu")
        yield found


def by_torch(encoder: Encoder) -> Encoder:
    """The same encoder with towers that PyTorch computes."""
    same = encoder.finder is encoder.vision
    encoder.vision = cast(VisionTower, vision_tower(encoder.config.vision))
    encoder.finder = encoder.vision if same else cast(VisionTower, vision_tower(encoder.config.finder))
    encoder.live_vision = encoder.vision
    encoder.live_looker = Looker(encoder.config, encoder.model.finder, encoder.finder, encoder.device)
    encoder.text = cast(TextTower, text_tower(encoder.config.text))
    return encoder


def parts(encoder: Encoder) -> dict[str, Any]:
    """The calls to the towers of which a frame consists."""
    config = encoder.config
    finder = encoder.finder
    assert finder is not None
    small = as_tensor([fit_area(example_frame(), config.frame_pixels, finder.stride)], encoder.device)
    crops = torch.rand(config.regions, 3, config.crop_pixels, config.crop_pixels) * 255

    @torch.inference_mode()
    def maps(_call: int) -> None:
        with encoder.computing():
            finder.maps(small)

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


@torch.inference_mode()
def agreement(encoder: Encoder, full: Encoder) -> float:
    """The least cosine between the vectors of a frame's regions, cut out alike."""
    frame = example_frame()
    crops = as_tensor(full.looker.crops(frame, full.looker.find(frame)[0]), full.device)
    rows = []
    for one in (encoder, full):
        with one.computing():
            rows.append(one.model.visual(one.vision.describe(crops).float(), "live"))
    return float((rows[0] * rows[1]).sum(dim=1).min())


def measure(model: str, repeats: int) -> list[dict[str, Any]]:
    """A row per precision."""
    with one_thread(), variants(model) as encoders:
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
    about = {"model": args.model, "machine": machine(), "torch": torch.__version__, "openvino": version()}
    about |= {"repeats": args.repeats}
    RESULT.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
