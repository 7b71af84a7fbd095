"""Media time from a stream's own time stamps: where epochs begin, and which packets are to be dropped."""

from collections import deque
from typing import Any, Literal

Verdict = Literal["same", "new", "stale"]

_SECOND_US = 1_000_000

# A gap that a lost connection inside the server, or a late publisher, leaves; above it the stream's clock has jumped.
# Smaller: an ordinary loss of a few seconds cuts sightings in two. Larger: windows span two unrelated scenes.
FORWARD_JUMP_US = 5 * _SECOND_US
# The same limit for a file with an index, whose clock does not jump but whose picture may stand still for minutes.
# Larger: damaged time stamps are filled with hours of silence.
FORWARD_GAP_US = 600 * _SECOND_US
# Decoding time stamps rise within a track; muxers err by a few frames. Above it the clock was reset.
BACKWARD_JUMP_US = 1 * _SECOND_US
# How far sound may be from the picture. Larger than the interleaving of any common muxer; sound further off cannot
# be told from sound of another epoch. Also how long the picture waits for sound before silence is assumed.
AUDIO_OFFSET_US = 10 * _SECOND_US
# Pictures by which the order of coding may differ from that of display: what H.264 and H.265 allow at most.
REORDERED = 16


class MediaClock:
    """Follows the packets of one connection. The picture leads: only a video packet opens a new epoch.

    Time stamps are decoding order stamps in microseconds, on any common origin.

    Args:
        forward_us: Longest gap in the picture that is no jump of the clock.

    Attributes:
        zero_us: Time stamp of the epoch's start; None before the first packet.
    """

    def __init__(self, forward_us: int = FORWARD_JUMP_US) -> None:
        self._forward_us = forward_us
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
        return dts_us > max(ends) + self._forward_us

    def _fits(self, pts_us: int) -> bool:
        # While the picture stands still (slides, a frozen camera) sound goes on by itself.
        if self._audio_end is not None and abs(pts_us - self._audio_end) <= FORWARD_JUMP_US:
            return True
        if self._video_last is None or self._video_end is None:
            return self._audio_end is None
        return self._video_last - AUDIO_OFFSET_US <= pts_us <= self._video_end + AUDIO_OFFSET_US


class Unwrap:
    """Goes on counting where a container's time stamps wrap around to 0.

    Args:
        period: Time stamps after which it begins again.
    """

    def __init__(self, period: int) -> None:
        self._period = period
        self._last: int | None = None

    def packet(self, packet: Any) -> None:
        """Unwraps a packet's time stamps."""
        if packet.dts is None:
            return
        lag = 0 if packet.pts is None else self._nearest(packet.pts - packet.dts)
        if self._last is not None:
            packet.dts = self._last + self._nearest(packet.dts - self._last)
        self._last = packet.dts
        if packet.pts is not None:
            packet.pts = packet.dts + lag

    def _nearest(self, step: int) -> int:
        half = self._period // 2
        return (step + half) % self._period - half


class DecodingTimes:
    """Decoding times of video packets, also where the container only has display times.

    Args:
        lag_us: Longest time between decoding and display. Where the clock of a file changes, FFmpeg gives its first
            pictures decoding times of the clock before.
    """

    def __init__(self, lag_us: int = FORWARD_GAP_US) -> None:
        self._lag_us = lag_us
        self._last_us: int | None = None
        # Display times of the last packets without a decoding time.
        self._shown_us: deque[int] = deque(maxlen=REORDERED + 1)

    def time_us(self, dts_us: int | None, pts_us: int | None, expected_us: int) -> int:
        """Returns the next packet's decoding time, or one that is not later, in microseconds.

        Args:
            dts_us: As the container says, if it does.
            pts_us: Time of display, if the container says it.
            expected_us: What to take where it says neither.
        """
        if dts_us is not None and pts_us is not None and not -BACKWARD_JUMP_US <= pts_us - dts_us <= self._lag_us:
            dts_us = pts_us
        elif dts_us is None and pts_us is not None:
            # What is coded now may be shown long after what follows. But what follows is never shown before the
            # earliest of the last few.
            if self._last_us is not None and pts_us < self._last_us - BACKWARD_JUMP_US:
                self._shown_us.clear()
                self._last_us = None
            self._shown_us.append(pts_us)
            earliest_us = min(self._shown_us)
            dts_us = earliest_us if self._last_us is None else max(self._last_us, earliest_us)
        self._last_us = expected_us if dts_us is None else dts_us
        return self._last_us
