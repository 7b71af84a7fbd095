"""Kill -9 of the roles that read events: each event is posted at least once and in order, each detection is kept."""

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.e2e.flow_processes import Processes
from tests.integration.workers.evidence.test_evidence_agent import send_frames
from tests.integration.workers.monitor.test_monitor_agent import event
from topology.admin import create_topics
from topology.evidence import EvidenceStore
from topology.records import Evidence, EvidenceFrame
from topology.topic_log import Producer
from topology.topics import PRODUCT_DETECTED

DETECTIONS, FRAMES = 60, 6
KILL_AT = 15  # events posted, detections kept: in the middle of a batch that is not committed


class Receiver:
    """Takes what is posted."""

    def __init__(self):
        self.taken = []

    async def take(self, request):
        told = await request.json()
        self.taken.append((told["detection_id"], told["status"]))
        return web.Response(status=204)


@pytest.fixture
async def receiver():
    one = Receiver()
    application = web.Application()
    application.router.add_post("/events", one.take)
    async with TestServer(application) as server:
        one.url = str(server.make_url("/events"))
        yield one


@pytest.fixture
def processes(broker, receiver, tmp_path):
    own = {"evidence_url": str(tmp_path / "evidence"), "webhook_url": receiver.url}
    one = Processes(broker.model_copy(update=own), tmp_path, ("evidence", "webhook"))
    yield one
    one.stop()


async def send_events(producer, offsets):
    """A start and an end of each detection; returns both in order."""
    sent = []
    for number in range(DETECTIONS):
        frame = EvidenceFrame(pts_ms=1_000 * (number % FRAMES), score=0.5, offset=offsets[number % FRAMES])
        for status in ("started", "ended"):
            named = {"detection_id": f"d-{number}", "evidence": Evidence(frames=(frame,))}
            one = msgspec.structs.replace(event(status, at_ms=20_000 + number), **named)
            await producer.send(PRODUCT_DETECTED, "room", one)
            sent.append((one.detection_id, status))
    return sent


async def test_each_event_is_posted_and_each_detection_kept_though_both_roles_are_killed(
    broker, receiver, processes, tmp_path, until
):
    await create_topics(broker)
    store = EvidenceStore(str(tmp_path / "evidence"))

    def kept():
        processes.check()
        return len(list((tmp_path / "evidence").rglob("*.evidence")))

    async with Producer(broker) as producer:
        offsets = await send_frames(broker, producer, FRAMES)
        sent = await send_events(producer, offsets)
    processes.start_all()
    await until(lambda: len(receiver.taken) >= KILL_AT, 120)
    processes.kill("webhook")
    await until(lambda: kept() >= KILL_AT, 120)
    processes.kill("evidence")
    processes.start_all()
    await until(lambda: set(receiver.taken) == set(sent), 120)
    assert list(dict.fromkeys(receiver.taken)) == sent, "in order, and again only what was posted shortly before"
    for number in range(DETECTIONS):

        def is_whole(number=number):
            found = store.get(f"d-{number}")
            return found is not None and found.event.status == "ended" and len(found.frames) == 1

        await until(is_whole, 120)
    assert kept() == DETECTIONS
