"""From one window and its candidates to observations for the filter."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cope.keywords import query_terms, text_score
from cope.model.scoring import Calibration, MatchFeatures, match_features, with_rivals
from topology.errors import BadInput
from topology.index import PageEntry, Query
from topology.records import WindowEmbedding
from workers.recognize.tracker import Observation

Array = NDArray[Any]

# Regions of a frame that are searched for, the most salient ones. More find more small products, and cost a
# millisecond each in a catalogue of 100,000.
_SEARCHED_PER_FRAME = 4

# Region searches of one window at most: reached at an epoch's first window, all of whose frames are new.
_SEARCHED_PER_WINDOW = 24

# A keyword names a product from this share of agreement with its page's terms on; below, it shares a common word.
_NAMES_FROM = 0.2

# Decimals of log-odds. Products of matrices differ in the seventh digit from batch to batch; half a percent of an
# odds ratio is far below what the calibration can tell.
_DECIMALS = 2


@dataclass(frozen=True)
class Look:
    """A window, unpacked.

    Attributes:
        frames: By time: media time and regions, (K, D) float32, most salient first.
        saliences: Per frame, (K,).
        recent_from_ms: From here on frames belong to the newest hop.
        new_from_ms: From here on frames have not been judged before.
        embedding: (D,) float32; empty if there is none.
        keywords: With weights.
        terms: The same as a sparse vector.
    """

    frames: list[tuple[int, Array]]
    saliences: list[Array]
    recent_from_ms: int
    new_from_ms: int
    embedding: Array
    keywords: tuple[tuple[str, float], ...]
    terms: dict[int, float]


def unpack(window: WindowEmbedding, new_from_ms: int) -> Look:
    """Returns the window's arrays.

    Args:
        window: As embed sent it.
        new_from_ms: Media time that earlier windows have judged frames up to.

    Raises:
        BadInput: The bytes do not make the arrays that they should.
    """
    embedding = np.frombuffer(window.embedding, "<f2").astype(np.float32)
    frames, saliences, dims = [], [], {embedding.size} - {0}
    for frame in window.frames:
        salience = np.asarray(frame.salience, np.float32)
        values = np.frombuffer(frame.regions, "<f2").astype(np.float32)
        if salience.size == 0 and values.size == 0:
            continue
        if salience.size == 0 or values.size % salience.size:
            raise BadInput(f"window {window.start_ms} of {window.stream_id}: regions and saliences do not fit together")
        frames.append((frame.pts_ms, values.reshape(salience.size, -1)))
        saliences.append(salience)
        dims.add(frames[-1][1].shape[1])
    if len(dims) > 1 or not all(np.isfinite(regions).all() for _, regions in frames):
        raise BadInput(
            f"window {window.start_ms} of {window.stream_id}: its vectors differ in length or are not numbers"
        )
    keywords = tuple((keyword.text, keyword.weight) for keyword in window.keywords)
    return Look(
        frames=frames,
        saliences=saliences,
        recent_from_ms=window.end_ms - (window.hop_ms or window.end_ms - window.start_ms),
        new_from_ms=new_from_ms,
        embedding=embedding,
        keywords=keywords,
        terms=query_terms(keywords),
    )


def search_query(look: Look, bag: Sequence[str] | None) -> Query:
    """Returns what to search the index for: the window as a whole, its words, the salient regions of new frames."""
    rows = [
        (float(salience[row]), pts_ms, regions[row])
        for (pts_ms, regions), salience in zip(look.frames, look.saliences, strict=True)
        if pts_ms >= look.new_from_ms
        for row in range(min(_SEARCHED_PER_FRAME, len(regions)))
    ]
    rows.sort(key=lambda row: (-row[0], row[1]))
    regions = np.array([row[2] for row in rows[:_SEARCHED_PER_WINDOW]], np.float32) if rows else None
    return Query(regions, look.embedding if look.embedding.size else None, look.terms, bag)


def observe(look: Look, pages: Mapping[str, PageEntry], calibration: Calibration) -> list[Observation]:
    """Returns one observation a page, in the order of product ids.

    Args:
        look: The window.
        pages: Candidates.
        calibration: Of the model that made the vectors of both.

    Raises:
        BadInput: Window and pages have vectors of different length.
    """
    entries = [pages[product_id] for product_id in sorted(pages)]
    dims = {entry.fused.size for entry in entries} | {regions.shape[1] for _, regions in look.frames}
    if len(dims | ({look.embedding.size} - {0})) > 1:
        raise BadInput("the window's vectors have another length than those of the pages: encode both by one model")
    texts = [text_score(entry.terms, look.terms) for entry in entries]
    features = with_rivals(_features(look, look.frames, look.recent_from_ms, entries, texts))
    shown = _frames_that_show(look, entries, calibration)
    return [
        Observation(
            product_id=entry.product_id,
            log_odds=round(calibration.logit(one), _DECIMALS),
            frames=tuple(shown.get(entry.product_id, ())),
            visual=round(one.visual_window, 4),
            text=round(text, 4),
            keywords=_named_by(look.keywords, entry) if text > 0 else (),
        )
        for entry, one, text in zip(entries, features, texts, strict=True)
    ]


def _features(
    look: Look,
    frames: Sequence[tuple[int, Array]],
    recent_from_ms: int,
    entries: Sequence[PageEntry],
    texts: Sequence[float],
) -> list[MatchFeatures]:
    saliences = dict(zip((pts_ms for pts_ms, _ in look.frames), look.saliences, strict=True))
    best_text = max(texts, default=0.0)
    return [
        match_features(
            frames,
            recent_from_ms,
            look.embedding,
            entry.vectors,
            entry.fused,
            text,
            best_text,
            [saliences[pts_ms] for pts_ms, _ in frames],
        )
        for entry, text in zip(entries, texts, strict=True)
    ]


def _frames_that_show(look: Look, entries: Sequence[PageEntry], calibration: Calibration) -> dict[str, list[int]]:
    """Returns, per product, the new frames that show it: judged one by one, as if nothing had been said.

    A frame shows a product if it speaks for it rather than against it, and either shows it better than any other
    candidate or would be believed by itself.
    """
    shown: dict[str, list[int]] = {}
    silence = [0.0] * len(entries)
    for frame in look.frames:
        if frame[0] < look.new_from_ms:
            continue
        features = with_rivals(_features(look, [frame], frame[0], entries, silence))
        for entry, one in zip(entries, features, strict=True):
            speaks_for = calibration.log_likelihood_ratio(one) > 0
            if speaks_for and (one.margin_recent > 0 or calibration.logit(one) >= 0):
                shown.setdefault(entry.product_id, []).append(frame[0])
    return shown


def _named_by(keywords: Collection[tuple[str, float]], entry: PageEntry) -> tuple[str, ...]:
    return tuple(text for text, _ in keywords if text_score(entry.terms, query_terms([(text, 1.0)])) >= _NAMES_FROM)
