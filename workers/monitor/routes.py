"""Routes: what they answer, how they are described (`workers.monitor.openapi`), and when they are served."""

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from topology.errors import Unavailable
from topology.http_guard import PUBLIC

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")

MOST_LISTED = 200  # entries of one answer: some 0.5 MB
_LISTED = 50

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Route:
    """One route.

    Attributes:
        path: As aiohttp takes it. A parameter that takes `.+` may hold slashes.
        summary: One sentence for the document.
        answer: The struct of a 200, or a media type.
        query: Parameters after the question mark, with a description each.
        body: The struct that a request's body holds.
        public: Whether anyone is answered, also without a token; see `topology.http_guard`.
        needs: Name of what must have been read back before it answers; see `Routes`.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    answer: type[msgspec.Struct] | str
    query: Mapping[str, str] = field(default_factory=dict)
    body: type[msgspec.Struct] | None = None
    public: bool | Callable[[web.Request], bool] = False
    needs: str = "streams"


class Routes:
    """Serves routes.

    Args:
        behind: Returns, for a `needs`, the topics that are still being read back. Until there are none, its routes
            answer 503, since a list with entries missing would be wrong.
    """

    def __init__(self, behind: Mapping[str, Callable[[], list[str]]]) -> None:
        self.all: list[Route] = []
        self._behind = behind

    def add(self, *routes: Route) -> None:
        """Adds routes. Of two that match a path, the first one answers."""
        self.all += routes

    def serve(self, application: web.Application) -> None:
        """Hands the routes to an application."""
        for route in self.all:
            handler = self._guarded(route)
            application.router.add_route(route.method, route.path, handler)
            if route.method == "GET" and route.answer != "text/event-stream":  # a feed without a body has no end
                application.router.add_route("HEAD", route.path, handler)

    def _guarded(self, route: Route) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            behind = self._behind[route.needs]() if route.needs in self._behind else []
            if behind:
                return error(503, f"reading {', '.join(behind)} back; try again in a moment", {"Retry-After": "1"})
            try:
                return await route.handler(request)
            except RefusedError as refusal:
                return error(refusal.status, str(refusal))
            except Unavailable as trouble:
                return error(503, str(trouble), {"Retry-After": "5"})

        setattr(handle, PUBLIC, route.public)
        return handle


class RefusedError(Exception):
    """The request cannot be answered; the text says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def answer(value: msgspec.Struct, status: int = 200) -> web.Response:
    """Returns a JSON answer that must not be cached."""
    return web.Response(
        body=_encode(value), status=status, content_type="application/json", headers={"Cache-Control": "no-store"}
    )


def error(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    """Returns an error in JSON."""
    return web.json_response({"error": text}, status=status, headers=headers)


def picture(request: web.Request, data: bytes, etag: str, *, changes: bool) -> web.Response:
    """Returns a JPEG, or 304 for a client that has it.

    Args:
        request: Says what the client has.
        data: The file.
        etag: Changes with the picture.
        changes: Another picture may come to stand at this address.
    """
    kept = "private, max-age=300, must-revalidate" if changes else "private, max-age=86400, immutable"
    headers = {"ETag": f'"{etag}"', "Cache-Control": kept, "X-Content-Type-Options": "nosniff"}
    if any(one.value == etag for one in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=data, content_type="image/jpeg", headers=headers)


async def body(request: web.Request, kind: type[T]) -> T:
    """Returns the request's body as a struct.

    Raises:
        RefusedError: The body is not such a struct.
    """
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as problem:
        raise RefusedError(400, f"the body is not what it should be: {problem}") from None


def limit_of(request: web.Request) -> int:
    """Returns how many entries are asked for.

    Raises:
        RefusedError: The limit is not a number, or too large.
    """
    limit = number_of(request, "limit", _LISTED)
    if not 1 <= limit <= MOST_LISTED:
        raise RefusedError(400, f"limit={limit}: ask for 1 to {MOST_LISTED}")
    return limit


def number_of(request: web.Request, name: str, default: T) -> int | T:
    """Returns a whole number of the query.

    Raises:
        RefusedError: The value is not a whole number.
    """
    text = request.query.get(name, "")
    if not text:
        return default
    if not (text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() and len(text) < 18):
        raise RefusedError(400, f"{name}={text[:40]!r}: write a whole number")
    return int(text)


def to_cursor(value: Any) -> str:
    """Returns a place in a list as an opaque word."""
    return base64.urlsafe_b64encode(_encode(value)).decode().rstrip("=")


def from_cursor(text: str, kind: Any) -> Any:
    """Returns the place that a cursor names, as a value of that kind.

    Raises:
        RefusedError: The cursor was not made by `to_cursor`.
    """
    try:
        padded = text + "=" * (-len(text) % 4)
        return msgspec.json.decode(base64.b64decode(padded.encode(), altchars=b"-_", validate=True), type=kind)
    except (msgspec.MsgspecError, ValueError):
        raise RefusedError(400, "after: take it from the `next` of an answer") from None
