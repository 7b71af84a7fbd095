"""What travels on the topics: one `msgspec.Struct` per record, MessagePack on internal topics.

Media time is (`epoch`, milliseconds since the epoch's first packet). An epoch ends with a record whose
`end_of_epoch` is true; that record carries no content of its own. `product_detected` is JSON, because it
is read outside this project; everything else is MessagePack. `live_streams` and `product_pages`, which others write,
take JSON too.

Schema evolution: a field may be added with a default (old readers skip it, new readers fill it in). Any
other change raises `SCHEMA_VERSION`, and a reader refuses records above its own version (`NewerSchema`).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import Meta

from topology.errors import BadInput, NewerSchema

SCHEMA_VERSION = 1

# Ranges are checked where a record is read: what lies outside is dead-lettered, and no handler sees it.

# Records derived from others repeat ids. With longer ones, answers to a record could be too large for their topic.
Id = Annotated[str, Meta(min_length=1, max_length=512)]
# Whole numbers that JSON readers of every language hold exactly, too.
Count = Annotated[int, Meta(ge=0, le=2**53)]
Ms = Annotated[int, Meta(ge=-(2**53), le=2**53)]
# A phrase. Nobody speaks longer ones, and windows repeat each of their phrases several times.
Phrase = Annotated[str, Meta(max_length=1_000)]
Tag = Annotated[str, Meta(max_length=64)]
Weight = Annotated[float, Meta(ge=0, le=1_000)]


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The base of all records.

    Attributes:
        v: Schema version of the writer.
    """

    v: int = SCHEMA_VERSION


class StreamAnnounced(Record, frozen=True, kw_only=True):
    """A live room begins or ends. Topic `live_streams`, key `stream_id`.

    Attributes:
        url: What to open: rtmp, rtsp, srt, http(s) URL (HLS, FLV) or a file's path.
        language: BCP 47 primary tag of the host's speech ("en", "zh"); None to detect it.
        product_ids: The room's own shopping bag; None if it is not known (the whole catalogue is searched).
        realtime: Play a file at the speed of its clock. Network streams always are.
    """

    stream_id: Id
    url: str = ""
    state: Literal["live", "ended"] = "live"
    language: Tag | None = None
    product_ids: tuple[str, ...] | None = None
    realtime: bool = False


class StreamStatus(Record, frozen=True, kw_only=True):
    """Where the capture of a stream stands; also what capture resumes from. Topic `stream_status` (compacted).

    Attributes:
        epoch: The newest epoch of the stream, from 0.
        first_epoch: The epoch with which the announcement's capture began; a file is replayed from it.
        announced_offset: Offset in `live_streams` of the announcement that this capture serves.
        sent_until_ms: Media time up to which all frames and speech of the epoch were delivered.
        reconnects: Connections opened after the first one, since the announcement.
        detail: What happened, in words, for states "stalled" and "failed".
        at_ms: Wall clock of this status, Unix milliseconds.
        live: Captured from a network stream: an epoch that broke off cannot be replayed, as a file's can.
        frame_at_ms: Wall clock at which the newest frame sent was captured, Unix milliseconds; 0 before the first.
    """

    stream_id: Id
    epoch: Count
    state: Literal["connecting", "live", "stalled", "ended", "failed"]
    announced_offset: Count
    sent_until_ms: Ms = 0
    reconnects: Count = 0
    detail: str = ""
    at_ms: Ms = 0
    first_epoch: Count = 0
    live: bool = False
    frame_at_ms: Ms = 0


class Frame(Record, frozen=True, kw_only=True):
    """One sampled picture. Topic `live_frames`, key `stream_id`.

    Attributes:
        pts_ms: Media time since the epoch's start.
        captured_at_ms: Wall clock at capture, Unix milliseconds.
        width: Pixels of the JPEG.
        height: Pixels of the JPEG.
        jpeg: JPEG bytes; empty at the end of the epoch.
        live: From a network stream. False for files, whose windows wait for their keywords without a grace.
        first: Nothing of the epoch comes before this frame. A reader that begins later in the log cannot tell
            otherwise, and must not make windows of which it has only a part.
    """

    stream_id: Id
    epoch: Count
    pts_ms: Ms
    captured_at_ms: Ms
    width: int = 0
    height: int = 0
    jpeg: bytes = b""
    live: bool = False
    first: bool = False
    product_ids: tuple[str, ...] | None = None
    end_of_epoch: bool = False


