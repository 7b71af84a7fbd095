"""Pages and keywords as sparse vectors over terms; their dot product is the text score."""

import hashlib
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from cope.keywords.numbers import names
from cope.keywords.text import Token, clean, is_content, key, longest, tokens, words

# How much each part of a page says of the product, as the L2 norm of its terms. A title in a further language
# (`title_zh`) counts like the title. A description is long and unspecific: as a whole it may only decide between pages
# that are alike otherwise.
_TITLE = 1.0
_BRAND = 0.5
_ATTRIBUTES = 0.4
_CATEGORY = 0.3
_DESCRIPTION = 0.2

# Longest phrase that is a term as a whole, in tokens. Longer titles are never spoken in full.
MAX_PHRASE_TOKENS = 12

# Titles whose terms are kept in memory.
_CACHED_TITLES = 16_384

# A title of which half was said may be that of a look-alike, which differs in a word; so only nearly all of it counts.
_STRICTNESS = 8


def term_id(term: str) -> int:
    """Returns the term's id, an unsigned 32-bit integer; the same in every process and release."""
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=4).digest(), "little")


def is_title(attribute: str) -> bool:
    """Returns whether a page's attribute of this name holds its title in a further language."""
    return attribute.lower().split("_")[0].split("-")[0] in ("title", "name")


def further_titles(attributes: Mapping[str, str]) -> tuple[str, ...]:
    """Returns a page's title in further languages, from its attributes."""
    return tuple(value for name, value in sorted(attributes.items()) if is_title(name) and value)


def units(found: Sequence[Token]) -> Iterator[tuple[int, int]]:
    """Yields what counts as a term in a text: its words, pairs of neighbours, and the whole, as token ranges.

    A pair meets "seaberry" where the other side writes "sea berry", and "apple juice" is more than its two words.
    """
    spans = list(words(found))
    for start, end in spans:
        if is_content(found[start:end]):
            yield start, end
    plain = list(longest(spans))
    for (start, mid), (after, end) in pairwise(plain):
        if mid == after and _is_pair(found[start:mid], found[after:end]):
            yield start, end
    if len(plain) > 2 and len(found) <= MAX_PHRASE_TOKENS:
        yield 0, len(found)


def _is_pair(first: Sequence[Token], second: Sequence[Token]) -> bool:
    """Returns whether two neighbours name something: "apple juice", "T-shirt", "Air 97", but not "shirt for"."""
    kept = [is_content(word) for word in (first, second)]
    return all(kept) or (
        any(kept) and all(len(key(word)) == 1 or word[0].is_number or is_content(word) for word in (first, second))
    )


def text_terms(text: str) -> set[str]:
    """Returns the terms of a text."""
    found = tokens(clean(text))
    return {key(found[start:end]) for start, end in units(found)}


def _number_terms(text: str) -> set[str]:
    found = tokens(clean(text))
    return {key(found[start:end]) for start, end in names(found)}


def page_terms(
    title: str,
    brand: str = "",
    category: str = "",
    attributes: Mapping[str, str] | None = None,
    description: str = "",
) -> dict[int, float]:
    """Returns a product page as a sparse vector: term id to weight, L2-normalised; empty for an empty page.

    Args:
        attributes: Whatever else the page says, by name. `title_*` and `name_*` count as titles.
    """
    attributes = attributes or {}
    parts = [(_TITLE, [one]) for one in (title, *further_titles(attributes))]
    parts += [(_BRAND, [brand]), (_CATEGORY, [category]), (_DESCRIPTION, [description])]
    parts.append((_ATTRIBUTES, [value for name, value in sorted(attributes.items()) if not is_title(name)]))
    page: dict[str, float] = {}
    for share, texts in parts:
        terms = set[str]().union(*map(text_terms, texts))
        if share > _DESCRIPTION:
            terms |= set[str]().union(*map(_number_terms, texts))
        for term in terms:
            page[term] = max(page.get(term, 0.0), share / math.sqrt(len(terms)))
    return _as_vector(page)


def query_terms(keywords: Sequence[tuple[str, float]]) -> dict[int, float]:
    """Returns keywords as a sparse vector: term id to weight, L2-normalised; empty without keywords.

    A phrase counts as a whole and through its parts. A part that is itself a keyword keeps its own weight, which
    reflects its rarity.
    """
    given: dict[str, float] = {}
    for text, weight in keywords:
        term = key(tokens(clean(text)))
        if term and weight > 0:
            given[term] = max(given.get(term, 0.0), weight)
    query = dict(given)
    for text, weight in keywords:
        parts = text_terms(text) - given.keys()
        for term in parts if weight > 0 else ():
            query[term] = max(query.get(term, 0.0), weight / math.sqrt(len(parts)))
    return _as_vector(query)


def text_score(page: Mapping[int, float], query: Mapping[int, float]) -> float:
    """Returns the dot product of two L2-normalised sparse vectors, in [0, 1]."""
    few, many = (page, query) if len(page) < len(query) else (query, page)
    return min(1.0, sum(weight * many.get(term, 0.0) for term, weight in few.items()))


def title_score(titles: Iterable[str], said: Container[int]) -> float:
    """Returns how fully the best of several titles was said, in [0, 1]: 1 for all of it, next to nothing for a half.

    Unlike `text_score` it does not depend on what else was said. Look-alikes have most words of their titles in
    common, so a part of a title does not name a product that has it.

    Args:
        titles: Of one product, in all languages.
        said: The ids of the terms that were said, for instance the keys of `query_terms`.
    """
    shares = [sum(term in said for term in terms) / len(terms) for terms in map(_title_ids, titles) if terms]
    return max(shares, default=0.0) ** _STRICTNESS


@lru_cache(_CACHED_TITLES)
def _title_ids(title: str) -> frozenset[int]:
    return frozenset(map(term_id, text_terms(title)))


def _as_vector(weights: Mapping[str, float]) -> dict[int, float]:
    vector: dict[int, float] = {}
    for term, weight in sorted(weights.items()):
        vector[term_id(term)] = vector.get(term_id(term), 0.0) + weight
    norm = math.sqrt(sum(weight * weight for weight in vector.values()))
    return {term: weight / norm for term, weight in vector.items()} if norm else {}
