"""Printed words: finds the products that the lines read in a picture name.

OCR errs differently than speech recognition: it confuses characters that look alike, and joins or splits words. So a
word that was read may stand for a word of the catalogue that differs in one or two characters, or in one for Chinese
words of three characters or more.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rapidfuzz.distance import Levenshtein

from cope.keywords.terms import further_titles, is_title, units
from cope.keywords.text import Token, clean, key, tokens

# Words that are kept of a page, those of the title first. With more, a poster of text would match everything.
_MOST_TERMS = 96

# How much a word of a page counts that is in its title only (may not be printed on the product), was only read off its
# pictures (may be wrong, or a stamp), or both.
_NAMED_ONLY, _READ_ONLY, _BOTH = 0.7, 0.8, 1.0

# Longest pieces of a word that stand in lines of their own, "MOR" over "GON", in characters.
_PIECE = 6

# A word that had to be corrected may be another one.
_CORRECTED = 0.8

# Sum of rarities at which a product counts as named with certainty of 1 - 1/e: two rare words and their pair.
_NAMED = 2.0

# Longest term that is found misread: a longer one is several words, each found by itself. Above, memory grows.
_LONGEST_WORD = 16

# Size of the cache from words that were read to words of the catalogue.
_CACHE = 20_000


def freshness(pts_ms: int, end_ms: int, window_ms: int, hop_ms: int) -> float:
    """Returns the weight of a frame for the end of its window, in [0, 1]: 1 in the newest hop, falling with age."""
    age_ms = end_ms - pts_ms
    return 1.0 if age_ms <= hop_ms else max(0.0, 1.0 - (age_ms - hop_ms) / window_ms)


@dataclass(frozen=True)
class Seen:
    """How well what was read names a product.

    Attributes:
        score: In [0, 1): 0 for nothing in common. It falls with each word of the catalogue that was read and that the
            product does not have: look-alikes share a brand and differ in a word.
        lines: Numbers of the lines that name it, the one that says most first.
    """

    score: float
    lines: tuple[int, ...]


def read_scores(seen: Mapping[str, Seen], product_ids: Iterable[str]) -> list[float]:
    """Returns the score of each product; 0 for one that nothing names."""
    return [seen[one].score if one in seen else 0.0 for one in product_ids]


def page_names(title: str, brand: str = "", attributes: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Returns the texts of a page that may stand on the product itself: titles first."""
    attributes = attributes or {}
    titles = [title, *further_titles(attributes)]
    others = [brand, *(value for name, value in sorted(attributes.items()) if not is_title(name))]
    return tuple(text for text in map(clean, [*titles, *others]) if text)


