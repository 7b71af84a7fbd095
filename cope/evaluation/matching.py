"""How well pages fit clips, by the same features that recognition weighs: what is seen, said and read.

A clip stands for a window of a stream, its frames for seconds of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from cope.domains import Domain
from cope.evaluation.sets import RAW, EvaluationSet, blocks
from cope.evaluation.space import block_of
from cope.keywords import PrintedWords, freshness, page_terms, query_terms, read_scores, text_score, title_score
from cope.model.modeling import CopeModel
from cope.model.scoring import MatchFeatures, match_features, speech_scores
from cope.model.views import Views

Array = NDArray[np.float32]

RECENT_FRAMES = 2  # of a clip, those of the newest hop: 2 s at a frame per second
_FRAME_MS, _WINDOW_MS = 1_000, 8_000


@dataclass(frozen=True)
class Page:
    """A page, as clips are compared with it.

    Attributes:
        row: Of the evaluation set.
        pictures: (N, D) L2-normalised, one row a view of a picture.
        meaning: (D,) of its text, L2-normalised; (0,) if it has none.
        terms: Of its text.
        title: The first line of its text.
        lines: What was read in its pictures.
    """

    row: int
    pictures: Array
    meaning: Array
    terms: Mapping[int, float]
    title: str
    lines: Sequence[str]


@torch.inference_mode()
def pages_of(model: CopeModel, data: EvaluationSet, device: torch.device) -> list[Page]:
    """All pages of a set, by row."""
    views, found = data.views["page"], []
    for rows in blocks(views):
        block = block_of(views, rows, device)
        embedded = model.embed(block, "page")
        meanings = _meanings(model, block)
        for at, row in enumerate(rows.tolist()):
            product = int(block.product[at])
            title, _, rest = data.texts["page"][row].partition("\n")
            category = data.categories[product] if product >= 0 else ""
            found.append(
                Page(
                    row,
                    embedded.regions[at][block.frame[at] >= 0].float().cpu().numpy(),
                    meanings[at],
                    page_terms(title, category=category, description=rest),
                    title,
                    data.read.pages[row] if data.read else (),
                )
            )
    return found


@torch.inference_mode()
def clip_features(
    model: CopeModel,
    data: EvaluationSet,
    domain: Domain,
    row: int,
    pages: Sequence[Page],
    device: torch.device,
    printed: PrintedWords | None = None,
) -> list[MatchFeatures]:
    """How well pages fit a clip, all of them rivals of one another.

    Args:
        model: In evaluation mode, on `device`.
        data: Saying what the model is to hear.
        domain: Of the clip.
        row: Of the clip.
        pages: That it is compared with.
        device: Of the model.
        printed: The words of `pages`, by `str(Page.row)`; None: nothing that was read counts.
    """
    views = block_of(data.views[domain], torch.tensor([row]), device)
    clip = model.embed(views, domain)
    frame, regions = views.frame[0].cpu(), clip.regions[0].float().cpu()
    numbers = sorted({int(number) for number in frame.tolist() if number >= 0})
    window = [(number, regions[frame == number].numpy()) for number in numbers]
    recent_from = numbers[-RECENT_FRAMES:][0] if numbers else 0
    query = query_terms(data.keywords[domain][row])
    texts = [text_score(page.terms, query) for page in pages]
    named = [title_score([page.title], query) for page in pages]
    hears = float(views.told[0]) > 0
    said = _meanings(model, _told_in_full(data, domain, row, device)) if hears else []
    speech = speech_scores([(one, 1.0) for one in said if one.size], [page.meaning for page in pages])
    reads = [0.0] * len(pages)
    if printed is not None and data.read is not None:
        seen = printed.seen(_fresh(data.read.clips[domain][row]))
        reads = read_scores(seen, (str(page.row) for page in pages))
    pictures = [page.pictures for page in pages]
    return match_features(window, recent_from, pictures, texts, named, reads, speech)


def printed_words(pages: Sequence[Page]) -> PrintedWords:
    """The words that may be read on the products of pages, by `str(Page.row)`."""
    printed = PrintedWords()
    for page in pages:
        printed.add(str(page.row), [page.title], page.lines)
    return printed


def _fresh(frames: Sequence[Sequence[tuple[str, float]]]) -> list[tuple[str, float]]:
    """The lines of a clip, those of older frames with less weight, as at the end of a window."""
    end_ms, hop_ms = len(frames) * _FRAME_MS, RECENT_FRAMES * _FRAME_MS
    return [
        (text, confidence * freshness(number * _FRAME_MS, end_ms, _WINDOW_MS, hop_ms))
        for number, lines in enumerate(frames)
        for text, confidence in lines
    ]


def _told_in_full(data: EvaluationSet, domain: Domain, row: int, device: torch.device) -> Views:
    """A clip with all that is said in it, in place of its keywords."""
    raw = data.words[domain][RAW]
    views = block_of(data.views[domain], torch.tensor([row]), device)
    words, told = (one[row : row + 1].to(device) for one in (raw.vectors.float(), raw.told))
    return Views(**{**vars(views), "words": words, "told": told})


def _meanings(model: CopeModel, views: Views) -> list[Array]:
    """(D,) of what is said or written with each item; (0,) of those without words."""
    projected = functional.normalize(model.text(views.words), dim=-1).float().cpu().numpy()
    told = (views.told > 0).tolist()
    return [row if any_words else np.zeros(0, np.float32) for row, any_words in zip(projected, told, strict=True)]
