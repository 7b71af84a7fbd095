"""How well products fit a window of a stream, as a handful of numbers each and as calibrated probabilities.

`match_features` compares one window with all candidates; `Calibration` turns the result into the probability that a
product is being shown.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cope.errors import UserError

Array = NDArray[Any]


@dataclass(frozen=True)
class MatchFeatures:
    """How one product fits one window.

    All cosines lie in [-1, 1], `read_behind` in [-1, 0], `stands_out` is at least 0, the rest in [0, 1].

    Attributes:
        visual_recent: Mean over the frames of the newest hop of the best cosine of a region with a page picture.
        visual_window: The same over the better half of all frames of the window: products turn and are covered.
        text_share: Share of the page's terms that were said (`cope.keywords`), over the best one of any product; 0 if
            nothing was said of any.
        named: How fully its title was said (`cope.keywords.title_score`).
        stands_out: How far `visual_recent` lies above the mean of the other candidates (the `CANDIDATES` that look
            most like it), in standard deviations of theirs; the square root of it. Where many products look like
            what is shown, a high cosine says little. Known from speaker verification as T-norm (Auckenthaler, Carey
            and Lloyd-Thomas, 2000).
        margin_recent: `visual_recent` less that of the best other product.
        margin_window: `visual_window` less that of the best other product.
        read: How well what was read in the frames names the product (`cope.keywords.PrintedWords`).
        read_behind: `read` less the best `read` of any product, so 0 at most: what was read names another one better.
            Of look-alikes it picks the one whose words are read, and tells nothing of those that are in no catalogue.
        speech: Cosine of what was said with what the page says: of meanings, where `text_share` compares words.
        margin_speech: `speech` less that of the best other product.
    """

    visual_recent: float = 0.0
    visual_window: float = 0.0
    text_share: float = 0.0
    named: float = 0.0
    stands_out: float = 0.0
    margin_recent: float = 0.0
    margin_window: float = 0.0
    read: float = 0.0
    read_behind: float = 0.0
    speech: float = 0.0
    margin_speech: float = 0.0


FEATURES = tuple(f.name for f in fields(MatchFeatures))  # what probabilities are made of
feature_values = attrgetter(*FEATURES)  # `astuple` copies each number: two thirds of the time of scoring

# Candidates of a window: recognition scores as many at its default settings.
CANDIDATES = 60

# Cosines of what is shown with products that are not: mean and standard deviation, by cope-mini on rendered streams and
# photos. So many such products are taken to be among the other candidates: one or two others say too little.
USUAL_MEAN, USUAL_SPREAD, USUAL_PRODUCTS = 0.15, 0.1, 4

# Standard deviation that cosines have by chance.
NOISE = 0.05

# What words are worth beside a cosine of pictures, where no calibration says it.
WORDS = 0.3


def region_fits(frames: Sequence[Array], pages: Sequence[Array]) -> list[list[float]]:
    """Compares all frames with all products, in one product of matrices.

    Args:
        frames: The regions of each, (K, D) L2-normalised; K may be 0.
        pages: The pictures of each product, (N, D) L2-normalised; N may be 0.

    Returns:
        Per product and frame the best cosine of a region with a picture; 0 where there is none of either.
    """
    found = np.zeros((len(pages), len(frames)))
    seen = [number for number, regions in enumerate(frames) if len(regions)]
    shown = [number for number, vectors in enumerate(pages) if len(vectors)]
    if seen and shown:
        regions = np.concatenate([np.asarray(frames[number], np.float32) for number in seen])
        pictures = np.concatenate([np.asarray(pages[number], np.float32) for number in shown])
        best = np.maximum.reduceat(regions @ pictures.T, _starts([len(pages[number]) for number in shown]), axis=1)
        best = np.maximum.reduceat(best, _starts([len(frames[number]) for number in seen]), axis=0)
        found[np.ix_(shown, seen)] = best.T
    fits: list[list[float]] = found.tolist()
    return fits


def _starts(lengths: Sequence[int]) -> Array:
    """Where each of several stretches in a row begins."""
    return np.cumsum([0, *lengths[:-1]])


def speech_scores(said: Sequence[tuple[Array, float]], pages: Sequence[Array]) -> list[float]:
    """Returns how well what was said fits the text of each page, in [0, 1]: the best of all pieces of speech.

    Args:
        said: Sentences, (D,) L2-normalised, with a weight in [0, 1]: old ones have faded.
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
    pages: Sequence[Array],
    texts: Sequence[float] | None = None,
    named: Sequence[float] | None = None,
    reads: Sequence[float] | None = None,
    speech: Sequence[float] | None = None,
    best_read: float = 0.0,
    fits: Sequence[Sequence[float]] | None = None,
) -> list[MatchFeatures]:
    """Compares one window with all candidates, which are rivals. A lone one is compared with 0.

    Args:
        frames: Per frame its media time in ms and its regions, (K, D) L2-normalised; K may be 0.
        recent_from_ms: Media time from which a frame belongs to the newest hop.
        pages: Of each candidate its pictures, (N, D) L2-normalised; N may be 0.
        texts: Share of each one's terms that were said, in [0, 1]; None: nothing was said.
        named: How fully each one's title was said, in [0, 1]; None: nothing was said.
        reads: How well words read in the frames name each one, in [0, 1]; None: nothing was read.
        speech: See `speech_scores`; None: nothing was said.
        best_read: The highest of `reads` among products that are no candidates.
        fits: See `region_fits`, if they are known already.
    """
    if fits is None:
        fits = region_fits([regions for _, regions in frames], pages)
    none = [0.0] * len(pages)
    texts, named, reads, speech = texts or none, named or none, reads or none, speech or none
    recent = [number for number, (pts_ms, _) in enumerate(frames) if pts_ms >= recent_from_ms]
    newest = [_mean([fit[number] for number in recent]) for fit in fits]
    half = math.ceil(len(frames) / 2)
    window = [_mean(sorted(fit, reverse=True)[:half]) for fit in fits]
    best_text, best_read = max(texts, default=0.0), max(best_read, *reads, 0.0)
    return [
        MatchFeatures(
            visual_recent=newest[i],
            visual_window=window[i],
            text_share=texts[i] / best_text if best_text > 0 else 0.0,
            named=named[i],
            stands_out=stands_out,
            margin_recent=margin_recent,
            margin_window=margin_window,
            read=reads[i],
            read_behind=reads[i] - best_read,
            speech=speech[i],
            margin_speech=margin_speech,
        )
        for i, (stands_out, margin_recent, margin_window, margin_speech) in enumerate(
            zip(_outstanding(newest), _margins(newest), _margins(window), _margins(speech), strict=True)
        )
    ]


