"""Routes about the catalogue."""

from urllib.parse import quote

from aiohttp import web
from msgspec import UNSET

from workers.monitor.answers import LookAlike, ProductList, ProductView
from workers.monitor.history import History
from workers.monitor.routes import RefusedError, Route, answer, from_cursor, limit_of, picture, to_cursor
from workers.pages import Listed, Pages

_LOOK_ALIKES = 8
_SIGHTINGS = 20


class Products:
    """The indexed part of the catalogue."""

    def __init__(self, pages: Pages, history: History) -> None:
        self._pages = pages
        self._history = history

    def routes(self) -> list[Route]:
        """Returns the routes."""
        pages = {"q": "Words that title or id must have", "after": "`next` of the page before", "limit": "1 to 200"}
        return [
            Route("GET", "/products", self._list, "Products, by id.", ProductList, pages, needs="products"),
            Route(
                "GET",
                "/products/{product_id:.+}/images/{number:\\d+}.jpg",
                self._picture,
                "One picture of a product.",
                "image/jpeg",
                needs="products",
            ),
            Route("GET", "/products/{product_id:.+}", self._one, "One product.", ProductView, needs="products"),
        ]

    def view(self, product_id: str) -> ProductView | None:
        """Returns a product; None if the id is unknown."""
        one = self._pages.get(product_id)
        return None if one is None else _view(one)

    def title(self, product_id: str) -> str:
        """Returns a product's title, or its id if it has no title."""
        return self._pages.title(product_id)

    def image_url(self, product_id: str, uri: str | None = None) -> str | None:
        """Returns where a product's picture is served: the one with that URI, else the first."""
        one = self._pages.get(product_id)
        number = None if one is None else one.image_number(uri or "")
        return None if number is None else _image_url(product_id, number)

    async def _list(self, request: web.Request) -> web.Response:
        limit = limit_of(request)
        after = from_cursor(request.query["after"], str) if request.query.get("after") else ""
        found = self._pages.search(request.query.get("q", ""), after, limit + 1)
        more = to_cursor(found[limit - 1].product_id) if len(found) > limit else None
        return answer(ProductList(products=[_view(one) for one in found[:limit]], next=more))

    async def _one(self, request: web.Request) -> web.Response:
        product_id = request.match_info["product_id"]
        one = self._pages.get(product_id)
        if one is None:
            raise RefusedError(404, f"no product {product_id[:80]!r} is indexed: /products lists those that are")
        page = await self._pages.page(product_id)
        alike = [
            LookAlike(
                product_id=other.product_id,
                title=other.title,
                score=round(score, 4),
                image_url=self.image_url(other.product_id),
            )
            for other, score in self._pages.look_alikes(product_id, _LOOK_ALIKES)
        ]
        sightings = [one.detection_id for one in self._history.of_product(product_id, _SIGHTINGS)]
        return answer(_view(one, page.description if page else "", alike, sightings))

    async def _picture(self, request: web.Request) -> web.Response:
        product_id, number = request.match_info["product_id"], int(request.match_info["number"])
        one = self._pages.get(product_id)
        found = await self._pages.picture(product_id, number)
        if one is None or found is None:
            raise RefusedError(404, f"product {product_id[:80]!r} has no picture {number}")
        return picture(request, found, f"{one.partition}-{one.offset}-{number}", changes=True)


def _view(
    one: Listed, description: str = "", alike: list[LookAlike] | None = None, sightings: list[str] | None = None
) -> ProductView:
    return ProductView(
        product_id=one.product_id,
        title=one.title,
        description=description,
        image_urls=[_image_url(one.product_id, number) for number in range(len(one.images))],
        state="failed" if one.error else "indexed",
        error=one.error or None,
        look_alikes=UNSET if alike is None else alike,
        sightings=UNSET if sightings is None else sightings,
    )


def _image_url(product_id: str, number: int) -> str:
    return f"/products/{quote(product_id, safe='')}/images/{number}.jpg"
