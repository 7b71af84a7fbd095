"""How much of a product page is used: the rest is cut, so that what is made of a page fits its topic."""

import msgspec

from topology.records import PageVectors, ProductPage
from topology.redact import without_user

# Far above what shops write, and far below what makes the model, the vocabulary or a record slow or too large.
LONGEST_NAME = 1_000  # title, brand, category and each attribute
LONGEST_DESCRIPTION = 20_000
MOST_ATTRIBUTES = 200
LONGEST_ERROR = 1_000

_LONGEST_URI = 2_048  # 64 of them in four-byte letters fill half of a record
_MOST_TERMS = 4_000
_MOST_LINES, _LONGEST_LINE = 200, 200


def clipped(page: ProductPage) -> ProductPage:
    """Returns the page with its texts cut to the length that is used."""
    return msgspec.structs.replace(
        page,
        title=page.title[:LONGEST_NAME],
        description=page.description[:LONGEST_DESCRIPTION],
        category=page.category[:LONGEST_NAME],
        brand=page.brand[:LONGEST_NAME],
        attributes={
            name[:LONGEST_NAME]: text[:LONGEST_NAME] for name, text in list(page.attributes.items())[:MOST_ATTRIBUTES]
        },
    )


def fitting(record: PageVectors) -> PageVectors:
    """Returns the record of an encoded page, small enough for its topic.

    The URI of an image is left empty if the page holds its bytes (also as a `data:` URI) or if the URI is too long.
    User and password are removed from the others.
    """
    terms = sorted(record.terms.items(), key=lambda term: (-term[1], term[0]))[:_MOST_TERMS]
    return msgspec.structs.replace(
        record,
        title=record.title[:LONGEST_NAME],
        category=record.category[:LONGEST_NAME],
        images=tuple(map(_address, record.images)),
        terms=dict(terms) if len(record.terms) > _MOST_TERMS else record.terms,
        error=record.error[:LONGEST_ERROR],
        names=_lines(record.names),
        read=_lines(record.read),
        titles=_lines(record.titles),
    )


def _address(uri: str) -> str:
    return "" if uri[:5].lower() == "data:" or len(uri) > _LONGEST_URI else without_user(uri)


def _lines(lines: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(line[:_LONGEST_LINE] for line in lines[:_MOST_LINES])
