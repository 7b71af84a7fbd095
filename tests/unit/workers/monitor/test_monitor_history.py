"""The newest sightings in bounded memory, and which of them a person should look at."""

import msgspec

from tests.unit.workers.monitor.monitor_records import event
from topology.records import Evidence, EvidenceFrame, RunnerUp
from workers.monitor.history import History


def sighting(number, *, stream_id="room", confidence=0.95, runner_up=None, product="bag", frames=()):
    one = event("started", product, 10_000 * number, stream_id=stream_id, sighting=f"d{number}", confidence=confidence)
    other = RunnerUp(product_id=runner_up[0], confidence=runner_up[1]) if runner_up else None
    evidence = Evidence(runner_up=other, frames=frames)
    return msgspec.structs.replace(one, media_start_ms=10_000 * number, evidence=evidence)


def ids(found):
    return [one.detection_id for one in found]


def test_a_streams_sightings_are_paged_newest_first_and_updates_do_not_move_them():
    history = History()
    for number in range(5):
        history.add(sighting(number))
        history.add(sighting(number, stream_id="other"))
    first = history.of_stream("room", None, 2)
    history.add(msgspec.structs.replace(sighting(0), status="updated", emitted_media_ms=90_000))
    rest = history.of_stream("room", first[-1].order, 10)
    assert ids(first) + ids(rest) == ["d4", "d3", "d2", "d1", "d0"]


def test_copies_change_nothing():
    history = History()
    for _ in range(2):
        history.add(sighting(1))
        history.add(msgspec.structs.replace(sighting(1), status="ended", emitted_media_ms=20_000))
    one = history.get("d1")
    assert [each.status for each in one.events] == ["started", "ended"]
    assert len(history.latencies) == 1


def test_memory_is_bounded_and_what_was_touched_longest_ago_goes():
    history = History(most_bytes=50_000)
    for number in range(200):
        history.add(sighting(number, stream_id=f"room-{number % 7}"))
    assert history.bytes <= 50_000
    assert history.get("d0") is None and history.get("d199") is not None
    assert len(history) == sum(len(history.of_stream(f"room-{one}", None, 1_000)) for one in range(7))


def test_a_long_sighting_keeps_its_first_event_and_its_whole_belief():
    history = History()
    history.add(sighting(1))
    for number in range(100):
        history.add(msgspec.structs.replace(sighting(1), status="updated", emitted_media_ms=20_000 + number))
    one = history.get("d1")
    assert one.events[0].status == "started" and len(one.events) < 20 and len(one.belief) == 101


def test_the_best_frame_is_that_of_the_highest_score_in_any_event():
    history = History()
    frames = [EvidenceFrame(pts_ms=at, score=score) for at, score in ((1, 0.5), (2, 0.7), (3, 0.6))]
    history.add(sighting(1, frames=tuple(frames[:2])))
    later = sighting(1, frames=tuple(frames[2:]))
    history.add(msgspec.structs.replace(later, status="updated", emitted_media_ms=90_000))
    assert history.get("d1").best.pts_ms == 2


def test_the_doubtful_come_first_with_the_reason_and_the_settled_and_the_certain_do_not_come():
    history = History()
    history.add(sighting(1, confidence=0.62))
    history.add(sighting(2, confidence=0.97))
    history.add(sighting(3, confidence=0.9, runner_up=("cap", 0.7)))
    history.add(sighting(4, confidence=0.61, runner_up=("hat", 0.3)))
    history.add(sighting(5, confidence=0.3))
    found = history.doubtful(lambda one: one == "d5", 10)
    assert [(one.detection_id, why) for one, why in found] == [
        ("d4", "low confidence"),
        ("d1", "low confidence"),
        ("d3", "small margin"),
    ]


def test_what_is_shown_after_a_sighting_is_no_rival_of_it():
    history = History()
    history.add(sighting(1, confidence=0.95, runner_up=("cap", 0.01)))
    end = sighting(1, confidence=0.95, runner_up=("hat", 0.9))
    history.add(msgspec.structs.replace(end, status="ended", emitted_media_ms=20_000))
    assert history.get("d1").runner_up == ("cap", 0.01)
    assert history.doubtful(lambda _: False, 10) == []


def test_two_products_that_compete_again_and_again_are_told_of():
    history = History()
    for number in range(3):
        history.add(sighting(number, confidence=0.85, runner_up=("cap", 0.14)))
    assert [why for _, why in history.doubtful(lambda _: False, 10)] == ["often confused"] * 3


def test_a_pair_that_a_person_has_corrected_is_told_of_at_once():
    history = History()
    history.add(sighting(1, confidence=0.85, runner_up=("cap", 0.14)))
    history.add(sighting(2, confidence=0.85, runner_up=("hat", 0.14)))
    found = history.doubtful(lambda _: False, 10, {frozenset(("bag", "cap"))})
    assert [(one.detection_id, why) for one, why in found] == [("d1", "often confused")]
