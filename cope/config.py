"""Configuration of the model and of its training: frozen dataclasses, and their presets.

`ModelConfig` lies in an artefact's `config.json`, `TrainConfig` in a run's `training.json`.
"""

import tomllib
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from cope.errors import UserError
from cope.ranges import RANGES

FORMAT_VERSION = 3  # of the artefact folder; a reader refuses any other

LiveText = Literal["keywords", "raw", "none"]
Modalities = Literal["both", "vision", "text"]

T = TypeVar("T")


@dataclass(frozen=True)
class ModelConfig:
    """What a `CopeModel` is built of.

    Attributes:
        vision: Vision tower: `packaged:NAME`, or a `transformers` model by hub name or folder.
        text: Text tower, likewise.
        dim: Width D of the embedding space. 256 keeps 100,000 pages at 51 MB in float16; below 128 siblings of
            a product begin to fall together.
        finder: Vision tower whose maps the region finder reads; the same as `vision` shares its weights.
        frame_pixels: Area to which a frame is resized for finding regions. A product must cover a few cells of
            the stride-16 grid to be found: at half this area a product of 60 px in 640x360 covers two.
        crop_pixels: Side of the square to which each region is resized for describing it. The describing cost
            grows with its square.
        crop_margin: Share of a region's longer side that is added around it, so that a silhouette stays whole.
        regions: Regions K per frame that are described and travel on. Each costs one crop through the tower.
            0: no finder, the whole frame is the one region (the paper's choice).
        region_overlap: Regions that overlap a better one by more than this IoU are dropped.
        hidden: Width of the region finder.
        text_tokens: Longest text that is read.
        keywords: How keywords become one text vector: the `mean` of each one's, by weight (a catalogue's keywords
            recur, so their vectors are kept), or `joined` into one text, as training on files has it.
        temporal: How the regions of a clip's frames become one vector. `attention`: over frame x region, by salience
            and persistence; `transformer`: that within each frame, then the paper's multi-frame integration
            transformer over the frames.
        temporal_layers: Of that transformer.
        fusion: How picture and words are joined. `sum`: weighted per domain; `transformer`: the paper's fusion
            encoder; `none`: pictures alone, words only where there is no picture.
        fusion_layers: Of that encoder.
        domain_projections: A projection of its own for each of page, video and live; else one for all.
        tuning: What of the towers is learned: `frozen` nothing, `lora` low-rank steps beside the linear layers of
            attention, `full` everything.
        lora_rank: Of those steps.
        reading: Reader of the words in frames and page pictures (`packaged:ppocr`); empty: words are not read.
    """

    vision: str = "packaged:efficientnet-lite0"
    text: str = "packaged:multilingual-e5-small"
    dim: int = 256
    finder: str = "packaged:efficientnet-lite0"
    frame_pixels: int = 320 * 576
    crop_pixels: int = 160
    crop_margin: float = 0.1
    regions: int = 8
    region_overlap: float = 0.55
    hidden: int = 64
    text_tokens: int = 64
    keywords: Literal["mean", "joined"] = "mean"
    temporal: Literal["attention", "transformer"] = "attention"
    temporal_layers: int = 1
    fusion: Literal["sum", "transformer", "none"] = "sum"
    fusion_layers: int = 1
    domain_projections: bool = True
    tuning: Literal["frozen", "lora", "full"] = "frozen"
    lora_rank: int = 8
    reading: str = ""


