"""From one window and its candidates to observations for the filter."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cope.keywords import Seen, freshness, query_terms, read_scores, text_score, title_score
from cope.model.scoring import (
    Calibration,
    MatchFeatures,
    match_features,
    region_fits,
    speech_scores,
)
from topology.errors import BadInput
from topology.index import PageEntry, Query
from topology.records import ReadLine, WindowEmbedding
from workers.recognize.standing import StandingLines
from workers.recognize.tracker import Observation, Shown

Array = NDArray[Any]

# Regions of a frame that are searched for, the most salient ones. More find more small products, and cost a
# millisecond each in a catalogue of 100,000.
_SEARCHED_PER_FRAME = 4

# Region searches of one window at most: reached at an epoch's first window, all of whose frames are new.
_SEARCHED_PER_WINDOW = 24

# Pieces of speech that are searched for, the newest ones of a window.
_SEARCHED_SPEECH = 4

# A keyword names a product from this share of agreement with its page's terms on; below, it shares a common word.
_NAMES_FROM = 0.2

# A line outside of all regions counts if it is so high, relative to the frame: titles are, comments are not.
_TITLE_HEIGHT = 0.035

# Lines named in an event; more would swell the state.
_LINES = 6

# Decimals of log-odds. Products of matrices differ in the seventh digit from batch to batch; half a percent of an
# odds ratio is far below what the calibration can tell.
_DECIMALS = 2


@dataclass(frozen=True)
class Look:
    """A window, unpacked.

    Attributes:
        frames: By time: media time and regions, (K, D) float32, most salient first.
        saliences: Per frame, (K,).
        boxes: Per frame, (K, 4) float32, or (0, 4) if they are not known.
        captured_at_ms: Per frame.
        lines: Per frame what was read in it.
        recent_from_ms: From here on frames belong to the newest hop.
        new_from_ms: From here on frames have not been judged before.
        embedding: (D,) float32; empty if the window has no embedding.
        keywords: With weights.
        terms: The same as a sparse vector.
        speech: Pieces of speech, (D,) float32 with a weight each, by time.
        offsets: Per frame its offset in `live_frames`; -1 if it is not known.
    """

    frames: list[tuple[int, Array]]
    saliences: list[Array]
    boxes: list[Array]
    captured_at_ms: list[int]
    lines: list[tuple[ReadLine, ...]]
    recent_from_ms: int
    new_from_ms: int
    end_ms: int
    window_ms: int
    embedding: Array
    keywords: tuple[tuple[str, float], ...]
    terms: dict[int, float]
    speech: list[tuple[Array, float]]
    offsets: list[int]


@dataclass(frozen=True)
class Read:
    """What was read in a window, without what stands on the screen all the time.

    Attributes:
        lines: As read, newest frame first.
        window: The products that they name.
        frames: The same of each new frame alone, by its time.
    """

    lines: tuple[str, ...] = ()
    window: Mapping[str, Seen] = field(default_factory=dict)
    frames: Mapping[int, Mapping[str, Seen]] = field(default_factory=dict)

    def best(self, limit: int) -> list[str]:
        """Returns the products that are named best."""
        return sorted(self.window, key=lambda one: (-self.window[one].score, one))[:limit]

    def score(self, product_id: str) -> float:
        """Returns how well the product is named, in [0, 1]."""
        return self.window[product_id].score if product_id in self.window else 0.0


def unpack(window: WindowEmbedding, new_from_ms: int) -> Look:
    """Returns the window's arrays.

    Args:
        window: As embed sent it.
        new_from_ms: Media time that earlier windows have judged frames up to.

    Raises:
        BadInput: The bytes do not make the arrays that they should.
    """
    embedding = np.frombuffer(window.embedding, "<f2").astype(np.float32)
    frames, saliences, boxes, captured, lines, offsets = [], [], [], [], [], []
    dims = {embedding.size} - {0}
    for frame in window.frames:
        salience = np.asarray(frame.salience, np.float32)
        values = np.frombuffer(frame.regions, "<f2").astype(np.float32)
        if salience.size == 0 and values.size == 0:
            continue
        if salience.size == 0 or values.size % salience.size:
            raise BadInput(f"window {window.start_ms} of {window.stream_id}: regions and saliences do not fit together")
        frames.append((frame.pts_ms, values.reshape(salience.size, -1)))
        saliences.append(salience)
        where = np.frombuffer(frame.boxes, "<f4")
        boxes.append(where.reshape(-1, 4) if where.size == 4 * salience.size else np.zeros((0, 4), np.float32))
        captured.append(frame.captured_at_ms)
        lines.append(frame.read)
        offsets.append(frame.offset)
        dims.add(frames[-1][1].shape[1])
    speech = [(np.frombuffer(one.vector, "<f2").astype(np.float32), one.weight) for one in window.speech]
    dims |= {vector.size for vector, _ in speech}
    numbers = [regions for _, regions in frames] + [vector for vector, _ in speech]
    if len(dims) > 1 or not all(np.isfinite(one).all() for one in numbers):
        raise BadInput(
            f"window {window.start_ms} of {window.stream_id}: its vectors differ in length or are not numbers"
        )
    keywords = tuple((keyword.text, keyword.weight) for keyword in window.keywords)
    return Look(
        frames=frames,
        saliences=saliences,
        boxes=boxes,
        captured_at_ms=captured,
        lines=lines,
        recent_from_ms=window.end_ms - (window.hop_ms or window.end_ms - window.start_ms),
        new_from_ms=new_from_ms,
        end_ms=window.end_ms,
        window_ms=window.end_ms - window.start_ms,
        embedding=embedding,
        keywords=keywords,
        terms=query_terms(keywords),
        speech=speech,
        offsets=offsets,
    )


def search_query(look: Look, bag: Sequence[str] | None) -> Query:
    """Returns what to search the index for: the window as a whole, its words, the salient regions of new frames.

    Speech is searched for by its meaning too: hosts tell of properties without a name.
    """
    rows = [
        (float(salience[row]), pts_ms, regions[row])
        for (pts_ms, regions), salience in zip(look.frames, look.saliences, strict=True)
        if pts_ms >= look.new_from_ms
        for row in range(min(_SEARCHED_PER_FRAME, len(regions)))
    ]
    rows.sort(key=lambda row: (-row[0], row[1]))
    regions = np.array([row[2] for row in rows[:_SEARCHED_PER_WINDOW]], np.float32) if rows else None
    said = [vector for vector, _ in look.speech[-_SEARCHED_SPEECH:]]
    return Query(
        regions,
        look.embedding if look.embedding.size else None,
        look.terms,
        bag,
        np.stack(said) if said else None,
    )


def read_of(
    look: Look,
    standing: StandingLines,
    epoch: int,
    seen: Callable[[Sequence[tuple[str, float]]], dict[str, Seen]],
) -> Read:
    """Returns what was read in a window, and notes what stands on the stream's screen.

    Args:
        look: The window.
        standing: Of the stream; takes the new frames.
        epoch: Of the window.
        seen: Finds the products that lines name.
    """
    times = [pts_ms for pts_ms, _ in look.frames]
    for pts_ms, lines in zip(times, look.lines, strict=True):
        standing.note(epoch, pts_ms, lines)
    texts: list[str] = []
    weighed: list[tuple[str, float]] = []
    of_frame: dict[int, Mapping[str, Seen]] = {}
    for pts_ms, lines, boxes in reversed(list(zip(times, look.lines, look.boxes, strict=True))):
        told = [one for one in lines if _counts(one, boxes) and not standing.stands(one)]
        fresh = freshness(pts_ms, look.end_ms, look.window_ms, look.end_ms - look.recent_from_ms)
        texts += [one.text for one in told]
        weighed += [(one.text, one.confidence * fresh) for one in told]
        if told and pts_ms >= look.new_from_ms:
            of_frame[pts_ms] = seen([(one.text, one.confidence) for one in told])
    return Read(tuple(texts), seen(weighed), of_frame)


def _counts(line: ReadLine, boxes: Array) -> bool:
    """Returns whether a line may name what is shown: it stands on something that is shown, or is a title."""
    x0, y0, x1, y1 = line.box
    if y1 - y0 >= _TITLE_HEIGHT:
        return True
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return any(a <= x <= c and b <= y <= d for a, b, c, d in boxes.tolist())


def observe(
    look: Look, pages: Mapping[str, PageEntry], calibration: Calibration, read: Read | None = None
) -> list[Observation]:
    """Returns one observation a page, in the order of product ids.

    Args:
        look: The window.
        pages: Candidates.
        calibration: Of the model that made the vectors of both.
        read: What was read in the window.

    Raises:
        BadInput: Window and pages have vectors of different length.
    """
    entries = [pages[product_id] for product_id in sorted(pages)]
    dims = {entry.fused.size for entry in entries} | {regions.shape[1] for _, regions in look.frames}
    dims |= {vector.size for vector, _ in look.speech}
    if len(dims | ({look.embedding.size} - {0})) > 1:
        raise BadInput("the window's vectors have another length than those of the pages: encode both by one model")
    texts = [text_score(entry.terms, look.terms) for entry in entries]
    named = [title_score(entry.titles, look.terms) for entry in entries]
    speech = speech_scores(look.speech, [entry.text for entry in entries])
    read = read or Read()
    fits = region_fits([regions for _, regions in look.frames], [entry.vectors for entry in entries])
    reads, best_read = _reads(read.window, entries)
    pictures = [entry.vectors for entry in entries]
    features = match_features(look.frames, look.recent_from_ms, pictures, texts, named, reads, speech, best_read, fits)
    ids = [entry.product_id for entry in entries]
    log_odds = [round(odds, _DECIMALS) for odds in calibration.logits(features, ids)]
    likeliest = max(zip(log_odds, entries, strict=True), key=lambda one: one[0], default=None)
    believed = likeliest[1] if likeliest is not None and likeliest[0] >= 0 else None
    shown = _frames_that_show(look, entries, fits, calibration, read, believed)
    return [
        Observation(
            product_id=entry.product_id,
            log_odds=odds,
            frames=tuple(shown.get(entry.product_id, ())),
            visual=round(one.visual_window, 4),
            text=round(text, 4),
            keywords=_named_by(look.keywords, entry) if text > 0 else (),
            read=round(one.read, 4),
            speech=round(one.speech, 4),
            lines=_lines_of(entry, read),
        )
        for entry, one, text, odds in zip(entries, features, texts, log_odds, strict=True)
    ]


def _reads(seen: Mapping[str, Seen], entries: Sequence[PageEntry]) -> tuple[list[float], float]:
    """How well what was read names each entry, and the best that it names any product."""
    reads = read_scores(seen, (entry.product_id for entry in entries))
    return reads, max((one.score for one in seen.values()), default=0.0)


def _frames_that_show(
    look: Look,
    entries: Sequence[PageEntry],
    fits: Sequence[Sequence[float]],
    calibration: Calibration,
    read: Read,
    believed: PageEntry | None,
) -> dict[str, list[Shown]]:
    """Returns, per product, the new frames that show it: judged one by one, as if nothing had been said.

    What was read in a frame counts: it is seen, not said.

    A frame shows a product if it speaks for it rather than against it, and either shows it better than any other
    candidate or would be believed by itself. The product that the whole window speaks for, words included, need only
    look like what is shown, even if another one looks more like it: words choose between look-alikes.
    """
    shown: dict[str, list[Shown]] = {}
    pictures, ids = [entry.vectors for entry in entries], [entry.product_id for entry in entries]
    for number, (pts_ms, _) in enumerate(look.frames):
        if pts_ms < look.new_from_ms:
            continue
        reads, best_read = _reads(read.frames.get(pts_ms, {}), entries)
        features = match_features(
            [look.frames[number]],
            pts_ms,
            pictures,
            reads=reads,
            best_read=best_read,
            fits=[[fit[number]] for fit in fits],
        )
        judged = [
            _without_rivals(one) if entry is believed else one for entry, one in zip(entries, features, strict=True)
        ]
        odds = calibration.logits(judged, ids)
        for entry, one, logit in zip(entries, judged, odds, strict=True):
            leads = entry is believed or one.margin_recent > 0 or logit >= 0
            if leads and logit > calibration.prior_logit:
                shown.setdefault(entry.product_id, []).append(_shown(look, number, entry))
    return shown


def _without_rivals(one: MatchFeatures) -> MatchFeatures:
    """Returns how a product fits, as if no other one fitted better."""
    return replace(
        one,
        margin_recent=max(0.0, one.margin_recent),
        margin_window=max(0.0, one.margin_window),
    )


def _shown(look: Look, number: int, entry: PageEntry) -> Shown:
    """Returns a frame with the region in it and the page picture that fit best together."""
    pts_ms, regions = look.frames[number]
    cosines = regions @ np.asarray(entry.vectors, np.float32).T  # (K, N)
    region, row = np.unravel_index(int(cosines.argmax()), cosines.shape)
    boxes = look.boxes[number]
    x0, y0, x1, y1 = np.round(boxes[region].astype(float), 4).tolist() if len(boxes) else (0.0, 0.0, 0.0, 0.0)
    box = (x0, y0, x1, y1) if len(boxes) else None
    # A picture may have several rows, one a view, side by side.
    image = entry.images[row * len(entry.images) // len(entry.vectors)] if entry.images else ""
    score = round(float(cosines[region, row]), 4)
    return Shown(pts_ms, look.captured_at_ms[number], box, score, image, look.offsets[number])


def _lines_of(entry: PageEntry, read: Read) -> tuple[str, ...]:
    found = read.window.get(entry.product_id)
    return tuple(dict.fromkeys(read.lines[number] for number in found.lines))[:_LINES] if found else ()


def _named_by(keywords: Collection[tuple[str, float]], entry: PageEntry) -> tuple[str, ...]:
    return tuple(text for text, _ in keywords if text_score(entry.terms, query_terms([(text, 1.0)])) >= _NAMES_FROM)
