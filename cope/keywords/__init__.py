"""Weighted keywords of what a host says, and the score of a page's text against them.

Training and serving use the same functions:

1. `Vocabulary` holds the catalogue's own words. `Vocabulary.extract` finds them in a transcript, in the
   catalogue's spelling, each with a weight in (0, 1] that rises with its rarity in the catalogue.
2. `page_terms` makes a sparse vector of terms of a page, `query_terms` one of the keywords.
   `text_score`, their dot product, is in [0, 1]. `title_score` is the share of a title that was said.

A page is encoded alone, without knowing how rare its words are in the catalogue. So rarity lies on the query's
side: "Apple Juice" and "Carrot Juice" carry `juice` alike, and it is the keyword `juice` that weighs little.
"""

from cope.keywords.printed import PrintedWords, Seen, freshness, page_names, read_scores
from cope.keywords.readings import MAX_KEYWORDS, SURE, faded, of_speech, of_window, readings, told
from cope.keywords.terms import further_titles, page_terms, query_terms, term_id, text_score, title_score
from cope.keywords.vocabulary import Vocabulary

__all__ = [
    "MAX_KEYWORDS",
    "SURE",
    "PrintedWords",
    "Seen",
    "Vocabulary",
    "faded",
    "freshness",
    "further_titles",
    "of_speech",
    "of_window",
    "page_names",
    "page_terms",
    "query_terms",
    "read_scores",
    "readings",
    "term_id",
    "text_score",
    "title_score",
    "told",
]
