"""The catalogue's own words, and how to find them in a transcript."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cope.keywords.terms import MAX_PHRASE_TOKENS, key, units
from cope.keywords.text import clean, tokens


@dataclass(slots=True)
class _Entry:
    products: int
    spellings: dict[str, int]


class Vocabulary:
    """The words and phrases of a catalogue; follows it as pages come and go.

    What it answers depends on the pages that it holds, never on the order in which they came.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._pages: dict[str, dict[str, str]] = {}

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
        self.remove(product_id)
        page: dict[str, str] = {}
        for text in (title, brand, category, *(attributes or {}).values()):
            cleaned = clean(text)
            found = tokens(cleaned)
            for start, end, _ in units(found):
                page.setdefault(key(found[start:end]), cleaned[found[start].start : found[end - 1].end])
        for term, spelling in page.items():
            entry = self._entries.setdefault(term, _Entry(0, {}))
            entry.products += 1
            entry.spellings[spelling] = entry.spellings.get(spelling, 0) + 1
        self._pages[product_id] = page

    def remove(self, product_id: str) -> None:
        """Removes a product's page, if there is one."""
        for term, spelling in self._pages.pop(product_id, {}).items():
            entry = self._entries[term]
            entry.products -= 1
            entry.spellings[spelling] -= 1
            if not entry.spellings[spelling]:
                del entry.spellings[spelling]
            if not entry.products:
                del self._entries[term]

    def extract(self, text: str, language: str | None = None) -> list[tuple[str, float]]:
        """Returns the keywords of a transcript with weights in (0, 1], best first.

        Args:
            language: BCP 47 primary tag, if known; any tag will do.
        """
        found = tokens(clean(text))
        keywords: dict[str, float] = {}
        for start in range(len(found)):
            for end in range(start + 1, min(len(found), start + MAX_PHRASE_TOKENS) + 1):
                entry = self._entries.get(key(found[start:end]))
                if entry:
                    spelling = min(entry.spellings, key=lambda text: (-entry.spellings[text], text))
                    keywords[spelling] = max(keywords.get(spelling, 0.0), self._rarity(entry.products))
        return sorted(keywords.items(), key=lambda item: (-item[1], item[0]))

    def _rarity(self, products: int) -> float:
        count = len(self._pages)
        return math.log1p(count / products) / math.log1p(count)
