"""How well a product fits a window of a stream, as a handful of numbers and as one calibrated probability.

`match_features` compares one window with one candidate; `with_rivals` adds what only the whole list of
candidates tells; `Calibration` turns the result into the probability that this product is being shown.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cope.errors import UserError

Array = NDArray[Any]


@dataclass(frozen=True)
class MatchFeatures:
    """How one product fits one window. All cosines lie in [-1, 1], `read_behind` in [-1, 0], the rest in [0, 1].

    Attributes:
        visual_recent: Mean over the frames of the newest hop of the best cosine of a region with a page picture.
        visual_window: The same over the better half of all frames of the window: products turn and are covered.
        fused: Cosine of the window's fused embedding with the page's.
        text: Share of the page's terms that were said (`cope.keywords`).
        text_share: `text` over the best `text` of any product; 0 if nothing was said of any.
        margin_recent: `visual_recent` less that of the best other product.
        margin_window: `visual_window` less that of the best other product.
        margin_fused: `fused` less that of the best other product.
        salience: Salience of the region that fits best in the newest hop.
        read: How well what was read in the frames names the product (`cope.keywords.PrintedWords`).
        read_behind: `read` less the best `read` of any product, so 0 at most: what was read names another one better.
            Of look-alikes it picks the one whose words are read, and tells nothing of those that are in no catalogue.
        speech: Cosine of what was said with what the page says: of meanings, where `text` compares words.
        margin_speech: `speech` less that of the best other product.
    """

    visual_recent: float = 0.0
    visual_window: float = 0.0
    fused: float = 0.0
    text: float = 0.0
    text_share: float = 0.0
    margin_recent: float = 0.0
    margin_window: float = 0.0
    margin_fused: float = 0.0
    salience: float = 0.0
    read: float = 0.0
    read_behind: float = 0.0
    speech: float = 0.0
    margin_speech: float = 0.0


FEATURES = tuple(f.name for f in fields(MatchFeatures))
_VALUES = attrgetter(*FEATURES)  # `astuple` copies each number: two thirds of the time of scoring


# How well a product's pictures fit the regions of a frame: the best cosine, and the number of its region. A frame
# without regions, and a product without pictures, have 0 and none.
RegionFit = tuple[float, int | None]


def region_fits(frames: Sequence[Array], pages: Sequence[Array]) -> list[list[RegionFit]]:
    """Compares all frames with all products, in one product of matrices.

    Args:
        frames: The regions of each, (K, D) L2-normalised; K may be 0.
        pages: The pictures of each product, (N, D) L2-normalised; N may be 0.

    Returns:
        Per product, one fit a frame.
    """
    found: list[list[RegionFit]] = [[(0.0, None)] * len(frames) for _ in pages]
    seen = [number for number, regions in enumerate(frames) if len(regions)]
    shown = [number for number, vectors in enumerate(pages) if len(vectors)]
    if not seen or not shown:
        return found
    regions = np.concatenate([np.asarray(frames[number], np.float32) for number in seen])
    pictures = np.concatenate([np.asarray(pages[number], np.float32) for number in shown])
    starts = np.cumsum([0, *(len(pages[number]) for number in shown[:-1])])
    best = np.maximum.reduceat(regions @ pictures.T, starts, axis=1)  # (regions, products)
    at = 0
    for frame in seen:
        block = best[at : at + len(frames[frame])]
        at += len(block)
        rows = block.argmax(axis=0)
        values = np.take_along_axis(block, rows[None], axis=0)[0]
        for product, row, value in zip(shown, rows.tolist(), values.tolist(), strict=True):
            found[product][frame] = (value, row)
    return found


def speech_scores(said: Sequence[tuple[Array, float]], pages: Sequence[Array]) -> list[float]:
    """Returns how well what was said fits the text of each page, in [0, 1]: the best of all pieces of speech.

    Args:
        said: Pieces of speech, (D,) L2-normalised, with a weight in [0, 1]: old ones have faded.
        pages: The text of each page, (D,) L2-normalised; of a page without text, (0,).
    """
    scores = [0.0] * len(pages)
    told = [number for number, page in enumerate(pages) if len(page)]
    if said and told:
        pieces = np.stack([np.asarray(vector, np.float32) * weight for vector, weight in said])
        best = (pieces @ np.stack([np.asarray(pages[number], np.float32) for number in told]).T).max(axis=0)
        for number, score in zip(told, best.tolist(), strict=True):
            scores[number] = max(0.0, score)
    return scores


def match_features(
    frames: Sequence[tuple[int, Array]],
    recent_from_ms: int,
    embedding: Array,
    page_vectors: Array,
    page_fused: Array,
    text_score: float = 0.0,
    best_text_score: float = 0.0,
    saliences: Sequence[Array] | None = None,
    read_score: float = 0.0,
    best_read_score: float = 0.0,
    fits: Sequence[RegionFit] | None = None,
    speech_score: float = 0.0,
) -> MatchFeatures:
    """Compares one window with one product.

    Args:
        frames: Per frame its media time in ms and its regions, (K, D) L2-normalised; K may be 0.
        recent_from_ms: Media time from which a frame belongs to the newest hop.
        embedding: (D,) fused live embedding; empty if there is none.
        page_vectors: (N, D) pictures of the product's page; N may be 0.
        page_fused: (D,) fused page embedding; empty if there is none.
        text_score: Of this product in [0, 1].
        best_text_score: The highest of any product in the catalogue or the room's bag.
        saliences: Per frame the saliences of its regions, (K,).
        read_score: How well words read in the frames name this product, in [0, 1].
        best_read_score: The highest of any product in the catalogue or the room's bag.
        fits: The product's row of `region_fits`, if that was computed for all candidates at once.
        speech_score: Of this product; see `speech_scores`.

    Returns:
        Features whose margins are still 0: see `with_rivals`.
    """
    if fits is None:
        (fits,) = region_fits([regions for _, regions in frames], [page_vectors])
    best: list[float] = []  # per frame
    recent: list[float] = []
    recent_salience: list[float] = []
    for i, ((pts_ms, _), (value, at)) in enumerate(zip(frames, fits, strict=True)):
        best.append(value)
        if pts_ms >= recent_from_ms:
            recent.append(value)
            if saliences is not None and at is not None:
                recent_salience.append(float(saliences[i][at]))
    half = sorted(best, reverse=True)[: math.ceil(len(best) / 2)]
    has_fused = len(embedding) > 0 and len(page_fused) > 0
    return MatchFeatures(
        visual_recent=_mean(recent),
        visual_window=_mean(half),
        fused=float(np.asarray(embedding, np.float32) @ np.asarray(page_fused, np.float32)) if has_fused else 0.0,
        text=text_score,
        text_share=text_score / best_text_score if best_text_score > 0 else 0.0,
        salience=_mean(recent_salience),
        read=read_score,
        read_behind=min(0.0, read_score - best_read_score),
        speech=speech_score,
    )


def with_rivals(candidates: Sequence[MatchFeatures]) -> list[MatchFeatures]:
    """Fills in the margins. A lone candidate is compared with 0, the cosine of unrelated things."""

    def margins(values: list[float]) -> list[float]:
        order = sorted(values, reverse=True)
        first, second = order[0], order[1] if len(order) > 1 else 0.0
        return [v - (second if v == first else first) for v in values]

    if not candidates:
        return []
    recent = margins([c.visual_recent for c in candidates])
    window = margins([c.visual_window for c in candidates])
    fused = margins([c.fused for c in candidates])
    speech = margins([c.speech for c in candidates])
    return [
        replace(c, margin_recent=r, margin_window=w, margin_fused=f, margin_speech=s)
        for c, r, w, f, s in zip(candidates, recent, window, fused, speech, strict=True)
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


@dataclass(frozen=True)
class Calibration:
    """A logistic regression over `MatchFeatures`, fitted by `cope.calibrate` on products never trained on.

    Attributes:
        weights: One per field of `MatchFeatures`, by name.
        bias: The logit where all features are 0.
        prior: Share of (window, product) pairs that were true where it was fitted; a filter over time that
            wants a likelihood ratio divides the odds by those of this prior.
        handicaps: By product_id, log-odds of at least 0 that are taken off: those of products that people said were
            detected by mistake. Other products have none.
    """

    weights: dict[str, float]
    bias: float
    prior: float
    handicaps: dict[str, float] = field(default_factory=dict)

    def logit(self, features: MatchFeatures, product_id: str = "") -> float:
        """The log-odds that the product is being shown."""
        values: tuple[float, ...] = _VALUES(features)
        fit = sum(self.weights[name] * value for name, value in zip(FEATURES, values, strict=True))
        return self.bias + fit - self.handicaps.get(product_id, 0.0)

    def probability(self, features: MatchFeatures, product_id: str = "") -> float:
        """The probability, in [0, 1], that the product is being shown at the window's end."""
        return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, self.logit(features, product_id)))))

    def log_likelihood_ratio(self, features: MatchFeatures, product_id: str = "") -> float:
        """log P(features | shown) - log P(features | not shown)."""
        return self.logit(features, product_id) - math.log(self.prior / (1.0 - self.prior))

    def save(self, path: Path) -> None:
        """Writes JSON."""
        content = asdict(self)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        """Reads what `save` wrote. A feature that it was fitted without has no weight.

        Raises:
            UserError: The file is missing, is no calibration, or was fitted for other features.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            weights = {str(k): float(v) for k, v in content["weights"].items()}
            bias, prior = float(content["bias"]), float(content["prior"])
            handicaps = {str(k): float(v) for k, v in content.get("handicaps", {}).items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"cannot read the calibration {path}: {error}; write it again with cope.calibrate"
            ) from None
        if not weights or not set(weights) <= set(FEATURES) or not 0.0 < prior < 1.0:
            raise UserError(f"the calibration {path} is for other features; write it again with cope.calibrate")
        return cls(dict.fromkeys(FEATURES, 0.0) | weights, bias, prior, handicaps)


def shares(log_odds: Sequence[float]) -> list[float]:
    """The probability of each candidate of a window, where they compete with each other and with "none of them"."""
    logits = np.array([0.0, *log_odds])
    odds = np.exp(logits - logits.max())
    found: list[float] = (odds[1:] / odds.sum()).tolist()
    return found


# Until a model has been calibrated: only a clear cosine that leads the field counts.
UNCALIBRATED = Calibration(
    {name: 0.0 for name in FEATURES} | {"visual_window": 10.0, "margin_window": 20.0}, -8.0, 0.05
)
