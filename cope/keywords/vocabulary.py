"""The vocabulary of a catalogue, and how its words are found in a transcript."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rapidfuzz import fuzz

from cope.keywords import numbers
from cope.keywords.phrases import key_phrases
from cope.keywords.sounds import near, sounds, syllable
from cope.keywords.terms import MAX_PHRASE_TOKENS, is_title, units
from cope.keywords.text import Token, clean, is_common, is_content, key, tokens

# More keywords add no information, and each costs the encoder a token or more.
_MOST_KEYWORDS = 16
_LEAST_WEIGHT = 0.05

# Words of categories and attributes ("drinks", "red") are shared by many products; those of titles and brands name one.
_SHARED_WORD = 0.7

# Weight of a phrase's parts relative to the phrase: "apple" beside "Apple Juice".
_PART = 0.7

# Words that sound like a term but are spelled differently may be other words.
_HEARD = 0.9

# How alike the spellings must be (rapidfuzz ratio, in percent) where the sounds are equal, by number of consonants.
# Short sounds are shared by many words: "bean", "bone" and "pine" differ by less than a recogniser's mistakes.
_ALIKE = {1: 101, 2: 85, 3: 75, 4: 72}
_ALIKE_LONG = 65
# And where one consonant more or less was heard; only for long words.
_ALIKE_NEAR = 72
_NEAR_CONSONANTS = 5


@dataclass(slots=True)
class _Entry:
    """A term of the catalogue.

    Attributes:
        tokens: Tokens of one of its spellings; all have the same norms.
        products: Products whose page has it.
        named: Products that have it in a title or as a brand.
        spellings: As the pages write it, with their number.
    """

    tokens: tuple[str, ...]
    products: int = 0
    named: int = 0
    spellings: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Match:
    start: int
    end: int
    term: str
    quality: float

    def within(self, other: "_Match") -> bool:
        return other.start <= self.start and self.end <= other.end


@dataclass(frozen=True, slots=True)
class _Page:
    names: tuple[str, ...]
    others: tuple[str, ...]

    def terms(self) -> dict[str, tuple[tuple[Token, ...], str, bool]]:
        """Returns the page's terms: their tokens, spelling, and whether they name the product."""
        found: dict[str, tuple[tuple[Token, ...], str, bool]] = {}
        for named, texts in ((True, self.names), (False, self.others)):
            for text in texts:
                pieces = tokens(text)
                for start, end in (*units(pieces), *numbers.names(pieces)):
                    spelling = text[pieces[start].start : pieces[end - 1].end]
                    found.setdefault(key(pieces[start:end]), (tuple(pieces[start:end]), spelling, named))
        return found


