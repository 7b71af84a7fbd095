"""The rules of the window core, one by one."""

from collections.abc import Iterable

import pytest

from topology.settings import Settings
from workers.embed.parts import FrameIn, KeywordsIn, Step, Window
from workers.embed.windows import WindowCore, WindowRules

RULES = WindowRules(skew_ms=0)
Core = WindowCore[str, str]


def frame(
    second: float, log_s: float | None = None, *, epoch: int = 0, live: bool = False, **more: bool
) -> FrameIn[str]:
    log_ms = round((second if log_s is None else log_s) * 1000)
    more.setdefault("first", second == 0)
    return FrameIn("s", epoch, round(second * 1000), log_ms, f"f{second:g}", live, **more)


def said(start: float, end: float, log_s: float | None = None, *, epoch: int = 0) -> KeywordsIn[str]:
    log_ms = round((end if log_s is None else log_s) * 1000)
    return KeywordsIn("s", epoch, round(start * 1000), round(end * 1000), log_ms, f"k{start:g}", end=start == end)


def frames(core: Core, seconds: Iterable[float], **more: bool) -> list[Step[str, str]]:
    return [step for second in seconds for step in core.frame(frame(second, **more))]


def windows(steps: list[Step[str, str]]) -> list[Window[str, str]]:
    return [step.window for step in steps if step.window is not None]


def starts(steps: list[Step[str, str]]) -> list[int]:
    return [window.start_ms for window in windows(steps)]


def released(steps: list[Step[str, str]]) -> list[str]:
    return [item for step in steps for item in (*step.frames, *step.keywords)]


def test_a_window_closes_when_frames_and_keywords_have_passed_its_end() -> None:
    core = Core(RULES)
    assert frames(core, range(9)) == []
    steps = core.keywords(said(0, 7.9))
    assert windows(steps) == []
    (window,) = windows(core.keywords(said(7.9, 8)))
    assert (window.start_ms, window.end_ms) == (0, 8_000)
    assert window.frames == tuple(f"f{second}" for second in range(8))
    assert window.newest == "f7"


def test_keywords_of_the_look_back_join_and_older_ones_do_not() -> None:
    core = Core(RULES)
    for start in range(0, 40, 4):
        core.keywords(said(start, start + 4))
    last = windows(frames(core, range(39)))[-1]
    assert last.start_ms == 30_000
    assert [one.item for one in last.keywords] == ["k8", "k12", "k16", "k20", "k24", "k28", "k32", "k36"]


def test_a_file_waits_for_its_keywords_however_long_they_take() -> None:
    core = Core(RULES)
    frames(core, range(30))
    assert core.advance("keywords", 500_000) == []
    assert starts(core.keywords(said(0, 9, log_s=501))) == [0]


def test_a_live_window_takes_what_was_appended_within_the_grace() -> None:
    core = Core(RULES)
    frames(core, range(9), live=True)
    core.keywords(said(0, 4, log_s=12.0))
    (step,) = core.keywords(said(4, 7, log_s=12.001))
    assert step.window is not None
    assert [one.item for one in step.window.keywords] == ["k0"]
    assert not step.window.heard


def test_a_live_window_closes_by_the_time_of_the_log_alone() -> None:
    core = Core(RULES)
    frames(core, range(9), live=True)
    assert core.advance("keywords", 11_999) == []
    assert starts(core.advance("keywords", 12_000)) == [0]


def test_append_times_that_go_back_a_little_close_no_window_too_early() -> None:
    core = Core(WindowRules(skew_ms=500))
    frames(core, range(9), live=True)
    assert core.keywords(said(0, 2, log_s=12.3)) == []
    (window,) = windows(core.keywords(said(2, 8, log_s=11.9)))
    assert [one.item for one in window.keywords] == ["k2"]


def test_the_end_of_an_epoch_closes_its_windows_and_is_told_last() -> None:
    core = Core(RULES)
    frames(core, range(5))
    core.frame(frame(5.5, end=True))
    steps = core.keywords(said(5.5, 5.5))
    assert starts(steps) == [0, 2_000, 4_000, 5_500]
    assert [window.end_of_epoch for window in windows(steps)] == [False, False, False, True]
    assert sorted(released(steps)) == sorted(["f0", "f1", "f2", "f3", "f4", "f5.5", "k5.5"])
    assert core.held == 0


def test_a_new_epoch_closes_the_old_one_and_waits_for_it() -> None:
    core = Core(RULES)
    frames(core, range(3))
    assert core.frame(frame(0, log_s=10, epoch=1)) == []
    core.frame(frame(9, log_s=19, epoch=1))
    core.keywords(said(0, 9, epoch=1, log_s=20))
    steps = core.keywords(said(3, 3, log_s=21))
    assert [(window.epoch, window.start_ms, window.end_of_epoch) for window in windows(steps)] == [
        (0, 0, False),
        (0, 2_000, False),
        (0, 2_001, True),
        (1, 0, False),
    ]


