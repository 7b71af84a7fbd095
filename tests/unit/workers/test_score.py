import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from topology.errors import UserError
from workers.cli.score import EventLine, read_events, score, score_command, sightings, total
from workers.cli.truth import Showing, StreamTruth, read_truth, write_truth


def event(
    detection_id: str,
    product_id: str,
    start_ms: int,
    end_ms: int,
    emitted_ms: int = 0,
    status: str = "started",
    stream_id: str = "room",
) -> EventLine:
    return EventLine(detection_id, stream_id, product_id, status, start_ms, end_ms, emitted_ms)


ROOM = StreamTruth(
    "room",
    60_000,
    (Showing("a", 0, 10_000), Showing("b", 10_000, 20_000), Showing("a", 40_000, 50_000)),
)


def test_figures_of_a_stream_computed_by_hand() -> None:
    found = [
        event("1", "a", 2_000, 6_000, 6_000),  # matches the first showing: delay 6 s, IoU 4/10
        event("1", "a", 2_000, 10_000, 12_000, "ended"),  # the same sighting: IoU becomes 8/10
        event("2", "b", 10_000, 25_000, 14_000),  # matches: delay 4 s, IoU 10/15
        event("3", "c", 26_000, 30_000, 30_000),  # false, where nothing is shown
        event("4", "b", 16_000, 19_000, 19_000),  # false: b was found already
    ]
    room = score(found, {"room": ROOM})["room"]
    assert room.precision == 2 / 4
    assert room.recall == 2 / 3
    assert room.f1 == pytest.approx(2 * 2 / (4 + 3))
    assert room.delay_median_ms == 5_000
    assert room.delay_p90_ms == pytest.approx(5_800)
    assert room.temporal_iou == pytest.approx((0.8 + 10 / 15) / 2)
    assert [sighting.product_id for sighting in room.false] == ["b", "c"]
    assert [sighting.product_id for sighting in room.false_in_gaps] == ["c"]
    assert room.missed == (("room", Showing("a", 40_000, 50_000)),)


def test_an_event_that_came_twice_counts_once() -> None:
    found = [event("1", "a", 0, 9_000, 4_000), event("1", "a", 0, 9_000, 4_000)]
    assert len(sightings(found)) == 1
    assert score(found, {"room": ROOM})["room"].precision == 1.0


def test_the_delay_is_that_of_the_started_event() -> None:
    found = [event("1", "a", 0, 9_000, 9_000, "updated"), event("1", "a", 0, 5_000, 5_000, "started")]
    assert score(found, {"room": ROOM})["room"].delay_median_ms == 5_000


def test_a_sighting_over_two_showings_finds_one_of_them() -> None:
    room = score([event("1", "a", 5_000, 50_000, 8_000)], {"room": ROOM})["room"]
    assert [match.showing.start_ms for match in room.matches] == [40_000]
    assert len(room.missed) == 2


def test_the_sighting_that_overlaps_most_is_the_match() -> None:
    found = [event("1", "a", 0, 1_000, 1_000), event("2", "a", 2_000, 10_000, 5_000)]
    [match] = score(found, {"room": ROOM})["room"].matches
    assert match.sighting.start_ms == 2_000


def test_the_right_product_at_the_wrong_time_is_false() -> None:
    room = score([event("1", "a", 20_000, 40_000, 30_000)], {"room": ROOM})["room"]
    assert not room.matches
    assert len(room.false_in_gaps) == 1


def test_nothing_to_find_and_nothing_found_is_perfect() -> None:
    empty = score([], {"room": StreamTruth("room", 60_000)})["room"]
    assert empty.f1 == 1.0
    assert empty.precision is None
    assert empty.delay_median_ms is None
    assert empty.temporal_iou is None


def test_a_stream_without_events_is_missed_and_one_without_truth_left_out() -> None:
    truths = {"room": ROOM, "other": StreamTruth("other", 9_000, (Showing("a", 0, 9_000),))}
    scores = score([event("1", "a", 0, 9_000, stream_id="unknown")], truths)
    assert set(scores) == {"room", "other"}
    together = total(scores.values())
    assert together.recall == 0.0
    assert len(together.missed) == 4
    assert not together.false


_times = st.integers(0, 60_000)


@given(st.lists(st.tuples(st.sampled_from("abc"), _times, st.integers(0, 20_000)), max_size=12))
def test_every_sighting_and_showing_is_counted_exactly_once(found: list[tuple[str, int, int]]) -> None:
    events = [event(str(i), product, start, start + length, start) for i, (product, start, length) in enumerate(found)]
    room = score(events, {"room": ROOM})["room"]
    assert len(room.matches) + len(room.false) == len(found)
    assert len(room.matches) + len(room.missed) == 3
    assert 0 <= room.f1 <= 1
    assert all(0 < match.iou <= 1 for match in room.matches)
    assert room == score(list(reversed(events)), {"room": ROOM})["room"]


def test_truth_survives_the_file(tmp_path: Path) -> None:
    truths = {"room": ROOM, "空": StreamTruth("空", 5_000)}
    write_truth(tmp_path / "truth.jsonl", truths.values())
    read = read_truth(tmp_path / "truth.jsonl")
    assert read["room"].showings == tuple(sorted(ROOM.showings, key=lambda showing: showing.start_ms))
    assert read["空"] == truths["空"]