class Speech(Record, frozen=True, kw_only=True):
    """A stretch of the sound track. Topic `live_speech`, key `stream_id`.

    Stretches of an epoch follow each other without gaps. A silent one has no audio: it is progress.

    Attributes:
        audio: 16 kHz mono, signed 16-bit little-endian PCM; empty if nobody speaks.
        language: As announced; None to detect it.
    """

    stream_id: Id
    epoch: Count
    start_ms: Ms
    end_ms: Ms
    captured_at_ms: Ms
    audio: bytes = b""
    language: Tag | None = None
    end_of_epoch: bool = False


class Keyword(msgspec.Struct, frozen=True, array_like=True):
    """A word or phrase that tells products apart, with a weight in (0, 1]."""

    text: Phrase
    weight: Weight


class Keywords(Record, frozen=True, kw_only=True):
    """What was said in a stretch of speech. Topic `live_keywords`, key `stream_id`. Empty ones are progress.

    Attributes:
        text: The transcript.
        language: Language of this stretch: announced, or detected.
        language_fixed: The language is settled for the rest of the epoch (announced, or detected with certainty).
        confidence: Mean token probability of the transcript in [0, 1].
    """

    stream_id: Id
    epoch: Count
    start_ms: Ms
    end_ms: Ms
    captured_at_ms: Ms
    text: str = ""
    keywords: tuple[Keyword, ...] = ()
    language: Tag | None = None
    language_fixed: bool = False
    confidence: float = 0.0
    end_of_epoch: bool = False


class ReadLine(msgspec.Struct, frozen=True, array_like=True):
    """A line of text that was read in a frame, with a confidence in [0, 1] and its box relative to the frame."""

    text: Phrase
    confidence: float
    box: tuple[float, float, float, float]


class Said(msgspec.Struct, frozen=True, array_like=True):
    """A sentence that was said, by its meaning.

    Attributes:
        vector: float16 little-endian, (D,), L2-normalised.
        weight: In (0, 1]: what was said before the window has faded.
    """

    vector: bytes
    weight: Weight


class FrameRegions(msgspec.Struct, frozen=True, array_like=True):
    """The most salient regions of one frame, and what was read in it.

    Attributes:
        pts_ms: The frame's media time.
        regions: float16 little-endian, (K, D), rows L2-normalised.
        salience: Salience of each region, in [0, 1], highest first.
        boxes: float32 little-endian, (K, 4): x0, y0, x1, y1 of each region relative to the frame; empty if they
            are not known.
        captured_at_ms: Wall clock at capture, Unix milliseconds; 0 if it is not known.
        read: Lines of text that were read in it.
        offset: Offset of the frame in `live_frames`; -1 if it is not known.
    """

    pts_ms: Ms
    regions: bytes
    salience: tuple[float, ...]
    boxes: bytes = b""
    captured_at_ms: Ms = 0
    read: tuple[ReadLine, ...] = ()
    offset: int = -1


class WindowEmbedding(Record, frozen=True, kw_only=True):
    """One window of a stream in COPE's space. Topic `live_windows`, key `stream_id`.

    Windows of an epoch come in order of `start_ms`.

    Attributes:
        start_ms: First millisecond of the window.
        end_ms: First millisecond after it.
        hop_ms: Distance to the next window's start.
        captured_at_ms: Wall clock at which the newest frame of the window was captured.
        embedding: The fused live embedding: float16 little-endian, (D,), L2-normalised; empty without frames
            and keywords.
        frames: Regions of each frame of the window, by time.
        keywords: Keywords of the window and its look-back, best first.
        model_version: Version of the model that made the embedding.
        product_ids: The room's shopping bag.
        live: From a network stream.
        speech: What was said in the window and its look-back, by time.
    """

    stream_id: Id
    epoch: Count
    start_ms: Ms
    end_ms: Ms
    hop_ms: Ms = 0
    captured_at_ms: Ms = 0
    embedding: bytes = b""
    frames: tuple[FrameRegions, ...] = ()
    keywords: tuple[Keyword, ...] = ()
    model_version: str = ""
    product_ids: tuple[str, ...] | None = None
    live: bool = False
    end_of_epoch: bool = False
    speech: tuple[Said, ...] = ()


class PageImage(msgspec.Struct, frozen=True, kw_only=True):
    """One picture of a product page: a path or URL, or the bytes of an image file."""

    uri: str = ""
    data: bytes = b""


class ProductPage(Record, frozen=True, kw_only=True):
    """A catalogue product's page. Topic `product_pages` (compacted), key `product_id`; a tombstone withdraws it.

    Attributes:
        attributes: Anything else that the catalogue says of the product, by name.
    """

    product_id: Id
    title: str
    images: tuple[PageImage, ...]
    description: str = ""
    category: str = ""
    brand: str = ""
    price: str = ""
    attributes: dict[str, str] = msgspec.field(default_factory=dict)