def unheard(features: MatchFeatures) -> MatchFeatures:
    """Returns how a product fits, as if nothing had been said."""
    return replace(features, text_share=0.0, named=0.0, speech=0.0, margin_speech=0.0)


def closest(candidates: Sequence[MatchFeatures], most: int = CANDIDATES) -> list[int]:
    """Returns which candidates look and sound most like what is shown, best first: those that recognition scores."""
    near = [one.visual_recent + WORDS * (one.text_share + one.read + one.speech) for one in candidates]
    return sorted(range(len(near)), key=lambda number: -near[number])[:most]


def _margins(values: Sequence[float]) -> list[float]:
    """How far each is before the best other one."""
    order = sorted(values, reverse=True)
    first, second = order[0] if order else 0.0, order[1] if len(order) > 1 else 0.0
    return [value - (second if value == first else first) for value in values]


def _outstanding(values: Sequence[float]) -> list[float]:
    """How far each lies above the others; see `MatchFeatures.stands_out`."""
    cohort = sorted(values, reverse=True)[:CANDIDATES]
    total = math.fsum(cohort) + USUAL_PRODUCTS * USUAL_MEAN
    squares = math.fsum(value * value for value in cohort) + USUAL_PRODUCTS * (USUAL_MEAN**2 + USUAL_SPREAD**2)
    others = len(cohort) - 1 + USUAL_PRODUCTS
    found = []
    for value in values:
        mean = (total - value) / others
        variance = (squares - value * value) / others - mean * mean
        above = max(0.0, value - mean) if value >= cohort[-1] else 0.0
        found.append(math.sqrt(above / math.sqrt(max(0.0, variance) + NOISE**2)))
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


@dataclass(frozen=True)
class Unit:
    """A hidden unit of a `Calibration`: it adds `share * tanh(bias + weights . features)` to the logit.

    Attributes:
        weights: One per field of `FEATURES`, by name.
        bias: See above.
        share: See above.
    """

    weights: dict[str, float]
    bias: float
    share: float