def test_a_stream_without_its_line_ends_with_its_last_showing(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    path.write_text('{"stream_id": "room", "product_id": "a", "start_ms": 5, "end_ms": 10}\n')
    assert read_truth(path)["room"] == StreamTruth("room", 10, (Showing("a", 5, 10),))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no truth in it"),
        ("{", "line 1: not JSON"),
        ("[]", "line 1: not a JSON object"),
        ('{"product_id": "a"}', "line 1: no stream_id"),
        ('{"stream_id": "r"}', "duration_ms"),
        ('{"stream_id": "r", "product_id": "a", "start_ms": 5}', "end_ms"),
        ('{"stream_id": "r", "product_id": "a", "start_ms": -1, "end_ms": 4}', "start_ms"),
        ('\n{"stream_id": "r", "product_id": "a", "start_ms": 9, "end_ms": 9}', "line 2: end_ms 9 is not after"),
    ],
)
def test_a_bad_truth_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "truth.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read_truth(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("data", "words"),
    [(b'{"stream_id": "r"}', "line 1: not a product_detected event"), (b"\xff\xfe", "not UTF-8"), (b"7", "object")],
)
def test_a_bad_event_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(data)
    with pytest.raises(UserError, match=words):
        read_events(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl: No such file"):
        read_events(tmp_path / "none.jsonl")


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    truth, events = tmp_path / "truth.jsonl", tmp_path / "events.jsonl"
    write_truth(truth, [ROOM])
    rows = [
        ("1", "a", 0, 9_000, 4_000, "room"),
        ("2", "z", 20_000, 25_000, 24_000, "room"),
        ("3", "a", 0, 1, 1, "else"),
    ]
    names = ("detection_id", "product_id", "media_start_ms", "media_end_ms", "emitted_media_ms", "stream_id")
    lines = [json.dumps({**dict(zip(names, row, strict=True)), "status": "started", "confidence": 0.9}) for row in rows]
    events.write_text("\n".join(lines))
    return str(events), str(truth)


def test_the_command_prints_a_table_and_what_went_wrong(files: tuple[str, str]) -> None:
    result = CliRunner().invoke(score_command, files, standalone_mode=False)
    assert result.return_value == 0
    assert "0.500" in result.output
    assert "missed  room:   10.0 to   20.0 s  b" in result.output
    assert "false   room:   20.0 to   25.0 s  z" in result.output
    assert "for want of a truth: else" in result.output


def test_the_command_prints_json(files: tuple[str, str]) -> None:
    result = CliRunner().invoke(score_command, [*files, "--json"], standalone_mode=False)
    figures = json.loads(result.output)
    assert figures["f1"] == pytest.approx(2 / 5)
    assert figures["streams"]["room"]["false_in_gaps"] == 1
    assert figures["streams_without_truth"] == ["else"]


def test_the_command_fails_below_the_asked_f1(files: tuple[str, str]) -> None:
    invoke = CliRunner().invoke
    assert invoke(score_command, [*files, "--min-f1", "0.5"], standalone_mode=False).return_value == 1
    assert invoke(score_command, [*files, "--min-f1", "0.4"], standalone_mode=False).return_value == 0


def test_a_stream_in_two_truths_is_refused(files: tuple[str, str]) -> None:
    result = CliRunner().invoke(score_command, [*files, files[1]], standalone_mode=False)
    assert isinstance(result.exception, UserError)
    assert "in another truth file too" in str(result.exception)


def test_false_sightings_on_unlisted_showings_are_counted(tmp_path: Path) -> None:
    showings, unlisted = tmp_path / "truth.jsonl", tmp_path / "unlisted.jsonl"
    write_truth(showings, [StreamTruth("s", 60_000, (Showing("cup", 0, 10_000),))])
    unlisted.write_text(
        '{"stream_id": "s", "title": "Mug", "start_ms": 10000, "end_ms": 20000, "spoken": "title"}\n'
        '{"stream_id": "s", "title": "Jug", "start_ms": 40000, "end_ms": 50000}\n'
    )
    first, second = read_truth(showings)["s"], read_truth(unlisted)["s"]
    joined = first.joined(second)
    assert joined is not None and joined.duration_ms == 60_000
    assert first.joined(first) is None and second.joined(second) is None
    found = [
        event("1", "cup", 1_000, 12_000, 4_000, stream_id="s"),
        event("2", "vase", 41_000, 45_000, 44_000, stream_id="s"),
    ]
    part = score(found, {"s": joined})["s"]
    assert len(part.matches) == 1  # its end runs into the mug's showing, which makes it no false one
    assert (part.unlisted, part.unlisted_hit, len(part.false_on_unlisted)) == (2, 1, 1)
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(msgspec.json.encode(one).decode() for one in found))
    result = CliRunner().invoke(score_command, [str(path), str(showings), str(unlisted)], standalone_mode=False)
    assert result.return_value == 0 and "1 of 2" in result.output
