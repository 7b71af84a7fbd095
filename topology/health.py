"""Named health checks of a worker, served as /healthz, and its metrics, served as /metrics."""

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from topology.errors import UserError
from topology.http_guard import KEEP_ALIVE_S, MOST_BODY_BYTES, Gate, errors_in_json, guard, is_loopback, protocols
from topology.http_users import Users
from topology.redact import redacted
from topology.settings import Settings

_log = logging.getLogger(__name__)

Check = Callable[[], str | None]


class Health:
    """A set of named checks; each returns a reason in words if something is wrong, else None."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}

    def add(self, name: str, check: Check) -> None:
        """Adds a check, or replaces the one of that name. It must not block."""
        self._checks[name] = check

    def report(self) -> dict[str, str]:
        """Returns what each check says: "ok", or what is wrong."""
        return {name: redacted(check() or "ok") for name, check in self._checks.items()}

    @property
    def ok(self) -> bool:
        """All checks pass."""
        return all(not check() for check in self._checks.values())


def make_http(role: str, health: Health) -> web.Application:
    """Returns the web application with /healthz (200 or 503, JSON with reasons) and /metrics (Prometheus)."""

    async def healthz(_: web.Request) -> web.Response:
        checks = health.report()
        ok = all(text == "ok" for text in checks.values())
        return web.json_response({"role": role, "ok": ok, "checks": checks}, status=200 if ok else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(client_max_size=MOST_BODY_BYTES)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/metrics", metrics)
    return app


class HttpServer:
    """Serves a web application at `Settings.http_host`:`http_port`.

    Attributes:
        port: The port that it listens on, after `start`.
    """

    def __init__(self, application: web.Application, settings: Settings) -> None:
        self.port = 0
        self._application = application
        self._settings = settings
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        application.middlewares.extend((errors_in_json, guard(settings)))

    async def start(self) -> None:
        """Listens.

        Raises:
            UserError: The port is in use, the address is not this machine's, or it would be reachable without a token.
        """
        host, port = self._settings.http_host, self._settings.http_port
        is_open = not Users(self._settings).protects and not self._settings.http_unprotected
        if is_open and not is_loopback(host):
            raise UserError(
                f"COPE_HTTP_HOST={host}: others reach it too: set COPE_HTTP_TOKEN, or COPE_HTTP_UNPROTECTED=true where "
                "the network itself keeps them away"
            )
        runner = web.AppRunner(self._application, access_log=None, shutdown_timeout=1.0, keepalive_timeout=KEEP_ALIVE_S)
        await runner.setup()
        make = runner.server
        assert make is not None  # noqa: S101 - set up above
        try:
            server = await asyncio.get_running_loop().create_server(
                Gate(protocols(make)), host, port, reuse_address=True
            )
        except OSError as error:
            await runner.cleanup()
            raise UserError(
                f"cannot serve http at {host}:{port} (setting COPE_HTTP_PORT): {error.strerror}: "
                "choose another port, or 0 for any free one"
            ) from error
        self._runner, self._server = runner, server
        self.port = server.sockets[0].getsockname()[1]
        _log.info("serving /metrics and /healthz", extra={"host": host, "port": self.port})

    async def stop(self) -> None:
        """Stops listening."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
