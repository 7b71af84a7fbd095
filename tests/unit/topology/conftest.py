"""What the tests of this folder share."""

import pytest

from topology.records import Evidence, ProductDetected


@pytest.fixture(scope="session")
def event() -> ProductDetected:
    return ProductDetected(
        detection_id="7d3c9f1e-0000-5000-8000-000000000000",
        stream_id="room-7",
        product_id="p-42",
        status="started",
        epoch=0,
        media_start_ms=12_000,
        media_end_ms=14_000,
        emitted_media_ms=14_000,
        detected_at="2026-01-01T00:00:00.000Z",
        latency_ms=1_850,
        confidence=0.93,
        evidence=Evidence(frame_pts_ms=(13_000, 14_000), keywords=("red handbag",)),
        model_version="cope-mini@3fa1c2",
        index_version="product_pages_v3",
    )
