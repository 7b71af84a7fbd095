"""Which of a container's tracks are played: one picture, and the sound that belongs to it."""

import re
from typing import Any

from av.stream import Discard, Disposition

# Demuxers that present something else as a video: text files drawn as a terminal, single pictures.
NOT_VIDEO = re.compile(r"^(tty|image2|.*_pipe|.*subtitle.*|srt|webvtt)$")

# Covers, previews for a scrubber, stills: pictures that belong to a recording, but are not what it shows.
_ASIDE = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


def choose_video(container: Any, height: int) -> Any:
    """Returns the video stream to play; None if there is none. Its `codec_context` is None if no decoder knows it.

    Of variants, which show the same at several sizes, this is the smallest that is high enough, else the highest.
    Elsewhere (a second camera, the programmes of a multiplex) it is the default one, else the first.
    """
    streams = [s for s in container.streams.video if not s.disposition & _ASIDE]
    known = [s for s in streams if s.codec_context is not None and s.codec_context.height > 0] or streams
    if any(_variant(s) for s in known):
        enough = [s for s in known if s.codec_context is not None and s.codec_context.height >= height]
        if enough:
            return min(enough, key=lambda s: (s.codec_context.height, s.index))
        return max(known, key=lambda s: (s.codec_context.height if s.codec_context else -1, -s.index))
    return min(known, key=_rank, default=None)


def choose_audio(container: Any, video: Any) -> Any:
    """Returns the default sound of the programme or variant that the picture is of; None if none can be decoded."""
    same = [s for s in container.streams.audio if _variant(video) and _variant(s) == _variant(video)]
    best = min(same, key=_rank, default=None)
    best = best or container.streams.best("audio", related=video) or container.streams.best("audio")
    return best if best is not None and best.codec_context is not None else None


def leave_others(container: Any, kept: tuple[Any, ...]) -> None:
    """Has the demuxer skip all other tracks; other HLS variants are then not even downloaded."""
    for stream in container.streams:
        if stream not in kept:
            stream.discard = Discard.all


def _rank(stream: Any) -> tuple[bool, int]:
    return not stream.disposition & Disposition.default, stream.index


def _variant(stream: Any) -> str | None:
    bit_rate: str | None = stream.metadata.get("variant_bitrate")
    return bit_rate
