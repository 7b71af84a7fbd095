"""Configuration of the model and of its training: frozen dataclasses that pydantic validates, and their presets.

`ModelConfig` lies in an artefact's `config.json`, `TrainConfig` in a run's `training.json`.
"""

import json
import tomllib
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from cope.errors import UserError

FORMAT_VERSION = 4  # of the artefact folder; a reader refuses any other

LiveText = Literal["keywords", "raw", "none"]
Modalities = Literal["both", "vision", "text"]

# Outside these ranges a run breaks or learns nonsense. NaN and infinity are outside of all.
Count = Annotated[int, Field(ge=1)]
AnyCount = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]

_RULES = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

T = TypeVar("T")


@dataclass(frozen=True, config=_RULES)
class ModelConfig:
    """What a `CopeModel` is built of."""

    vision: str = "packaged:efficientnet-lite0"
    """Vision tower: `packaged:NAME`, or a `transformers` model by hub name or folder."""
    text: str = "packaged:multilingual-e5-small"
    """Text tower, named like the vision tower."""
    dim: Annotated[int, Field(ge=2)] = 256
    """Width D of the embedding space. 256 keeps 100,000 pages at 51 MB in float16; below 128 siblings of a product
    begin to fall together."""
    finder: str = "packaged:efficientnet-lite0"
    """Vision tower whose maps the region finder reads; the same as `vision` shares its weights."""
    frame_pixels: Annotated[int, Field(ge=32 * 32)] = 320 * 576  # one cell of the coarsest maps
    """Area to which a frame is resized for finding regions. A product must cover a few cells of the stride-16 grid to
    be found: at half this area a product of 60 px in 640x360 covers two."""
    crop_pixels: Annotated[int, Field(ge=16)] = 160
    """Side of the square to which each region is resized for describing it. The cost grows with its square."""
    crop_margin: Share = 0.1
    """Share of a region's longer side that is added around it, so that a silhouette stays whole."""
    regions: AnyCount = 8
    """Regions K per frame that are described and travel on. Each costs one crop through the tower. 0: no finder, the
    whole frame is the one region (the paper's choice)."""
    region_overlap: Share = 0.55
    """Regions that overlap a better one by more than this IoU are dropped."""
    hidden: Count = 64
    """Width of the region finder."""
    text_tokens: Annotated[int, Field(ge=3)] = 64  # a word between the two tokens that begin and end a text
    """Longest text that is read."""
    keywords: Literal["mean", "joined"] = "mean"
    """How keywords become one text vector: the `mean` of each one's, by weight (a catalogue's keywords recur, so their
    vectors are kept), or `joined` into one text, as training on files has it."""
    temporal: Literal["attention", "transformer"] = "attention"
    """How the regions of a clip's frames become one vector. `attention`: over frame x region, by salience and
    persistence; `transformer`: that within each frame, then the paper's multi-frame integration transformer over the
    frames."""
    temporal_layers: Count = 1
    """Layers of the integration transformer."""
    fusion: Literal["sum", "transformer", "none"] = "sum"
    """How picture and words are joined. `sum`: weighted per domain; `transformer`: the paper's fusion encoder; `none`:
    pictures alone, words only where there is no picture."""
    fusion_layers: Count = 1
    """Layers of the fusion encoder."""
    multi_view: bool = True
    """Whether each page picture is seen in several views, of which the best counts: cut out where its ground is plain,
    its central 80 % and 60 %, and the region finder's first box. Else in the first of these alone."""
    projection: Literal["whitened", "learned"] = "learned"
    """From descriptors to the shared space. `whitened`: one linear map in closed form, after which the pictures of a
    product differ alike in all directions; `learned`: axes, a correction, and a step for each domain."""
    colour: Share = 0.0
    """Share of the colours in the cosine of two pictures, for a whitened projection of a tower that describes them (the
    packaged one does). Whitening alone forgets them: light changes what a camera sees more than a dye does."""
    domain_projections: bool = True
    """A projection of its own for each of page, video and live; else one for all."""
    tuning: Literal["frozen", "lora", "full"] = "frozen"
    """What of the towers is learned: `frozen` nothing, `lora` low-rank steps beside the linear layers of attention,
    `full` everything."""
    lora_rank: Count = 8
    """Rank of the low-rank steps."""
    reading: str = ""
    """Reader of the words in frames and page pictures (`packaged:ppocr`); empty: words are not read."""


