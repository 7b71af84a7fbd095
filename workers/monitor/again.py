"""Looks at the kept frames of a detection again, with the model and the catalogue of now.

All kept frames are one window, as one that recognition sees. What the filter over time adds is not there: the result is
what these frames and words say by themselves.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cope.errors import UserError
from cope.keywords import PrintedWords, query_terms, text_score
from cope.model.scoring import Calibration, MatchFeatures, match_features, speech_scores, with_rivals
from cope.vision.decoding import PictureError, decode
from topology.errors import BadInput
from topology.evidence import Kept
from topology.index import PageEntry
from topology.records import PageVectors
from topology.settings import Settings
from topology.topic_log import RecordReader
from topology.topics import PAGE_VECTORS
from workers.monitor.routes import RefusedError
from workers.pages import Pages

if TYPE_CHECKING:
    from cope.serving.encoder import Encoder, FrameFeatures

# Candidates: the nearest pages of each of so many regions of a frame, and of the window as a whole.
_REGIONS, _NEAREST = 4, 8
_TOLD = 8  # of the candidates, in the answer

InExecutor = Callable[..., Awaitable[Any]]
Found = list[tuple[str, float]]


class Again:
    """Looks again. The model is loaded when it is first needed: it takes some 600 MB.

    Args:
        settings: Name the model.
        pages: The catalogue.
        reader: Reads encoded pages.
        in_executor: Runs a function in the thread for model work.
        encoder: A model that the process has loaded already.
    """

    def __init__(
        self,
        settings: Settings,
        pages: Pages,
        reader: RecordReader,
        in_executor: InExecutor,
        encoder: "Encoder | None" = None,
    ) -> None:
        self._settings = settings
        self._pages = pages
        self._reader = reader
        self._in_executor = in_executor
        self._encoder = encoder
        self._one = asyncio.Lock()

    async def look(self, kept: Kept, more: Sequence[str]) -> tuple[Found, str]:
        """Returns products with the probability that these frames show them, best first, and the model's version.

        Args:
            kept: Frames, and the words of the events.
            more: Products to consider, whether they are near or not.

        Raises:
            RefusedError: The frames cannot be read, or the catalogue is encoded by another model.
            Unavailable: The broker does not answer.
        """
        async with self._one:
            if self._encoder is None:
                try:
                    self._encoder = await self._in_executor(_load, self._settings)
                except UserError as error:
                    raise RefusedError(409, f"the model of this monitor cannot be opened: {error}") from None
            encoder = self._encoder
            try:
                frames, window = await self._in_executor(_seen, encoder, kept)
            except PictureError as error:
                raise RefusedError(409, f"the kept frames cannot be read: {error}") from None
            near = [self._pages.nearest(row, _NEAREST) for row in (*_salient(frames), window)]
            ids = dict.fromkeys([*more, *(one.product_id for found in near for one, _ in found)])
            records = [await self._record(product_id) for product_id in ids]
            usable = [one for one in records if one is not None and one.model_version == encoder.version]
            if not usable:
                raise RefusedError(
                    409,
                    f"the catalogue is not encoded by the model of this monitor ({encoder.version}): check COPE_MODEL",
                )
            found: Found = await self._in_executor(_compare, encoder, kept, frames, window, usable)
            return found[:_TOLD], encoder.version

    async def _record(self, product_id: str) -> PageVectors | None:
        listed = self._pages.get(product_id)
        if listed is None or listed.error:
            return None
        record = await self._reader.read(PAGE_VECTORS, *listed.encoded_at, PageVectors)
        return record.value if record is not None and record.key == product_id else None


def _load(settings: Settings) -> "Encoder":
    from cope.serving.encoder import Encoder

    return Encoder(settings.model, settings.device, settings.threads, settings.precision)


def _words(kept: Kept) -> list[tuple[str, float]]:
    return [(word, 1.0) for word in dict.fromkeys(word for event in kept.events for word in event.evidence.keywords)]


def _seen(encoder: "Encoder", kept: Kept) -> tuple[list["FrameFeatures"], NDArray[np.float16]]:
    from cope.serving.encoder import WindowInput

    frames = encoder.encode_frames([decode(frame.jpeg) for frame in kept.frames])
    return frames, encoder.encode_windows([WindowInput(frames, _words(kept))])[0]


def _salient(frames: Sequence["FrameFeatures"]) -> list[NDArray[np.float16]]:
    return [row for frame in frames for row in frame.regions[:_REGIONS]]


def _compare(
    encoder: "Encoder",
    kept: Kept,
    frames: Sequence["FrameFeatures"],
    window: NDArray[np.float16],
    records: Sequence[PageVectors],
) -> Found:
    entries = []
    for record in records:
        try:
            entries.append(PageEntry.from_record(record))
        except BadInput:
            continue
    words = _words(kept)
    query = query_terms(words)
    texts = [text_score(entry.terms, query) for entry in entries]
    said = [(vector, 1.0) for vector in encoder.encode_speech([" ".join(word for word, _ in words)]) if vector.any()]
    speech = speech_scores(said, [entry.text for entry in entries])
    printed = PrintedWords()
    for record in records:
        printed.add(record.product_id, record.names, record.read)
    lines = dict.fromkeys(line for event in kept.events for line in event.evidence.read)
    read = printed.seen([(line, 1.0) for line in lines]) if lines else {}
    reads = [read[entry.product_id].score if entry.product_id in read else 0.0 for entry in entries]
    seen = [(one.pts_ms, frame.regions) for one, frame in zip(kept.frames, frames, strict=True)]
    features = with_rivals(
        [
            match_features(
                seen,
                seen[0][0],
                window,
                entry.vectors,
                entry.fused,
                text,
                max(texts),
                [frame.salience for frame in frames],
                words_read,
                max(reads),
                speech_score=meaning,
            )
            for entry, text, words_read, meaning in zip(entries, texts, reads, speech, strict=True)
        ]
    )
    shares = _shares(encoder.calibration, features)
    found = [(entry.product_id, round(share, 4)) for entry, share in zip(entries, shares, strict=True)]
    return sorted(found, key=lambda one: (-one[1], one[0]))


def _shares(calibration: Calibration, features: Sequence[MatchFeatures]) -> list[float]:
    """Of each candidate, where they compete with each other and with "none of them"."""
    logits = np.array([0.0, *(calibration.logit(one) for one in features)])
    odds = np.exp(logits - logits.max())
    return [float(one) for one in odds[1:] / odds.sum()]
