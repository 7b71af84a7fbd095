"""What the monitor knows of streams, by examples."""

import pytest

from tests.unit.workers.monitor.monitor_records import NOW_MS, WINDOW_MS, announced, event, recognised, status
from workers.monitor.state import KEEP_MS, MonitorState


@pytest.fixture
def state():
    return MonitorState(WINDOW_MS)


def take_event(state, record):
    return state.on_event(record, NOW_MS, NOW_MS)


def view(state, stream_id="room", now_ms=NOW_MS):
    return state.view(stream_id, now_ms)


def test_a_stream_nobody_captures_yet_is_announced(state):
    assert state.on_announced("room", announced(), 3, NOW_MS, NOW_MS)
    assert view(state).state == "announced"
    state.on_status("room", status("connecting", offset=3), NOW_MS, NOW_MS)
    assert view(state).state == "connecting"


def test_a_second_announcement_is_announced_until_a_capture_serves_it(state):
    state.on_announced("room", announced(), 3, NOW_MS, NOW_MS)
    state.on_status("room", status("ended", offset=3), NOW_MS, NOW_MS)
    assert state.on_announced("room", announced(), 9, NOW_MS, NOW_MS)
    assert view(state).state == "announced"
    state.on_status("room", status("live", offset=9, epoch=1), NOW_MS, NOW_MS)
    assert (view(state).state, view(state).epoch) == ("live", 1)


def test_an_announced_end_leaves_the_state_to_the_capture_and_keeps_the_url(state):
    state.on_announced("room", announced(), 0, NOW_MS, NOW_MS)
    state.on_status("room", status("live", offset=0), NOW_MS, NOW_MS)
    state.on_announced("room", announced(url="", state="ended"), 1, NOW_MS, NOW_MS)
    assert (view(state).state, view(state).url) == ("live", "rtmp://media.example/live/room")
    state.on_status("room", status("ended", offset=1), NOW_MS, NOW_MS)
    assert view(state).state == "ended"


def test_a_withdrawn_announcement_that_was_never_captured_is_an_end(state):
    assert not state.on_announced("room", None, 0, NOW_MS, NOW_MS)
    assert view(state) is None
    state.on_announced("room", announced(), 1, NOW_MS, NOW_MS)
    assert state.on_announced("room", None, 2, NOW_MS, NOW_MS)
    assert view(state).state == "ended"


def test_ages_count_from_what_capture_told(state):
    state.on_status("room", status(at_ms=NOW_MS - 400, frame_at_ms=NOW_MS - 700), NOW_MS, NOW_MS)
    assert view(state, now_ms=NOW_MS + 1_000).frame_age_s == 1.7
    assert view(state, now_ms=NOW_MS + 1_000).status_age_s == 1.4


def test_before_the_first_frame_there_is_no_age_and_clocks_apart_give_none_below_zero(state):
    state.on_status("room", status("connecting", at_ms=NOW_MS + 50), NOW_MS, NOW_MS)
    assert view(state).frame_age_s is None
    assert view(state).status_age_s == 0


def test_lag_is_the_media_that_was_sent_and_not_looked_at(state):
    state.on_status("room", status(sent_until_ms=30_000), NOW_MS, NOW_MS)
    assert view(state).lag_s == 30.0
    state.on_recognition(recognised(18_000), NOW_MS, NOW_MS)
    assert (view(state).recognised_ms, view(state).lag_s) == (26_000, 4.0)
    state.on_recognition(recognised(18_000, ended=True), NOW_MS, NOW_MS)
    assert (view(state).recognised_ms, view(state).lag_s) == (30_000, 0.0)


def test_a_copy_does_not_take_progress_back(state):
    for start_ms in (0, 2_000, 4_000, 2_000):
        state.on_recognition(recognised(start_ms), NOW_MS, NOW_MS)
    assert view(state).recognised_ms == 12_000
    state.on_recognition(recognised(4_000, ended=True), NOW_MS, NOW_MS)
    state.on_recognition(recognised(4_000), NOW_MS, NOW_MS)
    take_event(state, event("started"))
    assert view(state).on is None, "the epoch is still over"


def test_a_new_epoch_begins_at_zero(state):
    state.on_status("room", status(sent_until_ms=30_000), NOW_MS, NOW_MS)
    state.on_recognition(recognised(18_000, ended=True), NOW_MS, NOW_MS)
    changed = state.on_status("room", status(epoch=1, sent_until_ms=2_000, reconnects=1), NOW_MS, NOW_MS)
    assert changed
    assert (view(state).epoch, view(state).position_ms, view(state).recognised_ms) == (1, 2_000, 0)
    assert (view(state).lag_s, view(state).reconnects) == (2.0, 1)


def test_progress_alone_is_no_change(state):
    assert state.on_status("room", status(sent_until_ms=1_000, at_ms=NOW_MS), NOW_MS, NOW_MS)
    assert not state.on_status("room", status(sent_until_ms=2_000, at_ms=NOW_MS + 1_000), NOW_MS, NOW_MS)
    assert state.on_status("room", status("stalled", detail="no packet for 10 s"), NOW_MS, NOW_MS)


