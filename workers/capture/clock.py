"""Media time from a stream's own time stamps: where epochs begin, and which packets belong to none."""

from typing import Literal

Verdict = Literal["same", "new", "stale"]

_SECOND_US = 1_000_000

# A gap that a lost connection inside the server, or a late publisher, leaves; above it the stream's clock has jumped.
# Smaller: an ordinary loss of a few seconds cuts sightings in two. Larger: windows span two unrelated scenes.
FORWARD_JUMP_US = 5 * _SECOND_US
# Decoding time stamps rise within a track; muxers err by a few frames. Above it the clock was reset.
BACKWARD_JUMP_US = 1 * _SECOND_US
# How far sound may be from the picture. Larger than the interleaving of any common muxer; sound further off cannot
# be told from sound of another epoch. Also how long the picture waits for sound before silence is assumed.
AUDIO_OFFSET_US = 10 * _SECOND_US


class MediaClock:
    """Follows the packets of one connection. The picture leads: only a video packet opens a new epoch.

    Time stamps are decoding order stamps in microseconds, on any common origin.

    Attributes:
        zero_us: Time stamp of the epoch's start; None before the first packet.
    """

    def __init__(self) -> None:
        self.zero_us: int | None = None
        self._video_last: int | None = None
        self._video_end: int | None = None
        self._audio_end: int | None = None

    def video(self, dts_us: int, pts_us: int, duration_us: int = 0) -> Verdict:
        """Places a video packet; "new": it begins a new epoch, and the clock has been set to it."""
        verdict: Verdict = "same"
        if self.zero_us is None:
            self.zero_us = pts_us
        elif self._jumped(dts_us):
            verdict = "new"
            self.zero_us = pts_us
            self._video_end = self._audio_end = None
        end = dts_us + duration_us
        self._video_last = dts_us
        self._video_end = end if self._video_end is None else max(self._video_end, end)
        return verdict

    def audio(self, pts_us: int, duration_us: int = 0) -> Verdict:
        """Places an audio packet; "stale": it is on another clock than the picture and is to be dropped."""
        if self.zero_us is None:
            self.zero_us = pts_us
        elif not self._fits(pts_us):
            return "stale"
        end = pts_us + duration_us
        self._audio_end = end if self._audio_end is None else max(self._audio_end, end)
        return "same"

    def position_us(self, time_us: int) -> int:
        """Returns a time stamp as media time since the epoch's start; negative before it."""
        return time_us - (self.zero_us or 0)

    def _jumped(self, dts_us: int) -> bool:
        if self._video_last is not None and dts_us < self._video_last - BACKWARD_JUMP_US:
            return True
        ends = [end for end in (self._video_end, self._audio_end) if end is not None]
        if not ends:
            return False
        if self._video_last is None and dts_us < min(ends) - AUDIO_OFFSET_US:
            return True  # sound came first, on another clock
        return dts_us > max(ends) + FORWARD_JUMP_US

    def _fits(self, pts_us: int) -> bool:
        # While the picture stands still (slides, a frozen camera) sound goes on by itself.
        if self._audio_end is not None and abs(pts_us - self._audio_end) <= FORWARD_JUMP_US:
            return True
        if self._video_last is None or self._video_end is None:
            return self._audio_end is None
        return self._video_last - AUDIO_OFFSET_US <= pts_us <= self._video_end + AUDIO_OFFSET_US
