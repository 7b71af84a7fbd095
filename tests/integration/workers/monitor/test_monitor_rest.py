"""What the page asks for beside the feed, on a broker."""

import io

import msgspec
import numpy as np
import pytest
from PIL import Image

from tests.integration.workers.monitor.test_monitor_agent import (
    event,
    get,
    monitor,
    read_changes,
    send_stream,
    stream,
    until,
)
from topology.admin import create_topics
from topology.records import Keyword, Keywords, PageImage, PageVectors, ProductPage, RunnerUp
from topology.topic_log import Producer, end_offsets, partition_of, read_partition
from topology.topics import DETECTION_VERDICTS, LIVE_KEYWORDS, PAGE_VECTORS, PRODUCT_DETECTED, PRODUCT_PAGES


def jpeg(colour=(200, 30, 30), size=(64, 48)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG")
    return buffer.getvalue()


async def publish(producer, broker, product_id, vector=(1.0, 0.0), attributes=(), **more):
    """A page, and what the catalog role would make of it."""
    page = ProductPage(
        product_id=product_id,
        title=f"The {product_id}",
        images=(PageImage(uri="shop/1.jpg", data=jpeg()),),
        description="Fine.",
        category=more.get("category", ""),
        attributes=dict(attributes),
    )
    ends = await end_offsets(broker, PRODUCT_PAGES)
    partition = partition_of(product_id, len(ends))
    await producer.send(PRODUCT_PAGES, product_id, page)
    row = np.asarray(vector, np.float16).tobytes()
    fields = {"title": page.title, "vectors": row, "fused": row, "images": ("shop/1.jpg",)} | more
    record = PageVectors(product_id=product_id, source_partition=partition, source_offset=ends[partition], **fields)
    await producer.send(PAGE_VECTORS, product_id, record)


def doubtful(kind="started", at_ms=12_000):
    one = event(kind, at_ms=at_ms)
    other = RunnerUp(product_id="cap", confidence=0.4)
    evidence = msgspec.structs.replace(one.evidence, runner_up=other, keywords=("red bag",), read=("BAG",))
    return msgspec.structs.replace(one, detection_id="d-1", confidence=0.65, evidence=evidence)


@pytest.fixture
async def producer(broker):
    await create_topics(broker)
    async with Producer(broker) as one:
        yield one


async def test_a_page_of_the_operator_gets_all_that_it_shows(broker, producer):
    await publish(producer, broker, "bag")
    await publish(producer, broker, "cap", (0.9, 0.4))
    await publish(producer, broker, "mug/2", (0.0, 1.0))
    await publish(producer, broker, "bad", vectors=b"", fused=b"", images=(), error="no usable image")
    await send_stream(producer)
    await producer.send(PRODUCT_DETECTED, "room", event("ended", at_ms=14_000))
    await producer.send(PRODUCT_DETECTED, "room", doubtful())
    await producer.send(PRODUCT_DETECTED, "room", doubtful("updated", 22_000))
    for start_ms in (0, 6_000, 20_000):
        said = Keywords(
            stream_id="room",
            epoch=0,
            start_ms=start_ms,
            end_ms=start_ms + 6_000,
            captured_at_ms=1_800_000_000_000,
            text=f"from {start_ms}",
            keywords=(Keyword("red bag", 0.9),),
        )
        await producer.send(LIVE_KEYWORDS, "room", said)
    async with monitor(broker) as (worker, client):

        async def caught_up():
            async with client.get("/products") as response:
                return response.status == 200

        await until(caught_up, worker)
        (room,) = (await get(client, "/streams"))["streams"]
        assert (room["heard"], room["read"], room["on"]["title"]) == (["red bag"], ["BAG"], "The bag")
        assert (room["on"]["runner_up_title"], room["on"]["image_url"]) == ("The cap", "/products/bag/images/0.jpg")

        first = await get(client, "/streams/room/detections?limit=1")
        rest = await get(client, f"/streams/room/detections?limit=1&after={first['next']}")
        found = [*first["detections"], *rest["detections"]]
        assert rest["next"] is None
        assert sorted((one["detection_id"], one["status"]) for one in found) == [
            ("d-1", "updated"),
            ("sighting of bag", "ended"),
        ]

        detail = await get(client, "/detections/d-1")
        assert [one["status"] for one in detail["events"]] == ["started", "updated"]
        assert detail["belief"][-1] == {"media_ms": 22_000, "confidence": 0.65}
        assert [(one["product_id"], one["confidence"]) for one in detail["candidates"]] == [("bag", 0.65), ("cap", 0.4)]
        assert detail["page"]["title"] == "The bag" and detail["verdict"] is None

        (item,) = (await get(client, "/review"))["items"]
        assert (item["detection_id"], item["why"], item["verdict"]) == ("d-1", "low confidence", None)

        listed = await get(client, "/products?limit=3")
        more = await get(client, f"/products?limit=3&after={listed['next']}")
        products = [*listed["products"], *more["products"]]
        assert [(one["product_id"], one["state"]) for one in products] == [
            ("bad", "failed"),
            ("bag", "indexed"),
            ("cap", "indexed"),
            ("mug/2", "indexed"),
        ]
        assert [one["product_id"] for one in (await get(client, "/products?q=the+CAP"))["products"]] == ["cap"]
        bag = await get(client, "/products/bag")
        assert (bag["description"], bag["sightings"]) == ("Fine.", ["d-1", "sighting of bag"])
        assert [one["product_id"] for one in bag["look_alikes"]] == ["cap", "mug/2"]

        (address,) = (await get(client, "/products/mug%2F2"))["image_urls"]
        async with client.get(address) as response:
            assert response.headers["Content-Type"] == "image/jpeg"
            assert Image.open(io.BytesIO(await response.read())).size == (64, 48)
            etag = response.headers["ETag"]
        async with client.get(address, headers={"If-None-Match": etag}) as response:
            assert response.status == 304

        told = await get(client, "/streams/room/transcript?from_ms=7000")
        assert [one["text"] for one in told["segments"]] == ["from 6000", "from 20000"]
        assert told["epochs"][0]["gaps"] == [{"start_ms": 12_000, "end_ms": 20_000, "reason": "no sound came"}]

        summary = await get(client, "/summary")
        assert (summary["rooms"], summary["latency_ms"]["p50"], summary["role"]) == ({"live": 1}, 1_850, "open")
        assert summary["model_version"] == "cope-mini@3fa1c2"

        for path, status in (
            ("/detections/none", 404),
            ("/products/none", 404),
            ("/products/bag/images/7.jpg", 404),
            ("/products/bad/images/0.jpg", 404),
            ("/review?limit=0", 400),
            ("/streams/room/detections?after=%00", 400),
            ("/nowhere", 404),
        ):
            async with client.get(path) as response:
                assert (response.status, set(await response.json())) == (status, {"error"}), path


async def test_a_token_becomes_a_cookie_and_a_viewer_stays_one(broker, producer):
    settings = type(broker)(**{**broker.model_dump(), "http_token": "s3cret", "http_viewer_token": "look"})
    async with monitor(settings) as (_, client):
        async with client.get("/summary") as response:
            assert response.status == 401
        async with client.post("/session", json={"token": "wrong"}) as response:
            assert response.status == 401
        async with client.post("/session", json={"token": "look", "name": "Vi"}) as response:
            cookie = response.cookies["cope_session"]
            assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
            headers = {"Cookie": f"cope_session={cookie.value}"}
        async with client.get("/summary", headers=headers) as response:
            told = await response.json()
            assert (told["who"], told["role"]) == ("Vi", "viewer")
        async with client.delete("/session", headers=headers) as response:
            assert response.status == 200 and response.cookies["cope_session"].value == ""


async def test_a_verdict_is_given_once_told_to_all_and_taken_back(broker, producer):
    await publish(producer, broker, "bag")
    await publish(producer, broker, "cap")
    await producer.send(PRODUCT_DETECTED, "room", doubtful())
    async with monitor(broker) as (worker, client), monitor(broker) as (_, other_client):

        async def known():
            async with client.get("/products/cap") as product, client.get("/detections/d-1") as detection:
                return product.status == detection.status == 200

        await until(known, worker)
        async with other_client.get("/events") as feed:
            for _ in range(2):
                given = {"verdict": "other", "product_id": "cap"}
                async with client.post("/detections/d-1/verdict", json=given) as response:
                    told = await response.json()
                    assert (response.status, told["verdict"], told["product_id"]) == (200, "other", "cap")
            ((kind, _, data),) = await read_changes(feed, 1)
            assert (kind, data["verdict"], data["detection_id"]) == ("verdict", "other", "d-1")
            assert (await get(client, "/review"))["items"] == []
            assert (await get(client, "/detections/d-1"))["verdict"]["product_id"] == "cap"
            assert sum((await end_offsets(broker, DETECTION_VERDICTS)).values()) == 1, "the same again writes nothing"
            async with client.post("/detections/d-1/verdict", json={"verdict": "undo"}) as response:
                assert (await response.json())["verdict"] == "undo"
            ((_, _, data),) = await read_changes(feed, 1)
            assert data["verdict"] == "undo"
        assert len((await get(client, "/review"))["items"]) == 1
        for given, status in (
            ({"verdict": "other"}, 400),
            ({"verdict": "right", "product_id": "cap"}, 400),
            ({"verdict": "other", "product_id": "bag"}, 400),
            ({"verdict": "other", "product_id": "none"}, 400),
            ({"verdict": "perhaps"}, 400),
            ({"verdict": "right", "who": "me"}, 400),
            ([], 400),
        ):
            async with client.post("/detections/d-1/verdict", json=given) as response:
                assert (response.status, set(await response.json())) == (status, {"error"}), given
        async with client.post("/detections/none/verdict", json={"verdict": "right"}) as response:
            assert response.status == 404
        async with client.post("/detections/d-1/verdict", json={"verdict": "right"}) as response:
            assert response.status == 200
    async with monitor(broker) as (_, client):
        assert (await get(client, "/review"))["items"] == [], "a verdict of before the start is known with the rest"


async def test_streams_are_announced_and_pages_published_with_the_checks_of_the_command_line(broker, producer):
    async with monitor(broker) as (worker, client):
        announced = {"stream_id": "room-9", "url": "rtmp://media.example/9", "language": "en", "product_ids": ["bag"]}
        async with client.post("/streams", json=announced) as response:
            assert (response.status, await response.json()) == (200, {"topic": "live_streams", "key": "room-9"})

        async def there():
            return await stream(client, "room-9")

        assert (await until(there, worker))["state"] == "announced"
        page = {"title": "A mug", "images": [{"uri": "https://shop.example/mug.jpg"}]}
        async with client.put("/products/mug%2F1", json=page) as response:
            assert (response.status, (await response.json())["key"]) == (200, "mug/1")
        (record,) = [
            one
            for partition in await end_offsets(broker, PRODUCT_PAGES)
            async for one in read_partition(broker, PRODUCT_PAGES, partition, ProductPage)
        ]
        assert (record.key, record.value.product_id, record.value.title) == ("mug/1", "mug/1", "A mug")
        for method, path, body, what in (
            ("POST", "/streams", {"stream_id": "x", "url": "gopher://x"}, "unknown scheme"),
            ("POST", "/streams", {"stream_id": "x", "url": "rtmp://x", "lanugage": "en"}, "no field"),
            ("POST", "/streams", [], "not a JSON object"),
            ("PUT", "/products/mug", {**page, "product_id": "cup"}, "another product_id"),
            ("PUT", "/products/mug", {"title": "A mug", "images": []}, "no images"),
            ("PUT", "/products/mug", {"images": [{"uri": "x"}]}, "title"),
        ):
            async with client.request(method, path, json=body) as response:
                assert response.status == 400 and what in (await response.json())["error"]
