"""The low-water mark of a partition: the offset below which all records that were handed out are done."""

from collections import deque


class LowWaterMark:
    """Tracks the records of one partition between being handed out and being done, in any order.

    Only the position below which nothing is open may be committed: a commit past an open record loses it
    when the process dies. Memory is bounded by the records that are open, or done behind an open one.
    """

    def __init__(self) -> None:
        self._handed_out: deque[int] = deque()
        self._done: set[int] = set()
        self._next: int | None = None

    def add(self, offset: int) -> None:
        """Notes that a record was handed out.

        Raises:
            ValueError: The offset is not above all earlier ones.
        """
        if self._next is not None and offset < self._next:
            raise ValueError(f"offset {offset} after {self._next - 1}")
        self._handed_out.append(offset)
        self._next = offset + 1

    def done(self, offset: int) -> None:
        """Notes that a record is done. Doing it twice, or for a record never handed out, changes nothing."""
        handed_out = self._handed_out
        if not handed_out or not handed_out[0] <= offset < (self._next or 0):
            return
        self._done.add(offset)
        while handed_out and handed_out[0] in self._done:
            self._done.discard(handed_out.popleft())

    @property
    def position(self) -> int | None:
        """The first offset that is not done: what may be committed. None before the first record."""
        return self._handed_out[0] if self._handed_out else self._next

    @property
    def open(self) -> int:
        """How many records at or above `position` were handed out."""
        return len(self._handed_out)
