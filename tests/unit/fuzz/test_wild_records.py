"""Nothing that arrives in a topic may kill or block a role: whatever came before, a good record gives its answer.

`make test` tries a few thousand inputs, `make fuzz` 100,000 and more (FUZZ_EXAMPLES, of up to ten records each). The
bytes that once killed a role lie in `tests/data/records/<topic>`, and are tried each time; a failure adds its own,
named by the role: give it a name that lasts.
"""

import asyncio
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.unit.fuzz.memory_flow import SETTINGS, MemoryDelivery, MemoryRefusals, run_role, soon
from tests.unit.fuzz.small_parts import SmallModel, jpeg
from tests.unit.fuzz.whole_monitor import KINDS, Log, WholeMonitor
from tests.unit.fuzz.wild_records import keys, values
from topology import topics
from topology.codec import decode_value, encode_value
from topology.errors import BadInput
from topology.evidence import EvidenceStore, Kept, KeptFrame
from topology.index.memory import MemoryIndex
from topology.records import (
    Evidence,
    EvidenceFrame,
    Frame,
    FrameRegions,
    Keyword,
    Keywords,
    PageImage,
    PageVectors,
    ProductDetected,
    ProductPage,
    Record,
    Speech,
    StreamAnnounced,
    Verdict,
    WindowEmbedding,
)
from topology.topic_log import LogRecord
from topology.worker import Worker
from workers.capture import agent as capture
from workers.capture.media import BadSource
from workers.catalog import agent as catalog
from workers.cli import verdicts
from workers.cli.truth import read_truth
from workers.embed import agent as embed
from workers.evidence import agent as evidence
from workers.recognize import agent as recognize
from workers.recognize.catalogue import Catalogue
from workers.transcribe import agent as transcribe
from workers.transcribe.language import Streams
from workers.transcribe.recognizer import MemoryRecognizer, Transcript
from workers.webhook import agent as webhook

FOLDER = Path(__file__).parents[2] / "data" / "records"
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))

Sent = list[tuple[str, bytes | None]]

few = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


def wild(**kinds: type[msgspec.Struct]) -> st.SearchStrategy[Sent]:
    """Some records for the topics of a role."""
    each = [st.tuples(st.just(topic), values(kind)) for topic, kind in kinds.items()]
    return st.lists(st.one_of(each), min_size=1, max_size=10)


def trying(role: Callable[[Sent], None], sent: Sent) -> None:
    """Runs a role on records; what makes it fail is kept."""
    try:
        role(sent)
    except Exception:
        for topic, value in sent if len(sent) <= 2 else []:  # as small as hypothesis could make it
            path = FOLDER / topic / f"{role.__name__}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(value or b"")
        raise


async def give(delivery: MemoryDelivery, sent: Sent) -> None:
    for topic, value in sent:
        await delivery.give(topic, keys(value), value)


def good(record: Record) -> bytes:
    return encode_value(record)[0]


# -- roles: each is given records, then good ones that must be answered --------------------------------------------


def run_capture(sent: Sent) -> None:
    def closed(url: str, _: object) -> None:
        raise BadSource(f"{url}: no such file")

    async def feed(delivery: MemoryDelivery) -> None:
        await give(delivery, sent)
        await delivery.give(topics.LIVE_STREAMS, b"good", good(StreamAnnounced(stream_id="good", url="a.mp4")))
        await delivery.until(topics.STREAM_STATUS, lambda one: one.stream_id == "good" and one.state == "failed")

    worker = Worker("capture", SETTINGS, serve_http=False)
    asyncio.run(run_role(worker, lambda one: capture.build(one, closed), feed))


