"""Kept detections: whole files, retention, a limit."""

import os
import time

import pytest

from topology.errors import UserError
from topology.evidence import EvidenceStore, Kept, KeptFrame, evidence_url
from topology.records import Evidence, ProductDetected
from topology.settings import Settings


def event(detection_id="d-1", status="started"):
    return ProductDetected(
        detection_id=detection_id,
        stream_id="room",
        product_id="bag",
        status=status,
        epoch=0,
        media_start_ms=0,
        media_end_ms=1_000,
        emitted_media_ms=2_000,
        detected_at="2026-01-01T00:00:00.000Z",
        latency_ms=1,
        confidence=0.9,
        evidence=Evidence(),
        model_version="m",
        index_version="i",
    )


def kept(detection_id="d-1", size=100):
    frame = KeptFrame(pts_ms=1, captured_at_ms=2, box=(0, 0, 1, 1), score=0.5, page_image="", jpeg=b"x" * size)
    return Kept(
        detection_id=detection_id,
        stream_id="room",
        product_id="bag",
        events=(event(detection_id),),
        frames=(frame,),
    )


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path):
    return EvidenceStore(str(tmp_path / "kept") if request.param == "folder" else f"memory://{tmp_path.name}")


def test_what_is_put_is_got_and_put_again_replaces_it(store):
    assert store.get("d-1") is None
    store.put(kept(size=10))
    store.put(kept(size=20))
    assert store.get("d-1") == kept(size=20)
    assert store.get("d-1").frame(1).jpeg == b"x" * 20 and store.get("d-1").frame(2) is None


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "a/b", ".hidden", "x" * 400, "商品"])
def test_an_id_leads_nowhere_else(tmp_path, name):
    store = EvidenceStore(str(tmp_path / "kept"))
    store.put(kept(name))
    assert store.get(name) == kept(name)
    (file,) = [one for one in tmp_path.rglob("*") if one.is_file()]
    assert file.is_relative_to(tmp_path / "kept")


def test_a_damaged_file_is_as_if_it_were_not_there(tmp_path):
    store = EvidenceStore(str(tmp_path))
    store.put(kept())
    (file,) = tmp_path.rglob("*.evidence")
    file.write_bytes(b"\xc1 no")
    assert store.get("d-1") is None


def test_the_limit_is_obeyed_and_the_oldest_go_first(tmp_path):
    store = EvidenceStore(str(tmp_path))
    sizes = [store.put(kept(f"d-{number}", 1_000)) for number in range(20)]
    for number, file in enumerate(sorted(tmp_path.rglob("*.evidence"), key=lambda one: int(one.stem.split("-")[1]))):
        os.utime(file, (time.time() - 100 + number,) * 2)
    left = store.sweep(3_600, sum(sizes) // 2)
    assert left <= sum(sizes) // 2
    assert left == sum(file.stat().st_size for file in tmp_path.rglob("*.evidence"))
    assert store.get("d-0") is None and store.get("d-19") is not None


def test_what_is_too_old_goes_whatever_the_limit(tmp_path):
    store = EvidenceStore(str(tmp_path))
    for name in ("old", "new"):
        store.put(kept(name))
    os.utime(next(tmp_path.rglob("old.evidence")), (time.time() - 100,) * 2)
    store.sweep(50, 10**9)
    assert (store.get("old"), store.get("new")) == (None, kept("new"))


def test_the_default_is_a_folder_of_the_user(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert evidence_url(Settings(_env_file=None)) == "/data/cope-live/evidence"
    assert evidence_url(Settings(_env_file=None, evidence_url="s3://bucket/x")) == "s3://bucket/x"


def test_an_unknown_scheme_is_the_users_mistake():
    with pytest.raises(UserError, match="COPE_EVIDENCE_URL"):
        EvidenceStore("nonsense://x")
