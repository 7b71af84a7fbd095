"""Reads shops' exports (Google Merchant, Shopify, WooCommerce) as rows of our own columns.

| export | told by | a product is |
|---|---|---|
| Google Merchant (XML, TSV) | `id`, `title`, `image_link` | a row |
| Shopify CSV, old and new | `Handle` or `URL handle`, `Title` | the rows of one handle: further pictures and variants |
| Shopify JSON (`/products.json`) | `handle`, `title`, `body_html` | a row |
| WooCommerce CSV | `Name`, `Images`, `SKU` | a row, with its variations |
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from topology.errors import UserError
from workers.catalog.tables import Row

# Columns that help to tell products apart; shipping, tax and stock do not.
_GOOGLE_ATTRIBUTES = ("color", "size", "material", "pattern", "gender", "age_group", "mpn", "product_highlight")

Reader = Callable[[Iterable[Row]], Iterator[Row]]


def reader_of(columns: Iterable[str]) -> Reader | None:
    """Returns the function that turns an export's rows into ours; None if the columns match no known export."""
    names = set(map(_norm, columns))
    if {"product_id", "title", "images"} <= names:
        return None
    if {"id", "title", "image_link"} <= names:
        return _google
    if {"handle", "title", "body_html"} <= names and "image_src" not in names:
        return _shopify_json
    if names & {"handle", "url_handle"} and "title" in names:
        return _shopify
    if {"name", "images"} <= names and names & {"sku", "id"} and "type" in names:
        return _woocommerce
    return None


def _norm(column: str) -> str:
    """Normalises a column's name: `g:image link`, `Image Link` and `image_link` are the same."""
    return re.sub(r"[^\w]+", "_", column.strip().lower().removeprefix("g:")).strip("_")


class _Cells(dict[str, object]):
    """A row by normalised names."""

    def __init__(self, row: Mapping[str, object]) -> None:
        super().__init__((_norm(column), value) for column, value in row.items())

    def first(self, *names: str) -> object:
        """The first of these columns that is not empty."""
        return next((self[name] for name in names if self.get(name) not in (None, "", [])), "")

    def text(self, *names: str) -> str:
        value = self.first(*names)
        return "" if value != value else str(value).strip()


def _google(rows: Iterable[Row]) -> Iterator[Row]:
    for where, row in rows:
        if isinstance(row, UserError):
            yield where, row
            continue
        cells = _Cells(row)
        more = cells.first("additional_image_link")
        pictures = [cells.first("image_link"), *(more if isinstance(more, list) else _urls(str(more)))]
        yield (
            where,
            {
                "product_id": cells.first("id"),
                "title": cells.first("title"),
                "images": [picture for picture in pictures if picture],
                "description": cells.first("description", "summary"),
                "category": cells.first("product_type", "google_product_category"),
                "brand": cells.first("brand"),
                "price": cells.first("sale_price", "price"),
                **{name: cells[name] for name in _GOOGLE_ATTRIBUTES if name in cells},
            },
        )


def _shopify(rows: Iterable[Row]) -> Iterator[Row]:
    handle, where, product, options = "", "", dict[str, object](), dict[str, list[str]]()

    def whole() -> Iterator[Row]:
        if product.get("product_id"):
            yield where, product | {name: ", ".join(values) for name, values in options.items()}

    for place, row in rows:
        if isinstance(row, UserError):
            yield place, row
            continue
        cells = _Cells(row)
        here = cells.text("handle", "url_handle")
        if here != handle or not here:
            yield from whole()
            handle, where, product, options = here, place, {}, {}
            if cells.text("status") in ("draft", "archived", "Draft", "Archived"):
                continue
            product = {
                "product_id": here,
                "title": cells.first("title"),
                "images": [],
                "description": cells.first("body_html", "description"),
                "category": cells.first("type", "product_category"),
                "brand": cells.first("vendor"),
                "price": cells.first("variant_price", "price"),
                "tags": cells.first("tags"),
            }
            names = {at: cells.text(f"option{at}_name") for at in (1, 2, 3)}
        if not product:
            continue
        pictures = product["images"]
        for picture in (
            cells.text("image_src", "product_image_url"),
            cells.text("variant_image", "variant_image_url"),
        ):
            if picture and isinstance(pictures, list) and picture not in pictures:
                pictures.append(picture)
        for at in (1, 2, 3):
            name, value = names[at] or cells.text(f"option{at}_name"), cells.text(f"option{at}_value")
            if value and name and (name, value) != ("Title", "Default Title"):
                values = options.setdefault(name, [])
                if value not in values:
                    values.append(value)
    yield from whole()


def _shopify_json(rows: Iterable[Row]) -> Iterator[Row]:
    for where, row in rows:
        if isinstance(row, UserError):
            yield where, row
            continue
        options = row.get("options")
        variants = row.get("variants")
        first = variants[0] if isinstance(variants, list) and variants and isinstance(variants[0], dict) else {}
        yield (
            where,
            {
                "product_id": row.get("handle"),
                "title": row.get("title"),
                "images": row.get("images"),
                "description": row.get("body_html"),
                "category": row.get("product_type"),
                "brand": row.get("vendor"),
                "price": first.get("price"),
                "tags": row.get("tags"),
            }
            | {
                str(option.get("name")): option.get("values")
                for option in (options if isinstance(options, list) else [])
                if isinstance(option, dict) and option.get("name") != "Title"
            },
        )


def _woocommerce(rows: Iterable[Row]) -> Iterator[Row]:
    """Joins each product with the variations after it, whose pictures it takes."""
    where, product, names = "", dict[str, object](), set[str]()
    for place, row in rows:
        if isinstance(row, UserError):
            yield place, row
            continue
        cells = _Cells(row)
        if cells.text("type").startswith("variation"):
            parent = cells.text("parent")
            if product and (not parent or parent in names):
                pictures = product["images"]
                if isinstance(pictures, list):
                    pictures += [picture for picture in _urls(cells.text("images")) if picture not in pictures]
            continue
        if product:
            yield where, product
        where, product = place, {}
        if cells.text("published") in ("-1", "0", "-1.0", "0.0"):
            continue
        names = {f"id:{cells.text('id')}", cells.text("sku")}
        product = {
            "product_id": cells.first("id", "sku"),
            "title": cells.first("name"),
            "images": _urls(cells.text("images")),
            "description": _lines(cells.first("description", "short_description")),
            "category": cells.first("categories"),
            "brand": cells.first("brands", "brand"),
            "price": cells.first("sale_price", "regular_price"),
            "tags": cells.first("tags"),
        }
        for at in range(1, 20):
            name, values = cells.text(f"attribute_{at}_name"), cells.first(f"attribute_{at}_value_s")
            if name and values:
                product[name] = values
    if product:
        yield where, product


def _lines(value: object) -> object:
    r"""Replaces WooCommerce's escaped line breaks (`\n`)."""
    return value.replace("\\n", " ") if isinstance(value, str) else value


def _urls(text: str) -> list[str]:
    """Splits a list at the commas before an address, since addresses may contain commas."""
    return [part for part in re.split(r"\s*[,|;]\s*(?=https?://)|\s+(?=https?://)", text.strip()) if part.strip(" ,")]