def run_transcribe(sent: Sent) -> None:
    heard = MemoryRecognizer(lambda _audio, _language: Transcript("a red teapot", "en", 0.99, 0.9))

    def build(worker: Worker) -> None:
        role = transcribe.Transcribe(worker, heard)
        role._words = Words(role._vocabulary)
        role.register()
        role._streams[0] = Streams()

    async def feed(delivery: MemoryDelivery) -> None:
        await give(delivery, sent)
        speech = Speech(stream_id="good", epoch=0, start_ms=0, end_ms=100, captured_at_ms=0, audio=bytes(3_200))
        await delivery.give(topics.LIVE_SPEECH, b"good", good(speech))
        await delivery.until_done(topics.LIVE_SPEECH)
        assert [one.text for one in delivery.sent[topics.LIVE_KEYWORDS] if one.stream_id == "good"] == ["a red teapot"]

    asyncio.run(run_role(Worker("transcribe", SETTINGS, serve_http=False), build, feed))


class Words:
    """A vocabulary that follows nothing."""

    def __init__(self, vocabulary: object) -> None:
        self._vocabulary = vocabulary

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def wait(self) -> None:
        await asyncio.Event().wait()

    async def reach(self, ends: object) -> None: ...


def run_embed(sent: Sent) -> None:
    async def feed(delivery: MemoryDelivery) -> None:
        await give(delivery, sent)
        for pts_ms in range(0, 10_000, 1_000):
            frame = Frame(stream_id="good", epoch=0, pts_ms=pts_ms, captured_at_ms=1, jpeg=jpeg(), first=not pts_ms)
            await delivery.give(topics.LIVE_FRAMES, b"good", good(frame))
        said = Keywords(
            stream_id="good", epoch=0, start_ms=0, end_ms=9_000, captured_at_ms=1, keywords=(Keyword("teapot", 1.0),)
        )
        await delivery.give(topics.LIVE_KEYWORDS, b"good", good(said))
        await delivery.until(topics.LIVE_WINDOWS, lambda one: one.stream_id == "good")

    worker = Worker("embed", SETTINGS, serve_http=False)
    asyncio.run(run_role(worker, lambda one: embed.build(one, SmallModel()), feed))


def run_catalog(sent: Sent) -> None:
    async def feed(delivery: MemoryDelivery) -> None:
        await give(delivery, sent)
        page = ProductPage(product_id="good", title="teapot", images=(PageImage(data=jpeg()),))
        await delivery.give(topics.PRODUCT_PAGES, b"good", good(page))
        await delivery.until(topics.PAGE_VECTORS, lambda one: one.product_id == "good" and one.vectors)

    worker = Worker("catalog", SETTINGS, serve_http=False)
    asyncio.run(run_role(worker, lambda one: catalog.build(one, SmallModel()), feed))


def run_recognize(sent: Sent) -> None:
    index = MemoryIndex(SmallModel.version)
    refusals = MemoryRefusals()

    def build(worker: Worker) -> None:
        role = recognize.Recognizer(worker, SmallModel(), index)
        worker.delivery.on_revoked(role._drop)
        worker.delivery.agent(topics.LIVE_WINDOWS, WindowEmbedding, role._work)
        role._catalogue = Catalogue(SETTINGS, index, refusals)
        role._catalogue._ready.set()
        worker.catalogue = role._catalogue

    worker = Worker("recognize", SETTINGS, serve_http=False)

    async def feed(delivery: MemoryDelivery) -> None:
        row = b"\xb6\x34" * 12
        page = PageVectors(
            product_id="good", source_partition=0, source_offset=0, model_version="small@1", vectors=row, fused=row
        )
        await take_page(worker.catalogue, b"good", good(page))
        for topic, value in sent:
            if topic == topics.PAGE_VECTORS:
                await take_page(worker.catalogue, keys(value), value)
            else:
                await delivery.give(topic, keys(value), value)
        window = WindowEmbedding(
            stream_id="good", epoch=0, start_ms=0, end_ms=8_000, embedding=row, model_version="small@1"
        )
        await delivery.give(topics.LIVE_WINDOWS, b"good", good(window))
        assert any(one.stream_id == "good" for one in delivery.sent[topics.RECOGNITION_STATE])
        assert "good" in worker.catalogue.products

    asyncio.run(run_role(worker, build, feed))


