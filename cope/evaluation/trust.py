"""How far a model's calibrated probabilities can be trusted on an evaluation set.

Each live clip stands for a window of a stream and is read against a random catalogue, as recognition does: the
closest candidates by cosine and words compete with "none of them". Half of the clips show a product that this
catalogue does not hold, so that refusing counts too. Speech is heard through the words of all pages of the set, as in
a room whose bag is a part of the shop's catalogue; what is compared with titles are the set's keywords, whatever the
model hears.
"""

from collections.abc import Sequence

import numpy as np
import torch

from cope.evaluation.matching import clip_features, pages_of, printed_words
from cope.evaluation.sets import EvaluationSet
from cope.evaluation.space import pictured
from cope.model.modeling import CopeModel
from cope.model.scoring import Calibration, MatchFeatures, closest, shares

CLIPS = 1000  # at most; each gives a probability for each of the closest candidates
CATALOGUE = 100


def probabilities(calibration: Calibration, candidates: Sequence[MatchFeatures]) -> list[float]:
    """Of each candidate of a window, where they compete with each other and with "none of them"."""
    return shares(calibration.logits(candidates))


@torch.inference_mode()
def stated(
    model: CopeModel, calibration: Calibration, data: EvaluationSet, device: torch.device, seed: int
) -> tuple[list[float], list[bool]]:
    """Probabilities that products are shown in clips, and whether they are."""
    rng = np.random.default_rng(seed)
    page_of: dict[int, list[int]] = {}
    usable = pictured(data.views["page"]).tolist()
    for row, product in enumerate(data.products("page").tolist()):
        if usable[row] and product >= 0:
            page_of.setdefault(product, []).append(row)
    live = data.views["live"]
    clips = [
        row
        for row in (pictured(live) & (live.product >= 0)).nonzero().squeeze(1).tolist()
        if int(live.product[row]) in page_of
    ]
    p: list[float] = []
    truths: list[bool] = []
    if len(page_of) < 3:
        return p, truths
    pages = pages_of(model, data, device)
    for row in sorted(int(r) for r in rng.choice(clips, min(CLIPS, len(clips)), replace=False)):
        shown = int(live.product[row])
        others = [product for product in page_of if product != shown]
        size = min(CATALOGUE, len(others))
        catalogue = [others[int(i)] for i in rng.choice(len(others), size, replace=False)]
        if rng.random() < 0.5:
            catalogue[int(rng.integers(size))] = shown
        against = [pages[page_of[product][int(rng.integers(len(page_of[product])))]] for product in catalogue]
        printed = printed_words(against) if data.read else None
        found = clip_features(model, data, "live", row, against, device, printed)
        chosen = closest(found)
        p += probabilities(calibration, [found[at] for at in chosen])
        truths += [catalogue[at] == shown for at in chosen]
    return p, truths