class PrintedWords:
    """The words that may be read on the products of a catalogue; follows it as pages come and go.

    What it answers depends on the pages that it holds, never on the order in which they came. Not for use by several
    threads at once.
    """

    def __init__(self) -> None:
        self._pages: dict[str, dict[str, float]] = {}
        self._products: dict[str, set[str]] = {}  # term -> products whose page has it
        self._by_piece: dict[tuple[int, int, str], set[str]] = {}  # length of a word, place and text of a piece of it
        self._meant: dict[str, tuple[tuple[str, float], ...]] = {}

    def __len__(self) -> int:
        """Returns the number of products."""
        return len(self._pages)

    def add(self, product_id: str, names: Iterable[str], read: Iterable[str] = ()) -> None:
        """Adds a page, in place of the one that the product had before.

        Args:
            product_id: Id of the page's product.
            names: Title, brand and attributes.
            read: Lines that were read in its pictures.
        """
        printed = dict.fromkeys(term for terms in _terms_of_lines(list(read)) for term in sorted(terms))
        named = dict.fromkeys(term for text in names for term in sorted(_terms(text)))
        terms = {
            term: (_BOTH if term in printed else _NAMED_ONLY) if term in named else _READ_ONLY
            for term in list(named | printed)[:_MOST_TERMS]
        }
        if self._pages.get(product_id) == terms:
            return
        self.remove(product_id)
        self._pages[product_id] = terms
        for term in terms:
            self._products.setdefault(term, set()).add(product_id)
            for piece in _pieces(term, _most_errors(term)):
                self._by_piece.setdefault(piece, set()).add(term)
        self._meant.clear()

    def remove(self, product_id: str) -> None:
        """Removes a product's page, if there is one."""
        for term in self._pages.pop(product_id, {}):
            products = self._products[term]
            products.discard(product_id)
            if not products:
                del self._products[term]
                for piece in _pieces(term, _most_errors(term)):
                    terms = self._by_piece[piece]
                    terms.discard(term)
                    if not terms:
                        del self._by_piece[piece]
        self._meant.clear()

    def seen(self, lines: Sequence[tuple[str, float]]) -> dict[str, Seen]:
        """Returns the products that share words with the lines.

        Args:
            lines: Text and how surely it counts, in [0, 1].
        """
        sure: dict[str, tuple[float, int]] = {}  # term of the catalogue -> how surely it was read, and in which line
        for number, words in enumerate(_terms_of_lines([text for text, _ in lines])):
            weight = lines[number][1]
            for word in sorted(words):
                for term, likeness in self._meanings(word):
                    if weight * likeness > sure.get(term, (0.0, 0))[0]:
                        sure[term] = weight * likeness, number
        whole = math.fsum(how * self._rarity(term) for term, (how, _) in sorted(sure.items()))
        sums: dict[str, float] = {}
        of_line: dict[str, dict[int, float]] = {}
        for term, (how, number) in sorted(sure.items()):
            rarity = self._rarity(term)
            for product_id in self._products[term]:
                gain = how * rarity * self._pages[product_id][term]
                sums[product_id] = sums.get(product_id, 0.0) + gain
                each = of_line.setdefault(product_id, {})
                each[number] = each.get(number, 0.0) + gain
        return {
            product_id: Seen(
                min(1.0, total / whole) * (1.0 - math.exp(-total / _NAMED)),
                tuple(sorted(of_line[product_id], key=lambda one: (-of_line[product_id][one], one))),
            )
            for product_id, total in sums.items()
        }

    def _rarity(self, term: str) -> float:
        count = len(self._pages)
        return math.log1p(count / len(self._products[term])) / math.log1p(count) if count > 1 else 1.0

    def _meanings(self, word: str) -> tuple[tuple[str, float], ...]:
        """Returns the catalogue's words that a word read may mean, with how surely."""
        found = self._meant.get(word)
        if found is None:
            if len(self._meant) >= _CACHE:
                self._meant.clear()
            found = self._meant[word] = ((word, 1.0),) if word in self._products else self._corrected(word)
        return found

    def _corrected(self, word: str) -> tuple[tuple[str, float], ...]:
        most = _most_errors(word)
        candidates: set[str] = set()
        for length in range(len(word) - most, len(word) + most + 1) if most else ():
            # If a word is cut into one more piece than it has errors, one piece is right (Pass-Join, Li et al. 2011).
            for _, place, piece in _pieces(word[0] * length, _most_errors(word[0] * length)):
                for at in range(max(0, place - most), place + most + 1):
                    candidates |= self._by_piece.get((length, place, word[at : at + len(piece)]), set())
        near: list[tuple[int, str]] = []
        for term in candidates:
            distance = Levenshtein.distance(word, term, score_cutoff=most)
            if distance <= min(most, _most_errors(term)):
                near.append((distance, term))
        least = min((distance for distance, _ in near), default=0)
        return tuple((term, _CORRECTED**distance) for distance, term in sorted(near) if distance == least)


def _terms_of_lines(lines: Sequence[str]) -> list[set[str]]:
    """Returns the terms of each line, with the words whose pieces stand in it and in the next."""
    found = [_terms(line) for line in lines]
    pieces = [tokens(clean(line)) for line in lines]
    for number, (first, second) in enumerate(pairwise(pieces)):
        if len(first) == len(second) == 1 and all(2 <= len(one[0].norm) <= _PIECE for one in (first, second)):
            found[number].add(key([*first, *second]))
    return found


def _terms(text: str) -> set[str]:
    found = tokens(clean(text))
    return {term for start, end in units(found) if _tells(term := key(found[start:end]), found[start])}


def _tells(term: str, first: Token) -> bool:
    """Returns whether a term is long enough to mean something: two letters are noise of the OCR."""
    return first.is_han or len(term) > 2


def _pieces(word: str, errors: int) -> list[tuple[int, int, str]]:
    """Returns a word in one more pieces than it may have errors, each with the word's length and its place in it."""
    if not errors:
        return []
    ends = [len(word) * number // (errors + 1) for number in range(errors + 2)]
    return [(len(word), start, word[start:end]) for start, end in pairwise(ends)]


def _most_errors(word: str) -> int:
    """Returns in how many characters a word may have been misread."""
    if Token(word[0], 0, 1).is_han:
        return int(len(word) >= 3)
    if any(character.isdigit() for character in word):
        return 0
    if not 5 <= len(word) <= _LONGEST_WORD:
        return 0
    return 1 if len(word) < 9 else 2