class Vocabulary:
    """The words and phrases of a catalogue; follows it as pages come and go.

    What it answers depends on the pages that it holds, never on the order in which they came. Not for use by
    several threads at once.

    Transcripts are short, so matching looks up each stretch of a few tokens in a hash table: adding or removing a
    page costs the same at 100,000 products as at ten, which no automaton over all terms offers.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._pages: dict[str, _Page] = {}
        self._by_sound: dict[str, set[str]] = {}
        self._by_near_sound: dict[str, set[str]] = {}

    def __len__(self) -> int:
        """Returns the number of products."""
        return len(self._pages)

    def __contains__(self, product_id: object) -> bool:
        return product_id in self._pages

    def add(
        self,
        product_id: str,
        title: str,
        brand: str = "",
        category: str = "",
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        """Adds a page, in place of the one that the product had before."""
        attributes = attributes or {}
        names = [title, *(value for name, value in sorted(attributes.items()) if is_title(name)), brand]
        others = [category, *(value for name, value in sorted(attributes.items()) if not is_title(name))]
        page = _Page(tuple(map(clean, names)), tuple(map(clean, others)))
        if self._pages.get(product_id) == page:
            return
        self.remove(product_id)
        self._pages[product_id] = page
        for term, (pieces, spelling, named) in page.terms().items():
            entry = self._entries.get(term)
            if entry is None:
                entry = self._entries[term] = _Entry(tuple(piece.norm for piece in pieces))
                self._index(term, pieces)
            entry.products += 1
            entry.named += named
            entry.spellings[spelling] = entry.spellings.get(spelling, 0) + 1

    def remove(self, product_id: str) -> None:
        """Removes a product's page, if there is one."""
        page = self._pages.pop(product_id, None)
        for term, (_, spelling, named) in page.terms().items() if page else ():
            entry = self._entries[term]
            entry.products -= 1
            entry.named -= named
            entry.spellings[spelling] -= 1
            if not entry.spellings[spelling]:
                del entry.spellings[spelling]
            if not entry.products:
                del self._entries[term]
                self._unindex(term, _tokens(entry))

    def extract(self, text: str, language: str | None = None) -> list[tuple[str, float]]:
        """Returns the keywords of a transcript with weights in (0, 1], best first.

        The catalogue's words come in its own spelling, weighted by how rare they are in it and how surely they
        were heard; then a few key phrases that the catalogue does not know, with low weights.

        Args:
            language: BCP 47 primary tag, if known; any tag will do.
        """
        text = clean(text)
        found = tokens(text)
        matches = self._matches(found)
        weights: dict[str, float] = {}
        for match in matches:
            weights[match.term] = max(weights.get(match.term, 0.0), match.quality * self._weight(match.term))
            for part in self._parts(match.term):
                weight = _PART * match.quality * self._weight(part)
                weights[part] = max(weights.get(part, 0.0), weight)
        keywords: dict[str, float] = {}
        for term, weight in weights.items():
            spelling = self._spelling(term)
            keywords[spelling] = max(keywords.get(spelling, 0.0), weight)
        covered = {at for match in matches for at in range(match.start, match.end)}
        for phrase, weight in key_phrases(text, found, covered, language):
            keywords.setdefault(phrase, weight)
        ranked = sorted(keywords.items(), key=lambda item: (-item[1], -len(item[0]), item[0]))
        return [(word, min(1.0, round(weight, 4))) for word, weight in ranked if weight >= _LEAST_WEIGHT][
            :_MOST_KEYWORDS
        ]

    def _matches(self, found: list[Token]) -> list[_Match]:
        """Returns where the catalogue's terms are said, the longest ones: as they are spelled, or as they sound."""
        exact = _outermost([*self._spelled(found), *self._counted(found)])
        heard = [match for match in self._sounding(found) if not any(match.within(other) for other in exact)]
        return exact + _outermost(heard)

    def _spelled(self, found: list[Token]) -> Iterator[_Match]:
        for start in range(len(found)):
            term = ""
            for end in range(start + 1, min(len(found), start + MAX_PHRASE_TOKENS) + 1):
                term += found[end - 1].norm
                if term in self._entries and numbers.is_called(found, start, end):
                    yield _Match(start, end, term, 1.0)

    def _counted(self, found: list[Token]) -> Iterator[_Match]:
        """Yields terms with digits that are spoken with number words: "fifteen pro"."""
        changed, places = numbers.with_digits(found)
        if len(changed) < len(found) or any(one is not other for one, other in zip(changed, found, strict=False)):
            for match in self._spelled(changed):
                yield _Match(places[match.start], places[match.end], match.term, match.quality)

    def _sounding(self, found: list[Token]) -> Iterator[_Match]:
        """Yields, for each stretch, the term that it sounds like most."""
        for start in range(len(found)):
            for end in range(start + 1, min(len(found), start + MAX_PHRASE_TOKENS) + 1):
                stretch = found[start:end]
                if any(token.is_number for token in stretch) or not is_content(stretch) or is_common(stretch):
                    continue
                best = max(
                    ((_HEARD * self._likeness(stretch, term), term) for term in self._candidates(stretch)),
                    key=lambda scored: (scored[0], scored[1]),
                    default=(0.0, ""),
                )
                if best[0] > 0:
                    yield _Match(start, end, best[1], best[0])

    def _candidates(self, stretch: list[Token]) -> set[str]:
        candidates: set[str] = set()
        for code in sounds(stretch):
            candidates |= self._by_sound.get(code, set())
            if _is_long_word(stretch, code):
                candidates |= self._by_near_sound.get(code, set())
                for shorter in near(code):
                    candidates |= self._by_near_sound.get(shorter, set()) | self._by_sound.get(shorter, set())
        return candidates

    def _likeness(self, stretch: list[Token], term: str) -> float:
        """Returns how surely the stretch means the term, 0 if it does not."""
        entry = self._entries[term]
        if stretch[0].is_han or len(entry.tokens[0]) == 1:
            return _han_likeness([token.norm for token in stretch], entry.tokens)
        ratio = fuzz.ratio(key(stretch), term)
        shared = sounds(stretch) & sounds(_tokens(entry))
        limit = max((_ALIKE.get(len(code), _ALIKE_LONG) for code in shared), default=_ALIKE_NEAR)
        return ratio / 100 if ratio >= limit else 0.0

    def _parts(self, term: str) -> Iterator[str]:
        pieces = _tokens(self._entries[term])
        for start, end in units(pieces):
            part = key(pieces[start:end])
            if part != term and part in self._entries:
                yield part

    def _weight(self, term: str) -> float:
        entry = self._entries[term]
        count = len(self._pages)
        rarity = math.log1p(count / entry.products) / math.log1p(count)
        return rarity * (1.0 if entry.named else _SHARED_WORD)

    def _spelling(self, term: str) -> str:
        spellings = self._entries[term].spellings
        return min(spellings, key=lambda text: (-spellings[text], text))

    def _index(self, term: str, pieces: Sequence[Token]) -> None:
        for code in sounds(pieces):
            self._by_sound.setdefault(code, set()).add(term)
            for shorter in near(code) if _is_long_word(pieces, code) else ():
                self._by_near_sound.setdefault(shorter, set()).add(term)

    def _unindex(self, term: str, pieces: Sequence[Token]) -> None:
        for code in sounds(pieces):
            _discard(self._by_sound, code, term)
            for shorter in near(code) if _is_long_word(pieces, code) else ():
                _discard(self._by_near_sound, shorter, term)


