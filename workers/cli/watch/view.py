"""The output of `watch`: a live table on a terminal, plain lines elsewhere."""

import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from topology.records import ProductDetected
from workers.cli.watch.progress import StreamProgress, WatchProgress

# Lines of history under the live table; more would push the table off a terminal of 24 lines.
_RECENT_LINES = 10
_REFRESHES_PER_SECOND = 4


class View(Protocol):
    """Shows a watch to a person."""

    def start(self) -> None:
        """Begins to show."""

    def stop(self) -> None:
        """Ends the display; what was printed stays on the screen."""

    def say(self, line: str) -> None:
        """Shows a line."""

    def event(self, event: ProductDetected) -> None:
        """Shows a detection."""


def create_view(progress: WatchProgress, titles: Mapping[str, str]) -> View:
    """Returns the live view if standard output is a terminal, else the plain one."""
    return LiveView(progress, titles) if sys.stdout.isatty() else PlainView(titles)


def media_time(ms: int) -> str:
    """Returns media time as m:ss, or h:mm:ss from an hour on."""
    minutes, seconds = divmod(ms // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def counted(number: int, what: str) -> str:
    """Returns a number of things in words: `1 stream`, `2 streams`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _one_line(text: str) -> str:
    """Returns a catalogue's text without line breaks and without what would steer a terminal."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


def describe(event: ProductDetected, titles: Mapping[str, str]) -> str | None:
    """Returns an event as a line for people; None for updates, which only say that a product is still on."""
    title = _one_line(titles.get(event.product_id, event.product_id))
    if event.status == "started":
        heard = f", heard {', '.join(map(repr, event.evidence.keywords[:3]))}" if event.evidence.keywords else ""
        read = f", read {', '.join(map(repr, event.evidence.read[:3]))}" if event.evidence.read else ""
        return (
            f"{media_time(event.emitted_media_ms):>7}  {event.stream_id}  ▶ {title} [{event.product_id}]"
            f"  confidence {event.confidence:.2f}{heard}{read}"
        )
    if event.status == "ended":
        span = f"{media_time(event.media_start_ms)}–{media_time(event.media_end_ms)}"
        return (
            f"{media_time(event.emitted_media_ms):>7}  {event.stream_id}  ■ {title} [{event.product_id}]  shown {span}"
        )
    return None


class PlainView:
    """One line per happening: for logs and pipes."""

    def __init__(self, titles: Mapping[str, str]) -> None:
        self._titles = titles

    def start(self) -> None:
        """Nothing to prepare."""

    def stop(self) -> None:
        """Nothing to tidy."""

    def say(self, line: str) -> None:
        """Prints the line."""
        print(line, flush=True)

    def event(self, event: ProductDetected) -> None:
        """Prints starts and ends."""
        if line := describe(event, self._titles):
            print(line, flush=True)


class LiveView:
    """A table of streams that stays in place, the newest lines under it."""

    def __init__(self, progress: WatchProgress, titles: Mapping[str, str], console: Console | None = None) -> None:
        self._progress = progress
        self._titles = titles
        self._recent: deque[str] = deque(maxlen=_RECENT_LINES)
        self._started = time.monotonic()
        self._live = Live(
            get_renderable=self._render,
            console=console or Console(),
            refresh_per_second=_REFRESHES_PER_SECOND,
            transient=False,
        )

    def start(self) -> None:
        """Takes the screen."""
        self._live.start()

    def stop(self) -> None:
        """Leaves the last table on the screen."""
        self._live.stop()

    def say(self, line: str) -> None:
        """Adds a line under the table."""
        self._recent.append(line)

    def event(self, event: ProductDetected) -> None:
        """Adds starts and ends under the table."""
        if line := describe(event, self._titles):
            self._recent.append(line)

    def _render(self) -> Group:
        table = Table(expand=True, box=None, pad_edge=False)
        # State and figures are never cut; the other columns share what a narrow terminal has left.
        for heading, ratio in (("stream", 2), ("state", 0), ("media", 0), ("", 3), ("× real time", 0), ("on now", 5)):
            table.add_column(heading, ratio=ratio or None, no_wrap=True)
        for stream in self._progress.streams.values():
            table.add_row(*self._row(stream))
        return Group(table, Text(""), *(Text(line, no_wrap=True, overflow="ellipsis") for line in self._recent))

    def _row(self, stream: StreamProgress) -> tuple[str | Text | ProgressBar, ...]:
        total = f" / {media_time(stream.duration_ms)}" if stream.duration_ms else ""
        bar = ProgressBar(total=stream.duration_ms, completed=stream.processed_ms) if stream.duration_ms else ""
        speed = stream.processed_ms / 1000 / max(time.monotonic() - self._started, 0.1)
        on = ", ".join(f"{_one_line(self._titles.get(p, p))} {c:.2f}" for p, c in stream.on.items()) or "–"
        state = Text("finished" if stream.finished and not stream.failed else stream.state)
        return stream.stream_id, state, media_time(stream.processed_ms) + total, bar, f"{speed:.1f}", on
