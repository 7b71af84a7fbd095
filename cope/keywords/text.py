"""Text to tokens, alike for pages and transcripts and for any language.

A token is a word, or a single Chinese character: recognisers and catalogues put spaces and word boundaries in
different places, so matching goes over characters there, and words (jieba) only say which stretches count.
"""

import logging
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import jieba
import opencc
import regex

from cope.keywords.stopwords import STOP_WORDS, UNITS

# Words: letters with their marks (Thai and Devanagari vowels are marks), or digits with their decimal point.
# Chinese characters stand alone. Letters and digits part ways, so "500ml" and "500 ml" are alike.
_TOKEN = regex.compile(r"\p{Han}|(?:(?!\p{Han})\p{L}[\p{M}]*)+(?:'s\b)?|\p{Nd}+(?:[.,]\p{Nd}+)*")
_HAN = regex.compile(r"\p{Han}+")
_QUOTES = str.maketrans({"\u2019": "'", "\u02bc": "'", "\uff07": "'"})

# Occurrences in jieba's corpus from which a word counts as common. 杀机 (112) is what 沙棘 (sea buckthorn) is heard
# as; 斗志 (365) and 游戏 (2917) are words that hosts say.
_COMMON_HAN = 300

jieba.setLogLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Token:
    """A word, number or Chinese character of a text.

    Attributes:
        norm: What is compared: simplified characters, lower case, singular.
        start: First character in the text.
        end: The one after its last.
    """

    norm: str
    start: int
    end: int

    @property
    def is_han(self) -> bool:
        """Whether this is a Chinese character."""
        return len(self.norm) == 1 and bool(_HAN.match(self.norm))

    @property
    def is_number(self) -> bool:
        """Whether this is a number."""
        return self.norm[0].isdigit()


def clean(text: str) -> str:
    """Returns the text in Unicode's compatibility form (full-width letters become plain), white space as blanks."""
    return " ".join(unicodedata.normalize("NFKC", text).translate(_QUOTES).split())


def tokens(text: str) -> list[Token]:
    """Returns the tokens of a text that `clean` has returned."""
    return [Token(_norm(found.group()), found.start(), found.end()) for found in _TOKEN.finditer(text)]


@lru_cache(maxsize=65_536)
def _norm(word: str) -> str:
    if _HAN.match(word):
        return _simplified(word)
    return singular(word.casefold().removesuffix("'s"))


@lru_cache(maxsize=1)
def _converter() -> opencc.OpenCC:
    return opencc.OpenCC("t2s")


def _simplified(word: str) -> str:
    # One character at a time, so that a word's norm does not depend on what stands beside it.
    converted = _converter().convert(word)
    return converted if len(converted) == len(word) else word


def singular(word: str) -> str:
    """Returns a lower-case word without an English plural ending; words of other languages keep their meaning."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "zes", "ches", "shes", "atoes", "ngoes")):
        return word[:-2]
    return word[:-1]


def words(found: Sequence[Token]) -> Iterator[tuple[int, int]]:
    """Yields the words of a text as (first, one after last) indices of its tokens, in order.

    A Chinese word may lie within another, longer one: both count.
    """
    at = 0
    while at < len(found):
        if not found[at].is_han:
            yield at, at + 1
            at += 1
            continue
        end = at
        while end < len(found) and found[end].is_han and (end == at or found[end].start == found[end - 1].end):
            end += 1
        run = "".join(token.norm for token in found[at:end])
        # No HMM: it joins unknown characters differently in different sentences.
        for _word, start, stop in jieba.tokenize(run, mode="search", HMM=False):
            yield at + start, at + stop
        at = end


def longest(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yields the spans that lie in no other one, in order."""
    reach = 0
    for start, end in sorted(set(spans), key=lambda span: (span[0], -span[1])):
        if end > reach:
            yield start, end
            reach = end


def key(found: Sequence[Token]) -> str:
    """Returns the tokens as one term: their norms without spaces."""
    return "".join(token.norm for token in found)


def is_content(found: Sequence[Token]) -> bool:
    """Returns whether these tokens, as one word, can tell products apart by themselves."""
    norm = key(found)
    if norm in STOP_WORDS or norm in UNITS:
        return False
    return len(norm) > 1 and not all(token.is_number for token in found)


def is_common(found: Sequence[Token]) -> bool:
    """Returns whether this is one word of everyday language: if it was heard, it was most likely meant."""
    norm = key(found)
    if len(found) == 1:
        return norm in _common_words()
    if not all(token.is_han for token in found):
        return False
    jieba.initialize()
    return int(jieba.dt.FREQ.get(norm, 0)) >= _COMMON_HAN


@lru_cache(maxsize=1)
def _common_words() -> frozenset[str]:
    # Words of the Latin alphabet that are one token in Whisper's vocabulary (MIT), in the singular.
    return frozenset((Path(__file__).parent / "common_words.txt").read_text(encoding="ascii").split())
