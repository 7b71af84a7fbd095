"""From verdicts to what training, calibration and scoring read."""

import json

import numpy as np
import pytest

from cope.data.opening import open_source
from cope.data.showings import NOT_LISTED, open_showings, refused
from tests.integration.workers.monitor.test_monitor_rest import jpeg, publish
from tests.unit.topology.test_evidence_store import event
from topology.admin import create_topics
from topology.errors import UserError
from topology.evidence import EvidenceStore, Kept, KeptFrame
from topology.records import Verdict
from topology.topic_log import Producer
from topology.topics import DETECTION_VERDICTS
from workers.cli.truth import read_truth
from workers.cli.verdicts import _export

CASES = {
    "d-right": ("right", ""),
    "d-other": ("other", "cap"),
    "d-unlisted": ("not_in_catalogue", ""),
    "d-wrong": ("wrong", ""),
    "d-gone": ("right", ""),
    "d-undone": ("right", ""),
}


@pytest.fixture
async def judged(broker, tmp_path):
    """Verdicts on a broker, and what is kept of all detections but one."""
    settings = broker.model_copy(update={"evidence_url": str(tmp_path / "evidence")})
    await create_topics(settings)
    store = EvidenceStore(settings.evidence_url)
    async with Producer(settings) as producer:
        for product_id in ("bag", "cap", "mug"):
            await publish(producer, settings, product_id, attributes={"title_zh": "小包"}, category="fine things")
        for number, (detection_id, (verdict, product_id)) in enumerate(CASES.items()):
            given = Verdict(
                detection_id=detection_id,
                verdict=verdict,
                product_id=product_id,
                stream_id="room",
                detected="bag",
                media_start_ms=10_000 * number,
                media_end_ms=10_000 * number + 5_000,
            )
            await producer.send(DETECTION_VERDICTS, detection_id, given)
            frames = tuple(
                KeptFrame(pts_ms=at, captured_at_ms=0, box=(0.1, 0.1, 0.5, 0.9), score=0.5, page_image="", jpeg=jpeg())
                for at in (0, 1_000)
            )
            kept = Kept(
                detection_id=detection_id,
                stream_id="room",
                product_id="bag",
                events=(event(detection_id),),
                frames=frames,
            )
            if detection_id != "d-gone":
                store.put(kept)
        await producer.send(DETECTION_VERDICTS, "d-undone", None)
    return settings


async def test_verdicts_become_clips_pages_and_truth(judged, tmp_path):
    out = tmp_path / "out"
    export = await _export(judged, out, "val", 600)
    assert (export.clips, export.unlisted, export.refused, export.pages) == (4, 1, 1, 3)
    assert (export.without_frames, export.showings) == (1, 4)
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert {row["id"]: row["product_id"] for row in rows if row["domain"] == "live"} == {
        "d-right": "bag",
        "d-other": "cap",
        "d-unlisted": "unlisted d-unlisted",
        "d-wrong": "not bag",
    }
    assert {row["text"] for row in rows if row["id"] == "bag"} == {"The bag / 小包\nfine things. 小包. Fine."}
    source = open_source(str(out), "val")
    assert (source.sizes["live"], source.sizes["page"]) == (4, 3)
    truth = read_truth(out / "truth.jsonl")["room"]
    assert [(one.product_id, one.start_ms) for one in truth.showings] == [("bag", 0), ("cap", 10_000), ("bag", 40_000)]
    assert [one.start_ms for one in truth.unlisted] == [20_000]


async def test_calibration_sees_clips_of_what_is_in_no_catalogue_as_such(judged, tmp_path):
    await _export(judged, tmp_path / "out", "val", 600)
    shop = open_showings(str(tmp_path / "out"), "val", np.random.default_rng(0), 12)
    shown = [number for stream in shop.streams() for _, number in stream.frames]
    assert {shop.products[number].id for number in shown if number >= 0} == {"bag", "cap"}
    assert shown.count(NOT_LISTED) == len(shown) / 4
    assert {shop.products[refused(number)].id for number in shown if number < NOT_LISTED} == {"bag"}


async def test_training_data_are_on_the_side_that_is_asked_for_and_no_more_pages_than_wanted(judged, tmp_path):
    export = await _export(judged, tmp_path / "out", "train", 0)
    assert export.pages == 2, "those that verdicts name"
    assert open_source(str(tmp_path / "out"), "train").sizes["live"] == 4


async def test_a_folder_that_cannot_be_written_is_the_users_mistake(judged, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        await _export(judged, tmp_path / "file" / "out", "val", 1)
