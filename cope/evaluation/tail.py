"""Head, body and tail of the category distribution."""

from collections import Counter
from collections.abc import Sequence

PARTS = ("head", "body", "tail")


def category_parts(categories: Sequence[str]) -> list[str]:
    """The part of each product, "" where its category is unknown.

    Categories are ordered by their number of products, the largest first (of equal ones by name). The head are those
    that hold the first third of all products, the body those that hold the second, the tail the rest; a category that
    lies across a border belongs to the part in which it begins. So the head is a handful of large categories and the
    tail are many small ones, each part of about as many products.

    Args:
        categories: Categories of the products, "" where unknown.
    """
    counts = Counter(category for category in categories if category)
    total = sum(counts.values())
    part: dict[str, str] = {"": ""}
    before = 0
    for category, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
        part[category] = PARTS[3 * before // total]
        before += count
    return [part[category] for category in categories]
