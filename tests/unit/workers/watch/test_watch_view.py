"""What a person sees of a watch."""

import io

import pytest
from rich.console import Console

from tests.unit.workers.watch.watch_events import event
from workers.cli.watch.progress import StreamProgress, WatchProgress
from workers.cli.watch.view import LiveView, PlainView, create_view, describe, media_time

TITLES = {"p": "Red handbag"}


@pytest.mark.parametrize(
    ("ms", "shown"), [(0, "0:00"), (61_999, "1:01"), (3_600_000, "1:00:00"), (360_000_000, "100:00:00")]
)
def test_media_time_is_read_like_a_clock(ms: int, shown: str) -> None:
    assert media_time(ms) == shown


def test_a_start_tells_product_confidence_and_what_was_heard() -> None:
    line = describe(event("started", keywords=("red", "bag", "new", "sale")), TITLES)
    assert line is not None
    assert "Red handbag [p]" in line
    assert "confidence 0.90, heard 'red', 'bag', 'new'" in line
    assert "sale" not in line


def test_an_end_tells_when_the_product_was_shown() -> None:
    line = describe(event("ended", at_ms=65_000), TITLES)
    assert line is not None
    assert "shown 0:00–1:05" in line


def test_an_update_is_no_line() -> None:
    assert describe(event("updated"), TITLES) is None


def test_a_title_never_breaks_a_line_nor_steers_the_terminal() -> None:
    line = describe(event("started"), {"p": 'A "hat",\r\nblue\x1b[31m\tlarge'})
    assert line is not None
    assert 'A "hat", blue[31m large [p]' in line
    assert line.isprintable()


def test_a_product_without_a_title_goes_by_its_id() -> None:
    assert "▶ q [q]" in str(describe(event("started", "q"), TITLES))


def test_without_a_terminal_there_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    view = create_view(WatchProgress([], 8_000), TITLES)
    assert isinstance(view, PlainView)
    view.start()
    view.say("a: ended")
    view.event(event("updated"))
    view.event(event("started"))
    view.stop()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0] == "a: ended"
    assert "Red handbag" in lines[1]


def test_on_a_terminal_a_table_shows_each_stream_and_what_is_on_now() -> None:
    progress = WatchProgress([StreamProgress("a", "a.mp4", 20_000), StreamProgress("b", "rtmp://x/b", None)], 8_000)
    progress.streams["a"].state = "live"
    progress.streams["a"].processed_ms = 8_000
    progress.on_event(event("started"))
    out = io.StringIO()
    view = LiveView(progress, TITLES, Console(file=out, force_terminal=True, width=120))
    view.start()
    view.event(event("started"))
    view.event(event("updated"))
    view.say("b: stalled: nothing for 10 s")
    view.stop()
    shown = out.getvalue()
    assert "0:08 / 0:20" in shown
    assert "Red handbag 0.90" in shown
    assert "waiting" in shown
    assert "b: stalled: nothing for 10 s" in shown


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(("state", "shown"), [("ended", "finished"), ("connecting", "connecting")])
def test_state_and_media_time_fit_a_terminal(width: int, state: str, shown: str) -> None:
    stream = StreamProgress("a", "a.mp4", 7_200_000, state=state, processed_ms=3_600_000, recognised_epoch=0)
    out = io.StringIO()
    view = LiveView(WatchProgress([stream], 8_000), TITLES, Console(file=out, force_terminal=True, width=width))
    view.start()
    view.stop()
    assert shown in out.getvalue()
    assert "1:00:00 / 2:00:00" in out.getvalue()
