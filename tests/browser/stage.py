"""A monitor at work on a broker of its own, and what the other roles would tell it: what the page is looked at with.

Products are those of the samples. What is detected was recorded from `make demo PAGE=1` on the sample streams
(`tests/data/page/events.jsonl`: boxes, scores and words are real), and the frames come from the same files.
"""

import asyncio
import io
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

import aiohttp
import av
import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cope.model.scoring import FEATURES, Calibration
from cope.serving.encoder import FrameFeatures, WindowInput
from topology.admin import create_topics
from topology.evidence import EvidenceStore, Kept, KeptFrame, evidence_url
from topology.records import (
    Keyword,
    Keywords,
    PageImage,
    PageVectors,
    ProductDetected,
    ProductPage,
    RecognitionState,
    StreamAnnounced,
    StreamStatus,
)
from topology.settings import Settings
from topology.topic_log import Producer, end_offsets, partition_of
from topology.topics import (
    LIVE_KEYWORDS,
    LIVE_STREAMS,
    PAGE_VECTORS,
    PRODUCT_DETECTED,
    PRODUCT_PAGES,
    RECOGNITION_STATE,
    STREAM_STATUS,
)
from topology.worker import Worker
from workers.cli.roles import create_worker
from workers.monitor.http import now_ms

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"
EVENTS = ROOT / "tests/data/page/events.jsonl"


# A room that capture has just told of stays so for a while: nobody tells of it again here.
FRESH_MS = 600_000