async def take_page(catalogue: Catalogue, key: bytes | None, value: bytes | None) -> None:
    try:
        record = None if value is None else decode_value(value, PageVectors)
    except BadInput:
        return  # what a follower skips
    held = (key or b"").decode(errors="replace")
    if held != "good" or catalogue.products == set():
        await catalogue._apply([LogRecord(record, held, topics.PAGE_VECTORS, 0, 0, 0)])


def run_evidence(sent: Sent) -> None:
    frame = Frame(stream_id="good", epoch=0, pts_ms=9_000, captured_at_ms=1, jpeg=jpeg())

    async def read(_topic: str, _partition: int, _offset: int, _kind: type) -> LogRecord[Frame]:
        return LogRecord(frame, "good", topics.LIVE_FRAMES, 0, 0, 0)

    async def feed(delivery: MemoryDelivery) -> None:
        await give(delivery, sent)
        await delivery.give(topics.PRODUCT_DETECTED, b"good", good(DETECTED))
        assert store.get(DETECTED.detection_id).frames

    def build(worker: Worker) -> None:
        keeper = evidence.EvidenceKeeper(worker, store)
        keeper._reader.read = read
        keeper._pages.follow = asyncio.Event().wait
        keeper._pages.caught_up.set()
        keeper.register()

    with tempfile.TemporaryDirectory() as folder:
        store = EvidenceStore(f"{folder}/kept")
        unblurred = SETTINGS.model_copy(update={"evidence_faces": "keep"})  # loading the finder takes a second
        asyncio.run(run_role(Worker("evidence", unblurred, serve_http=False), build, feed))
        assert os.listdir(folder) == ["kept"]


def run_monitor(sent: Sent) -> None:
    """What follows is given records, and then every route is asked, with each value as the body of a request too."""
    held: dict[str, list[tuple[str, bytes | None]]] = defaultdict(list)
    for topic, value in sent:
        held[topic].append(((keys(value) or b"").decode(errors="replace"), value))
    held[topics.PRODUCT_DETECTED].append(("good", good(DETECTED)))
    encoded = PageVectors(
        product_id="p", source_partition=0, source_offset=0, model_version="small@1", vectors=ROW, fused=ROW
    )
    held[topics.PAGE_VECTORS].append(("p", good(encoded)))
    held[topics.DETECTION_VERDICTS].append((VERDICT.detection_id, good(VERDICT)))
    bodies = [value for _, value in sent if value is not None]

    async def tried() -> None:
        with tempfile.TemporaryDirectory() as folder:
            frame = KeptFrame(pts_ms=9_000, captured_at_ms=1, box=None, score=1.0, page_image="", jpeg=jpeg())
            EvidenceStore(folder).put(
                Kept(
                    detection_id=DETECTED.detection_id,
                    stream_id="good",
                    product_id="p",
                    events=(DETECTED,),
                    frames=(frame,),
                )
            )
            monitor = WholeMonitor(held, folder)
            await monitor.follow()
            asked = await monitor.ask([*bodies[:3], b'{"verdict": "wrong"}'])
            assert asked[f"/detections/{DETECTED.detection_id}/again"] == 200
            assert topics.DETECTION_VERDICTS in monitor.written

    asyncio.run(soon(tried()))


def run_webhook(sent: Sent) -> None:
    async def tried() -> None:
        answered = asyncio.Event()

        async def take(request: web.BaseRequest) -> web.Response:
            if await request.read() == good(DETECTED):
                answered.set()
            return web.Response(status=204)

        async with RawTestServer(take) as receiver:
            settings = SETTINGS.model_copy(
                update={"webhook_url": str(receiver.make_url("/")), "webhook_secret": SecretStr("secret")}
            )

            async def feed(delivery: MemoryDelivery) -> None:
                await give(delivery, sent)
                await delivery.give(topics.PRODUCT_DETECTED, b"good", good(DETECTED))
                await answered.wait()

            worker = Worker("webhook", settings, serve_http=False)
            await run_role(worker, webhook.build, feed)
            for stop in worker._stops:
                await stop()

    asyncio.run(tried())


