"""Reads the pictures that capture sampled in a stretch of a file, to look at them again."""

from collections.abc import Iterator

from topology.settings import Settings
from workers.capture.address import scheme_of
from workers.capture.media import BadSource, MediaSource, NewEpoch, Picture
from workers.capture.sampler import Sample, Sampler
from workers.capture.source import AvSource, open_source

# How long before the stretch reading begins, tried in turn: one sample, where seeking finds keyframes; more, where a
# container without an index leads between two keyframes; at last the whole file is read.
_LEADS_MS = (2_000, 20_000)


def read_stretch(url: str, settings: Settings, from_ms: int, to_ms: int) -> list[Sample]:
    """Returns the samples of a stretch of a file's first epoch, by time.

    Args:
        url: A path or file URL.
        settings: Say how pictures are sampled, and which files may be read.
        from_ms: Media time.
        to_ms: Media time; not included.

    Raises:
        BadSource: It is not a file, cannot be read, or the settings do not allow it.
    """
    if scheme_of(url):
        raise BadSource("not a file: of network streams only the kept frames are there")
    for start_ms in (*(from_ms - lead_ms for lead_ms in _LEADS_MS), 0):
        source = open_source(url, settings)
        try:
            if source.info.live:
                raise BadSource("a camera: only the kept frames are there")
            pictures = _pictures(source, start_ms)
            first = next(pictures, None)
            if first is not None and (start_ms <= 0 or first.pts_ms <= start_ms):
                return _sampled(first, pictures, Sampler(settings), from_ms, to_ms)
        finally:
            source.close()
    return []


def _pictures(source: MediaSource, start_ms: int) -> Iterator[Picture]:
    """The pictures of the first epoch, from a keyframe before a media time on if one is found."""
    has_sought = start_ms <= 0 or not isinstance(source, AvSource)
    for item in source:
        if isinstance(item, NewEpoch):
            return
        if isinstance(item, Picture):
            if has_sought:
                yield item
            elif isinstance(source, AvSource):
                source.seek(start_ms)
                has_sought = True


def _sampled(first: Picture, others: Iterator[Picture], sampler: Sampler, from_ms: int, to_ms: int) -> list[Sample]:
    found: list[Sample] = []
    picture: Picture | None = first
    while picture is not None and picture.pts_ms < to_ms:
        sample = sampler.take(picture)
        if sample is not None and sample.pts_ms >= from_ms:
            found.append(sample)
        picture = next(others, None)
    return found
