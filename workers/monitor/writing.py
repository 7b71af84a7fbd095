"""Routes that write to the topics that platforms write to."""

from typing import TypeVar

import msgspec
from aiohttp import web

from topology.checks import check
from topology.errors import BadInput
from topology.records import ProductPage, Record, StreamAnnounced, decode
from topology.topics import LIVE_STREAMS, PRODUCT_PAGES
from workers.monitor.answers import Written
from workers.monitor.routes import RefusedError, Route, answer
from workers.monitor.verdicts import Write

R = TypeVar("R", bound=Record)


class Writing:
    """Announces streams and publishes pages, with the checks of the command line."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def routes(self) -> list[Route]:
        """Returns the routes."""
        return [
            Route(
                "POST",
                "/streams",
                self._announce,
                'Announces that a stream is live, or over ("state": "ended").',
                Written,
                body=StreamAnnounced,
            ),
            Route(
                "PUT",
                "/products/{product_id:.+}",
                self._publish,
                "Publishes a product's page. Its pictures are named by URL.",
                Written,
                body=ProductPage,
            ),
        ]

    async def _announce(self, request: web.Request) -> web.Response:
        announced = _checked(await _plain_object(request), StreamAnnounced)
        await self._write(LIVE_STREAMS, announced.stream_id, announced)
        return answer(Written(topic=LIVE_STREAMS, key=announced.stream_id))

    async def _publish(self, request: web.Request) -> web.Response:
        product_id = request.match_info["product_id"]
        fields = await _plain_object(request)
        if fields.setdefault("product_id", product_id) != product_id:
            raise RefusedError(400, "the body has another product_id than the address")
        page = _checked(fields, ProductPage)
        if not page.images:
            raise RefusedError(400, "no images: a page without a picture is found in no stream")
        await self._write(PRODUCT_PAGES, product_id, page)
        return answer(Written(topic=PRODUCT_PAGES, key=product_id))


async def _plain_object(request: web.Request) -> dict[str, object]:
    try:
        fields = msgspec.json.decode(await request.read())
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RefusedError(400, f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RefusedError(400, "the body is not a JSON object")
    return fields


def _checked(fields: dict[str, object], kind: type[R]) -> R:
    known = set(kind.__struct_fields__)
    unknown = sorted(set(fields) - known)
    if unknown:
        raise RefusedError(400, f"no field {unknown[0][:80]!r}; there are {', '.join(sorted(known - {'v'}))}")
    try:
        record = decode(msgspec.json.encode(fields), kind)
        check(record)
    except BadInput as error:
        raise RefusedError(400, str(error)) from None
    return record
