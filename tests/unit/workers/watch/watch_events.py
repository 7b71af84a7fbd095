"""Events for tests of `watch`."""

from topology.records import Evidence, ProductDetected


def event(status: str, product: str = "p", at_ms: int = 8000, keywords: tuple[str, ...] = ()) -> ProductDetected:
    return ProductDetected(
        detection_id=f"id-{product}",
        stream_id="a",
        product_id=product,
        status=status,  # type: ignore[arg-type]
        epoch=0,
        media_start_ms=0,
        media_end_ms=at_ms,
        emitted_media_ms=at_ms,
        detected_at="2026-01-01T00:00:00.000Z",
        latency_ms=0,
        confidence=0.9,
        evidence=Evidence(keywords=keywords),
        model_version="m",
        index_version="i",
    )
