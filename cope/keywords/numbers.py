"""Numbers in product names: "15 Pro" spoken as "fifteen pro", model numbers, and shades called by their number.

A number by itself is mostly a price or a count. It names a product only where a host says that it does: "number 999",
"shade nine ninety nine", 色号九九九, 999号.
"""

from collections.abc import Iterator, Sequence

from cope.keywords.stopwords import UNITS
from cope.keywords.text import Token

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
)
_VALUES = {word: value for value, word in enumerate(f"{_ONES} eighteen nineteen".split())}
_VALUES |= {
    word: 10 * value for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)
}
_SCALES = {"hundred": 100, "thousand": 1000}
_HAN_DIGITS = {
    digit: value for value, digits in enumerate(("零〇", "一幺", "二两", *"三四五六七八九")) for digit in digits
}
_HAN_SCALES = {"十": 10, "百": 100, "千": 1000}

# Words before a number that names a product. In Chinese 号 follows it.
_CALLING = frozenset("number no nr shade color colour tone model version style 号 型 款 色".split())
# "a 7" and "I 5" are written with a blank when the letter is a word.
_WORDS_OF_ONE_LETTER = frozenset("ai")
# A telephone number is longer than any that names a product.
_LONGEST = 8


def names(found: Sequence[Token]) -> Iterator[tuple[int, int]]:
    """Yields what may name a product by a number in a page's title or attribute: "S24", "WH-1000XM5", "999"."""
    at = 0
    while at < len(found):
        end = at + 1
        while (
            end < len(found)
            and 0 <= found[end].start - found[end - 1].end <= 1
            and _goes_on(found[end - 1], found[end])
        ):
            end += 1
        run = found[at:end]
        if end - at > 1 and len(run) <= _LONGEST:
            yield at, end
        for number in range(at, end):
            if found[number].is_number and not _is_amount(found, number):
                yield number, number + 1
        at = end


def _goes_on(before: Token, after: Token) -> bool:
    """Whether two tokens are of one model number: letters and digits side by side, but not "500ml"."""
    if before.is_han or after.is_han or before.is_number == after.is_number:
        return False
    return after.start == before.end and not (before.is_number and after.norm in UNITS)


def _is_amount(found: Sequence[Token], at: int) -> bool:
    return at + 1 < len(found) and found[at + 1].norm in UNITS


def is_called(found: Sequence[Token], start: int, end: int) -> bool:
    """Returns whether a stretch of a transcript is meant as a name, as far as its numbers go."""
    stretch = found[start:end]
    if all(token.is_number for token in stretch):
        called = (start > 0 and found[start - 1].norm in _CALLING) or (end < len(found) and found[end].norm == "号")
        return len(stretch) == 1 and called
    if len(stretch) > 1 and stretch[1].is_number and stretch[0].norm in _WORDS_OF_ONE_LETTER:
        return stretch[0].end == stretch[1].start
    return True


def with_digits(found: Sequence[Token]) -> tuple[list[Token], list[int]]:
    """Returns the tokens with spoken numbers as digits: "twenty", "five" becomes "25".

    Returns:
        The tokens, and for each, and for the end, the index of its first in `found`.
    """
    changed: list[Token] = []
    places: list[int] = []
    at = 0
    while at < len(found):
        end = at
        while end < len(found) and end - at < _LONGEST and _is_number_word(found, at, end):
            end += 1
        digits = _digits([token.norm for token in found[at:end]])
        places.append(at)
        if digits:
            changed.append(Token(digits, found[at].start, found[end - 1].end))
            at = end
        else:
            changed.append(found[at])
            at += 1
    return changed, [*places, len(found)]


def _is_number_word(found: Sequence[Token], first: int, at: int) -> bool:
    norm = found[at].norm
    if at > first and found[at].is_han != found[first].is_han:
        return False
    if norm == "and":  # one hundred and one
        return at > first and found[at - 1].norm in _SCALES and at + 1 < len(found) and found[at + 1].norm in _VALUES
    return norm in _VALUES or norm in _HAN_DIGITS or norm in _HAN_SCALES or (norm in _SCALES and at > first)


def _digits(words: Sequence[str]) -> str:
    if not words:
        return ""
    return _han(words) if words[0] in _HAN_DIGITS or words[0] in _HAN_SCALES else _english(words)


def _english(words: Sequence[str]) -> str:
    """Joins spoken parts: 999 is "nine ninety nine", 101 "one hundred and one", 1990 "nineteen ninety"."""
    parts: list[int] = []
    room = 0  # what may still be added to the last part: 10 after "twenty", 100 after "hundred"
    for word in words:
        if word == "and":
            continue
        if word in _SCALES:
            parts[-1] *= _SCALES[word]
            room = _SCALES[word]
            continue
        value = _VALUES[word]
        if parts and 0 < value < room:
            parts[-1] += value
        else:
            parts.append(value)
        room = 10 if value >= 20 else 0
    return "".join(map(str, parts))


def _han(words: Sequence[str]) -> str:
    """九九九 and 九百九十九 are 999, 十五 is 15."""
    if not any(word in _HAN_SCALES for word in words):
        return "".join(str(_HAN_DIGITS[word]) for word in words)
    total, digit = 0, 1
    for word in words:
        if word in _HAN_SCALES:
            total += digit * _HAN_SCALES[word]
            digit = 0
        else:
            digit = _HAN_DIGITS[word]
            if len(words) == 1:
                return str(digit)
    last = words[-1] in _HAN_DIGITS
    return str(total + (digit if last else 0))
