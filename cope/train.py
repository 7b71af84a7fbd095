"""Trains COPE on rendered lives and pages of products:

    python -m cope.data.collect DATA
    python -m cope.train --preset cope-mini --data DATA --out OUT [--set visual_steps=2000 ...]
    python -m cope.calibrate OUT --data DATA

1. Products of DATA are rendered into live scenes and pages and run through the frozen towers, once. What comes
   out is kept in OUT/cache and found there again.
2. The region finder learns where in a frame something is shown.
3. Projections, attention and fusion learn one space for pages, videos and lives.
4. Figures on products of the other side of the split, beside those of the frozen towers, go into the model card.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cope import artefact
from cope.backbones import TextTower, VisionTower, text_tower, vision_tower
from cope.config import PRESETS, TrainConfig, from_dict, preset
from cope.data.objects import Product, Split, read_backgrounds, read_products, siblings, things
from cope.data.scenes import NOTHING, Features, Renderer
from cope.errors import UserError
from cope.evaluate import rejection, retrieval
from cope.fit import Sampler, Texts, fit_finder, fit_fusion, fit_visual, start_projection, start_text
from cope.losses import pair_iou
from cope.modeling import CopeModel, Domain
from cope.regions import best_regions
from cope.scoring import UNCALIBRATED

# Names as shops write them, so that a page's text is not word for word what is said.
TITLES = ("{name}, new arrival", "original {name}", "{name} for the home", "classic {name} gift", "{name}")


def train(config: TrainConfig, name: str, data: Path, out: Path) -> dict[str, float]:
    """Trains a model and writes its artefact; returns its figures."""
    torch.manual_seed(config.seed)
    vision_module, text_module = vision_tower(config.model.vision), text_tower(config.model.text)
    vision, text = cast(VisionTower, vision_module), cast(TextTower, text_module)
    model = CopeModel(config.model, vision.map_channels, vision.descriptor_width, text.width)
    print(f"train  {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M learned parameters", flush=True)

    # 1. Render and describe.
    products, features = rendered(config, "train", data, out / "cache", vision)
    texts = written(products, text, config.model.text_tokens)

    # 2. Where something is shown.
    fit_finder(model, features, config, progress("finder"))

    # 3. What it is. Closed-form starts first, which are already better than the frozen towers.
    start_projection(model, features)
    start_text(model, texts)
    fit_visual(model, features, config, progress("visual"))
    fit_fusion(model, features, texts, config, progress("fusion"))

    # 4. How well, on products never seen.
    unseen, unseen_features = rendered(config, "val", data, out / "cache", vision)
    found = evaluate(model.eval(), unseen_features, written(unseen, text, config.model.text_tokens))
    found["products_trained"], found["products_unseen"] = float(len(products)), float(len(unseen))
    digest = artefact.save(out, name, config.model, model.state_dict(), UNCALIBRATED)
    (out / "training.json").write_text(
        json.dumps({"config": asdict(config), "figures": found, "sha256": digest, "torch": torch.__version__}, indent=2)
        + "\n",
        encoding="utf-8",
    )
    (out / "README.md").write_text(model_card(name, config, found), encoding="utf-8")
    return found


def rendered(
    config: TrainConfig, split: Split, data: Path, cache: Path, vision: VisionTower
) -> tuple[list[Product], Features]:
    """Products of one side of the split and what the towers see of them, from the cache where it is there."""
    products = read_products(data, split)
    rng = np.random.default_rng(config.seed)
    count = len(products)
    products += siblings(rng, products, count // 3) + things(rng, count // 6)
    scenes = config.scenes if split == "train" else config.scenes // 8
    live_views, page_views = (config.live_views, config.page_views) if split == "train" else (4, 2)
    what = [asdict(config.model), config.seed, split, scenes, live_views, page_views, [p.id for p in products]]
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    cached = cache / f"{split}-{key}.pt"
    if not cached.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        seed = config.seed + ("train", "val", "test").index(split)
        renderer = Renderer(config.model, vision, read_backgrounds(data, split), seed)
        report = progress(f"render {split}")
        for done in renderer.features(products, live_views, page_views, scenes):
            report(int(done * 1000), 1000, {})
        renderer.result.save(cached)
    return products, Features.load(cached)


@torch.inference_mode()
def written(products: Sequence[Product], tower: TextTower, max_tokens: int) -> Texts:
    """What is written of and said about products, through the frozen text tower."""
    vectors: dict[str, Tensor] = {}

    def vector(text: str) -> Tensor:
        if text not in vectors:
            vectors[text] = tower.encode(text, max_tokens).cpu()
        return vectors[text]

    names = [p.name for p in products]
    titles = [TITLES[int(hashlib.sha256(p.id.encode()).hexdigest()[:4], 16) % len(TITLES)] for p in products]
    order = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return Texts(
        titles=torch.stack([vector(t.format(name=n)) for t, n in zip(titles, names, strict=True)]).clone(),
        spoken=torch.stack([vector(n) for n in names]).clone(),
        named=torch.tensor([bool(n) for n in names]),
        key=torch.tensor([order[n] for n in names]),
    )


@torch.inference_mode()
def evaluate(model: CopeModel, features: Features, texts: Texts) -> dict[str, float]:
    """Figures on one side of the split, of the frozen tower and of the trained model, each in [0, 1].

    Live crops are true boxes jittered by up to a fifth; `finder_recall` is how often one of the finder's K
    regions covers a true box with an IoU of at least a half.
    """
    shown = features.live_product != NOTHING
    x_live, live_ids = torch.from_numpy(features.live[shown]).float(), torch.from_numpy(features.live_product[shown])
    x_page, page_ids = torch.from_numpy(features.page).float(), torch.from_numpy(features.page_product)
    pixels = torch.from_numpy(features.live_pixels[shown])
    empty = torch.from_numpy(features.live[~shown]).float()
    known = live_ids % 2 == 0  # every other product is taken out of the catalogue, to be refused
    kept = page_ids % 2 == 0
    out: dict[str, float] = {}

    def frozen(x: Tensor, _domain: Domain) -> Tensor:
        return functional.normalize((x - model.visual.mean) * model.visual.scale, dim=-1)

    spaces: dict[str, Callable[[Tensor, Domain], Tensor]] = {"frozen": frozen, "trained": model.visual}
    for name, space in spaces.items():
        live, page, video = space(x_live, "live"), space(x_page, "page"), space(x_live, "video")
        directions = {
            "L->P": (live, live_ids, page, page_ids),
            "P->L": (page, page_ids, live, live_ids),
            "V->P": (video, live_ids, page, page_ids),
            "P->V": (page, page_ids, video, live_ids),
        }
        for direction, arguments in directions.items():
            result = retrieval(*arguments)
            out[f"{name} {direction} R@1"], out[f"{name} {direction} mAP"] = result.r1, result.mean_average_precision
        for low, high in ((0, 80), (80, 160), (160, 9999)):
            size = (pixels >= low) & (pixels < high)
            out[f"{name} L->P R@1 {low}-{high} px"] = retrieval(live[size], live_ids[size], page, page_ids).r1
        best, which = (live @ page[kept].T).max(dim=1)
        right = torch.where(page_ids[kept][which] == live_ids, best, torch.zeros_like(best))
        strangers = torch.cat([best[~known], (space(empty, "live") @ page[kept].T).amax(dim=1)])
        out[f"{name} kept at 1% false alarms"] = rejection(right[known], strangers, 0.01)
    out |= _clips(model, features, texts)
    out["finder_recall"] = finder_recall(model, features)
    return out


def _clips(model: CopeModel, features: Features, texts: Texts) -> dict[str, float]:
    """Fused retrieval of clips: without words, with the product named, and with another one named."""
    sampler = Sampler(features, texts, seed=5)
    ids = torch.tensor([p for p in sampler.shown if bool(texts.named[p])])
    rows, salience, frame = sampler.clips(ids.tolist())
    regions = model.visual(sampler.live[rows.flatten()].float(), "live").view(*rows.shape, -1)
    first = torch.tensor([sampler.page_of[int(p)][0] for p in ids])
    yes = torch.ones(len(ids), dtype=torch.bool)
    titles, spoken = model.text(texts.titles[ids]), model.text(texts.spoken[ids])
    whole = model.fuse(model.visual(sampler.page[first].float(), "page"), yes, titles, yes, "page")
    cases = {"silent": (spoken, ~yes), "named": (spoken, yes), "misled": (spoken.roll(1, dims=0), yes)}
    out = {}
    for name, (words, told) in cases.items():
        clip = model.fuse(model.pool(regions, salience, frame, words, told), yes, words, told, "live")
        out[f"clip->page R@1 {name}"] = retrieval(clip, ids, whole, ids).r1
    return out


@torch.inference_mode()
def finder_recall(model: CopeModel, features: Features) -> float:
    """Share of true boxes that one of the K regions covers with an IoU of at least a half."""
    found = total = 0
    for maps, truth in zip(features.maps, features.boxes, strict=True):
        logits, boxes = model.finder([torch.from_numpy(level[None]).float() for level in maps])
        kept, _ = best_regions(
            boxes[0].reshape(-1, 4).numpy(),
            logits[0].sigmoid().reshape(-1).numpy(),
            model.config.regions,
            model.config.region_overlap,
        )
        if len(truth):
            iou = pair_iou(torch.from_numpy(truth)[:, None], torch.from_numpy(kept).float()[None])
            found += int((iou.amax(dim=1) >= 0.5).sum())
            total += len(truth)
    return found / max(total, 1)


def model_card(name: str, config: TrainConfig, found: dict[str, float]) -> str:
    """The artefact's README."""
    rows = "\n".join(f"| {key} | {value:.3f} |" for key, value in found.items() if not key.startswith("products"))
    return f"""# {name}

Finds and names products in live streams: one space of {config.model.dim} dimensions for regions of live frames,
spoken keywords, and product pages. Made by `python -m cope.train` (see its head for the commands) with seed
{config.seed}; the exact configuration is in `training.json`.

- Towers, frozen and not in this folder: `{config.model.vision}` (EfficientNet-Lite0, ImageNet, Apache-2.0) and
  `{config.model.text}` (multilingual-e5-small, MIT). `config.json` holds their hashes.
- Trained on {found["products_trained"]:.0f} rendered products: Microsoft's Fluent emoji (MIT), furniture and household
  models of the Sweet Home 3D contributors (CC0, CC BY 3.0: Andrew Kator and Jennifer Legaz, Scopia, the BlendSwap
  contributors), recoloured siblings of both, and made-up things, over photographs. No real shop's products and none
  of the sample catalogue.
- Scores below are of {found["products_unseen"]:.0f} products of other objects, never trained on, rendered alike. Expect
  less on real video, and measure it: `cope-live score`.

| figure | |
|---|---|
{rows}

Limits: things smaller than about 50 px in a 640x360 frame are mostly missed; two products that differ only in print
are easily confused; words count through `cope.keywords` first and through this space second.
"""


