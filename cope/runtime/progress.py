"""Progress of long work: a bar on a terminal, plain lines in a log."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

# In a log without a terminal: a line per twentieth of the work, and at least one in so many seconds.
LINES = 20
QUIET_S = 60.0


class Progress:
    """Called with what is being done, how much of it is done, and of how much.

    Args:
        console: Where to tell; None for standard error.
        unit: What is counted, such as "step"; named in plain lines.
    """

    def __init__(self, console: Console | None = None, unit: str = "") -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._unit = f"{unit} " if unit else ""
        self._bar: Bar | None = None
        self._what = ""
        self._first = self._share = 0
        self._began = self._told_at = 0.0

    def begin(self, what: str, of: int | None, done: int = 0) -> None:
        """Another piece of work begins, or goes on where `done` of it is done.

        Args:
            what: Its name.
            of: How much there is to do; None where nobody knows.
            done: How much of it is done.
        """
        self._what, self._first = what, done
        self._began = self._told_at = time.monotonic()
        self._share = LINES * done // of if of else 0
        if self._console.is_terminal:
            if self._bar is None:
                columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
                told = TextColumn("{task.fields[told]}")
                self._bar = Bar(*columns, TimeRemainingColumn(), told, console=self._console)
                self._bar.start()
            self._bar.add_task(what, total=of, completed=done, told="")

    def __call__(self, what: str, done: int, of: int | None = None, told: str = "") -> None:
        """So much of it is done; another name than last time begins anew."""
        if what != self._what:
            self.begin(what, of)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[-1], completed=done, told=told)
            return
        now = time.monotonic()
        share = LINES * done // of if of else 0
        if share > self._share or now - self._told_at > QUIET_S:
            self._share, self._told_at = share, now
            spent = now - self._began
            line = f"{what}  {self._unit}{done:,}  {spent:.0f} s"
            if of:
                left = spent * (of - done) / max(done - self._first, 1)
                line = f"{what}  {100 * done // of}%  {self._unit}{done}/{of}  {spent:.0f} s, {left:.0f} s left"
            self._console.print(f"{line}  {told}".rstrip(), markup=False)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._what = ""
