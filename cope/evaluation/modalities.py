"""What pictures, words that are read and speech bring, weighed as recognition weighs them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from cope.domains import Domain
from cope.evaluation.matching import clip_features, pages_of, printed_words
from cope.evaluation.measures import LETTERS, Figures, interval, plain
from cope.evaluation.ranking import Ranks, ranks
from cope.evaluation.sets import EvaluationSet
from cope.model.modeling import CopeModel
from cope.model.scoring import WORDS, Calibration, MatchFeatures, unheard

Score = Callable[[Sequence[MatchFeatures]], Sequence[float]]  # of a clip's pages

CALIBRATED, SUMMED = "calibration", "sum"
PICTURES, READ, BOTH, ALL = "pictures", "read", "pictures_read", "pictures_read_speech"


def reading_figures(
    model: CopeModel, calibration: Calibration, data: EvaluationSet, device: torch.device, hears: bool
) -> Figures:
    """Retrieval between clips and pages, by each modality and by them together.

    A clip and a page fit by the log-odds of the model's calibration, in which all pages are rivals; by a plain sum if
    it gives read words no weight. Clips among clips are not measured: words are matched with those of pages.

    Args:
        model: In evaluation mode, on `device`.
        calibration: Of the model.
        data: Whose pictures were read, saying what the model is to hear.
        device: Of the model.
        hears: Whether anything is said.
    """
    weighed = calibration.weighs("read_behind")
    scores = _scores(calibration if weighed else None, hears)
    pages = pages_of(model, data, device)
    printed = printed_words(pages)
    kinds: dict[str, Figures] = {kind: {} for kind in scores}
    for domain in ("live", "video"):
        features = [
            clip_features(model, data, domain, row, pages, device, printed) for row in range(len(data.items[domain]))
        ]
        for kind, score in scores.items():
            table = torch.tensor([score(row) for row in features]).reshape(-1, len(pages))
            for way, found in _both_ways(table, data, domain).items():
                if len(found.query):
                    products = data.products("page" if way[0] == LETTERS["page"] else domain)[found.query]
                    hits = (found.first == 1).double()
                    kinds[kind][way] = plain(found.figures()) | {"r1_interval": interval(hits, products)}
    read = data.read
    return {
        "reader": read.reader if read else "",
        "weighed_by": CALIBRATED if weighed else SUMMED,
        "pages_with_words": sum(bool(lines) for lines in read.pages) if read else 0,
        "clips_with_words": sum(any(clip) for clips in read.clips.values() for clip in clips) if read else 0,
        "kinds": kinds,
    }


def _scores(calibration: Calibration | None, hears: bool) -> Mapping[str, Score]:
    def fits(pages: Sequence[MatchFeatures]) -> Sequence[float]:
        if calibration is not None:
            return calibration.logits(pages)
        return [one.visual_window + WORDS * (one.read + one.text_share + one.speech) for one in pages]

    scores: dict[str, Score] = {
        PICTURES: lambda pages: fits([replace(unheard(one), read=0.0, read_behind=0.0) for one in pages]),
        READ: lambda pages: [one.read for one in pages],
        BOTH: lambda pages: fits([unheard(one) for one in pages]),
    }
    return scores | {ALL: fits} if hears else scores


def _both_ways(table: torch.Tensor, data: EvaluationSet, domain: Domain) -> dict[str, Ranks]:
    """Clips among pages, and pages among clips.

    Args:
        table: (clips, pages), how well they fit.
        data: The set.
        domain: Of the clips.
    """
    clips, pages = data.products(domain), data.products("page")
    # Against unit vectors a row of the table is its own scores, so all rules of `ranks` hold, those on ties too.
    return {
        f"{LETTERS[domain]}→P": ranks(table, clips, torch.eye(len(pages)), pages),
        f"P→{LETTERS[domain]}": ranks(table.T.contiguous(), pages, torch.eye(len(clips)), clips),
    }
