"""Protection of every HTTP server here: time-outs, limited connections, `Host`, users, errors as JSON."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from topology.http_users import CSRF_HEADER, User, Users, is_foreign
from topology.settings import Settings

_log = logging.getLogger(__name__)

# Health and metrics are for probes and Prometheus: they carry no token, and call a worker by any name.
OPEN_PATHS = frozenset({"/healthz", "/metrics"})
# A request's head fits into one packet, a body for the monitor into a few: slower clients hold connections on purpose.
HEAD_S = 10.0
BODY_S = 10.0
MOST_BODY_BYTES = 64 * 1024
# Twice the clients that the monitor takes, and far below the files that a process may open.
MOST_CONNECTIONS = 512
KEEP_ALIVE_S = 30.0

PUBLIC = "public"
"""Attribute of a handler that answers anyone: True, or a function of the request."""
USER = web.RequestKey("user", User)
"""Key of a request under which its `User` lies, if they are known."""

_SAFE = ("GET", "HEAD", "OPTIONS")
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Gate:
    """Makes the connections of one server, limits their number, and ends those that send no whole head in time."""

    def __init__(
        self, make: Callable[[], asyncio.Protocol], most: int = MOST_CONNECTIONS, head_s: float = HEAD_S
    ) -> None:
        self.make = make
        self.most = most
        self.head_s = head_s
        self.open = 0

    def __call__(self) -> asyncio.Protocol:
        """Returns the protocol of a new connection."""
        return _Connection(self)


class _Connection(asyncio.Protocol):
    """Hands everything to aiohttp's own protocol."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - it is TCP
        if self._gate.open >= self._gate.most:
            transport.write(_BUSY)
            transport.close()
            return
        self._gate.open += 1
        self._transport = transport
        self._inner = self._gate.make()
        self._inner.connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        if self._inner is None:
            return
        # A body is taken for the beginning of a head: its own time-out is as long.
        self._head = (self._head + data)[-8192:]
        if b"\r\n\r\n" in self._head or b"\n\n" in self._head:
            self._head = b""
            self._stop_waiting()
        elif self._timer is None:
            self._wait_for_head()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._inner is None else self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_waiting()
        if self._inner is not None:
            self._gate.open -= 1
            self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def _wait_for_head(self) -> None:
        if self._transport is not None:
            self._timer = asyncio.get_running_loop().call_later(self._gate.head_s, self._transport.abort)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Handler(web.RequestHandler):
    """Answers malformed HTTP in JSON too, without repeating any of it."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)
        response = _error(status, "not a request that this server understands" if status < 500 else _FAILED)
        response.force_close()
        return response


def protocols(server: web.Server) -> Callable[[], asyncio.Protocol]:
    """Returns what makes the protocol of each connection to a server."""
    return lambda: _Handler(server, loop=asyncio.get_running_loop(), **server._kwargs)


def guard(settings: Settings) -> Middleware:
    """Returns the middleware that checks `Host` and user, and reads the body in time."""
    users = Users(settings)
    hosts = {"localhost", socket.gethostname().lower(), settings.http_host.lower()}
    hosts |= {host.strip().lower() for host in settings.http_hosts.split(",") if host.strip()}

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN_PATHS:
            if not ("*" in hosts or _is_ours(request.headers.get("Host", ""), hosts)):
                return _error(421, "this host's name is not served: COPE_HTTP_HOSTS lists those that are")
            user = users.of(request)
            public = _is_public(request)
            if user is None and not public:
                return _error(401, "needs the token: send Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
            if request.method not in _SAFE and (refusal := _why_not_written(request, user, public)):
                return _error(403, refusal)
            if user is not None:
                request[USER] = user
        if request.can_read_body:
            try:
                async with asyncio.timeout(BODY_S):
                    await request.read()
            except TimeoutError:
                return _error(408, "the body did not come in time")
        return await handler(request)

    return check


@web.middleware
async def errors_in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns aiohttp's plain-text errors and exceptions of handlers into `{"error": ...}`."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        kept = {name: value for name, value in error.headers.items() if name in ("Allow", "Retry-After")}
        return _error(error.status, _PLAIN.get(error.status, error.reason), kept)
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a line in JSON, and the log the rest
        _log.exception("a request failed", extra={"path": request.path[:200], "error": type(error).__name__})
        return _error(500, _FAILED)


_FAILED = "the server failed; its log says why"
_PLAIN = {
    404: "nothing here: docs/monitor.md lists the routes",
    405: "not with this method",
    413: f"the body is larger than {MOST_BODY_BYTES} bytes",
}


def _is_public(request: web.Request) -> bool:
    public = getattr(request.match_info.handler, PUBLIC, False)
    return bool(public(request) if callable(public) else public)


def _why_not_written(request: web.Request, user: User | None, public: bool) -> str:
    """Says why the request may not change anything; empty if it may."""
    by_token = user is not None and user.by == "token"
    if not by_token and is_foreign(request):
        return "not from the page of another site"
    if public or user is None:  # the handler asks for itself
        return ""
    if user.by in ("cookie", "proxy") and request.headers.get(CSRF_HEADER) != "1":
        return f"needs the header {CSRF_HEADER}: 1"
    return "" if user.may_write else "viewers may not change anything: reviewers may"


def _is_ours(header: str, hosts: set[str]) -> bool:
    """Returns whether `Host` is ours. Addresses always are; another site's name could be rebound to our address."""
    name = header.rpartition("]")[0].lstrip("[") if header.startswith("[") else header.partition(":")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower().rstrip(".") in hosts
    return True


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": text}, status=status, headers=headers)


def is_loopback(host: str) -> bool:
    """Returns whether a server at this address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
