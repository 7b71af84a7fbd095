"""Converts frames and keywords to the encoder's input, and its output to records."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cope.keywords import of_speech, of_window
from cope.serving.encoder import FrameFeatures, WindowInput
from cope.vision.decoding import PictureError, decode
from topology.delivery import Message
from topology.errors import BadInput
from topology.records import Frame, FrameRegions, Keyword, Keywords, ReadLine, Said, WindowEmbedding
from topology.settings import Settings
from workers.embed.parts import KeywordsIn, Window

# Eight regions of 768 numbers are 12 kB, so this many frames stay below half of the topic's limit. At one frame a
# second a window has 8; only high rates are thinned.
MAX_FRAMES = 40


@dataclass(frozen=True, slots=True)
class SeenFrame:
    """A frame after the backbone.

    Attributes:
        message: To be ended when no window needs the frame; its value no longer has the JPEG.
        features: None at the end of an epoch, and for a frame that could not be encoded.
        error: Why it could not.
        read: Lines of text, of a frame that was read.
    """

    message: Message[Frame]
    features: FrameFeatures | None = None
    error: BadInput | None = None
    read: tuple[ReadLine, ...] = ()


HeardKeywords = Message[Keywords]
LiveWindow = Window[SeenFrame, HeardKeywords]


def decode_frame(frame: Frame) -> NDArray[np.uint8]:
    """Returns the picture: (H, W, 3) uint8 RGB.

    Raises:
        BadInput: It cannot be decoded, or is too large.
    """
    try:
        return decode(frame.jpeg)
    except PictureError as error:
        raise BadInput(f"frame {frame.epoch}/{frame.pts_ms} ms of {frame.stream_id}: {error}") from error


def weigh(keywords: Sequence[KeywordsIn[HeardKeywords]], start_ms: int, look_back_ms: int) -> tuple[Keyword, ...]:
    """The keywords of a window, best first; see `cope.keywords.of_window`."""
    pieces = ((heard.end_ms, [(one.text, one.weight) for one in heard.item.value.keywords]) for heard in keywords)
    return tuple(Keyword(text, weight) for text, weight in of_window(pieces, start_ms, look_back_ms))


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a window.

    Attributes:
        frames: Those that could be encoded, by time.
        keywords: Best first.
        said: Sentences with their weights, by time.
    """

    frames: tuple[SeenFrame, ...]
    keywords: tuple[Keyword, ...]
    said: tuple[tuple[str, float], ...] = ()

    @property
    def model_input(self) -> WindowInput:
        """What the encoder takes."""
        features = [one.features for one in self.frames if one.features is not None]
        return WindowInput(features, [(one.text, one.weight) for one in self.keywords])


def content_of(window: LiveWindow, look_back_ms: int) -> Content:
    """Returns the content of a window, its frames evenly thinned to at most `MAX_FRAMES`."""
    frames = [one for one in window.frames if one.features is not None]
    if len(frames) > MAX_FRAMES:
        frames = [frames[index * len(frames) // MAX_FRAMES] for index in range(MAX_FRAMES)]
    pieces = ((one.start_ms, one.end_ms, one.item.value.text) for one in window.keywords)
    return Content(
        tuple(frames),
        weigh(window.keywords, window.start_ms, look_back_ms),
        tuple(of_speech(pieces, window.start_ms, look_back_ms)),
    )


def is_read(pts_ms: int, settings: Settings) -> bool:
    """Returns whether words are read in this frame: the first one of each `read_every_ms`.

    It depends on the frame's own time only: a replay that begins later reads the same frames. Frames that capture does
    not sample at a fixed rate are fewer, and all are read.
    """
    return settings.sampling != "fixed" or pts_ms % settings.read_every_ms < 1000 / settings.frames_per_second


def _frame_regions(frame: Frame, offset: int, features: FrameFeatures, read: tuple[ReadLine, ...]) -> FrameRegions:
    return FrameRegions(
        pts_ms=frame.pts_ms,
        regions=features.regions.astype("<f2").tobytes(),
        salience=tuple(float(s) for s in features.salience),
        boxes=features.boxes.astype("<f4").tobytes(),
        captured_at_ms=frame.captured_at_ms,
        read=read,
        offset=offset,
    )


def window_record(
    window: LiveWindow,
    content: Content,
    embedding: NDArray[np.float16] | None,
    speech: Sequence[NDArray[np.float16]],
    hop_ms: int,
    model_version: str,
) -> WindowEmbedding:
    """Returns the record of a window, or of the end of an epoch.

    Args:
        embedding: (D,) float16; None where there is nothing to embed.
        speech: Vector of each piece of speech, (D,) float16; (0,) where it has none.
    """
    newest = window.newest.message.value
    return WindowEmbedding(
        stream_id=window.stream_id,
        epoch=window.epoch,
        start_ms=window.start_ms,
        end_ms=window.end_ms,
        hop_ms=hop_ms,
        captured_at_ms=0 if window.end_of_epoch else newest.captured_at_ms,
        embedding=b"" if embedding is None else embedding.astype("<f2").tobytes(),
        frames=tuple(
            _frame_regions(one.message.value, one.message.offset, one.features, one.read)
            for one in content.frames
            if one.features is not None
        ),
        keywords=content.keywords,
        model_version=model_version,
        product_ids=newest.product_ids,
        live=window.live,
        end_of_epoch=window.end_of_epoch,
        speech=tuple(
            Said(vector.astype("<f2").tobytes(), round(weight, 4))
            for (_, weight), vector in zip(content.said, speech, strict=True)
            if vector.size
        ),
    )
