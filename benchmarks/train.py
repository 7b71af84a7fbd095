"""Whether training waits for its data, and how near it comes to the bare speed of its towers.

    python -m benchmarks.train [--data DATA] [--steps 12]          # table, and build/train.json

1. Data wait: share of a step's time in which the device has no batch. The packaged towers, frozen, from pixels: with
   whole frames and with regions. DATA is anything that `cope.train` takes; without it, JPEG files of a shop's and a
   stream's usual sizes are made.
2. On a GPU: a step of `cope-base` (SigLIP2-base at 256 px, random weights, LoRA), beside a forward and backward pass
   of the same towers on random tensors that are on the device already, both in bfloat16. Not run without a GPU.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from cope.config import TrainConfig, preset
from cope.data.items import Source
from cope.data.opening import open_source
from cope.runtime.device import autocast, choose
from cope.training.pixels import PixelObjective, pixel_stage
from cope.training.trainer import Trainer

PRODUCTS, FRAMES = 96, 8
PAGE, FRAME = (800, 800), (640, 360)
WARM = 3  # steps that are not counted: loaders start, kernels are chosen


@dataclass
class Row:
    """One measured configuration; `towers_s` is the bare towers' time for the same pictures and texts."""

    what: str
    device: str
    products: int
    step_s: float
    data_wait: float
    towers_s: float | None = None


def main() -> None:
    """Prints the table and writes the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train")
    parser.add_argument("--data", help="a data set; without it one is made")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = choose(args.device)
    workers = max(1, (os.cpu_count() or 2) - 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = open_source(args.data or str(made(folder / "data")))
        rows = [measured(what, config, source, folder, args.steps, device) for what, config in packaged(workers)]
        if device.type == "cuda":
            rows.append(base(source, folder, args.steps, device, workers))
    print(f"{'':30} {'device':>6} {'products':>8} {'step':>10} {'data wait':>9} {'of bare towers':>14}")
    for row in rows:
        share = f"{row.towers_s / row.step_s:.0%}" if row.towers_s else "-"
        step = f"{row.step_s * 1e3:.0f} ms"
        print(f"{row.what:30} {row.device:>6} {row.products:>8} {step:>10} {row.data_wait:>9.1%} {share:>14}")
    if device.type != "cuda":
        print("cope-base against its bare towers: not run, there is no GPU")
    Path("build").mkdir(exist_ok=True)
    Path("build/train.json").write_text(json.dumps([asdict(row) for row in rows], indent=2))


def packaged(workers: int) -> list[tuple[str, TrainConfig]]:
    """The packaged towers from pixels, as a CPU can train them."""
    base = replace(preset("cope-mini"), finder_steps=0, finder_from="cope-mini", batch_products=8)
    base = replace(base, workers=workers, clip_frames=2, clip_regions=2)
    whole = replace(base, model=replace(base.model, regions=0), clip_regions=1)
    return [("packaged towers, whole frames", whole), ("packaged towers, regions", base)]


def measured(what: str, config: TrainConfig, source: Source, folder: Path, steps: int, device: torch.device) -> Row:
    """A short run, timed by what it writes itself."""
    config = replace(config, steps=steps + WARM, save_every=steps + WARM)
    out = folder / "".join(filter(str.isalnum, what))
    torch.manual_seed(0)
    module = PixelObjective(config, len(source))
    trainer = Trainer(config, out, device)
    trainer.run(pixel_stage(module, source, config))
    trainer.log.close()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][WARM:]
    step = [config.batch_products / line["per_s"] for line in lines]
    wait = sum(line["data_wait"] * seconds for line, seconds in zip(lines, step, strict=True)) / sum(step)
    row = Row(what, device.type, config.batch_products, sum(step) / len(step), wait)
    if device.type == "cuda" and config.model.tuning != "frozen":
        row.towers_s = bare(module, config, device)
    return row


def base(source: Source, folder: Path, steps: int, device: torch.device, workers: int) -> Row:
    """`cope-base` on towers of its architecture."""
    towers = str(siglip(folder / "siglip"))
    config = preset("cope-base")
    config = replace(config, model=replace(config.model, vision=towers, text=towers), workers=workers)
    return measured("cope-base, LoRA", config, source, folder, 10 * steps, device)


def bare(module: PixelObjective, config: TrainConfig, device: torch.device) -> float:
    """Seconds of a forward and backward pass of the towers on random tensors, as many as a batch has."""
    see, read = module.towers
    side, products = config.model.crop_pixels, config.batch_products
    crops = products * config.clip_frames * (config.clip_regions if config.model.regions else 1)
    pictures = [torch.rand(count, 3, side, side, device=device) * 255 for count in (products, crops, crops)]
    tokens = torch.randint(5, 100, (3 * products, config.model.text_tokens), device=device)
    mask = torch.ones_like(tokens, dtype=torch.bool)

    def step() -> None:
        with autocast(device, config.precision):
            found = [see.describe(x).float().square().mean() for x in pictures]
            found.append(read.forward_tokens(tokens, mask).float().square().mean())
        torch.stack(found).sum().backward()  # type: ignore[no-untyped-call]
        module.zero_grad(set_to_none=True)

    return timed(step, device)


def timed(step: Callable[[], None], device: torch.device, times: int = 10) -> float:
    """Mean seconds of a call, after three that do not count."""
    for _ in range(3):
        step()
    _finish(device)
    began = time.perf_counter()
    for _ in range(times):
        step()
    _finish(device)
    return (time.perf_counter() - began) / times


def _finish(device: torch.device) -> None:
    """A GPU works on what it was given after the call has returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def siglip(folder: Path) -> Path:
    """SigLIP2-base at 256 px with random weights and a tokenizer of bytes, in the hub's format."""
    import transformers as hub

    layers: dict[str, Any] = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    }
    marks = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    text = {**layers, **marks, "vocab_size": 32_000, "max_position_embeddings": 64}
    config = hub.SiglipConfig(text_config=text, vision_config={**layers, "image_size": 256, "patch_size": 16})
    model: nn.Module = hub.SiglipModel(config)
    model.save_pretrained(folder)  # type: ignore[operator]
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *(f"<0x{i:02X}>" for i in range(256))]
    hub.Siglip2Tokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    levels = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(levels))
    return folder


def made(folder: Path) -> Path:
    """A ROPE folder with photo-like JPEG files."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows: dict[str, list[str]] = {}

    def picture(name: str, size: tuple[int, int]) -> str:
        coarse = rng.integers(0, 256, (24, 32, 3), np.uint8)
        image = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).astype(np.int16)
        noisy = np.clip(image + rng.integers(-12, 13, image.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / name), noisy, [cv2.IMWRITE_JPEG_QUALITY, 85])
        return name

    for number in range(PRODUCTS):
        for domain, pairs, texts, images, count, size in (
            ("page", "product_pages_pair", "page_titles", "page_images", 1, PAGE),
            ("video", "product_videos_pair", "video_asrs", "video_frames", FRAMES, FRAME),
            ("live", "product_lives_pair", "live_asrs", "live_clips", FRAMES, FRAME),
        ):
            item = f"{domain}{number}"
            rows.setdefault(pairs, []).append(f"p{number},{item}")
            rows.setdefault(texts, []).append(f"{item},product number {number} of the shop")
            for at in range(count):
                moment = "" if domain == "page" else f"{at * 1000},"
                rows.setdefault(images, []).append(f"{item},{moment}{picture(f'{item}-{at}.jpg', size)}")
    for name, lines in rows.items():
        (folder / f"training_{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


if __name__ == "__main__":
    main()