class Stage:
    """Tells the monitor what the other roles would.

    Attributes:
        worker: The monitor.
        port: Where it serves.
        url: Of the page.
    """

    def __init__(self, worker: Worker, producer: Producer, client: aiohttp.ClientSession) -> None:
        self.worker = worker
        self.port = worker.http_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._producer = producer
        self._client = client
        self._settings = worker.settings
        self._store = EvidenceStore(evidence_url(worker.settings))

    async def send(self, topic: str, key: str, value: Any) -> None:
        await self._producer.send(topic, key, value)

    async def get(self, path: str) -> Any:
        async with self._client.get(path) as response:
            return await response.json()

    async def until(self, path: str, holds: Any) -> Any:
        """Waits until what stands at a path is as wanted; returns it."""
        found = None
        try:
            async with asyncio.timeout(60):
                while not holds(found := await self.get(path)):  # noqa: ASYNC110 - it is asked over HTTP
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{path} stays {str(found)[:1000]}") from None
        return found

    async def room(
        self, stream_id: str, state: Any = "live", *, lag_s: float = 4.0, silent_s: float = 0, **more: Any
    ) -> None:
        """A room that capture has told of."""
        now = now_ms() + FRESH_MS
        status = StreamStatus(
            stream_id=stream_id,
            epoch=more.pop("epoch", 0),
            state=state,
            announced_offset=1_000_000,  # whatever was announced has been taken up
            sent_until_ms=more.pop("position_ms", 60_000),
            frame_at_ms=now_ms() - 34_000 if state == "stalled" else now,
            at_ms=now_ms() - int(1000 * silent_s) if silent_s else now,
            live=True,
            **more,
        )
        url = f"rtmp://media.example/live/{stream_id}"
        await self.send(LIVE_STREAMS, stream_id, StreamAnnounced(stream_id=stream_id, url=url, language="en"))
        await self.send(STREAM_STATUS, stream_id, status)
        reached = RecognitionState(
            stream_id=stream_id,
            epoch=status.epoch,
            start_ms=max(0, status.sent_until_ms - int(lag_s * 1000) - self._settings.window_ms),
        )
        await self.send(RECOGNITION_STATE, stream_id, reached)

    async def event(
        self, recorded: ProductDetected, stream_id: str | None = None, *, keep: bool = True, **changes: Any
    ) -> ProductDetected:
        """A detection as it was recorded, of another room if wished, and the frames that are kept of it."""
        stream_id = stream_id or recorded.stream_id
        evidence = recorded.evidence
        frames = tuple(msgspec.structs.replace(frame, offset=0) for frame in evidence.frames) if keep else ()
        own = {
            "stream_id": stream_id,
            "detection_id": str(uuid.uuid5(uuid.UUID(recorded.detection_id), stream_id)),
            "evidence": msgspec.structs.replace(evidence, frames=frames),
        }
        event = msgspec.structs.replace(recorded, **(own | changes))
        if keep:
            self.keep(event, recorded.stream_id)
        await self.send(PRODUCT_DETECTED, stream_id, event)
        return event

    def keep(self, event: ProductDetected, source: str) -> None:
        """Keeps the frames that a detection rests on, taken from a sample stream, as the evidence role does."""
        frames = [
            KeptFrame(
                pts_ms=frame.pts_ms,
                captured_at_ms=frame.captured_at_ms,
                box=frame.box,
                score=frame.score,
                page_image=frame.page_image,
                jpeg=frame_of(source, frame.pts_ms),
            )
            for frame in event.evidence.frames
        ]
        self.keep_frames(event, frames)

    def keep_frames(self, event: ProductDetected, frames: list[KeptFrame]) -> None:
        """Keeps frames of a detection."""
        kept = Kept(
            detection_id=event.detection_id,
            stream_id=event.stream_id,
            product_id=event.product_id,
            events=(event,),
            frames=tuple(frames),
        )
        self._store.put(kept)

    async def said(self, stream_id: str, texts: Iterable[str | None], *, epoch: int = 0, start_ms: int = 0) -> None:
        """Words that were said, six seconds each; an empty text is silence, None a hole."""
        for n, text in enumerate(texts):
            if text is None:
                continue
            begin = start_ms + n * 6_000
            words = Keywords(
                stream_id=stream_id,
                epoch=epoch,
                start_ms=begin,
                end_ms=begin + 6_000,
                captured_at_ms=now_ms(),
                text=text,
                keywords=tuple(Keyword(word, 0.5) for word in text.split()[:2]),
            )
            await self.send(LIVE_KEYWORDS, stream_id, words)

    async def product(self, product_id: str, title: str, pictures: dict[str, bytes], **more: Any) -> None:
        """A product as it is indexed."""
        images = tuple(PageImage(uri=name, data=data) for name, data in pictures.items())
        page = ProductPage(product_id=product_id, title=title, images=images, description=more.pop("description", ""))
        ends = await end_offsets(self._settings, PRODUCT_PAGES)
        partition = partition_of(product_id, len(ends))
        await self.send(PRODUCT_PAGES, product_id, page)
        row = np.asarray(
            more.pop("vector", _likeness(_opened(next(iter(pictures.values())))) if pictures else ()), np.float16
        ).tobytes()
        fields = {"vectors": row, "fused": row, "images": tuple(image.uri for image in images), **more}
        vectors = PageVectors(
            product_id=product_id,
            title=title,
            source_partition=partition,
            source_offset=ends[partition],
            model_version=ColourModel.version,
            **fields,
        )
        await self.send(PAGE_VECTORS, product_id, vectors)

    async def catalogue(self) -> None:
        """The products of the samples."""
        for line in (SAMPLES / "catalog.jsonl").read_text().splitlines():
            row = msgspec.json.decode(line)
            pictures = {Path(image).name: (SAMPLES / image).read_bytes() for image in row["images"]}
            await self.product(row["product_id"], row["title"], pictures, description=row["description"])


