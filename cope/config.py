"""Configuration of the model and its presets, as frozen dataclasses that live in an artefact's `config.json`."""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

from cope.errors import UserError

FORMAT_VERSION = 1  # of the artefact folder; a reader refuses any other

T = TypeVar("T")


@dataclass(frozen=True)
class ModelConfig:
    """What a `CopeModel` is built of.

    Attributes:
        vision: Vision tower: `packaged:NAME`, or a `transformers` model by hub name or folder.
        text: Text tower, likewise.
        dim: Width D of the embedding space. 256 keeps 100,000 pages at 51 MB in float16; below 128 siblings of
            a product begin to fall together.
        frame_pixels: Area to which a frame is resized for finding regions. A product must cover a few cells of
            the stride-16 grid to be found: at half this area a product of 60 px in 640x360 covers two.
        crop_pixels: Side of the square to which each region is resized for describing it. The describing cost
            grows with its square.
        crop_margin: Share of a region's longer side that is added around it, so that a silhouette stays whole.
        regions: Regions K per frame that are described and travel on. Each costs one crop through the tower.
        region_overlap: Regions that overlap a better one by more than this IoU are dropped.
        hidden: Width of the region finder.
        text_tokens: Longest text that is read.
    """

    vision: str = "packaged:efficientnet-lite0"
    text: str = "packaged:multilingual-e5-small"
    dim: int = 256
    frame_pixels: int = 320 * 576
    crop_pixels: int = 128
    crop_margin: float = 0.1
    regions: int = 8
    region_overlap: float = 0.55
    hidden: int = 64
    text_tokens: int = 64


PRESETS: dict[str, ModelConfig] = {
    "cope-mini": ModelConfig(),
    "cope-base": ModelConfig(
        vision="google/siglip2-base-patch16-256", text="google/siglip2-base-patch16-256", dim=512, crop_pixels=256
    ),
    "cope-paper": ModelConfig(vision="microsoft/xclip-base-patch16", text="hfl/rbt3", dim=128, crop_pixels=224),
}


def preset(name: str) -> ModelConfig:
    """The model configuration of a preset.

    Raises:
        UserError: There is no such preset.
    """
    if name not in PRESETS:
        raise UserError(f"no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def from_dict(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Builds a dataclass from plain values and refuses names that it does not know.

    Raises:
        UserError: An unknown name, or a value of another type than the field's default.
    """
    assert is_dataclass(kind)  # noqa: S101 - for the type checker
    known = {f.name: f for f in fields(kind)}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{where}: unknown field {name!r}; known are {', '.join(known)}")
        default = known[name].default
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            continue
        if type(value) is not type(default):
            raise UserError(f"{where}: {name} must be {type(default).__name__}, not {value!r}")
    return kind(**values)


@dataclass(frozen=True)
class TrainConfig:
    """How `python -m cope.train` learns.

    Attributes:
        model: The model to train.
        seed: Of everything random.
        scenes: Rendered frames from which the region finder learns.
        live_views: Rendered showings of each training product.
        page_views: Rendered page pictures of each training product.
        finder_steps: Optimiser steps of the region finder.
        visual_steps: Optimiser steps of the visual projection.
        fusion_steps: Optimiser steps of words, attention and fusion.
        batch_products: Products in a batch of the contrastive losses. More are harder negatives.
        temperature: Of InfoNCE at its start; it is learned.
        label_smoothing: Of InfoNCE.
        learning_rate: Peak, after warm-up; then cosine to zero.
        weight_decay: Of AdamW.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    seed: int = 7
    scenes: int = 1500
    live_views: int = 5
    page_views: int = 2
    finder_steps: int = 500
    visual_steps: int = 300
    fusion_steps: int = 300
    batch_products: int = 256
    temperature: float = 0.07
    label_smoothing: float = 0.05
    learning_rate: float = 3e-4
    weight_decay: float = 0.05
