"""Who may look and who may write: tokens, cookies, a proxy's word; errors are JSON."""

import asyncio
import json

import pytest
from aiohttp import ClientSession, CookieJar, web
from pydantic import SecretStr

from topology.health import Health, HttpServer, make_http
from topology.http_guard import PUBLIC, USER
from topology.http_users import COOKIE, User, Users
from topology.settings import Settings

TOKENS = {"http_token": SecretStr("may-write"), "http_viewer_token": SecretStr("may-look")}
PROXY = {"http_user_header": "X-User", "http_reviewers": "ann, bo"}


async def who(request):
    user = request.get(USER) or User("open", "nothing")
    return web.json_response({"role": user.role, "name": user.name})


async def fail(_):
    raise ValueError("secret")


@pytest.fixture
async def serve():
    servers = []

    async def start(**settings):
        application = make_http("test", Health())
        application.router.add_route("GET", "/who", who)
        application.router.add_route("POST", "/who", who)
        application.router.add_route("GET", "/fail", fail)

        async def public(request):
            return await who(request)

        setattr(public, PUBLIC, True)
        application.router.add_route("GET", "/public", public)
        server = HttpServer(application, Settings(_env_file=None, **settings))
        await server.start()
        servers.append(server)
        client = ClientSession(f"http://127.0.0.1:{server.port}", cookie_jar=CookieJar(unsafe=True))
        servers.append(client)
        return client

    yield start
    for one in servers:
        await (one.stop() if isinstance(one, HttpServer) else one.close())


async def ask(client, method, path="/who", **headers):
    async with client.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()}) as response:
        return response.status, await response.json()


async def test_without_tokens_all_may_write_but_no_other_sites_page(serve):
    client = await serve()
    assert await ask(client, "POST") == (200, {"role": "open", "name": None})
    for headers in ({"Sec_Fetch_Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        status, told = await ask(client, "POST", **headers)
        assert status == 403 and "another site" in told["error"]
    own = str(client._base_url).rstrip("/")
    assert (await ask(client, "POST", Origin=own))[0] == 200
    assert (await ask(client, "POST", Origin="https://behind.proxy", Sec_Fetch_Site="same-origin"))[0] == 200


async def test_a_viewers_token_reads_and_a_reviewers_writes(serve):
    client = await serve(**TOKENS)
    assert (await ask(client, "GET"))[0] == 401
    assert (await ask(client, "GET", "/public"))[0] == 200
    assert (await ask(client, "GET", Authorization="Bearer may-look"))[1]["role"] == "viewer"
    assert (await ask(client, "POST", Authorization="Bearer may-look"))[0] == 403
    assert await ask(client, "POST", Authorization="Bearer may-write") == (200, {"role": "reviewer", "name": None})
    assert (await ask(client, "GET", Authorization="Bearer may-writ"))[0] == 401


async def test_a_cookie_needs_the_header_to_write_and_is_signed(serve):
    client = await serve(**TOKENS)
    value = Users(Settings(_env_file=None, **TOKENS)).cookie("reviewer", "Ann")
    client.cookie_jar.update_cookies({COOKIE: value})
    assert await ask(client, "GET") == (200, {"role": "reviewer", "name": "Ann"})
    assert (await ask(client, "POST"))[0] == 403
    assert (await ask(client, "POST", X_COPE_CSRF="1"))[0] == 200
    for bad in (value[:-1] + ("0" if value[-1] != "0" else "1"), value[1:], "", ".", "é.é"):
        client.cookie_jar.clear()
        assert (await ask(client, "GET", Cookie=f"{COOKIE}={bad}"))[0] == 401


async def test_a_cookie_ends_and_dies_with_its_token(monkeypatch):
    settings = Settings(_env_file=None, **TOKENS)
    value = Users(settings).cookie("viewer", None)
    users = Users(settings)
    assert users._by_cookie(value) == User("viewer", "cookie")
    other = settings.model_copy(update={"http_token": SecretStr("changed")})
    assert Users(other)._by_cookie(value) is None
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert users._by_cookie(value) is None


async def test_a_trusted_proxy_names_the_user_and_any_other_does_not(serve):
    trusted = await serve(**PROXY)
    assert (await ask(trusted, "GET"))[0] == 401
    assert await ask(trusted, "GET", X_User="ann") == (200, {"role": "reviewer", "name": "ann"})
    assert (await ask(trusted, "POST", X_User="ann"))[0] == 403
    assert (await ask(trusted, "POST", X_User="ann", X_COPE_CSRF="1"))[0] == 200
    assert (await ask(trusted, "POST", X_User="eve", X_COPE_CSRF="1"))[0] == 403
    far = await serve(**PROXY, http_trusted_proxies="10.0.0.0/8")
    assert (await ask(far, "GET", X_User="ann"))[0] == 401


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/no", 404), ("PUT", "/who", 405), ("GET", "/fail", 500)]
)
async def test_errors_are_json_and_tell_nothing_of_the_inside(serve, method, path, status):
    got, told = await ask(await serve(), method, path)
    assert got == status and set(told) == {"error"} and "secret" not in told["error"]


async def test_a_body_that_is_too_large_is_refused_in_json(serve):
    client = await serve()
    async with client.post("/who", data=b"x" * 100_000) as response:
        assert (response.status, set(await response.json())) == (413, {"error"})


@pytest.mark.parametrize(
    "request_bytes", [b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"secret" * 4_000 + b"\r\n\r\n"]
)
async def test_what_is_no_http_is_answered_in_json_and_not_repeated(serve, request_bytes):
    client = await serve()
    reader, writer = await asyncio.open_connection(client._base_url.host, client._base_url.port)
    writer.write(request_bytes)
    head, _, body = (await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")
    writer.close()
    assert b" 400 " in head.splitlines()[0] and b"application/json" in head
    assert set(json.loads(body)) == {"error"} and b"secret" not in body and b"GARBAGE" not in body


async def test_a_proxys_name_in_another_encoding_is_text_all_the_same(serve):
    client = await serve(**PROXY)
    reader, writer = await asyncio.open_connection("127.0.0.1", client._base_url.port)
    writer.write(b"GET /who HTTP/1.1\r\nHost: localhost\r\nX-User: J\xf6rg\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    told = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert told == {"role": "viewer", "name": "J\ufffdrg"}
