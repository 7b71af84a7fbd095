"""Progress of long work: a bar on a terminal, a line per twentieth in a log."""

import sys
import time

from rich.console import Console
from rich.progress import Progress as Bar

LINES = 20


class Progress:
    """Called with what is being done, how much of it is done, and of how much."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar: Bar | None = None
        self._what = ""
        self._began, self._told = 0.0, 0

    def __call__(self, what: str, done: int, of: int) -> None:
        """So much of it is done; another name than last time begins anew."""
        if what != self._what:
            self._what, self._began, self._told = what, time.monotonic(), 0
            if self._bar is not None:
                self._bar.add_task(what, total=of)
        if self._console.is_terminal:
            if self._bar is None:
                self._bar = Bar(console=self._console)
                self._bar.start()
                self._bar.add_task(what, total=of)
            self._bar.update(self._bar.task_ids[-1], completed=done)
        elif LINES * done // of > self._told:
            self._told = LINES * done // of
            spent = time.monotonic() - self._began
            left = spent * (of - done) / done
            print(f"{what}  {100 * done // of}%  {spent:.0f} s, {left:.0f} s left", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
