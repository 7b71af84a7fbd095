import av
from hypothesis import given
from hypothesis import strategies as st

from workers.capture.clock import AUDIO_OFFSET_US, FORWARD_JUMP_US, REORDERED, DecodingTimes, MediaClock, Unwrap

S = 1_000_000


def test_an_epoch_starts_at_its_first_packet() -> None:
    clock = MediaClock()
    assert clock.audio(90 * S, 20_000) == "same"
    assert clock.video(90 * S + 40_000, 90 * S + 80_000, 40_000) == "same"
    assert clock.position_us(90 * S + 80_000) == 80_000


def test_a_clock_that_is_reset_opens_an_epoch_from_zero() -> None:
    clock = MediaClock()
    clock.video(100 * S, 100 * S, 40_000)
    assert clock.video(0, 0, 40_000) == "new"
    assert clock.position_us(0) == 0
    assert clock.video(40_000, 40_000, 40_000) == "same"


def test_a_jump_forward_opens_an_epoch() -> None:
    clock = MediaClock()
    clock.video(0, 0, 40_000)
    assert clock.video(FORWARD_JUMP_US + 80_000, FORWARD_JUMP_US + 80_000) == "new"


def test_a_short_gap_is_no_jump() -> None:
    clock = MediaClock()
    clock.video(0, 0, 40_000)
    assert clock.video(FORWARD_JUMP_US, FORWARD_JUMP_US) == "same"


def test_a_picture_that_stands_still_for_long_is_no_jump_if_its_duration_says_so() -> None:
    clock = MediaClock()
    clock.video(0, 0, 60 * S)
    assert clock.video(60 * S, 60 * S) == "same"


def test_a_picture_that_stands_still_while_sound_goes_on_is_no_jump() -> None:
    clock = MediaClock()
    clock.video(0, 0, 40_000)
    for second in range(30):
        assert clock.audio(second * S, S) == "same"
    assert clock.video(30 * S, 30 * S, 40_000) == "same"


def test_sound_of_the_old_clock_is_stale_after_a_reset_until_it_resets_too() -> None:
    clock = MediaClock()
    clock.video(100 * S, 100 * S, 40_000)
    clock.audio(100 * S, 20_000)
    assert clock.video(0, 0, 40_000) == "new"
    assert clock.audio(100 * S + 20_000, 20_000) == "stale"
    assert clock.audio(10_000, 20_000) == "same"


def test_sound_that_resets_before_the_picture_is_stale_until_the_picture_follows() -> None:
    clock = MediaClock()
    clock.video(100 * S, 100 * S, 40_000)
    clock.audio(100 * S, 20_000)
    assert clock.audio(0, 20_000) == "stale"
    assert clock.video(100 * S + 40_000, 100 * S + 40_000, 40_000) == "same"
    assert clock.video(0, 0, 40_000) == "new"
    assert clock.audio(20_000, 20_000) == "same"


def test_sound_on_another_clock_from_the_beginning_leaves_the_picture_in_peace() -> None:
    clock = MediaClock()
    clock.audio(1000 * S, 20_000)
    assert clock.video(0, 0, 40_000) == "new"
    verdicts = {clock.video(i * 40_000, i * 40_000, 40_000) for i in range(1, 100)}
    assert verdicts == {"same"}
    assert clock.audio(1000 * S + 20_000, 20_000) == "stale"


@given(st.lists(st.integers(1, FORWARD_JUMP_US // 2), min_size=1, max_size=50), st.integers(-(2**40), 2**40))
def test_a_steady_stream_is_one_epoch_wherever_its_clock_starts(steps: list[int], origin: int) -> None:
    clock = MediaClock()
    time = origin
    for step in steps:
        assert clock.video(time, time, step) == "same"
        assert clock.audio(time, step) == "same"
        assert clock.position_us(time) == time - origin
        time += step


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 200 * S)), max_size=60))
def test_within_an_epoch_sound_is_never_far_from_what_came_before(packets: list[tuple[bool, int]]) -> None:
    clock = MediaClock()
    near: list[int] = []
    for is_video, time in packets:
        if is_video:
            if clock.video(time, time) == "new":
                near.clear()
            near.append(time)
        elif clock.audio(time) == "same":
            assert not near or min(abs(time - t) for t in near) <= AUDIO_OFFSET_US
            near.append(time)


def test_a_file_with_an_index_may_show_a_picture_for_minutes() -> None:
    clock = MediaClock(600 * S)
    clock.video(0, 0, 40_000)
    assert clock.video(500 * S, 500 * S) == "same"
    assert clock.video(1_200 * S, 1_200 * S) == "new"


@given(
    st.lists(st.integers(1, 100 * S), min_size=1, max_size=60),
    st.lists(st.integers(0, REORDERED), min_size=60, max_size=60),
    st.integers(0, REORDERED) | st.just(60),
)
def test_pictures_in_any_order_of_coding_are_one_epoch(steps: list[int], moves: list[int], unnamed: int) -> None:
    shown = [sum(steps[:index]) for index in range(len(steps))]
    # The first is shown first, and none moves by more than allowed.
    coded = sorted(range(len(shown)), key=lambda index: index - moves[index] / 2)
    coded = [0, *(index for index in coded if index)]
    clock, times = MediaClock(1_000 * S), DecodingTimes()
    for place, index in enumerate(coded):
        dts = shown[max(0, place - REORDERED)] if place >= unnamed else None
        time = times.time_us(dts, shown[index], 0)
        assert time <= shown[index]
        assert clock.video(time, shown[index]) == "same"


def test_a_clock_that_begins_anew_without_decoding_times_is_noticed() -> None:
    times = DecodingTimes()
    assert [times.time_us(None, time * S, 0) for time in (100, 300, 200, 400)] == [100 * S] * 4
    assert times.time_us(None, 0, 0) == 0


@given(st.integers(1, 2**31 - 1), st.lists(st.integers(0, 100_000), min_size=1, max_size=20), st.sampled_from([31, 32]))
def test_time_stamps_go_on_where_bits_end(start: int, steps: list[int], bits: int) -> None:
    unwrap, time, before = Unwrap(2**31), start, None
    for step in steps:
        time += step
        packet = av.Packet(b"x")
        packet.dts, packet.pts = time % 2**bits, (time + 80) % 2**bits
        unwrap.packet(packet)
        assert packet.pts - packet.dts == 80
        assert before is None or packet.dts - before == step
        before = packet.dts
