"""What stands before each HTTP server here: time-outs, a bound of connections, `Host` and token."""

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from topology.settings import Settings

# Health and metrics are for probes and Prometheus: they carry no token, and call a worker by any name.
OPEN_PATHS = frozenset({"/healthz", "/metrics"})
# The request's head fits one packet, and what is sent to a monitor a few: slower ones hold connections on purpose.
HEAD_S = 10.0
BODY_S = 10.0
MOST_BODY_BYTES = 64 * 1024
# Twice the clients that the monitor takes, and far below the files that a process may open.
MOST_CONNECTIONS = 512
KEEP_ALIVE_S = 30.0

_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Gate:
    """Makes the connections of one server, so many at once, and ends those that send no whole head in time."""

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


def guard(settings: Settings) -> Middleware:
    """Returns the middleware that checks `Host` and token, and reads the body in time."""
    token = settings.http_token.get_secret_value().encode()
    hosts = {"localhost", socket.gethostname().lower(), settings.http_host.lower()}
    hosts |= {host.strip().lower() for host in settings.http_hosts.split(",") if host.strip()}

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN_PATHS:
            if not ("*" in hosts or _is_ours(request.headers.get("Host", ""), hosts)):
                return _error(421, "this host's name is not served: COPE_HTTP_HOSTS lists those that are")
            if token and not _has_token(request, token):
                return _error(401, "needs the token: send Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
        if request.can_read_body:
            try:
                async with asyncio.timeout(BODY_S):
                    await request.read()
            except TimeoutError:
                return _error(408, "the body did not come in time")
        return await handler(request)

    return check


def _is_ours(header: str, hosts: set[str]) -> bool:
    """An address cannot be made to lead elsewhere; a name can, and a page behind it would read what we say."""
    name = header.rpartition("]")[0].lstrip("[") if header.startswith("[") else header.partition(":")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower().rstrip(".") in hosts
    return True


def _has_token(request: web.Request, token: bytes) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    # A browser's EventSource sends no headers of its own.
    given = given.strip() if scheme.lower() == "bearer" else request.query.get("token", "")
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token)


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": text}, status=status, headers=headers)


def is_loopback(host: str) -> bool:
    """Returns whether a server at this address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