@dataclass(frozen=True)
class Calibration:
    """A regression over `MatchFeatures`, fitted by `cope.calibrate` on products never trained on.

    It is logistic, or has a hidden layer beside: what a cosine of pictures is worth depends on whether anything
    was said, and of what.

    Attributes:
        weights: One per field of `FEATURES`, by name.
        bias: The logit where all features are 0 and there are no units.
        prior: Share of (window, product) pairs that were true where it was fitted; a filter over time that
            wants a likelihood ratio divides the odds by those of this prior.
        handicaps: By product_id, log-odds of at least 0 that are taken off: those of products that people said were
            detected by mistake. Other products have none.
        units: The hidden layer; empty: the regression is logistic.
    """

    weights: dict[str, float]
    bias: float
    prior: float
    handicaps: dict[str, float] = field(default_factory=dict)
    units: tuple[Unit, ...] = ()

    def logits(self, features: Sequence[MatchFeatures], product_ids: Sequence[str] = ()) -> list[float]:
        """The log-odds that each product is being shown.

        Args:
            features: Of each.
            product_ids: Of each; empty: they have no handicap.
        """
        values = np.array([feature_values(one) for one in features], np.float64).reshape(-1, len(FEATURES))
        linear, inner, biases, shares_of_units = self._arrays
        # Sums instead of products of matrices: a candidate gets the same bits alone as among others.
        hidden = np.tanh(biases + (values[:, None, :] * inner).sum(axis=2))
        found: list[float] = (
            self.bias + (values * linear).sum(axis=1) + (hidden * shares_of_units).sum(axis=1)
        ).tolist()
        if not product_ids:
            return found
        return [one - self.handicaps.get(name, 0.0) for one, name in zip(found, product_ids, strict=True)]

    @cached_property
    def _arrays(self) -> tuple[Array, Array, Array, Array]:
        """(F,), (U, F), (U,), (U,): the weights, and of the units their weights, biases and shares."""
        return (
            np.array([self.weights[name] for name in FEATURES]),
            np.array([[unit.weights[name] for name in FEATURES] for unit in self.units]).reshape(-1, len(FEATURES)),
            np.array([unit.bias for unit in self.units]),
            np.array([unit.share for unit in self.units]),
        )

    def logit(self, features: MatchFeatures, product_id: str = "") -> float:
        """The log-odds that the product is being shown."""
        return self.logits([features], [product_id])[0]

    def probability(self, features: MatchFeatures, product_id: str = "") -> float:
        """The probability, in [0, 1], that the product is being shown at the window's end."""
        return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, self.logit(features, product_id)))))

    @property
    def prior_logit(self) -> float:
        """The log-odds of `prior`."""
        return math.log(self.prior / (1.0 - self.prior))

    def weighs(self, name: str) -> bool:
        """Returns whether a feature counts."""
        weights = [self.weights, *(unit.weights for unit in self.units)]
        return any(each[name] != 0.0 for each in weights)

    def without(self, *names: str) -> "Calibration":
        """Returns one in which these features do not count."""
        none = dict.fromkeys(names, 0.0)
        units = tuple(replace(unit, weights=unit.weights | none) for unit in self.units)
        return replace(self, weights=self.weights | none, units=units)

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
            weights = _weights(content["weights"])
            bias, prior = float(content["bias"]), float(content["prior"])
            handicaps = {str(k): float(v) for k, v in content.get("handicaps", {}).items()}
            units = tuple(
                Unit(_weights(unit["weights"]), float(unit["bias"]), float(unit["share"]))
                for unit in content.get("units", [])
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"cannot read the calibration {path}: {error}; write it again with cope.calibrate"
            ) from None
        fitted_for = {name for part in (weights, *(unit.weights for unit in units)) for name in part}
        if not weights or not fitted_for <= set(FEATURES) or not 0.0 < prior < 1.0:
            raise UserError(f"the calibration {path} is for other features; write it again with cope.calibrate")
        none = dict.fromkeys(FEATURES, 0.0)
        units = tuple(replace(unit, weights=none | unit.weights) for unit in units)
        return cls(none | weights, bias, prior, handicaps, units)


def _weights(content: dict[str, Any]) -> dict[str, float]:
    """Weights of features; those of features that there no longer are may be there if they are 0."""
    return {str(k): float(v) for k, v in content.items() if k in FEATURES or float(v)}


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
