"""Which numbers the fields of `ModelConfig` and `TrainConfig` may be. Outside, a run breaks or learns nonsense."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """An interval of finite numbers.

    Attributes:
        low: The least value.
        high: The largest value; infinity where any will do.
        above: `low` itself is outside.
        below: `high` itself is outside.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        over = value > self.low if self.above else value >= self.low
        under = value < self.high if self.below or math.isinf(self.high) else value <= self.high
        return over and under  # neither is true of NaN

    def __str__(self) -> str:
        low = f"more than {self.low:g}" if self.above else f"at least {self.low:g}"
        if math.isinf(self.high):
            return low
        return f"{low} and {'less than' if self.below else 'at most'} {self.high:.10g}"


_COUNT = Range(1)
_ANY_COUNT = Range(0)  # 0 leaves something out
_WEIGHT = Range(0)
_SHARE = Range(0, 1)
_POSITIVE = Range(0, above=True)

# By field; no two fields of one name mean different things.
RANGES: dict[str, Range] = {
    # ModelConfig
    "dim": Range(2),
    "frame_pixels": Range(32 * 32),  # one cell of the coarsest maps
    "crop_pixels": Range(16),
    "crop_margin": _SHARE,
    "regions": _ANY_COUNT,
    "region_overlap": _SHARE,
    "hidden": _COUNT,
    "text_tokens": Range(3),  # a word between the two tokens that begin and end a text
    "temporal_layers": _COUNT,
    "fusion_layers": _COUNT,
    "lora_rank": _COUNT,
    # TrainConfig
    "seed": Range(0, 2**32 - 1),
    "steps": _COUNT,
    "finder_steps": _ANY_COUNT,
    "batch_products": _COUNT,
    "accumulate": _COUNT,
    "learning_rate": _POSITIVE,
    "vision_rate": _WEIGHT,
    "text_rate": _WEIGHT,
    "layer_decay": Range(0, 1, above=True),
    "warm_up": _SHARE,
    "weight_decay": _WEIGHT,
    "clip_norm": _POSITIVE,
    "ema": Range(0, 1, below=True),
    "temperature": Range(1e-3),  # below, one in float32 outweighs all others together
    "label_smoothing": Range(0, 1, below=True),
    "region_contrast": _WEIGHT,
    "classification": _WEIGHT,
    "classes_sampled": _COUNT,
    "margin": _SHARE,
    "margin_scale": _POSITIVE,
    "masked_language": _WEIGHT,
    "words": _SHARE,
    "clip_frames": _COUNT,
    "clip_regions": _COUNT,
    "balance": _SHARE,
    "reweight": _SHARE,
    "workers": _ANY_COUNT,
    "save_every": _COUNT,
    "evaluate_every": _ANY_COUNT,
    "scenes": _COUNT,
    "live_views": _COUNT,
    "video_views": _COUNT,
    "page_views": _COUNT,
}