def test_a_product_is_on_from_started_to_ended(state):
    assert take_event(state, event("started", at_ms=12_000))
    assert view(state).on.product_id == "bag"
    assert view(state).on.media_start_ms == 9_000
    take_event(state, event("updated", at_ms=22_000, confidence=0.97))
    assert (view(state).on.confidence, view(state).on.media_end_ms) == (0.97, 22_000)
    take_event(state, event("ended", at_ms=30_000))
    assert view(state).on is None
    assert (view(state).last_event.status, view(state).last_event.latency_ms) == ("ended", 1_850)


def test_one_product_follows_another_in_the_same_window(state):
    take_event(state, event("started", "bag", 12_000))
    take_event(state, event("ended", "bag", 20_000))
    take_event(state, event("started", "shoe", 20_000))
    assert view(state).on.product_id == "shoe"


@pytest.mark.parametrize("at_ms", [12_000, 20_000])
def test_an_event_that_comes_again_changes_nothing(state, at_ms):
    take_event(state, event("started", "bag", 12_000))
    take_event(state, event("ended", "bag", at_ms))
    assert not take_event(state, event("started", "bag", 12_000))
    assert not take_event(state, event("ended", "bag", at_ms))
    assert view(state).on is None


def test_an_update_tells_what_is_on_when_the_start_was_not_read(state):
    take_event(state, event("updated", at_ms=22_000))
    assert view(state).on.product_id == "bag"


def test_the_end_of_the_epoch_ends_what_is_on_whichever_topic_is_read_first(state):
    take_event(state, event("started"))
    state.on_recognition(recognised(18_000, ended=True), NOW_MS, NOW_MS)
    assert view(state).on is None
    take_event(state, event("started", "shoe", epoch=1))
    assert view(state).on.product_id == "shoe"


def test_streams_only_other_roles_told_of_are_unknown(state):
    take_event(state, event("started"))
    assert view(state).state == "unknown"


def test_an_ended_stream_is_told_of_for_a_while_and_then_dropped(state):
    state.on_status("room", status("failed", detail="404"), NOW_MS, NOW_MS)
    state.on_status("other", status("live", stream_id="other"), NOW_MS, NOW_MS)
    assert state.sweep(NOW_MS + KEEP_MS) == []
    (gone,) = state.sweep(NOW_MS + KEEP_MS + 1)
    assert (gone.stream_id, gone.state, gone.detail) == ("room", "forgotten", "404")
    assert [one.stream_id for one in state.views(NOW_MS)] == ["other"]


def test_records_of_long_ago_bring_no_dropped_stream_back(state):
    old = NOW_MS - KEEP_MS - 1
    assert not state.on_status("room", status("ended"), old, NOW_MS)
    assert not state.on_announced("room", announced(), 0, old, NOW_MS)
    assert not state.on_event(event("ended"), old, NOW_MS)
    state.on_recognition(recognised(0), old, NOW_MS)
    assert not state.on_status("room", None, NOW_MS, NOW_MS)
    assert len(state) == 0


def test_a_stream_that_should_flow_is_told_of_however_long_it_was_silent(state):
    state.on_status("room", status("live", frame_at_ms=NOW_MS - 10 * KEEP_MS), NOW_MS - 10 * KEEP_MS, NOW_MS)
    assert state.sweep(NOW_MS) == []
    assert view(state).frame_age_s == 10 * KEEP_MS / 1000


def test_streams_beyond_the_most_are_left_out_and_counted():
    state = MonitorState(WINDOW_MS, max_streams=10)
    for number in range(12):
        state.on_status(f"room-{number:02}", status("live" if number else "ended"), NOW_MS, NOW_MS)
    assert (len(state), state.left_out) == (10, 2)
    assert [one.stream_id for one in state.sweep(NOW_MS)] == ["room-00"]
    assert state.on_status("room-10", status("live"), NOW_MS, NOW_MS)


def test_streams_are_counted_by_state(state):
    for number, name in enumerate(("live", "live", "stalled")):
        state.on_status(f"room-{number}", status(name), NOW_MS, NOW_MS)
    assert state.counts() == {"live": 2, "stalled": 1}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://admin:secret@10.0.0.7:554/cam/1?token=abc#x", "rtsp://10.0.0.7:554/cam/1"),
        ("https://cdn.example/live.m3u8", "https://cdn.example/live.m3u8"),
        ("srt://10.0.0.7:9000?passphrase=secret", "srt://10.0.0.7:9000"),
        ("/videos/a?b@c.mp4", "/videos/a?b@c.mp4"),
        ("", ""),
    ],
)
def test_urls_are_told_without_their_secrets(state, url, shown):
    state.on_announced("room", announced(url=url), 0, NOW_MS, NOW_MS)
    assert view(state).url == shown
