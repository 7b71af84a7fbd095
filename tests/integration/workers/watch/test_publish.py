"""What the command line writes to the topics, read back from a broker."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tests.integration.workers.catalog_parts import HueModel, picture, read_all, running
from topology.errors import UserError
from topology.records import ProductPage, StreamAnnounced, StreamStatus
from topology.settings import Settings
from topology.topic_log import Producer, end_offsets, read_partition
from topology.topics import LIVE_STREAMS, PRODUCT_PAGES, STREAM_STATUS
from topology.worker import Worker
from workers.catalog.agent import build
from workers.cli.main import cli
from workers.cli.products import publish_catalog, withdraw
from workers.cli.publish import announce, announce_end, list_streams


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    rows = []
    for name in ("red", "blue"):
        Image.fromarray(picture(name, 900)).save(tmp_path / f"{name}.png")
        rows.append({"product_id": name, "title": f"{name} teapot", "images": [f"{name}.png"]})
    path = tmp_path / "catalog.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


async def streams(settings: Settings) -> dict[str, StreamAnnounced]:
    return {record.stream_id: record for record in await read_all(settings, LIVE_STREAMS, StreamAnnounced)}


async def test_an_announcement_says_where_and_what_the_room_sells(broker: Settings) -> None:
    await announce(broker, "room", "rtmp://host/live/room", language="zh", product_ids=("a", "b"))
    assert await streams(broker) == {
        "room": StreamAnnounced(
            stream_id="room", url="rtmp://host/live/room", language="zh", product_ids=("a", "b"), realtime=False
        )
    }


async def test_the_end_of_a_stream_keeps_its_url(broker: Settings) -> None:
    await announce(broker, "room", "rtmp://host/live/room")
    await announce_end(broker, "room")
    ended = (await streams(broker))["room"]
    assert (ended.state, ended.url) == ("ended", "rtmp://host/live/room")


async def test_a_stream_that_was_never_announced_cannot_end(broker: Settings) -> None:
    with pytest.raises(UserError, match="room: no such stream"):
        await announce_end(broker, "room")


async def test_the_list_joins_announcements_with_the_state_of_their_capture(broker: Settings) -> None:
    await announce(broker, "b", "rtmp://host/b")
    await announce(broker, "a", "rtmp://host/a")
    status = StreamStatus(
        stream_id="b", epoch=2, state="stalled", announced_offset=0, reconnects=1, detail="nothing for 10 s", at_ms=1
    )
    async with Producer(broker) as producer:
        await producer.send(STREAM_STATUS, "b", status)
    first, second = await list_streams(broker, as_json=False)
    assert first.split() == ["a", "waiting", "epoch", "0", "rtmp://host/a"]
    assert second.split(maxsplit=5) == ["b", "stalled", "epoch", "2", "rtmp://host/b", "nothing for 10 s"]
    rows = [json.loads(line) for line in await list_streams(broker, as_json=True)]
    assert [(row["stream_id"], row["capture"], row["reconnects"]) for row in rows] == [
        ("a", "waiting", 0),
        ("b", "stalled", 1),
    ]
    assert rows[0]["age_s"] == -1
    assert rows[1]["age_s"] > 0


async def test_what_capture_refuses_and_what_was_taken_back_is_not_listed(broker: Settings) -> None:
    await announce(broker, "gone", "rtmp://host/gone")
    await announce(broker, "there", "rtmp://host/there")
    async with Producer(broker) as producer:
        await producer.send_raw(LIVE_STREAMS, b"key", b'{"stream_id": "other", "url": "rtmp://host/other"}', [])
        await producer.send_raw(LIVE_STREAMS, b"bad", b'{"stream_id": "bad", "url": "\xff"}', [])
        await producer.send_raw(LIVE_STREAMS, b"deep", b"\x91" * 3_000, [])
        await producer.send(LIVE_STREAMS, "gone", None)
    (line,) = await list_streams(broker, as_json=False)
    assert line.startswith("there ")


async def test_a_catalogue_is_published_by_path_or_with_its_pictures_inside(broker: Settings, catalog: Path) -> None:
    assert await publish_catalog(broker, str(catalog), inline=False, wait=False) == 0
    pages = await read_all(broker, PRODUCT_PAGES, ProductPage)
    assert {page.images[0].uri for page in pages} == {str(catalog.parent / "red.png"), str(catalog.parent / "blue.png")}
    assert not any(page.images[0].data for page in pages)

    assert await publish_catalog(broker, str(catalog), inline=True, wait=False) == 0
    inline = [page for page in await read_all(broker, PRODUCT_PAGES, ProductPage) if page.images[0].data]
    assert {page.product_id for page in inline} == {"red", "blue"}
    for page in inline:
        pixels = np.asarray(Image.open(io.BytesIO(page.images[0].data)))
        assert pixels.shape == (640, 640, 3)
        assert abs(pixels.astype(int) - picture(page.product_id, 640)).mean() < 5


async def test_index_waits_until_all_is_encoded_and_names_what_is_not(
    broker: Settings, catalog: Path, capsys: pytest.CaptureFixture[str], until: Callable[..., Awaitable[None]]
) -> None:
    publishing = asyncio.create_task(publish_catalog(broker, str(catalog), inline=False, wait=True))

    async def published() -> bool:
        return len(await read_all(broker, PRODUCT_PAGES, ProductPage)) == 2

    await until(published)
    (catalog.parent / "blue.png").unlink()  # between publishing and encoding
    worker = Worker("catalog", broker, serve_http=False)
    build(worker, HueModel())  # type: ignore[arg-type]
    async with running(worker):
        assert await publishing == 1
    said = capsys.readouterr().out
    assert "2 products published" in said
    assert "blue: " in said
    assert "1 products indexed, 1 failed" in said


def test_the_command_line_does_the_same(broker: Settings, catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("broker", "topic_prefix", "stream_partitions", "product_partitions", "idempotent_producer"):
        monkeypatch.setenv(f"COPE_{name.upper()}", str(getattr(broker, name)))
    monkeypatch.setattr("topology.log_format.setup_logging", lambda settings: None)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments, standalone_mode=False, catch_exceptions=False)

    assert "topics are there" in run("topics", "create").output
    assert run("index", str(catalog), "--no-wait").return_value == 0
    assert run("streams", "add", "room", "rtmp://host/room", "--products", "red, blue,").output == "room: announced\n"
    assert "rtmp://host/room" in run("streams", "list").output
    assert json.loads(run("streams", "list", "--json").output)["announced"] == "live"
    assert run("streams", "end", "room").output == "room: ended\n"
    announced = asyncio.run(read_all(broker, LIVE_STREAMS, StreamAnnounced))
    assert announced[0].product_ids == ("red", "blue")
    assert announced[-1].state == "ended"


async def keys(settings: Settings) -> dict[str, bool]:
    """Each product that was ever published, and whether it is there now."""
    there: dict[str, bool] = {}
    for partition in await end_offsets(settings, PRODUCT_PAGES):
        async for record in read_partition(settings, PRODUCT_PAGES, partition, ProductPage):
            there[record.key] = record.value is not None
    return there


async def test_a_bad_page_is_named_and_the_others_are_published(
    broker: Settings, catalog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with catalog.open("a") as file:
        file.write(json.dumps({"product_id": "none", "title": "None", "images": ["none.png"]}) + "\n")
        file.write(json.dumps({"product_id": "huge", "title": "T" * 9_000_000, "images": ["red.png"]}) + "\n")
        file.write("{broken\n")
    assert await publish_catalog(broker, str(catalog), inline=True, wait=False) == 1
    said = capsys.readouterr().out
    assert "none.png: no such image file" in said
    assert "'huge': a record of" in said
    assert "line 5: not JSON" in said
    assert "2 products published; 2 pictures are sent along" in said
    assert await keys(broker) == {"red": True, "blue": True}


async def test_a_complete_catalogue_withdraws_what_it_does_not_have(broker: Settings, catalog: Path) -> None:
    rows = catalog.read_text().splitlines()  # noqa: ASYNC240
    await publish_catalog(broker, str(catalog), inline=True, wait=False)
    broken = json.dumps({"product_id": "blue", "title": "", "images": []})
    catalog.write_text(f"{rows[0]}\n{broken}\n")  # noqa: ASYNC240
    await publish_catalog(broker, str(catalog), inline=True, wait=False, prune=True)
    assert await keys(broker) == {"red": True, "blue": True}  # a row that is broken is no row that is gone
    catalog.write_text(rows[0])  # noqa: ASYNC240
    await publish_catalog(broker, str(catalog), inline=True, wait=False, prune=True)
    assert await keys(broker) == {"red": True, "blue": False}


async def test_nothing_is_withdrawn_where_a_row_does_not_say_which_product_it_is(
    broker: Settings, catalog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = catalog.read_text().splitlines()  # noqa: ASYNC240
    await publish_catalog(broker, str(catalog), inline=True, wait=False)
    catalog.write_text(f'{rows[0]}\n{{"product_id": "blue", "title": "blue\n')  # noqa: ASYNC240
    assert await publish_catalog(broker, str(catalog), inline=True, wait=False, prune=True) == 1
    assert await keys(broker) == {"red": True, "blue": True}
    assert "nothing is withdrawn: 1 rows do not say which products they are" in capsys.readouterr().out


async def test_products_are_withdrawn_by_their_ids(broker: Settings, catalog: Path) -> None:
    await publish_catalog(broker, str(catalog), inline=True, wait=False)
    with pytest.raises(UserError, match="'green': no such product"):
        await withdraw(broker, ["red", "green"])
    await withdraw(broker, ["red"])
    assert await keys(broker) == {"red": False, "blue": True}


async def test_index_says_that_no_worker_reads(
    broker: Settings, catalog: Path, capsys: pytest.CaptureFixture[str], until: Callable[..., Awaitable[None]]
) -> None:
    publishing = asyncio.create_task(publish_catalog(broker, str(catalog), inline=True, wait=True, quiet_s=0.0))
    said = ""

    async def told() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return "does a catalog worker run" in said

    await until(told)
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
