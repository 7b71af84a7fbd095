"""Whatever order the topics are read in, and whatever a crash sends again, the monitor ends up knowing the same."""

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.workers.monitor.monitor_records import NOW_MS, WINDOW_MS, announced, event, recognised, status
from workers.monitor.state import MonitorState

ROOMS = ("a", "b")


@st.composite
def event_logs(draw, stream_id):
    """The events of a stream as recognition decides them: one sighting at a time, media time never going back."""
    log = []
    for epoch in range(draw(st.integers(1, 3))):
        at_ms, number = 8_000, 0
        for number in range(draw(st.integers(0, 3))):
            sighting = f"{stream_id}-{epoch}-{number}"

            def one(kind, at_ms, sighting=sighting, epoch=epoch, number=number):
                return event(kind, f"p{number}", at_ms, stream_id=stream_id, epoch=epoch, sighting=sighting)

            at_ms += draw(st.integers(0, 2)) * 2_000
            log.append(one("started", at_ms))
            for _ in range(draw(st.integers(0, 2))):
                at_ms += 10_000
                log.append(one("updated", at_ms))
            at_ms += draw(st.integers(0, 1)) * 2_000  # an epoch may end with the window that was looked at last
            log.append(one("ended", at_ms))
    return log[: draw(st.integers(0, len(log)))]


@st.composite
def progress_logs(draw, stream_id):
    log = []
    for epoch in range(draw(st.integers(1, 3))):
        starts = range(0, draw(st.integers(0, 3)) * 2_000, 2_000)
        log += [recognised(start, stream_id=stream_id, epoch=epoch) for start in starts]
        log.append(recognised(max(starts, default=-1), stream_id=stream_id, epoch=epoch, ended=True))
    return log[: draw(st.integers(0, len(log)))]


@st.composite
def status_logs(draw, stream_id):
    states = draw(st.lists(st.sampled_from(["connecting", "live", "stalled", "ended", "failed"]), max_size=5))
    return [
        status(name, stream_id=stream_id, epoch=number // 2, sent_until_ms=number * 1_000, offset=number // 3)
        for number, name in enumerate(states)
    ]


@st.composite
def announcement_logs(draw, stream_id):
    kinds = draw(st.lists(st.sampled_from(["live", "ended"]), max_size=2))
    return [announced(stream_id, f"file-{number}", kind) for number, kind in enumerate(kinds)]


@st.composite
def with_copies(draw, log):
    """The log as crashes leave it: now and then the writer went back and wrote the same again."""
    written = list(log)
    for _ in range(draw(st.integers(0, 2)) if log else 0):
        end = draw(st.integers(1, len(written)))
        begin = draw(st.integers(0, end - 1))
        written[end:end] = written[begin:end]
    return written


@st.composite
def interleaved(draw, logs):
    """One order in which a reader may get them: each log in its own order."""
    left = [list(log) for log in logs if log]
    order = []
    while left:
        log = draw(st.sampled_from(left))
        order.append(log.pop(0))
        left = [one for one in left if one]
    return order


def take(records):
    """Returns the state after the records, and the events that were new."""
    state, new = MonitorState(WINDOW_MS), []
    for topic, stream_id, offset, record in records:
        if topic == "announced":
            state.on_announced(stream_id, record, offset, NOW_MS, NOW_MS)
        elif topic == "status":
            state.on_status(stream_id, record, NOW_MS, NOW_MS)
        elif topic == "progress":
            state.on_recognition(record, NOW_MS, NOW_MS)
        elif state.on_event(record, NOW_MS, NOW_MS):
            new.append(record)
    return state, new


def tagged(topic, stream_id, log):
    return [(topic, stream_id, offset, record) for offset, record in enumerate(log)]


@given(st.data())
def test_neither_copies_nor_the_order_between_topics_change_what_is_known(data):
    clean, written = [], []
    for room in ROOMS:
        events = data.draw(event_logs(room))
        progress = data.draw(progress_logs(room))
        statuses = tagged("status", room, data.draw(status_logs(room)))
        announcements = tagged("announced", room, data.draw(announcement_logs(room)))
        clean += [tagged("event", room, events), tagged("progress", room, progress), statuses, announcements]
        written += [
            tagged("event", room, data.draw(with_copies(events))),
            tagged("progress", room, data.draw(with_copies(progress))),
            statuses,
            announcements,
        ]
    expected, _ = take(record for log in clean for record in log)
    state, new = take(data.draw(interleaved(written)))
    assert list(state.views(NOW_MS)) == list(expected.views(NOW_MS))
    for room, log in zip(ROOMS, clean[::4], strict=True):
        assert [one for one in new if one.stream_id == room] == [record for *_, record in log]


@given(st.data())
def test_what_is_on_is_the_last_sighting_unless_it_has_ended(data):
    log = data.draw(event_logs("a"))
    state, _ = take(tagged("event", "a", data.draw(with_copies(log))))
    view = state.view("a", NOW_MS)
    on = view.on.detection_id if view and view.on else None
    assert on == (log[-1].detection_id if log and log[-1].status != "ended" else None)


@given(st.data())
def test_a_monitor_that_begins_in_the_middle_knows_what_is_on_after_the_next_event(data):
    log = data.draw(event_logs("a").filter(len))
    late, _ = take(tagged("event", "a", log[data.draw(st.integers(0, len(log) - 1)) :]))
    early, _ = take(tagged("event", "a", log))
    assert late.view("a", NOW_MS) == early.view("a", NOW_MS)