class PageVectors(Record, frozen=True, kw_only=True):
    """An encoded page: what the index is filled from. Topic `page_vectors` (compacted), key `product_id`.

    Every page read from `product_pages` yields one such record, also a withdrawn one (`withdrawn`) and one
    that could not be encoded (no vectors, `error` says why), so that a reader knows by `source_offset` how
    far the catalogue has been encoded. `page_vectors` has as many partitions as `product_pages`, by the same key.

    Attributes:
        source_partition: Partition of the page in `product_pages`.
        source_offset: Offset of the page there.
        vectors: float16 little-endian, (N, D), rows L2-normalised: one row an image.
        fused: float16 little-endian, (D,): title and images joined.
        images: The image behind each row, as its URI.
        terms: The page's keyword terms, id to weight, L2-normalised (`cope.keywords`).
        names: Title, brand and attributes, as text: what may stand on the product. Empty if the model reads no words.
        read: Lines that were read in the page's pictures, each once.
        titles: The title in further languages.
        text: float16 little-endian, (D,), L2-normalised: what the page says, by its meaning; empty if it says nothing.
    """

    product_id: Id
    source_partition: Count
    source_offset: Count
    model_version: str = ""
    title: str = ""
    category: str = ""
    vectors: bytes = b""
    fused: bytes = b""
    images: tuple[str, ...] = ()
    terms: dict[int, float] = msgspec.field(default_factory=dict)
    withdrawn: bool = False
    error: str = ""
    names: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    text: bytes = b""


class RecognitionState(Record, frozen=True, kw_only=True):
    """A stream's recognition filter after a window. Topic `recognition_state` (compacted), key `stream_id`.

    Attributes:
        epoch: Epoch of the last window seen.
        start_ms: Its start; windows at or before (epoch, start_ms) are ignored. -1 before the first one.
        ended: The epoch has ended; nothing is on.
        tracker: The filter's own state, MessagePack (`workers.recognize`).
        standing: Lines that stand on the stream's screen, MessagePack (`workers.recognize`).
    """

    stream_id: Id
    epoch: Count
    start_ms: Ms
    ended: bool = False
    tracker: bytes = b""
    standing: bytes = b""


class RunnerUp(msgspec.Struct, frozen=True, kw_only=True):
    """The second-best product and its confidence."""

    product_id: Id
    confidence: float


class EvidenceFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A frame that shows the product.

    Attributes:
        pts_ms: Its media time.
        captured_at_ms: Wall clock at its capture, Unix milliseconds; 0 if it is not known.
        box: x0, y0, x1, y1 of the region that fits best, relative to the frame; null if it is not known.
        score: Cosine of that region with the page picture.
        page_image: URI of the page picture that it fits best; empty if the page holds its bytes.
        offset: Offset of the frame in the stream's partition of `live_frames`, while that has it; -1 if it is not
            known.
    """

    pts_ms: Ms
    captured_at_ms: Ms = 0
    box: tuple[float, float, float, float] | None = None
    score: float = 0.0
    page_image: str = ""
    offset: int = -1


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What a detection rests on.

    Attributes:
        frame_pts_ms: Frames that show the product.
        keywords: Spoken keywords that name it.
        visual_score: Cosine of the best region with the product's best image.
        text_score: Keyword match with its page, in [0, 1].
        frames: The same frames with where in them the product is, and which page picture it matches.
        read: Lines read in the stream's frames that name it.
        read_score: How well what was read fits the product, in [0, 1].
        speech_score: How well the meaning of what was said fits its page, in [0, 1].
    """

    frame_pts_ms: tuple[int, ...] = ()
    keywords: tuple[str, ...] = ()
    visual_score: float = 0.0
    text_score: float = 0.0
    runner_up: RunnerUp | None = None
    frames: tuple[EvidenceFrame, ...] = ()
    read: tuple[str, ...] = ()
    read_score: float = 0.0
    speech_score: float = 0.0


class ProductDetected(msgspec.Struct, frozen=True, kw_only=True):
    """A sighting of a catalogue product begins, goes on, or ends. Topic `product_detected`, key `stream_id`, JSON.

    Attributes:
        detection_id: UUID 5 of stream, epoch, product and the sighting's first window; the same in all its events.
        media_start_ms: Media time at which the showing began.
        media_end_ms: Media time up to which the product was seen so far.
        emitted_media_ms: Media time that had been looked at when the event was decided.
        detected_at: Wall clock, RFC 3339, UTC.
        latency_ms: From the capture of the newest frame looked at to this event.
        confidence: Calibrated probability that the product is being shown, in [0, 1].
    """

    detection_id: str
    stream_id: Id
    product_id: Id
    status: Literal["started", "updated", "ended"]
    epoch: Count
    media_start_ms: Ms
    media_end_ms: Ms
    emitted_media_ms: Ms
    detected_at: str
    latency_ms: Ms
    confidence: float
    evidence: Evidence
    model_version: str
    index_version: str