def test_frames_of_an_old_epoch_and_repeated_ones_are_left_out_and_released() -> None:
    core = Core(RULES)
    frames(core, range(3))
    assert released(core.frame(frame(2))) == ["f2"]
    core.frame(frame(0, log_s=9, epoch=1))
    assert released(core.frame(frame(5))) == ["f5"]


def test_late_keywords_are_released_and_change_nothing() -> None:
    core = Core(RULES)
    frames(core, range(3))
    core.frame(frame(3, end=True))
    core.keywords(said(3, 3))
    late = core.keywords(said(0, 3, log_s=50))
    assert windows(late) == [] and released(late) == ["k0"]


def test_repeated_keywords_are_used_once() -> None:
    core = Core(RULES)
    frames(core, range(9))
    core.keywords(said(0, 5))
    assert released(core.keywords(said(0, 5, log_s=6))) == ["k0"]
    (window,) = windows(core.keywords(said(5, 8)))
    assert [one.item for one in window.keywords] == ["k0", "k5"]


def test_time_without_frames_gives_empty_windows() -> None:
    core = Core(RULES)
    core.keywords(said(40, 40))
    steps = frames(core, [0, 1, 30])
    empty = [window for window in windows(steps) if not window.frames]
    assert starts(steps) == list(range(0, 23_000, 2_000))
    assert [window.start_ms for window in empty] == list(range(2_000, 23_000, 2_000))
    assert empty[0].newest == "f1"


def test_an_input_is_released_with_the_last_window_that_needs_it_and_the_frame_before_the_next_one_is_kept() -> None:
    core = Core(RULES)
    core.keywords(said(0, 30))
    steps = frames(core, range(11))
    assert starts(steps) == [0, 2_000]
    assert released(steps) == ["f0", "f1", "f2"]


def test_reading_that_begins_amid_an_epoch_makes_no_window_that_could_lack_frames() -> None:
    core = Core(RULES)
    core.keywords(said(0, 90))
    assert starts(frames(core, [41, 42, *range(43, 53)])) == [42_000, 44_000]


def test_a_live_stream_that_falls_silent_is_closed_by_the_time_of_the_log() -> None:
    core = Core(RULES)
    frames(core, range(3), live=True)
    core.advance("frames", 121_999)
    core.advance("keywords", 500_000)
    assert core.held > 0
    core.advance("frames", 122_000)
    assert core.held == 0


def test_a_file_may_rest_while_what_follows_it_is_down() -> None:
    core = Core(RULES)
    frames(core, range(3))
    core.advance("frames", 590_000)
    core.advance("keywords", 590_000)
    core.frame(frame(9, log_s=591))
    (window,) = windows(core.keywords(said(0, 9, log_s=592)))
    assert window.frames == ("f0", "f1", "f2")


def test_keywords_of_a_stream_without_frames_are_held_no_longer_than_patience() -> None:
    core = Core(RULES)
    for second in range(100):
        core.keywords(said(second, second + 1))
    core.advance("keywords", 800_000)
    assert released(core.advance("frames", 650_000)) == [f"k{second}" for second in range(50)]
    core.advance("frames", 800_000)
    assert core.held == 0


def test_a_jump_in_media_time_begins_anew_instead_of_making_windows_without_end() -> None:
    core = Core(RULES)
    core.keywords(said(0, 10_000_000, log_s=1))
    steps = frames(core, [0, 1]) + core.frame(frame(9_000_000, log_s=2))
    assert starts(steps) == [0, 1_001]
    assert windows(steps)[-1].end_of_epoch


@pytest.mark.parametrize("live", [True, False])
def test_what_is_held_is_bounded_over_a_long_stream(live: bool) -> None:
    core = Core(RULES)
    most = 0
    for second in range(3_600):
        core.frame(frame(second, live=live))
        if second % 5 == 4:
            core.keywords(said(second - 4, second + 1, log_s=second + 2))
        most = max(most, core.held)
    # 8 s of window, up to 5 s until keywords come, and 28 s of these.
    assert most < 30


def test_streams_that_come_and_go_leave_nothing_behind() -> None:
    core = Core(RULES)
    for number in range(300):
        log_ms = number * 10_000
        for second in range(3):
            core.frame(FrameIn(f"s{number}", 0, second * 1000, log_ms + second, "f", True, second == 0))
        core.keywords(KeywordsIn(f"s{number}", 0, 0, 3_000, log_ms, "k"))
        core.advance("frames", log_ms + 5)
        core.advance("keywords", log_ms + 5)
        assert len(core._streams) <= RULES.patience_ms / 10_000 + 2


def test_the_settings_name_the_rules() -> None:
    rules = WindowRules.from_settings(Settings(_env_file=None, window_ms=4_000, grace_ms=1_000, idle_timeout_s=60))
    assert (rules.length_ms, rules.grace_ms, rules.idle_ms, rules.patience_ms) == (4_000, 1_000, 60_000, 600_000)
