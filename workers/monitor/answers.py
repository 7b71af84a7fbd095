"""The answers of the routes, as structs, from which the OpenAPI document is generated (`docs/monitor.md`)."""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from topology.records import ProductDetected
from workers.monitor.history import Why

Box = tuple[float, float, float, float]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all answers."""


class VerdictView(Answer, frozen=True, kw_only=True):
    """What a person said of a detection.

    Attributes:
        product_id: What was really shown, with "other".
        at: Wall clock, RFC 3339, UTC.
    """

    detection_id: str
    verdict: Literal["right", "wrong", "other", "not_in_catalogue", "undo"]
    product_id: str | None = None
    who: str | None = None
    at: str = ""


class DetectionItem(ProductDetected, frozen=True, kw_only=True):
    """The newest event of a sighting, with the verdict on it. Its runner-up is the one while the product was shown.

    Attributes:
        verdict: None if there is none.
        title: Title of the product.
        why: Why a person should look at it; only in /review.
    """

    verdict: VerdictView | None = None
    title: str = ""
    why: Why | UnsetType = UNSET


class DetectionList(Answer, frozen=True, kw_only=True):
    """Sightings of a stream, newest first.

    Attributes:
        next: `after` of the next page; None at the end.
    """

    detections: list[DetectionItem]
    next: str | None


class ReviewList(Answer, frozen=True, kw_only=True):
    """Sightings that are likely wrong and have no verdict, the likeliest first."""

    items: list[DetectionItem]


class BeliefPoint(Answer, frozen=True, kw_only=True):
    """The confidence of recognition at a media time."""

    media_ms: int
    confidence: float


class FrameView(Answer, frozen=True, kw_only=True):
    """A frame that a detection rests on.

    Attributes:
        box: x0, y0, x1, y1 of the product, relative to the frame.
        score: Cosine of that region with the page picture.
        url: Address of the frame; None if it is not kept.
        crop_url: Address of the region's picture; None if it is not kept.
        page_image_url: Address of the page picture that it fits best; None if the catalogue does not have it.
    """

    pts_ms: int
    captured_at_ms: int
    box: Box | None
    score: float
    page_image: str
    url: str | None
    crop_url: str | None
    page_image_url: str | None = None


class CandidateView(Answer, frozen=True, kw_only=True):
    """A product that was considered, with its highest confidence."""

    product_id: str
    title: str
    confidence: float
    image_url: str | None


class LookAlike(Answer, frozen=True, kw_only=True):
    """A product whose pictures are near to those of another, with their cosine."""

    product_id: str
    title: str
    score: float
    image_url: str | None


class ProductView(Answer, frozen=True, kw_only=True):
    """A product of the catalogue.

    Attributes:
        description: Only in the answer for a single product.
        state: "failed": none of its pictures could be encoded, so it cannot be found; `error` says why.
        look_alikes: Nearest products; only in the answer for a single product.
        sightings: Ids of its newest detections; only in the answer for a single product.
    """

    product_id: str
    title: str
    description: str
    image_urls: list[str]
    state: Literal["indexed", "failed"]
    error: str | None
    look_alikes: list[LookAlike] | UnsetType = UNSET
    sightings: list[str] | UnsetType = UNSET


class ProductList(Answer, frozen=True, kw_only=True):
    """Products, by id."""

    products: list[ProductView]
    next: str | None


class DetectionDetail(Answer, frozen=True, kw_only=True):
    """All that is known of a detection.

    Attributes:
        detection: Its newest event.
        events: The first known event, and the newest ones.
        page: The product as the catalogue has it now; None if it has none.
        threshold: Confidence at which a sighting starts.
    """

    detection: ProductDetected
    events: list[ProductDetected]
    belief: list[BeliefPoint]
    frames: list[FrameView]
    page: ProductView | None
    candidates: list[CandidateView]
    threshold: float
    verdict: VerdictView | None


class Segment(Answer, frozen=True, kw_only=True):
    """What was said in a stretch of a stream."""

    epoch: int
    start_ms: int
    end_ms: int
    text: str
    keywords: list[str]


class Gap(Answer, frozen=True, kw_only=True):
    """A stretch of an epoch without sound; `end_ms` is None while it lasts."""

    start_ms: int
    end_ms: int | None
    reason: str


class EpochView(Answer, frozen=True, kw_only=True):
    """One connection to a stream: media time begins anew with each."""

    epoch: int
    started_at: str
    gaps: list[Gap]


class Transcript(Answer, frozen=True, kw_only=True):
    """What was said in a stream within the last hour."""

    segments: list[Segment]
    epochs: list[EpochView]


class Latency(Answer, frozen=True, kw_only=True):
    """Time from the capture of a frame to its event: median and 95th percentile over the newest 1,000 sightings."""

    p50: int | None
    p95: int | None


class Summary(Answer, frozen=True, kw_only=True):
    """A summary of all rooms.

    Attributes:
        rooms: Number of streams by state.
        model_version: Model of the newest event; empty before the first.
        who: The user's name, if it is known.
        role: "open": users are not authenticated.
    """

    rooms: dict[str, int]
    latency_ms: Latency
    model_version: str
    index_version: str
    who: str | None
    role: Literal["viewer", "reviewer", "open"]


class VerdictInput(Answer, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A verdict to be given, or taken back ("undo").

    Attributes:
        product_id: What was shown; only with "other".
    """

    verdict: Literal["right", "wrong", "other", "not_in_catalogue", "undo"]
    product_id: str | None = None


class Judged(Answer, frozen=True, kw_only=True):
    """What one model recognised.

    Attributes:
        product_id: None if it is nothing of the catalogue.
        candidates: Best first.
    """

    product_id: str | None
    confidence: float
    candidates: list[CandidateView]
    model_version: str


class AgainView(Answer, frozen=True, kw_only=True):
    """A detection as it was, and as the present model and catalogue see it.

    Attributes:
        source: What was looked at: a stretch of the stream's file, or the kept frames.
        from_ms: Media time of the first frame.
        to_ms: Media time of the last frame.
        frames: Number of frames.
    """

    source: Literal["file", "frames"]
    from_ms: int
    to_ms: int
    frames: int

    before: Judged
    after: Judged


class Written(Answer, frozen=True, kw_only=True):
    """A record was written to a topic, and the broker has acknowledged it."""

    topic: str
    key: str


class Login(Answer, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token to be exchanged for a cookie; `name` is stored with verdicts."""

    token: str
    name: str | None = None


class Session(Answer, frozen=True, kw_only=True):
    """Who the user is now."""

    who: str | None
    role: Literal["viewer", "reviewer", "open"] | None