def run_verdicts(sent: Sent) -> None:
    """`cope-live verdicts export`, with frames of each detection."""
    held: dict[str, list[tuple[str, bytes | None]]] = defaultdict(list)
    for number, (topic, value) in enumerate(sent):
        held[topic].append((str(number), value))
    held[topics.DETECTION_VERDICTS].append(("good", good(VERDICT)))
    frame = KeptFrame(pts_ms=0, captured_at_ms=0, box=None, score=1.0, page_image="", jpeg=jpeg())

    async def nothing(*_: object) -> dict[int, int]:
        return {0: 0}

    read = {
        "require_topics": nothing,
        "end_offsets": nothing,
        "read_partition": lambda _settings, topic, _partition, _kind: Log(topic, held[topic]),
        "RecordReader": lambda _settings: mock.AsyncMock(),
    }
    with tempfile.TemporaryDirectory() as folder, mock.patch.multiple("workers.cli.verdicts", **read):
        kept = Kept(detection_id="", stream_id="good", product_id="p", events=(DETECTED,), frames=(frame,))
        with mock.patch.object(EvidenceStore, "get", return_value=kept):
            out = Path(folder)
            export = asyncio.run(verdicts._export(SETTINGS, out, "val", 10))
        assert export.clips and all((out / name).is_file() for row in export.rows for name in row["images"])
        read_truth(out / "truth.jsonl")


async def _no_ends(*_: object) -> dict[int, int]:
    return {}