class Relay:
    """A line between a browser and a monitor.

    Attributes:
        url: Of the page, over this line.
        target: Port of the monitor.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.url = ""
        self._open: set[asyncio.StreamWriter] = set()
        self._is_cut = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()

    def cut(self) -> None:
        """Ends all connections, and takes no more until `mend`."""
        self._is_cut = True
        for writer in self._open:
            writer.transport.abort()

    def mend(self, target: int | None = None) -> None:
        """Takes connections again, to another monitor if one is named."""
        self._is_cut = False
        self.target = target or self.target

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        upstream = await asyncio.open_connection("127.0.0.1", self.target)
        pair = {writer, upstream[1]}
        self._open |= pair
        try:
            await asyncio.gather(_pump(reader, upstream[1]), _pump(upstream[0], writer))
        finally:
            self._open -= pair


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def monitor_stage(settings: Settings) -> AsyncIterator[Stage]:
    """A monitor on its own topics."""
    await create_topics(settings)
    worker = create_worker("monitor", settings, encoder=ColourModel())
    async with Producer(settings) as producer:
        try:
            await worker.start()
            headers = {"Authorization": f"Bearer {settings.http_token.get_secret_value() or '-'}"}
            async with aiohttp.ClientSession(f"http://127.0.0.1:{worker.http_port}", headers=headers) as client:
                stage = Stage(worker, producer, client)
                await stage.until("/streams", lambda answer: "streams" in answer)
                await stage.until("/products", lambda answer: "products" in answer)
                yield stage
        finally:
            await worker.stop()


@cache
def recorded() -> dict[tuple[str, str, str], ProductDetected]:
    """Events of the sample streams by stream, product and status.

    They were recorded at full speed, where an event waits for the windows before it: the latencies are made up.
    """
    decode = msgspec.json.Decoder(ProductDetected).decode
    events = [
        msgspec.structs.replace(event, latency_ms=2_600 + event.media_start_ms % 7_000 // 4)
        for event in map(decode, EVENTS.read_bytes().splitlines())
    ]
    return {(event.stream_id, event.product_id, event.status): event for event in events}


@cache
def frame_of(source: str, pts_ms: int) -> bytes:
    """A frame of a sample stream as JPEG."""
    return _frames(source)[pts_ms]


@cache
def _frames(source: str) -> dict[int, bytes]:
    wanted = {
        frame.pts_ms for event in recorded().values() if event.stream_id == source for frame in event.evidence.frames
    }
    found = {}
    with av.open(str(SAMPLES / f"streams/{source}.mp4")) as container:
        for frame in container.decode(video=0):
            pts_ms = round(float(frame.pts * frame.time_base) * 1000)
            if pts_ms in wanted:
                buffer = io.BytesIO()
                frame.to_image().save(buffer, "JPEG", quality=85)
                found[pts_ms] = buffer.getvalue()
    return found


def _opened(picture: bytes) -> Image.Image:
    return Image.open(io.BytesIO(picture))


class ColourModel:
    """Sees the colours of a picture's middle: a model that takes no time to load."""

    version = "colours@1"
    reading = ""
    calibration = Calibration(dict.fromkeys(FEATURES, 0.0) | {"visual_recent": 8.0, "margin_recent": 8.0}, -8.0, 0.05)

    def encode_frames(self, images: Sequence[NDArray[np.uint8]]) -> list[FrameFeatures]:
        """One region a frame."""
        box, salience = np.array([[0.25, 0.25, 0.75, 0.75]], np.float32), np.array([0.9], np.float32)
        rows = [np.asarray(_likeness(Image.fromarray(image)), np.float16)[None] for image in images]
        return [FrameFeatures(row, salience, box, None) for row in rows]

    def encode_windows(self, windows: Sequence[WindowInput]) -> NDArray[np.float16]:
        """The newest frame stands for all."""
        return np.stack([one.frames[-1].regions[0] for one in windows])

    def encode_speech(self, texts: Sequence[str]) -> list[NDArray[np.float16]]:
        """It understands nothing."""
        return [np.zeros(0, np.float16) for _ in texts]


def _likeness(picture: Image.Image) -> list[float]:
    """A stand-in for an embedding."""
    vector = np.asarray(picture.convert("RGB").resize((8, 8)), np.float32)[2:6, 2:6].ravel() - 128
    return list(vector / max(1.0, float(np.linalg.norm(vector))))