class Verdict(Record, frozen=True, kw_only=True):
    """What a person says of a detection. Topic `detection_verdicts` (compacted), key `detection_id`.

    A tombstone takes it back. What the detection said is repeated: its events are gone after a week.

    Attributes:
        verdict: "other": another product was shown; "not_in_catalogue": something that no page is about.
        product_id: What was shown, with "other"; else empty.
        who: The person's name, if it is known.
        at: Wall clock, RFC 3339, UTC.
        detected: The product that was detected.
        media_start_ms: Media time at which the showing began.
        media_end_ms: Media time up to which the product was seen.
        model_version: Version of the model that was judged.
    """

    detection_id: Id
    verdict: Literal["right", "wrong", "other", "not_in_catalogue"]
    product_id: Annotated[str, Meta(max_length=512)] = ""
    who: Phrase = ""
    at: str = ""
    stream_id: str = ""
    detected: str = ""
    epoch: Count = 0
    media_start_ms: Ms = 0
    media_end_ms: Ms = 0
    model_version: str = ""


R = TypeVar("R", bound=Record)

_encoder = msgspec.msgpack.Encoder()
_version = msgspec.msgpack.Decoder(Record)
_json_version = msgspec.json.Decoder(Record)
_decoders: dict[type[Record], msgspec.msgpack.Decoder[Record]] = {}

JSON_KINDS = (StreamAnnounced, ProductPage)
"""What others write: any Kafka client can, in JSON."""


def encode(record: Record) -> bytes:
    """Returns the record as MessagePack."""
    return _encoder.encode(record)


def decode(value: bytes, kind: type[R]) -> R:
    """Returns the record of the given kind that `value` holds: MessagePack, or JSON where others write, by content.

    Raises:
        NewerSchema: The writer's schema is newer than ours.
        BadInput: The bytes are not such a record.
    """
    # A record in MessagePack begins with a byte above 0x7f, whatever it holds.
    in_json = kind in JSON_KINDS and value.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"
    with refusing(f"a {kind.__name__}", kind):
        if in_json:
            value = _plain(value)
            if b"null" in value:  # what databases' connectors write for a field that is not there
                value = msgspec.json.encode(_without_nulls(msgspec.json.decode(value)))
        version = (_json_version.decode(value) if in_json else _version.decode(value)).v
        if version > SCHEMA_VERSION:
            raise NewerSchema(
                f"{kind.__name__} has schema version {version}, this release reads up to {SCHEMA_VERSION}: upgrade it"
            )
        if in_json:
            return msgspec.json.decode(value, type=kind)
        if kind not in _decoders:
            _decoders[kind] = msgspec.msgpack.Decoder(kind)
        return _decoders[kind].decode(value)  # type: ignore[return-value]


@contextmanager
def refusing(name: str, kind: type[msgspec.Struct] | None = None) -> Iterator[None]:
    """Turns all that a decoder raises for bytes that it cannot read into `BadInput`, with the values of an enumeration
    that a field of `kind` may have."""
    try:
        yield
    except RecursionError:
        raise BadInput(f"not {name}: nested too deeply") from None
    # Besides its own errors, msgspec raises ValueErrors (text that is not UTF-8) and OverflowErrors.
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        field = re.fullmatch(r"Invalid enum value .* - at `\$\.(\w+)`", str(error), re.DOTALL)
        expected = get_args(get_type_hints(kind)[field[1]]) if kind is not None and field is not None else ()
        told = f", expected one of {', '.join(map(str, expected))}" if expected else ""
        raise BadInput(f"not {name}: {error}{told}") from error


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What Kafka Connect's JSON converter makes of a record unless `schemas.enable` is off."""

    schema: msgspec.Raw
    payload: msgspec.Raw


def _plain(value: bytes) -> bytes:
    value = value.removeprefix(b"\xef\xbb\xbf")
    if b'"payload"' not in value:
        return value
    try:
        return bytes(msgspec.json.decode(value, type=_Envelope).payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return value  # it is something else, and read as such


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return list(map(_without_nulls, value)) if isinstance(value, list) else value
