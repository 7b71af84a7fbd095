"""A lower bound of the broker's clock, from the records that come in."""

# Two clocks drift apart by some 50 ms in a quarter of an hour; older observations are let go.
_KEEP_MS = 60_000


class BrokerClock:
    """Bounds the broker's clock from below.

    A record is received after it was appended. So this machine's clock is ahead of the broker's by at most the
    smallest difference seen between receiving and appending. This machine's time less that difference is a time that
    the broker's clock has certainly passed. Reading a backlog makes the bound weak, never wrong.

    All times in milliseconds; those of this machine from a clock that never jumps.
    """

    def __init__(self) -> None:
        self._ahead: int | None = None  # smallest difference of this period
        self._ahead_before: int | None = None  # and of the one before
        self._since_ms = 0

    def observe(self, log_ms: int, received_ms: int) -> None:
        """Notes that a record appended at `log_ms` was received now."""
        ahead = received_ms - log_ms
        if self._ahead is None:
            self._ahead, self._since_ms = ahead, received_ms
        elif received_ms - self._since_ms > _KEEP_MS:
            self._ahead_before, self._ahead, self._since_ms = self._ahead, ahead, received_ms
        else:
            self._ahead = min(self._ahead, ahead)

    def passed_ms(self, at_ms: int) -> int | None:
        """Returns an append time that lies in the past at `at_ms`; None before the first record."""
        if self._ahead is None:
            return None
        before = self._ahead if self._ahead_before is None else self._ahead_before
        return at_ms - min(self._ahead, before)
