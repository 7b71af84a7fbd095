"""What a text tower reads of keywords, and how much that counts beside what is seen."""

from collections.abc import Sequence
from typing import Literal

Keywords = Sequence[tuple[str, float]]  # with weights

# Keywords told as surely as this name something in the catalogue; key phrases that it does not know weigh less.
SURE = 0.3


def readings(keywords: Keywords, how: Literal["mean", "joined"]) -> list[tuple[str, float]]:
    """The texts that the tower reads, with the weights by which their vectors are averaged.

    Args:
        keywords: With weights. Those that are blank, or weigh nothing, are left out.
        how: `mean`: each keyword by itself. `joined`: all in one text, the weightiest first, since a tower cuts off
            what is too long; its weight is that of the weightiest.
    """
    real = [(word.strip(), weight) for word, weight in keywords if word.strip() and weight > 0]
    if how == "mean" or not real:
        return real
    ordered = sorted(real, key=lambda keyword: -keyword[1])
    return [(", ".join(word for word, _ in ordered), ordered[0][1])]


def told(keywords: Keywords) -> float:
    """How surely keywords name something, in [0, 1]: the weight of the weightiest, 0 if there are none.

    Where a host chats of something else, what is left are key phrases that the catalogue does not know. An average of
    their vectors looks as sure of itself as any other; their weights do not.
    """
    return min(1.0, max((weight for word, weight in keywords if word.strip()), default=0.0))
