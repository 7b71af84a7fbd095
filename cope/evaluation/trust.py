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

from cope.evaluation.sets import EvaluationSet
from cope.evaluation.space import block_of, pictured
from cope.keywords import page_terms, query_terms, text_score
from cope.model.modeling import CopeModel
from cope.model.scoring import Calibration, MatchFeatures, match_features, with_rivals

CLIPS = 1000  # at most; each gives up to `CANDIDATES` probabilities
CATALOGUE = 100
CANDIDATES = 12  # the closest, as in calibration
RECENT_FRAMES = 2  # of a clip, those of the newest hop: 2 s at a frame per second


def probabilities(calibration: Calibration, candidates: Sequence[MatchFeatures]) -> list[float]:
    """Of each candidate of a window, where they compete with each other and with "none of them"."""
    logits = np.array([0.0, *(calibration.logit(one) for one in candidates)])
    odds = np.exp(logits - logits.max())
    shares: list[float] = (odds[1:] / odds.sum()).tolist()
    return shares


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
    for row in sorted(int(r) for r in rng.choice(clips, min(CLIPS, len(clips)), replace=False)):
        shown = int(live.product[row])
        others = [product for product in page_of if product != shown]
        size = min(CATALOGUE, len(others))
        catalogue = [others[int(i)] for i in rng.choice(len(others), size, replace=False)]
        if rng.random() < 0.5:
            catalogue[int(rng.integers(size))] = shown
        pages = [page_of[product][int(rng.integers(len(page_of[product])))] for product in catalogue]
        found = _candidates(model, data, row, pages, device)
        p += probabilities(calibration, [one for _, one in found])
        truths += [catalogue[at] == shown for at, _ in found]
    return p, truths


def _candidates(
    model: CopeModel, data: EvaluationSet, row: int, pages: Sequence[int], device: torch.device
) -> list[tuple[int, MatchFeatures]]:
    """The closest pages, by their place in `pages`, with how well they fit the clip."""
    rows = torch.tensor(pages)
    views = block_of(data.views["page"], rows, device)
    page = model.embed(views, "page")
    pictures = [v[real].cpu().numpy() for v, real in zip(page.regions, views.frame >= 0, strict=True)]
    clip_views = block_of(data.views["live"], torch.tensor([row]), device)
    clip = model.embed(clip_views, "live")
    frame, salience = clip_views.frame[0].cpu(), clip_views.salience[0].cpu()
    regions = clip.regions[0].cpu()
    numbers = sorted({int(f) for f in frame.tolist() if f >= 0})
    window = [(number, regions[frame == number].numpy()) for number in numbers]
    recent_from = numbers[-RECENT_FRAMES:][0]
    query = query_terms(data.keywords["live"][row])
    texts = [
        text_score(page_terms(data.texts["page"][r], category=data.categories[p]), query)
        for r, p in zip(pages, data.products("page")[rows].tolist(), strict=True)
    ]
    fused_page, fused_clip = page.fused.cpu().numpy(), clip.fused[0].cpu().numpy()
    recent = regions[frame >= recent_from].numpy()
    near = np.array([float((recent @ one.T).max()) for one in pictures])
    near = near + 0.3 * np.array(texts) + 0.1 * (fused_page @ fused_clip)
    chosen = np.argsort(-near, kind="stable")[:CANDIDATES]
    saliences = [salience[frame == number].numpy() for number in numbers]
    found = [
        match_features(window, recent_from, fused_clip, pictures[at], fused_page[at], texts[at], max(texts), saliences)
        for at in chosen
    ]
    return list(zip(chosen.tolist(), with_rivals(found), strict=True))
