from hypothesis import given
from hypothesis import strategies as st

from workers.embed.clock import BrokerClock


def test_nothing_is_known_before_the_first_record() -> None:
    assert BrokerClock().passed_ms(1_000) is None


def test_the_fastest_record_bounds_the_clock() -> None:
    clock = BrokerClock()
    clock.observe(5_000, 1_300)
    clock.observe(6_000, 2_020)
    clock.observe(7_000, 3_100)
    assert clock.passed_ms(10_000) == 13_980


@given(st.integers(-10_000, 10_000), st.lists(st.tuples(st.integers(0, 90_000), st.integers(0, 5_000)), max_size=50))
def test_the_bound_is_never_ahead_of_the_broker(ahead_ms: int, records: list[tuple[int, int]]) -> None:
    clock = BrokerClock()
    broker_ms = 0
    for pause_ms, delay_ms in records:
        broker_ms += pause_ms
        clock.observe(broker_ms - delay_ms, broker_ms + ahead_ms)
        passed = clock.passed_ms(broker_ms + ahead_ms)
        assert passed is not None and passed <= broker_ms


def test_a_drift_of_the_clocks_is_followed() -> None:
    clock = BrokerClock()
    clock.observe(0, 0)
    for minute in range(1, 10):
        now_ms = minute * 61_000
        clock.observe(now_ms - minute, now_ms)  # this machine gains a millisecond a minute
    assert clock.passed_ms(10 * 61_000) == 10 * 61_000 - 8