@dataclass(frozen=True)
class TrainConfig:
    """How `python -m cope.train` learns.

    Attributes:
        model: The model to train.
        seed: Of everything random.
        steps: Optimiser steps of the representation.
        finder_steps: Optimiser steps of the region finder, on rendered scenes. 0: take it from `finder_from`.
        finder_from: Artefact, by name or folder, whose region finder is taken over.
        batch_products: Products in a batch and process. More are harder negatives.
        accumulate: Batches whose gradients are added up before a step.
        learning_rate: Peak of all that sits on the towers, after warm-up; then cosine to zero.
        vision_rate: Peak of the vision tower's last layer.
        text_rate: Peak of the text tower's last layer.
        layer_decay: Factor from each tower layer to the one below it.
        warm_up: Share of the steps in which rates rise.
        weight_decay: Of AdamW; scalars, biases and norms do not decay.
        clip_norm: Gradients are scaled down to this norm, per parameter group.
        ema: Decay of the averaged weights that are evaluated and saved; 0 keeps none.
        precision: `auto` is bfloat16 autocast where the device computes it natively, else float32.
        gradient_checkpointing: Recompute the towers' activations in the backward pass: half of the memory for a
            third more time.
        temperature: Of InfoNCE at its start.
        learn_temperature: Whether it is learned.
        label_smoothing: Of InfoNCE.
        region_contrast: Weight of InfoNCE between single regions of clips and pages; 0 leaves it out.
        classification: Weight of the additive-margin softmax over products; 0 leaves it out.
        classes_sampled: Classes that a step compares with at most, positives among them.
        margin: CosFace m.
        margin_scale: CosFace s.
        masked_language: Weight of the masked-language objective on the text tower; 0 leaves it out.
        words: Share of live clips and videos whose text is used; the others learn to do without.
        live_text: What a clip's speech becomes: `keywords` (as in service), `raw` text, or `none` (the paper's).
        modalities: `both`, or only `vision` or `text` (baselines).
        clip_frames: Frames T taken of a clip.
        clip_regions: Regions of a frame that training looks at (service looks at `model.regions`).
        balance: Re-sampling of the long tail: products are drawn by category size to the power -balance. 0: evenly
            over products, 1: evenly over categories.
        reweight: Re-weighting of the long tail: a product's loss counts by category size to the power -reweight.
        workers: Loader processes.
        save_every: Steps between checkpoints.
        evaluate_every: Steps between evaluations; 0: only at the end.
        scenes: Rendered frames from which the region finder learns.
        live_views: Rendered live showings of each product.
        video_views: Rendered video showings of each product.
        page_views: Rendered page pictures of each product.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    seed: int = 7
    steps: int = 400
    finder_steps: int = 500
    finder_from: str = ""
    batch_products: int = 256
    accumulate: int = 1
    learning_rate: float = 3e-4
    vision_rate: float = 1e-5
    text_rate: float = 5e-6
    layer_decay: float = 1.0
    warm_up: float = 0.05
    weight_decay: float = 0.05
    clip_norm: float = 5.0
    ema: float = 0.0
    precision: Literal["auto", "float32"] = "auto"
    gradient_checkpointing: bool = False
    temperature: float = 0.07
    learn_temperature: bool = True
    label_smoothing: float = 0.05
    region_contrast: float = 1.0
    classification: float = 0.0
    classes_sampled: int = 4096
    margin: float = 0.4
    margin_scale: float = 64.0
    masked_language: float = 0.0
    words: float = 0.5
    live_text: LiveText = "keywords"
    modalities: Modalities = "both"
    clip_frames: int = 3
    clip_regions: int = 3
    balance: float = 0.0
    reweight: float = 0.0
    workers: int = 2
    save_every: int = 200
    evaluate_every: int = 0
    scenes: int = 1500
    live_views: int = 5
    video_views: int = 2
    page_views: int = 2


# The paper's released successor: rates per part, temperature and smoothing of InfoNCE, 128 products, 8 frames.
_PAPER = TrainConfig(
    model=ModelConfig(
        vision="microsoft/xclip-base-patch16",
        text="hfl/rbt3",
        dim=128,
        crop_pixels=224,
        regions=0,
        text_tokens=32,
        keywords="joined",
        temporal="transformer",
        fusion="transformer",
        tuning="full",
    ),
    steps=100_000,
    finder_steps=0,
    batch_products=128,
    learning_rate=5e-3,
    temperature=0.05,
    learn_temperature=False,
    label_smoothing=0.1,
    region_contrast=0.0,
    classification=1.0,
    live_text="none",
    clip_frames=8,
    clip_regions=1,
    save_every=1_000,
    evaluate_every=5_000,
)

_BASE = TrainConfig(
    model=ModelConfig(
        vision="google/siglip2-base-patch16-256",
        text="google/siglip2-base-patch16-256",
        dim=512,
        crop_pixels=256,
        keywords="joined",
        tuning="lora",
    ),
    steps=20_000,
    finder_steps=0,
    finder_from="cope-mini",
    batch_products=64,
    classification=1.0,
    gradient_checkpointing=True,
    ema=0.999,
    save_every=500,
    evaluate_every=2_000,
)

PRESETS: dict[str, TrainConfig] = {"cope-mini": TrainConfig(), "cope-base": _BASE, "cope-paper": _PAPER}


def preset(name: str) -> TrainConfig:
    """The training configuration of a preset; its `model` is what is built.

    Raises:
        UserError: There is no such preset.
    """
    if name not in PRESETS:
        raise UserError(f"no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def from_dict(kind: type[T], values: dict[str, Any], where: str, base: T | None = None) -> T:
    """Builds a configuration from plain values and refuses names and values that it does not know.

    Args:
        kind: The dataclass.
        values: By field name; `model` may be a table of its own.
        where: The file or option, for messages.
        base: What fields that are not named keep; None for the defaults.

    Raises:
        UserError: An unknown name, or a value of another type than the field's or out of its range.
    """
    assert is_dataclass(kind)  # noqa: S101 - for the type checker
    known = {f.name: f for f in fields(kind)}
    out: dict[str, Any] = {} if base is None else {name: getattr(base, name) for name in known}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{where}: unknown field {name!r}; known are {', '.join(known)}")
        out[name] = _checked(known[name].type, value, f"{where}: {name}", out.get(name))
        if name in RANGES and out[name] not in RANGES[name]:
            raise UserError(f"{where}: {name} must be {RANGES[name]}, not {value!r}")
    return kind(**out)


def _checked(kind: Any, value: Any, where: str, base: Any) -> Any:
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise UserError(f"{where} must be a table of fields, not {value!r}")
        return from_dict(kind, value, where, base)  # type: ignore[arg-type]
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UserError(f"{where} must be one of {', '.join(get_args(kind))}, not {value!r}")
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UserError(f"{where} must be {kind.__name__}, not {value!r}")
    return value


def from_toml(path: Path, base: TrainConfig) -> TrainConfig:
    """Reads a training configuration: the fields of `TrainConfig`, those of the model in a table `[model]`.

    Raises:
        UserError: The file cannot be read, or a field is wrong.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows editors write a byte-order mark
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML ({error}); mend the file") from None
    return from_dict(TrainConfig, values, str(path), base)