async def evening(stage: Stage) -> None:
    """Some rooms of an evening: most are well, some are not."""
    await stage.catalogue()
    await stage.product(
        "mug-9", "Mug without a picture", {}, images=(), error="no usable image: mug.png is not a picture"
    )
    events = recorded()
    showing = {
        "anna-home": ("room-en", "saleor-65"),
        "bo-drinks": ("room-en", "saleor-71"),
        "cara-shoes": ("room-en", "saleor-88"),
        "dan-kitchen": ("room-en", "saleor-73"),
        "小美优选": ("room-zh", "saleor-81"),
        "emil-paints": ("room-en", "saleor-61"),
        "fay-fashion": ("room-en", "saleor-115"),
        "gourmet-cellar": ("room-zh", "saleor-82"),
        "老王酒铺": ("room-zh", "saleor-84"),
        "home-and-wall": ("room-zh", "saleor-62"),
    }
    doubtful = {"cara-shoes": 0.52, "bo-drinks": 0.57}
    for room, (source, product) in showing.items():
        event = events[source, product, "started"]
        await stage.room(room, lag_s=31.0 if room == "dan-kitchen" else 4.0, position_ms=event.emitted_media_ms + 4_000)
        changes: dict[str, Any] = {"confidence": doubtful[room]} if room in doubtful else {}
        await stage.event(event, room, **changes)
    await stage.room("ivy-beauty", "failed", detail="rtmp://media.example answered 404 Not Found")
    await stage.room("jo-garden", "stalled", detail="no frame came")
    await stage.room("kit-toys")
    await stage.room("lou-books", silent_s=47)
    await whole_room(stage, "room-en")
    await stage.until("/streams", lambda found: len(found["streams"]) == len(showing) + 5)


async def whole_room(stage: Stage, room: str) -> None:
    """A room with a past: two connections, a gap, all that was shown and said."""
    events = recorded()
    await stage.room(room, epoch=1, reconnects=1, position_ms=90_000)
    await stage.event(events["room-zh", "saleor-63", "started"], room, epoch=0)
    for (source, _, _), event in events.items():
        if source == "room-en":
            await stage.event(event, room, epoch=1)
    said = [
        "Hello everybody, welcome back to the room.",
        "This is the Hyperspace Turquoise Paint, and it goes on in one coat.",
        "It dries while you make your tea.",
        "Next, the red shopping cart T-shirt.",
        None,
        "And a bottle of orange juice, cold from the fridge.",
        "",
        "We have ten of these left.",
        "White plimsolls, light as a feather.",
        "Carrot juice is good for your eyes, they say.",
        "Questions about sizes go into the chat.",
        "The Nebula Night Sky Paint is new.",
        "A black hoodie with our logo.",
    ]
    await stage.said(room, ["Good evening.", "We start in a minute."], epoch=0)
    await stage.said(room, said, epoch=1)
    await stage.until(f"/streams/{room}/detections", lambda found: len(found["detections"]) == 9)


async def crowd(stage: Stage, number: int) -> list[str]:
    """So many rooms; returns their names."""
    rooms = [f"room-{one:04}" for one in range(number)]
    await asyncio.gather(*(stage.room(room) for room in rooms))
    await stage.until("/streams", lambda found: len(found["streams"]) == number)
    return rooms


async def change(stage: Stage, rooms: list[str], per_second: int) -> None:
    """Detections in these rooms, one after the other, until cancelled."""
    events = [event for (_, _, status), event in recorded().items() if status == "started"]
    begun = time.monotonic()
    for number in itertools.count():
        at_ms = 60_000 + number * 1_000
        changes = {"media_end_ms": at_ms, "emitted_media_ms": at_ms, "detection_id": str(number)}
        room = rooms[number * 7 % len(rooms)]
        await stage.event(events[number % len(events)], room, keep=False, **changes)
        await asyncio.sleep(max(0.0, begun + number / per_second - time.monotonic()))


# What a user does, and how long each action takes until the picture after it, in milliseconds.
TRACE = """async () => {
  const shown = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  const field = document.querySelector("input[type=search]");
  const type = (text) => {
    field.value = text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const filters = document.querySelectorAll(".tabs button");
  const actions = [
    () => scrollTo(0, 2000), () => scrollTo(0, 20000), () => filters[2].click(), () => filters[0].click(),
    () => type("room-0"), () => type("room-07"), () => type(""), () => scrollTo(0, 50000), () => type("room-0777"),
  ];
  const taken = [];
  for (let round = 0; round < 5; round++) {
    for (const act of actions) {
      const begun = performance.now();
      act();
      await shown();
      taken.push(performance.now() - begun);
      await new Promise((resolve) => setTimeout(resolve, 60));
    }
  }
  return taken;
}"""
