"""Key phrases that are not in the catalogue: the few words that a host repeats.

In the manner of RAKE: stretches between stop words, the longer and the more often said, the better. One transcript
is a few seconds of speech, so no statistics of a whole document stand behind it, and the weights are low.
"""

from collections.abc import Iterator, Set

from cope.keywords.text import Token, is_content, key, longest, words

# Languages whose stop words we have. In others every word would pass for a key phrase.
_LANGUAGES = frozenset({"en", "zh"})

_MOST_PHRASES = 3
_LONGEST_PHRASE = 3  # words
_LEAST_LETTERS = 4  # letters of a phrase: shorter ones are mostly function words that are not in the list

# Lower than the weight of any word of the catalogue that matters.
_WEIGHT_OF_WORD = 0.06
_MOST_WEIGHT = 0.2


def key_phrases(
    text: str, found: list[Token], covered: Set[int], language: str | None = None
) -> list[tuple[str, float]]:
    """Returns up to three phrases with weights in (0, 0.2], best first.

    Args:
        found: The text's tokens.
        covered: Indices of tokens that need no phrase.
        language: Primary tag; None if unknown.
    """
    if language is not None and language not in _LANGUAGES:
        return []
    weights: dict[str, float] = {}
    spelled: dict[str, str] = {}
    for start, end, count in _stretches(text, found, covered):
        term = key(found[start:end])
        spelled.setdefault(term, text[found[start].start : found[end - 1].end])
        weights[term] = min(_MOST_WEIGHT, weights.get(term, 0.0) + _WEIGHT_OF_WORD * count)
    best = sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:_MOST_PHRASES]
    return [(spelled[term], round(weight, 4)) for term, weight in best]


def _stretches(text: str, found: list[Token], covered: Set[int]) -> Iterator[tuple[int, int, int]]:
    """Yields stretches of content words: first token, the one after the last, number of words."""
    run: list[tuple[int, int]] = []
    for start, end in longest(words(found)):
        joined = run and text[found[run[-1][1] - 1].end : found[start].start].strip() == ""
        if run and (not joined or len(run) == _LONGEST_PHRASE or found[run[-1][0]].is_han != found[start].is_han):
            yield run[0][0], run[-1][1], len(run)
            run = []
        if _is_key(found, start, end, covered):
            run.append((start, end))
        elif run:
            yield run[0][0], run[-1][1], len(run)
            run = []
    if run:
        yield run[0][0], run[-1][1], len(run)


def _is_key(found: list[Token], start: int, end: int, covered: Set[int]) -> bool:
    if any(at in covered for at in range(start, end)):
        return False
    stretch = found[start:end]
    if stretch[0].is_han:
        return len(stretch) > 1 and is_content(stretch)
    return is_content(stretch) and len(stretch[0].norm) >= _LEAST_LETTERS