@dataclass(frozen=True, config=_RULES)
class TrainConfig:
    """How `python -m cope.train` learns."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The model to train."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 7
    """Seed of everything random."""
    steps: Count = 400
    """Optimiser steps of the representation."""
    finder_steps: AnyCount = 500
    """Optimiser steps of the region finder, on rendered scenes. 0: take it from `finder_from`."""
    finder_from: str = ""
    """Artefact, by name or folder, whose region finder is taken over."""
    init_from: str = ""
    """Artefact, by name or folder, from which training goes on: its region finder and its weights."""
    shrinkage: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the identity in the scatter by which a whitened projection divides. The less, the more directions are
    trusted of which the data show little."""
    batch_products: Count = 256
    """Products in a batch and process. More are harder negatives."""
    accumulate: Count = 1
    """Batches whose gradients are added up before a step."""
    learning_rate: Positive = 3e-4
    """Peak learning rate of all that sits on the towers, after the warm-up; it then falls to zero as a cosine."""
    vision_rate: Weight = 1e-5
    """Peak learning rate of the vision tower's last layer."""
    text_rate: Weight = 5e-6
    """Peak learning rate of the text tower's last layer."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor from the learning rate of each tower layer to that of the one below it."""
    warm_up: Share = 0.05
    """Share of the steps in which learning rates rise."""
    weight_decay: Weight = 0.05
    """Weight decay of AdamW; scalars, biases and norms do not decay."""
    clip_norm: Positive = 5.0
    """Gradients are scaled down to this norm, per parameter group."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the averaged weights that are evaluated and saved; 0 keeps none."""
    precision: Literal["auto", "float32"] = "auto"
    """`auto` is bfloat16 autocast where the device computes it natively, else float32."""
    gradient_checkpointing: bool = False
    """Recompute the towers' activations in the backward pass: half of the memory for a third more time."""
    temperature: Annotated[float, Field(ge=0.001)] = 0.07  # below, one in float32 outweighs all others together
    """Temperature of InfoNCE at the start of training."""
    learn_temperature: bool = True
    """Whether the temperature is learned."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Label smoothing of InfoNCE."""
    region_contrast: Weight = 1.0
    """Weight of InfoNCE between single regions of clips and pages; 0 leaves it out."""
    classification: Weight = 0.0
    """Weight of the additive-margin softmax over products; 0 leaves it out."""
    classes_sampled: Count = 4096
    """Classes that a step compares with at most, positives among them."""
    margin: Share = 0.4
    """Margin m of CosFace."""
    margin_scale: Positive = 64.0
    """Scale s of CosFace."""
    masked_language: Weight = 0.0
    """Weight of the masked-language objective on the text tower; 0 leaves it out."""
    words: Share = 0.5
    """Share of live clips and videos whose text is used; the others learn to do without."""
    live_text: LiveText = "keywords"
    """What a clip's speech becomes: `keywords` (as in service), `raw` text, or `none` (the paper's)."""
    modalities: Modalities = "both"
    """`both`, or only `vision` or `text` (baselines)."""
    clip_frames: Count = 3
    """Frames T that are taken of a clip."""
    clip_regions: Count = 3
    """Regions of a frame that training looks at (service looks at `model.regions`)."""
    balance: Share = 0.0
    """Re-sampling of the long tail: products are drawn by category size to the power -balance. 0: evenly over products,
    1: evenly over categories."""
    reweight: Share = 0.0
    """Re-weighting of the long tail: a product's loss counts by category size to the power -reweight."""
    workers: AnyCount = 2
    """Processes that load data."""
    save_every: Count = 200
    """Steps between checkpoints."""
    evaluate_every: AnyCount = 0
    """Steps between evaluations; 0: only at the end."""
    scenes: Count = 1500
    """Rendered frames from which the region finder learns."""
    live_views: Count = 5
    """Rendered live showings of each product."""
    video_views: Count = 2
    """Rendered video showings of each product."""
    page_views: Count = 4
    """Rendered page pictures of each product, every other one on a scene."""


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

_MINI = TrainConfig(model=ModelConfig(dim=768, projection="whitened", colour=0.25))

PRESETS: dict[str, TrainConfig] = {"cope-mini": _MINI, "cope-base": _BASE, "cope-paper": _PAPER}


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
        kind: `ModelConfig` or `TrainConfig`.
        values: By field name; `model` may be a table of its own.
        where: The file or option, for messages.
        base: What fields that are not named keep; None for the defaults.

    Raises:
        UserError: An unknown name, or a value of another type than the field's or out of its range.
    """
    known = _known(kind)
    out: dict[str, Any] = {} if base is None else {name: getattr(base, name) for name in known}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{where}: unknown field {name!r}; known are {', '.join(known)}")
        if name == "model":
            if not isinstance(value, dict):
                raise UserError(f"{where}: {name} must be a table of fields, not {value!r}")
            value = from_dict(ModelConfig, value, f"{where}: {name}", out.get(name))
        out[name] = value
    try:
        return kind(**out)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = str(wrong["loc"][0])
        raise UserError(f"{where}: {name} must be {_wanted(known[name], wrong['type'])}, not {out[name]!r}") from None


def described(kind: type[TrainConfig] | type[ModelConfig] = TrainConfig, outer: str = "") -> Iterator[tuple[str, str]]:
    """Yields the name of each field, and its meaning, what it may be and its default, for `--help`."""
    for name, known in _known(kind).items():
        if name != "model":
            meaning = " ".join(str(known.description).split())
            default = json.dumps(known.default)
            yield f"{outer}{name}", f"{meaning} [{_type_of(known)}; {default}]"
    if kind is TrainConfig:
        yield from described(ModelConfig, "model.")


def _known(kind: type[Any]) -> dict[str, FieldInfo]:
    found: dict[str, FieldInfo] = kind.__pydantic_fields__
    return found


def _wanted(known: FieldInfo, error: str) -> str:
    """What a field must be, said after an error of pydantic's."""
    if error.endswith("_type"):
        return str(getattr(known.annotation, "__name__", known.annotation))
    return _type_of(known)


def _type_of(known: FieldInfo) -> str:
    """The range of a number, the values to choose from, or the name of the type."""
    bounds = []
    for one in known.metadata:
        match one:
            case Ge(low):
                bounds.append(f"at least {low:.10g}")
            case Gt(low):
                bounds.append(f"more than {low:.10g}")
            case Le(high):
                bounds.append(f"at most {high:.10g}")
            case Lt(high):
                bounds.append(f"less than {high:.10g}")
    choices = get_args(known.annotation)
    if choices:
        return f"one of {', '.join(choices)}"
    return " and ".join(bounds) or str(getattr(known.annotation, "__name__", known.annotation))


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
