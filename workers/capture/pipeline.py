"""Turns pictures and sound of one epoch into the records that are sent."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from topology import metrics
from topology.records import Frame, Speech
from topology.settings import Settings
from workers.capture.clock import AUDIO_OFFSET_US
from workers.capture.media import SAMPLE_RATE, Picture, Sound
from workers.capture.sampler import Sampler
from workers.capture.speech import Detector, SileroDetector, SoundTrack, SpeechCutter, Stretch

_SAMPLES_A_MS = SAMPLE_RATE // 1000

# How often silence is sent as progress where there is no sound track, so that windows do not wait for words.
PROGRESS_MS = 2_000
# How long the picture waits for sound that lags behind. Not less than the clock lets sound lag.
_AUDIO_LAG_MS = AUDIO_OFFSET_US // 1000

OutRecord = Frame | Speech


@dataclass(frozen=True)
class StreamFacts:
    """The fields that all records of a stream share."""

    stream_id: str
    language: str | None
    product_ids: tuple[str, ...] | None
    live: bool
    has_audio: bool


class EpochCutter:
    """Cuts one epoch into records. What it yields depends on the media alone, so a replay yields the same.

    Args:
        facts: Facts of the stream.
        epoch: Its number.
        settings: Sampling, sizes, chunk length.
        skip_ms: Media time up to which everything was sent before: worked through, but not yielded.
        now_ms: Wall clock, Unix milliseconds: stamped on records.
        detector: Makes the speech detector of the epoch.
    """

    def __init__(
        self,
        facts: StreamFacts,
        epoch: int,
        settings: Settings,
        *,
        skip_ms: int,
        now_ms: Callable[[], int],
        detector: Callable[[], Detector] = SileroDetector,
    ) -> None:
        self._facts = facts
        self._epoch = epoch
        self._settings = settings
        self._skip_ms = skip_ms
        self._now_ms = now_ms
        self._sampler = Sampler(settings)
        self._track = SoundTrack()
        self._cutter = SpeechCutter(detector(), settings.speech_chunk_s) if facts.has_audio else None
        self._progress_ms = 0  # end of the last silent stretch, without a sound track
        self._seen_ms = 0
        self._has_sampled = False

    def picture(self, picture: Picture) -> Iterator[OutRecord]:
        """Takes the next picture."""
        metrics.FRAMES_CAPTURED.inc()
        self._seen_ms = max(self._seen_ms, picture.pts_ms)
        sample = self._sampler.take(picture)
        first = sample is not None and not self._has_sampled
        self._has_sampled |= first
        if sample is not None and sample.pts_ms >= self._skip_ms:
            height, width = sample.image.shape[:2]
            yield Frame(
                stream_id=self._facts.stream_id,
                epoch=self._epoch,
                pts_ms=sample.pts_ms,
                captured_at_ms=self._now_ms(),
                width=width,
                height=height,
                jpeg=sample.jpeg(self._settings.jpeg_quality),
                live=self._facts.live,
                first=first,
                product_ids=self._facts.product_ids,
            )
        if self._cutter is None:
            end_ms = self._seen_ms // PROGRESS_MS * PROGRESS_MS
            if end_ms > self._progress_ms:
                yield from self._speech(Stretch(self._progress_ms, end_ms))
                self._progress_ms = end_ms
        else:
            # Sound that has not come by now is taken as silence, so that windows do not wait for ever.
            missing = self._track.fill_to((self._seen_ms - _AUDIO_LAG_MS) * _SAMPLES_A_MS)
            if len(missing):
                for stretch in self._cutter.feed(missing):
                    yield from self._speech(stretch)

    def sound(self, sound: Sound) -> Iterator[OutRecord]:
        """Takes the next piece of sound."""
        if self._cutter is not None:
            for stretch in self._cutter.feed(self._track.lay(sound)):
                yield from self._speech(stretch)

    def finish(self) -> Iterator[OutRecord]:
        """Yields what is left, then the records that end the epoch."""
        if self._cutter is not None:
            sound_ms = -(-self._track.length // _SAMPLES_A_MS)
            end_ms = max(self._seen_ms, sound_ms)
            for stretch in self._cutter.finish(end_ms):
                end_ms = max(end_ms, stretch.end_ms)
                yield from self._speech(stretch)
        else:
            end_ms = self._seen_ms
            if end_ms > self._progress_ms:
                yield from self._speech(Stretch(self._progress_ms, end_ms))
        yield from end_of_epoch(self._facts, self._epoch, end_ms, self._now_ms())

    def _speech(self, stretch: Stretch) -> Iterator[Speech]:
        if stretch.end_ms > self._skip_ms:
            yield Speech(
                stream_id=self._facts.stream_id,
                epoch=self._epoch,
                start_ms=stretch.start_ms,
                end_ms=stretch.end_ms,
                captured_at_ms=self._now_ms(),
                audio=stretch.audio,
                language=self._facts.language,
            )


def end_of_epoch(facts: StreamFacts, epoch: int, end_ms: int, now_ms: int) -> tuple[Frame, Speech]:
    """Returns the two records that end an epoch, without content of their own."""
    frame = Frame(
        stream_id=facts.stream_id,
        epoch=epoch,
        pts_ms=end_ms,
        captured_at_ms=now_ms,
        live=facts.live,
        product_ids=facts.product_ids,
        end_of_epoch=True,
    )
    speech = Speech(
        stream_id=facts.stream_id,
        epoch=epoch,
        start_ms=end_ms,
        end_ms=end_ms,
        captured_at_ms=now_ms,
        language=facts.language,
        end_of_epoch=True,
    )
    return frame, speech
