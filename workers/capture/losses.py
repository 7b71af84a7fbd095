"""Counts what a source has lost, and describes it for the user."""

from topology import metrics

_US = 1_000_000

# Shortest hole in a stream's own time stamps that is reported. Shorter ones are jitter of its encoder.
_HOLE_US = 1 * _US


class Losses:
    """Counts what was damaged and what is missing.

    Attributes:
        damaged: Packets and pictures that could not be decoded.
    """

    def __init__(self) -> None:
        self.damaged = 0
        self._ends_us: dict[str, int] = {}  # time stamps at which the last packets end, by kind
        self._missing: dict[str, tuple[int, int, int]] = {}  # number, time in all, and place of the last, by kind
        self._silent_since_us: int | None = None
        self._stale_us = 0
        self._unseen: tuple[int, int] | None = None  # the last stretch of a recording without a picture

    def damage(self) -> None:
        """Counts a packet or picture that could not be decoded."""
        self.damaged += 1
        metrics.PACKETS_DAMAGED.inc()

    def follow(self, kind: str, start_us: int, duration_us: int, zero_us: int) -> None:
        """Takes note of the next packet of a live stream, and of a hole in its time stamps before it.

        Args:
            kind: "picture" or "sound".
            start_us: Time stamp.
            duration_us: Length of the packet.
            zero_us: Time stamp of the epoch's start.
        """
        expected_us = self._ends_us.get(kind, start_us)
        self._ends_us[kind] = start_us + duration_us
        length_us = start_us - expected_us
        if length_us > _HOLE_US + 2 * duration_us:
            number, total_us, _ = self._missing.get(kind, (0, 0, 0))
            self._missing[kind] = (number + 1, total_us + length_us, expected_us - zero_us)
            metrics.MEDIA_LOST.labels(kind).inc(length_us / _US)

    def silence(self, since_us: int | None) -> None:
        """Notes since when the sound track gives nothing while pictures go on; None: it gives something."""
        self._silent_since_us = since_us

    def unseen(self, start_us: int, end_us: int) -> None:
        """Notes a stretch of a recording that has sound, or data that give no picture."""
        self._unseen = start_us, end_us
        metrics.MEDIA_LOST.labels("picture").inc((end_us - start_us) / _US)

    def stale(self, length_us: int) -> None:
        """Counts sound that was left out because it runs on another clock than the picture."""
        self._stale_us += length_us

    def notes(self) -> list[str]:
        """Returns a phrase for each kind of loss."""
        notes = []
        if self.damaged:
            notes.append(f"{self.damaged} damaged packets were skipped")
        for kind, (number, total_us, at_us) in self._missing.items():
            times = "" if number == 1 else f", {number} times"
            notes.append(f"{total_us / _US:.1f} s of the {kind} were lost{times}, last at {_clock(at_us)}")
        if self._silent_since_us is not None:
            notes.append(f"no sound since {_clock(self._silent_since_us)}")
        if self._unseen is not None:
            notes.append(f"no picture from {_clock(self._unseen[0])} to {_clock(self._unseen[1])}")
        if self._stale_us >= _US:
            notes.append(f"{self._stale_us / _US:.0f} s of sound left out: on another clock than the picture")
        return notes


def _clock(time_us: int) -> str:
    seconds = max(0, time_us) // _US
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
