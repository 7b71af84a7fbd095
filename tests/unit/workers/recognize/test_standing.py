"""What stands on the screen all the time names nothing."""

from topology.records import ReadLine
from workers.recognize.standing import STANDING_MS, StandingLines

BANNER = ReadLine("BRAVO WEEK", 0.9, (0.02, 0.02, 0.3, 0.1))
TITLE = ReadLine("Bravo Orange Juice", 0.9, (0.3, 0.85, 0.7, 0.93))


def held(at: float) -> ReadLine:
    return ReadLine("BRAVO", 0.9, (at, 0.4, at + 0.1, 0.46))


def test_a_banner_that_was_there_from_the_start_stands() -> None:
    lines = StandingLines()
    for second in (0, 2, 4):
        lines.note(0, 1_000 * second, [BANNER])
    assert lines.stands(BANNER)
    assert lines.stands(ReadLine("BRAVQ WEEK", 0.7, (0.021, 0.02, 0.3, 0.1)))  # misread, a pixel aside
    assert not lines.stands(ReadLine("BRAVO WEEK", 0.9, (0.5, 0.5, 0.8, 0.6)))  # somewhere else


def test_a_title_card_counts_until_it_has_been_there_too_long() -> None:
    lines = StandingLines()
    lines.note(0, 0, [])
    for pts_ms in range(20_000, 20_000 + STANDING_MS, 2_000):
        lines.note(0, pts_ms, [TITLE])
        assert not lines.stands(TITLE)
    lines.note(0, 20_000 + STANDING_MS, [TITLE])
    assert lines.stands(TITLE)


def test_what_went_away_is_new_when_it_comes_back() -> None:
    lines = StandingLines()
    for second in (0, 2, 4):
        lines.note(0, 1_000 * second, [BANNER])
    lines.note(0, 30_000, [TITLE])
    lines.note(0, 32_000, [BANNER])
    assert not lines.stands(BANNER)


def test_print_on_a_product_in_a_moving_hand_is_no_overlay() -> None:
    lines = StandingLines()
    for second in range(0, 90, 2):
        lines.note(0, 1_000 * second, [held(0.3 + 0.15 * (second // 2 % 3))])
        lines.note(0, 1_000 * second, [held(0.9)])  # a frame comes with each window that it is in, and counts once
    assert not lines.stands(held(0.9))


def test_a_new_epoch_begins_anew_and_a_state_goes_on_as_it_was() -> None:
    lines = StandingLines()
    for second in (0, 2):
        lines.note(0, 1_000 * second, [BANNER])
    restored = StandingLines(lines.to_bytes())
    restored.note(0, 4_000, [BANNER])
    assert restored.stands(BANNER)
    restored.note(1, 0, [BANNER])
    assert not restored.stands(BANNER)
