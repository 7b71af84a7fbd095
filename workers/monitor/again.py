"""Looks at a detection again, with the model and the catalogue of now: at its stretch of the file, or at kept frames.

Of a stream that is a file which this process may read, the stretch is read once more as capture has read it, and its
windows go through the filter over time as in recognition. Of all others the kept frames are one window: the result is
what these frames and words say by themselves.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from cope.errors import UserError as ModelError
from cope.keywords import PrintedWords, of_speech, of_window, query_terms, read_scores, text_score, title_score
from cope.model.beliefs import next_beliefs
from cope.model.scoring import MatchFeatures, match_features, shares, speech_scores
from cope.vision.decoding import PictureError, decode
from topology.errors import BadInput, UserError
from topology.evidence import Kept
from topology.index import PageEntry
from topology.records import Keywords, PageVectors, ProductDetected
from topology.settings import Settings
from topology.topic_log import RecordReader
from topology.topics import PAGE_VECTORS
from workers.monitor.routes import RefusedError
from workers.pages import Pages

if TYPE_CHECKING:
    from cope.serving.encoder import Encoder, FrameFeatures

# Candidates: the nearest pages of each of so many regions of a frame, and of each window as a whole.
_REGIONS, _NEAREST = 4, 8
_TOLD = 8  # of the candidates, in the answer
# Of a file, at most so much of a sighting is looked at: each second costs 0.1 s of a processor. What starts a sighting
# is in its first seconds.
_LONGEST_MS = 30_000
# A picture is the one that was kept if the cells of its thumbnail differ by less than so many grey levels in the mean:
# faces were blurred since, which is about one. Another recording differs by tens.
_THUMB, _SAME = (32, 18), 4

InExecutor = Callable[..., Awaitable[Any]]
Found = list[tuple[str, float]]
ReadStretch = Callable[[str, int, int], list[tuple[int, bytes]]]
"""Reads from a file, between two media times, the frames that capture has sent: media time and JPEG of each."""


@dataclass(frozen=True)
class Stretch:
    """What is looked at.

    Attributes:
        source: Where the frames come from.
        frames: Media time and JPEG of each, by time.
        said: What was said in it and shortly before, as far as it is still known.
        judged_from_ms: Media time from which it counts what is believed: before, another product may have been shown.
    """

    source: Literal["file", "frames"]
    frames: list[tuple[int, bytes]]
    said: Sequence[Keywords] = ()
    judged_from_ms: int = 0

    @property
    def from_ms(self) -> int:
        """Media time of its first frame."""
        return self.frames[0][0]

    @property
    def to_ms(self) -> int:
        """Media time of its last frame."""
        return self.frames[-1][0]


@dataclass(frozen=True)
class _Window:
    """One window of a stretch.

    Attributes:
        numbers: Of its frames.
        recent_from_ms: From here on frames belong to its newest hop.
        keywords: With weights.
        speech: Texts, with weights.
    """

    numbers: Sequence[int]
    recent_from_ms: int
    keywords: list[tuple[str, float]]
    speech: list[tuple[str, float]]


def stretch_of(event: ProductDetected, settings: Settings) -> tuple[int, int]:
    """Returns the media times between which frames may have spoken for a sighting."""
    from_ms = max(0, event.media_start_ms // settings.hop_ms * settings.hop_ms + settings.hop_ms - settings.window_ms)
    end_ms = max(event.media_end_ms, event.media_start_ms) + settings.hop_ms
    return from_ms, min(end_ms, event.media_start_ms + _LONGEST_MS)


def is_same(kept: Kept, frames: Sequence[tuple[int, bytes]]) -> bool:
    """Returns whether frames of a file are those that were kept: a file may have been replaced, or begun anew."""
    jpegs = dict(frames)
    both = [(one.jpeg, jpegs[one.pts_ms]) for one in kept.frames if one.pts_ms in jpegs]
    try:
        differences = [float(np.mean(np.abs(_thumb(one) - _thumb(other)))) for one, other in both]
    except PictureError:
        return False
    return bool(differences) and max(differences) < _SAME


def _thumb(jpeg: bytes) -> NDArray[np.int16]:
    grey = cv2.cvtColor(decode(jpeg), cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, _THUMB, interpolation=cv2.INTER_AREA).astype(np.int16)


class Again:
    """Looks again. The model is loaded when it is first needed: it takes some 600 MB.

    Args:
        settings: Name the model.
        pages: The catalogue.
        reader: Reads encoded pages.
        in_executor: Runs a function in the thread for model work.
        encoder: A model that the process has loaded already.
        read_stretch: Reads files; None: only kept frames are looked at.
    """

    def __init__(
        self,
        settings: Settings,
        pages: Pages,
        reader: RecordReader,
        in_executor: InExecutor,
        encoder: "Encoder | None" = None,
        read_stretch: ReadStretch | None = None,
    ) -> None:
        self._settings = settings
        self._pages = pages
        self._reader = reader
        self._in_executor = in_executor
        self._encoder = encoder
        self._read_stretch = read_stretch
        self._one = asyncio.Lock()

    async def stretch(self, event: ProductDetected, kept: Kept | None, url: str, said: Sequence[Keywords]) -> Stretch:
        """Returns what there is to look at: of the file, if it is one and the same, else the kept frames.

        Args:
            event: Of the detection.
            kept: What is kept of it.
            url: Of its stream; empty: not known to be of this epoch.
            said: In the stream, in this stretch and shortly before.

        Raises:
            RefusedError: There is nothing.
        """
        frames: list[tuple[int, bytes]] = []
        if self._read_stretch is not None and url:
            try:
                frames = await asyncio.to_thread(self._read_stretch, url, *stretch_of(event, self._settings))
            except (UserError, BadInput):
                pass  # no file, or none that this process may read
        has_kept = kept is not None and bool(kept.frames)
        if frames and (kept is None or not has_kept or await asyncio.to_thread(is_same, kept, frames)):
            return Stretch("file", frames, said, event.media_start_ms)
        if kept is None or not has_kept:
            raise RefusedError(
                409, "its frames are gone, or were never kept: COPE_EVIDENCE_DAYS says how long they are"
            )
        return Stretch("frames", [(one.pts_ms, one.jpeg) for one in kept.frames], said)

    async def look(self, stretch: Stretch, events: Sequence[ProductDetected], more: Sequence[str]) -> tuple[Found, str]:
        """Returns products with the belief that they are shown, best first, and the model's version.

        Args:
            stretch: To look at.
            events: Of the detection: their words count where it is not known what was said.
            more: Products to consider, whether they are near or not.

        Raises:
            RefusedError: The frames cannot be read, or the catalogue is encoded by another model.
            Unavailable: The broker does not answer.
        """
        async with self._one:
            if self._encoder is None:
                try:
                    self._encoder = await self._in_executor(_load, self._settings)
                except ModelError as error:
                    raise RefusedError(409, f"the model of this monitor cannot be opened: {error}") from None
            encoder = self._encoder
            windows = _windows(stretch, events, self._settings)
            try:
                frames, embeddings = await self._in_executor(_seen, encoder, stretch, windows)
            except PictureError as error:
                raise RefusedError(409, f"the frames cannot be read: {error}") from None
            near = [self._pages.nearest(row, _NEAREST) for row in (*_salient(frames), *embeddings)]
            ids = dict.fromkeys([*more, *(one.product_id for found in near for one, _ in found)])
            records = [await self._record(product_id) for product_id in ids]
            usable = [one for one in records if one is not None and one.model_version == encoder.version]
            if not usable:
                raise RefusedError(
                    409,
                    f"the catalogue is not encoded by the model of this monitor ({encoder.version}): check COPE_MODEL",
                )
            lines = list(dict.fromkeys(line for event in events for line in event.evidence.read))
            compare = _Comparison(encoder, stretch, frames, usable, lines)
            found: Found = await self._in_executor(compare.believe, windows)
            return found[:_TOLD], encoder.version

    async def _record(self, product_id: str) -> PageVectors | None:
        listed = self._pages.get(product_id)
        if listed is None or listed.error:
            return None
        record = await self._reader.read(PAGE_VECTORS, *listed.encoded_at, PageVectors)
        return record.value if record is not None and record.key == product_id else None


def _load(settings: Settings) -> "Encoder":
    from cope.serving.encoder import Encoder

    return Encoder(settings.model, settings.device, settings.threads, settings.precision == "auto")


def _windows(stretch: Stretch, events: Sequence[ProductDetected], settings: Settings) -> list[_Window]:
    """Of a file the windows of service; kept frames are one."""
    times = [pts_ms for pts_ms, _ in stretch.frames]
    hop_ms, window_ms = settings.hop_ms, settings.window_ms
    if stretch.source == "frames":
        start_ms, ends = stretch.from_ms, [stretch.to_ms + 1]
    else:
        start_ms = 0
        ends = list(range(stretch.from_ms // hop_ms * hop_ms + hop_ms, stretch.to_ms + hop_ms + 1, hop_ms))
    windows = []
    for end_ms in ends:
        begin_ms = max(start_ms, end_ms - window_ms) if stretch.source == "file" else start_ms
        numbers = [number for number, pts_ms in enumerate(times) if begin_ms <= pts_ms < end_ms]
        recent_from_ms = end_ms - hop_ms if stretch.source == "file" else start_ms
        if not any(times[number] >= recent_from_ms for number in numbers):
            continue
        keywords, speech = _words(stretch.said, events, begin_ms, end_ms, settings.look_back_ms)
        windows.append(_Window(numbers, recent_from_ms, keywords, speech))
    return windows


def _words(
    said: Sequence[Keywords], events: Sequence[ProductDetected], start_ms: int, end_ms: int, look_back_ms: int
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """The keywords and the speech of a window; where it is not known what was said, the words of the events."""
    heard = [one for one in said if one.end_ms > start_ms - look_back_ms and one.start_ms < end_ms]
    if said:
        pieces = [(one.end_ms, [(keyword.text, keyword.weight) for keyword in one.keywords]) for one in heard]
        texts = of_speech(((one.start_ms, one.end_ms, one.text) for one in heard), start_ms, look_back_ms)
        return of_window(pieces, start_ms, look_back_ms), texts
    words = list(dict.fromkeys(word for event in events for word in event.evidence.keywords))
    return [(word, 1.0) for word in words], [(" ".join(words), 1.0)] if words else []


def _seen(
    encoder: "Encoder", stretch: Stretch, windows: Sequence[_Window]
) -> tuple[list["FrameFeatures"], list[NDArray[np.float16]]]:
    from cope.serving.encoder import WindowInput

    frames = encoder.encode_frames([decode(jpeg) for _, jpeg in stretch.frames])
    inputs = [WindowInput([frames[number] for number in window.numbers], window.keywords) for window in windows]
    return frames, list(encoder.encode_windows(inputs))


def _salient(frames: Sequence["FrameFeatures"]) -> list[NDArray[np.float16]]:
    return [row for frame in frames for row in frame.regions[:_REGIONS]]


class _Comparison:
    """Compares the windows of a stretch with candidates.

    Args:
        encoder: Of the model.
        stretch: That is looked at.
        frames: As the model sees them.
        records: Candidates.
        lines: That were read in the frames of the detection.
    """

    def __init__(
        self,
        encoder: "Encoder",
        stretch: Stretch,
        frames: Sequence["FrameFeatures"],
        records: Sequence[PageVectors],
        lines: Sequence[str],
    ) -> None:
        self._encoder = encoder
        self._stretch = stretch
        self._frames = frames
        self._entries: list[PageEntry] = []
        printed = PrintedWords()
        for record in records:
            try:
                self._entries.append(PageEntry.from_record(record))
            except BadInput:
                continue
            printed.add(record.product_id, record.names, record.read)
        read = printed.seen([(line, 1.0) for line in lines]) if lines else {}
        self._reads = read_scores(read, (one.product_id for one in self._entries))

    def believe(self, windows: Sequence[_Window]) -> Found:
        """Returns the highest belief in each candidate while the detection was on, best first."""
        calibration = self._encoder.calibration
        best = dict.fromkeys((entry.product_id for entry in self._entries), 0.0)
        beliefs: dict[str, float] = {}
        judged_from_ms = min(self._stretch.judged_from_ms, windows[-1].recent_from_ms)
        for window in windows:
            features = self._features(window)
            odds = {name: calibration.logit(one, name) for name, one in zip(best, features, strict=True)}
            if self._stretch.source == "frames":
                beliefs = dict(zip(odds, shares(list(odds.values())), strict=True))
            else:
                beliefs = next_beliefs(beliefs, odds)
            if window.recent_from_ms >= judged_from_ms:
                best = {product_id: max(before, beliefs[product_id]) for product_id, before in best.items()}
        found = [(product_id, round(belief, 4)) for product_id, belief in best.items()]
        return sorted(found, key=lambda one: (-one[1], one[0]))

    def _features(self, window: _Window) -> list[MatchFeatures]:
        entries, query = self._entries, query_terms(window.keywords)
        texts = [text_score(entry.terms, query) for entry in entries]
        named = [title_score(entry.titles, query) for entry in entries]
        vectors = self._encoder.encode_speech([text for text, _ in window.speech]) if window.speech else []
        said = [(vector, weight) for vector, (_, weight) in zip(vectors, window.speech, strict=True) if vector.any()]
        speech = speech_scores(said, [entry.text for entry in entries])
        seen = [(self._stretch.frames[n][0], self._frames[n].regions) for n in window.numbers]
        pictures = [entry.vectors for entry in entries]
        return match_features(seen, window.recent_from_ms, pictures, texts, named, self._reads, speech)