def _tokens(entry: _Entry) -> list[Token]:
    return [Token(norm, at, at + 1) for at, norm in enumerate(entry.tokens)]


def _is_long_word(pieces: Sequence[Token], code: str) -> bool:
    """Returns whether a word is long enough to be recognised by a part of its sound."""
    return len(pieces) == 1 and not pieces[0].is_han and len(code) >= _NEAR_CONSONANTS


def _discard(index: dict[str, set[str]], code: str, term: str) -> None:
    terms = index.get(code)
    if terms is not None:
        terms.discard(term)
        if not terms:
            del index[code]


def _outermost(matches: list[_Match]) -> list[_Match]:
    """Returns the matches that lie within no other one; of several for one stretch, the surest."""
    best: dict[tuple[int, int], _Match] = {}
    for match in matches:
        at = (match.start, match.end)
        if at not in best or (match.quality, match.term) > (best[at].quality, best[at].term):
            best[at] = match
    kept: list[_Match] = []
    for match in sorted(best.values(), key=lambda match: (match.start, -match.end)):
        if not kept or match.end > kept[-1].end:
            kept.append(match)
    return kept


def _han_likeness(spoken: list[str], meant: tuple[str, ...]) -> float:
    """Returns how surely characters that sound alike mean the same: by characters and tones in common."""
    if len(spoken) != len(meant):
        return 0.0
    same = sum(heard == written for heard, written in zip(spoken, meant, strict=True))
    tones = sum(syllable(heard)[1] == syllable(written)[1] for heard, written in zip(spoken, meant, strict=True))
    count = len(meant)
    # Mandarin has few syllables: two of them alike without a character or the tones in common are chance.
    if count < 2 or (count == 2 and not same and tones < 2):
        return 0.0
    return 0.5 + 0.25 * same / count + 0.25 * tones / count
