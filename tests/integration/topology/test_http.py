import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from aiohttp import web

from topology import http_guard
from topology.errors import UserError
from topology.health import Health, HttpServer, make_http
from topology.http_guard import Gate
from topology.settings import Settings

SETTINGS = Settings(_env_file=None, http_token="secret", http_hosts="monitor.example")


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    application = make_http("monitor", Health())

    async def echo(request: web.Request) -> web.Response:
        return web.Response(text=await request.text() or "nothing")

    application.router.add_route("*", "/now", echo)
    server = HttpServer(application, SETTINGS)
    await server.start()
    yield server
    await server.stop()


async def get(server: HttpServer, path: str, **headers: str) -> int:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"http://127.0.0.1:{server.port}{path}", headers=headers)).status_code


async def test_all_but_health_and_metrics_need_the_token(server: HttpServer) -> None:
    assert await get(server, "/healthz") == 200
    assert await get(server, "/metrics") == 200
    assert await get(server, "/now") == 401
    assert await get(server, "/now", Authorization="Bearer wrong") == 401
    assert await get(server, "/now?token=wrong") == 401
    assert await get(server, "/now", Authorization="Bearer secret") == 200
    assert await get(server, "/now?token=secret") == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:80", 200),
        ("monitor.example:8000", 200),
        ("evil.example", 421),
        ("", 421),
    ],
)
async def test_a_name_that_is_not_ours_is_not_served(server: HttpServer, host: str, status: int) -> None:
    assert await get(server, "/now?token=secret", Host=host) == status
    assert await get(server, "/healthz", Host=host) == 200


async def test_a_client_that_sends_no_whole_request_is_cut_off(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_guard, "BODY_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST /now?token=secret HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nten")
    assert b" 408 " in await reader.readline()
    writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET /now", b"GET /now HTTP/1.1\r\nHost: a\r\n"])
async def test_a_connection_without_a_whole_head_is_cut_off(sent: bytes) -> None:
    gate = Gate(asyncio.Protocol, head_s=0.1)
    server = await asyncio.get_running_loop().create_server(gate, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(sent)
    with pytest.raises(ConnectionError):
        await reader.read()
        raise ConnectionError
    assert gate.open == 0
    server.close()


async def test_connections_are_bounded() -> None:
    gate = Gate(asyncio.Protocol, most=1)
    server = await asyncio.get_running_loop().create_server(gate, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    _, first = await asyncio.open_connection(*address)
    reader, second = await asyncio.open_connection(*address)
    assert b" 503 " in await reader.readline()
    first.close()
    second.close()
    server.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_no_server_lies_open_to_others_unless_told_so(host: str) -> None:
    application = make_http("monitor", Health())
    with pytest.raises(UserError, match="COPE_HTTP_TOKEN"):
        await HttpServer(application, Settings(_env_file=None, http_host=host)).start()
    for more in ({"http_token": "secret"}, {"http_unprotected": True}):
        server = HttpServer(make_http("monitor", Health()), Settings(_env_file=None, http_host="0.0.0.0", **more))
        await server.start()
        await server.stop()