@pytest.fixture(autouse=True)
def no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a role asks how far a log goes, nothing is there."""
    for module in ("workers.transcribe.agent", "workers.recognize.catalogue"):
        monkeypatch.setattr(f"{module}.end_offsets", _no_ends)
    monkeypatch.setattr("topology.worker.make_app", unused_app)


def unused_app(*_: object) -> SimpleNamespace:
    """In place of a Faust app, of which thousands would fill the memory. One for all would hold each role for ever."""
    unheard = SimpleNamespace(connect=lambda _: None)
    return SimpleNamespace(on_partitions_revoked=unheard, on_partitions_assigned=unheard)


DETECTED = ProductDetected(
    detection_id="d-good", stream_id="good", product_id="p", status="started", epoch=0, media_start_ms=0,
    media_end_ms=9_000, emitted_media_ms=9_000, detected_at="", latency_ms=3, confidence=0.9, model_version="m",
    index_version="i", evidence=Evidence(frames=(EvidenceFrame(pts_ms=9_000, box=(0.1, 0.1, 0.9, 0.9), offset=0),)),
)  # fmt: skip
VERDICT = Verdict(detection_id=DETECTED.detection_id, verdict="right", stream_id="good", detected="p")
ROW = b"\xb6\x34" * 12
RED = PageImage(data=jpeg())


def page(**fields: object) -> Sent:
    record = ProductPage(**({"product_id": "p", "title": "teapot", "images": (RED,)} | fields))
    return [(topics.PRODUCT_PAGES, good(record))]


def vectors(**fields: object) -> Sent:
    whole = {"product_id": "p", "source_partition": 0, "source_offset": 0, "model_version": "small@1"}
    return [(topics.PAGE_VECTORS, good(PageVectors(**(whole | {"vectors": ROW, "fused": ROW} | fields))))]


def window(**fields: object) -> Sent:
    whole = {"stream_id": "room", "epoch": 0, "start_ms": 0, "end_ms": 8_000, "model_version": "small@1"}
    return [(topics.LIVE_WINDOWS, good(WindowEmbedding(**(whole | {"embedding": ROW} | fields))))]


@pytest.mark.parametrize(
    "sent",
    [
        page(title="t" * 1_400_000),
        page(images=(RED, PageImage(uri="http://[" + "u" * 1_500_000))),
        page(images=(PageImage(uri="u" * 1_500_000),)),
        page(images=(PageImage(uri="u" * 1_500_000, data=RED.data),)),
        page(images=(PageImage(uri="data:image/png;base64," + "A" * 400_000),)),
        page(description='<img src="data:image/png;base64,' + "A" * 1_500_000),
        page(attributes={str(n): "words " * 200 for n in range(2_000)}),
        page(images=(PageImage(data=b"\x89PNG" + bytes(900_000)),)),
        [(topics.PRODUCT_PAGES, b'{"product_id": "%s", "title": "", "images": []}' % (b"p" * 2_000_000))],
    ],
    ids=["title", "uri", "only-uri", "uri-of-bytes", "data-uri", "description", "attributes", "error", "id"],
)
def test_a_page_whose_answer_would_be_too_large(sent: Sent) -> None:
    run_catalog(sent)


@pytest.mark.parametrize(
    "sent",
    [
        vectors(vectors=ROW + b"\0"),
        vectors(fused=ROW + b"\0"),
        vectors(vectors=ROW * 2 + ROW[:4], fused=ROW),
        vectors(vectors=ROW[:6], fused=ROW[:6]),
        vectors(terms={-1: 1.0}),
        vectors(terms={2**40: 1.0}),
        vectors(terms={1: float("nan")}),
        window(embedding=ROW + b"\0"),
        window(embedding=ROW[:6]),
        window(frames=(FrameRegions(0, ROW + b"\0", (0.5,)),)),
        window(frames=(FrameRegions(0, ROW, (0.5, 0.5, 0.5, 0.5, 0.5)),)),
        window(product_ids=("x" * 900_000,)),
    ],
)
def test_vectors_that_are_none(sent: Sent) -> None:
    run_recognize(sent)


def detected(**fields: object) -> Sent:
    frame = msgspec.structs.replace(DETECTED.evidence.frames[0], **fields)
    event = msgspec.structs.replace(DETECTED, detection_id="d", evidence=Evidence(frames=(frame,)))
    return [(topics.PRODUCT_DETECTED, good(event))]


@pytest.mark.parametrize(
    "sent",
    [
        detected(box=(9.0, 9.0, 9.5, 9.5)),
        detected(box=(0.9, 0.9, 0.1, 0.1)),
        detected(box=(1e308, -1e308, 1e308, 1e308)),
        detected(box=(-5.0, -5.0, -4.0, -4.0)),
        [(topics.PRODUCT_DETECTED, good(msgspec.structs.replace(DETECTED, detection_id="../../../d")))],
        [(topics.PRODUCT_DETECTED, good(msgspec.structs.replace(DETECTED, detection_id="d" * 5_000)))],
        [(topics.PRODUCT_DETECTED, good(msgspec.structs.replace(DETECTED, detection_id="a\0b")))],
    ],
)
def test_events_that_show_nothing(sent: Sent) -> None:
    run_evidence(sent)


@pytest.mark.parametrize("detection_id", ["../../d", "/etc/d", "d" * 500, "💡" * 400, "a\0b"])
def test_verdicts_on_detections_of_any_name(detection_id: str) -> None:
    run_verdicts([(topics.DETECTION_VERDICTS, good(msgspec.structs.replace(VERDICT, detection_id=detection_id)))])


def told(**fields: object) -> Sent:
    return [(topics.PRODUCT_DETECTED, good(msgspec.structs.replace(DETECTED, detection_id="d", **fields)))]


def said(**fields: object) -> Sent:
    record = Keywords(stream_id="good", epoch=0, start_ms=0, end_ms=1, text="teapot", **fields)
    return [(topics.LIVE_KEYWORDS, good(record))]


@pytest.mark.parametrize(
    "sent",
    [
        vectors(vectors=ROW + b"\0"),
        vectors(fused=ROW[:3]),
        told(emitted_media_ms=-5),
        told(detected_at="yesterday"),
        said(captured_at_ms=2**53),
        said(captured_at_ms=-(2**53)),
    ],
    ids=["odd-vectors", "odd-fused", "before-the-start", "no-time", "no-date", "no-date-before"],
)
def test_a_monitor_that_is_told_nonsense(sent: Sent) -> None:
    run_monitor(sent)


def test_a_bag_as_large_as_a_frame_may_hold() -> None:
    bag = tuple(f"product-{number}" for number in range(100_000))
    frames = [
        Frame(
            stream_id="room", epoch=0, pts_ms=pts_ms, captured_at_ms=1, jpeg=jpeg(), first=not pts_ms, product_ids=bag
        )
        for pts_ms in range(0, 10_000, 1_000)
    ]
    end = Frame(stream_id="room", epoch=0, pts_ms=10_000, captured_at_ms=1, end_of_epoch=True, product_ids=bag)
    run_embed([(topics.LIVE_FRAMES, good(frame)) for frame in (*frames, end)])


def test_a_tombstone_with_a_key_that_is_no_id() -> None:
    async def feed(delivery: MemoryDelivery) -> None:
        await delivery.give(topics.LIVE_STREAMS, b"k" * 1_000_000, None)
        await delivery.give(topics.LIVE_STREAMS, None, None)

    asyncio.run(run_role(Worker("capture", SETTINGS, serve_http=False), capture.build, feed))


@few
@given(wild(live_streams=StreamAnnounced))
def test_capture(sent: Sent) -> None:
    trying(run_capture, sent)


@few
@given(wild(live_speech=Speech))
def test_transcribe(sent: Sent) -> None:
    trying(run_transcribe, sent)


@few
@given(wild(live_frames=Frame, live_keywords=Keywords))
def test_embed(sent: Sent) -> None:
    trying(run_embed, sent)


@few
@given(wild(product_detected=ProductDetected))
def test_evidence(sent: Sent) -> None:
    trying(run_evidence, sent)


@few
@given(wild(product_pages=ProductPage))
def test_catalog(sent: Sent) -> None:
    trying(run_catalog, sent)


@few
@given(wild(live_windows=WindowEmbedding, page_vectors=PageVectors))
def test_recognize(sent: Sent) -> None:
    trying(run_recognize, sent)


@few
@given(wild(product_detected=ProductDetected))
def test_webhook(sent: Sent) -> None:
    trying(run_webhook, sent)


@few
@given(wild(detection_verdicts=Verdict, page_vectors=PageVectors))
def test_verdicts(sent: Sent) -> None:
    trying(run_verdicts, sent)


@few
@given(wild(**KINDS))
def test_monitor(sent: Sent) -> None:
    trying(run_monitor, sent)


ROLES = {
    run_capture: [topics.LIVE_STREAMS],
    run_transcribe: [topics.LIVE_SPEECH],
    run_embed: [topics.LIVE_FRAMES, topics.LIVE_KEYWORDS],
    run_catalog: [topics.PRODUCT_PAGES],
    run_evidence: [topics.PRODUCT_DETECTED],
    run_webhook: [topics.PRODUCT_DETECTED],
    run_monitor: list(KINDS),
    run_verdicts: [topics.DETECTION_VERDICTS],
    run_recognize: [topics.LIVE_WINDOWS, topics.PAGE_VECTORS],
}


def test_what_once_killed_a_role_does_so_no_more() -> None:
    for role, names in ROLES.items():
        for name in names:
            for path in sorted((FOLDER / name).glob("*.bin")):
                role([(name, path.read_bytes())])
