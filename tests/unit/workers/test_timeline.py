"""Chapters of a recording: as files of players, as JSON, as a page."""

import json

import msgspec
import pytest
from click.testing import CliRunner

from tests.unit.topology.test_evidence_store import kept
from tests.unit.workers.monitor.monitor_records import event
from topology.errors import UserError
from topology.evidence import EvidenceStore
from topology.records import Verdict
from workers.cli.main import cli
from workers.cli.timeline import chapters_of

TITLE = "Mug <script>alert(1)</script> & more"


def sighting(detection_id, start_ms, end_ms, product="bag", status="ended"):
    one = event(status, product, end_ms, sighting=detection_id)
    return msgspec.structs.replace(one, media_start_ms=start_ms)


@pytest.fixture
def store(tmp_path):
    store = EvidenceStore(str(tmp_path / "evidence"))
    store.put(msgspec.structs.replace(kept("d-1"), title=TITLE))
    return store


@pytest.fixture
def run(tmp_path, store, monkeypatch):
    monkeypatch.setenv("COPE_EVIDENCE_URL", str(tmp_path / "evidence"))
    events = [
        sighting("d-2", 3_725_500, 3_730_000, "cap"),
        sighting("d-1", 1_000, 5_000, status="started"),
        sighting("d-1", 1_000, 9_000),
        msgspec.structs.replace(sighting("d-0", 0, 1), stream_id="other"),
    ]
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n".join(map(msgspec.json.encode, events)))

    def invoke(*arguments):
        called = ["timeline", *arguments, "--events", str(file)]
        return CliRunner().invoke(cli, called, standalone_mode=False)

    return invoke


def test_vtt_has_a_cue_a_showing_by_begin_and_no_markup(run):
    assert run("room").output == (
        "WEBVTT - room\n"
        "\nd-1\n00:00:01.000 --> 00:00:09.000\nMug &lt;script&gt;alert(1)&lt;/script&gt; &amp; more\n"
        "\nd-2\n01:02:05.500 --> 01:02:10.000\ncap\n"
    )


def test_json_has_pictures(run):
    told = json.loads(run("room", "--format", "json").output)
    assert [(one["title"], one["end_ms"]) for one in told["chapters"]] == [(TITLE, 9_000), ("cap", 3_730_000)]
    assert told["chapters"][0]["picture"].startswith("data:image/jpeg;base64,")
    assert told["chapters"][1]["picture"] is None


def test_the_page_shows_titles_as_text_and_leads_into_the_recording(run, tmp_path):
    out = tmp_path / "page.html"
    assert "2 chapters" in run("room", "--format", "html", "--video", 'a"b.mp4', "--out", str(out)).output
    text = out.read_text()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert 'href="a&quot;b.mp4#t=3725.5"' in text and text.count("<img") == 1


def test_what_was_called_wrong_is_left_out_and_what_was_named_is_told(store):
    events = [sighting("d-1", 0, 1_000), sighting("d-2", 2_000, 3_000), sighting("d-3", 4_000, 5_000)]
    verdicts = {
        "d-1": Verdict(detection_id="d-1", verdict="other", product_id="cap"),
        "d-2": Verdict(detection_id="d-2", verdict="wrong"),
    }
    chapters = chapters_of(events, {"cap": "The cap"}, verdicts, store)
    assert [(one.product_id, one.title) for one in chapters] == [("cap", "The cap"), ("bag", "bag")]


@pytest.mark.parametrize("room", ["nowhere", "roo"])
def test_a_room_without_events_is_the_users_mistake(run, room):
    assert isinstance(run(room).exception, UserError)
