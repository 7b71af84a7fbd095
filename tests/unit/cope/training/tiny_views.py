"""Batches of random pages, videos and live clips in float64, and an objective to learn from them."""

from dataclasses import replace
from typing import Any

import torch

from cope.config import ModelConfig, TrainConfig
from cope.model.modeling import CopeModel
from cope.model.views import NOBODY, Views
from cope.training.objective import Objective

WIDTH, WORDS, CLASSES = 10, 6, 9
CONFIG = TrainConfig(  # every loss
    model=ModelConfig(dim=12, regions=2, hidden=8),
    classification=0.5,
    classes_sampled=CLASSES,
    margin_scale=8.0,
)


def objective(config: TrainConfig = CONFIG, **changes: Any) -> Objective:
    """The objective in float64, without dropout; `model_NAME` changes the model."""
    inner = {name.removeprefix("model_"): changes.pop(name) for name in list(changes) if name.startswith("model_")}
    config = replace(config, model=replace(config.model, **inner), **changes)
    torch.manual_seed(0)
    model = CopeModel(config.model, (4, 8), WIDTH, WORDS)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        elif isinstance(part, torch.nn.MultiheadAttention):
            part.dropout = 0.0
    return Objective(model, config, CLASSES).double()


def batch(items: int = 8, seed: int = 0) -> tuple[Views, Views, Views]:
    """Page, video and live clip of each of some products; what is missing and what is said differ from row to row.

    Two products have one name. One row has no item but a page, one page no title.
    """
    random = torch.Generator().manual_seed(seed)
    product = torch.arange(items) % (CLASSES - 1)
    titles = torch.randn(items, WORDS, generator=random, dtype=torch.float64)
    titles[items - 1] = titles[1]
    page = _views(random, product, 1, 1)
    page = replace(page, words=titles, told=(torch.arange(items) != 2).double(), right=page.frame >= 0)
    clips = []
    for silent in (0, 4):
        shown = product.clone()
        shown[3] = NOBODY
        one = _views(random, shown, 2, 2)
        told = torch.rand(items, generator=random, dtype=torch.float64)
        told[silent] = 0.0
        words = titles + 0.3 * torch.randn(items, WORDS, generator=random, dtype=torch.float64)
        one.frame[5, 2:] = -1
        one.right[1::2, 0] = True
        clips.append(replace(one, words=words, told=told))
    return page, clips[0], clips[1]


def _views(random: torch.Generator, product: torch.Tensor, frames: int, each: int) -> Views:
    count, regions = len(product), frames * each
    return Views(
        descriptors=torch.randn(count, regions, WIDTH, generator=random, dtype=torch.float64),
        salience=torch.rand(count, regions, generator=random, dtype=torch.float64),
        frame=torch.arange(frames).repeat_interleave(each).repeat(count, 1),
        words=torch.zeros(count, WORDS, dtype=torch.float64),
        told=torch.zeros(count, dtype=torch.float64),
        product=product,
        right=torch.zeros(count, regions, dtype=torch.bool),
    )
