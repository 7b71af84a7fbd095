"""The webhook role on a broker, against a receiver that fails."""

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from tests.integration.workers.monitor.test_monitor_agent import event
from topology.admin import create_topics
from topology.errors import UserError
from topology.records import ProductDetected
from topology.topic_log import Producer, end_offsets
from topology.topics import PRODUCT_DETECTED, dead_letter
from topology.worker import Worker
from workers.webhook.agent import build
from workers.webhook.signing import signature


class Receiver:
    """Answers with the given statuses in turn, then with 204."""

    def __init__(self, *statuses):
        self.statuses = list(statuses)
        self.taken = []
        self.tries = []

    async def take(self, request):
        body = await request.read()
        headers = request.headers
        at_s = int(headers["webhook-timestamp"])
        assert headers["webhook-signature"] == signature(b"key", headers["webhook-id"], at_s, body)
        self.tries.append(headers["ce-id"])
        status = self.statuses.pop(0) if self.statuses else 204
        if status == 204:
            self.taken.append(msgspec.json.decode(body, type=ProductDetected))
        return web.Response(status=status)


@pytest.fixture
async def serve():
    servers = []

    async def start(receiver):
        application = web.Application()
        application.router.add_post("/hook", receiver.take)
        server = TestServer(application)
        await server.start_server()
        servers.append(server)
        return str(server.make_url("/hook"))

    yield start
    for one in servers:
        await one.close()


async def test_events_are_posted_in_order_again_until_taken_and_a_refused_one_is_put_aside(broker, serve, until):
    await create_topics(broker)
    receiver = Receiver(500, 302, 204, 422)
    update = {"webhook_url": await serve(receiver), "webhook_secret": SecretStr("key")}
    events = [event("started"), event("updated", at_ms=22_000), event("ended", at_ms=30_000)]
    async with Producer(broker) as producer:
        for one in events:
            await producer.send(PRODUCT_DETECTED, "room", one)
    worker = Worker("webhook", broker.model_copy(update=update), serve_http=False)
    build(worker)
    try:
        await worker.start()
        await until(lambda: len(receiver.taken) == 2)
    finally:
        await worker.stop()
    assert receiver.taken == [events[0], events[2]]
    assert [one.split(".")[1] for one in receiver.tries] == ["started"] * 3 + ["updated", "ended"]
    assert sum((await end_offsets(broker, dead_letter(PRODUCT_DETECTED))).values()) == 1


def test_without_a_url_it_does_not_start(broker):
    with pytest.raises(UserError, match="COPE_WEBHOOK_URL"):
        build(Worker("webhook", broker, serve_http=False))
