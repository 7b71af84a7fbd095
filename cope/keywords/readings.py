"""The texts that a text tower reads for keywords, and their weight beside the pictures."""

from collections.abc import Iterable, Sequence
from typing import Literal

Keywords = Sequence[tuple[str, float]]  # with weights

# From this weight on, keywords name something in the catalogue; key phrases that are not in it weigh less.
SURE = 0.3

# Most keywords of a window, each a text to encode. Twenty-eight seconds of speech name fewer things.
MAX_KEYWORDS = 32

# Pieces of speech with a shorter pause between them are parts of one sentence, which says more than each: "a carton
# with green letters" of no milk in particular. Longer ones are kept apart, as the calibrations know them.
_PAUSE_MS, _SENTENCE_MS = 500, 6_000


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
    """Returns how surely keywords name a product, in [0, 1]: the largest weight, 0 if there are none.

    When a host chats about something else, only key phrases remain that are not in the catalogue. The mean of their
    vectors does not show that, but their low weights do.
    """
    return min(1.0, max((weight for word, weight in keywords if word.strip()), default=0.0))


def faded(end_ms: int, start_ms: int, look_back_ms: int) -> float:
    """Returns how much a piece of speech that ends at `end_ms` counts for a window that begins at `start_ms`.

    What was said before the window fades with its age, to nothing at the end of the look-back: a host names a product
    shortly before showing it.
    """
    age_ms = max(0, start_ms - end_ms)
    return max(0.0, 1.0 - age_ms / look_back_ms) if age_ms else 1.0


def of_window(pieces: Iterable[tuple[int, Keywords]], start_ms: int, look_back_ms: int) -> list[tuple[str, float]]:
    """Joins the keywords of a window, best first, at most `MAX_KEYWORDS`.

    A keyword counts once, as strongly as it was heard best; see `faded`.

    Args:
        pieces: The media time at which each piece of speech ends, and its keywords.
        start_ms: Start of the window.
        look_back_ms: How long before the window speech still counts.
    """
    best: dict[str, float] = {}
    for end_ms, keywords in pieces:
        fade = faded(end_ms, start_ms, look_back_ms)
        for text, weight in keywords:
            best[text] = max(best.get(text, 0.0), weight * fade)
    ranked = sorted(((text, weight) for text, weight in best.items() if weight > 0), key=lambda one: (-one[1], one[0]))
    return ranked[:MAX_KEYWORDS]


def of_speech(pieces: Iterable[tuple[int, int, str]], start_ms: int, look_back_ms: int) -> list[tuple[str, float]]:
    """Joins what was said for a window into sentences, by time, with the weight of each; see `faded`.

    Args:
        pieces: Start, end and text of each piece of speech, by time; texts may be empty.
        start_ms: Start of the window.
        look_back_ms: How long before the window speech still counts.
    """
    sentences: list[tuple[int, int, str]] = []
    for begin, end, text in pieces:
        if not text:
            continue
        if sentences:
            first, last, before = sentences[-1]
            if begin - last <= _PAUSE_MS and end - first <= _SENTENCE_MS:
                sentences[-1] = first, end, f"{before} {text}"
                continue
        sentences.append((begin, end, text))
    weighed = ((text, faded(end, start_ms, look_back_ms)) for _, end, text in sentences)
    return [(text, weight) for text, weight in weighed if weight > 0]