def progress(what: str) -> Any:
    """Prints a line per twentieth, with the losses and the time that is left."""
    start, told = time.monotonic(), -1

    def report(step: int, of: int, values: dict[str, float]) -> None:
        nonlocal told
        twentieth = 20 * (step + 1) // of
        if twentieth > told:
            told = twentieth
            spent = time.monotonic() - start
            left = spent * (of - step - 1) / (step + 1)
            losses = "  ".join(f"{k} {v:.3f}" for k, v in values.items())
            print(
                f"{what}  {100 * (step + 1) // of}%  {spent:.0f} s, {left:.0f} s left  {losses}",
                file=sys.stderr,
                flush=True,
            )

    return report


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m cope.train", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--preset", default="cope-mini", help=f"one of {', '.join(PRESETS)} (default: cope-mini)")
    parser.add_argument("--data", type=Path, required=True, help="a folder with objects.jsonl and backgrounds")
    parser.add_argument("--out", type=Path, required=True, help="the artefact's folder, and the cache's")
    names = ", ".join(f.name for f in fields(TrainConfig) if f.name != "model")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=f"one of {names}")
    args = parser.parse_args()
    try:
        values: dict[str, Any] = {}
        for item in args.set:
            field, _, value = item.partition("=")
            try:
                values[field] = json.loads(value)
            except ValueError:
                raise UserError(f"--set {item}: give FIELD=NUMBER") from None
        if "model" in values:
            raise UserError("--set model=...: choose the model with --preset")
        config = replace(from_dict(TrainConfig, values, "--set"), model=preset(args.preset))
        found = train(config, args.preset, args.data, args.out)
    except UserError as error:
        sys.exit(f"cope.train: {error}")
    for key, value in found.items():
        print(f"{key:40s} {value:.3f}")


if __name__ == "__main__":
    main()
