"""How words sound, for finding words that a speech recogniser has misspelled.

English by its consonants, in the manner of Metaphone: "seabury" and "sea berry" sound alike. Chinese by pinyin
without tones: 蓮帽山 and 连帽衫 do. Accents and Mandarin of the south keep zh/z, ch/c, sh/s, n/l and -ng/-n apart
less than the dictionary does, so neither do we.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from cope.keywords.text import Token

_ENGLISH = [
    (re.compile(pattern), sound)
    for pattern, sound in (
        (r"^[kgp]n", "n"),
        (r"^wr", "r"),
        (r"^wh", "w"),
        (r"^ps", "s"),
        (r"^x", "s"),
        (r"mb$", "m"),
        (r"ph", "f"),
        (r"(?<=[aeiou])gh(?=t|$)", ""),
        (r"gh", "g"),
        (r"sch", "sk"),
        (r"chr", "kr"),
        (r"tch|ch|sh|ti(?=on)|[cs]i(?=on|al|an)", "X"),
        (r"dg(?=[eiy])|j", "g"),
        (r"th", "T"),
        (r"ck|qu|q", "k"),
        (r"c(?=[eiy])", "s"),
        (r"c", "k"),
        (r"x", "ks"),
        (r"z", "s"),
        (r"v", "f"),
        (r"(?<=.)[aeiouyhw]+", ""),
        (r"^[aeiou]", "a"),  # vowels at the start are all alike
        (r"(.)\1+", r"\1"),
    )
]
_PLAIN = re.compile(r"[a-z0-9]+")


@lru_cache(maxsize=65_536)
def english(word: str) -> str:
    """Returns the sound of a lower-case word; empty if it is not in the Latin alphabet."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", word) if not unicodedata.combining(letter))
    if not _PLAIN.fullmatch(plain):
        return ""
    for pattern, sound in _ENGLISH:
        plain = pattern.sub(sound, plain)
    return plain


@lru_cache(maxsize=32_768)
def syllable(character: str) -> tuple[str, str]:
    """Returns the sound of a Chinese character, and its pinyin with the tone; the character if it has none."""
    from pypinyin import Style, lazy_pinyin  # 0.35 s, which rooms without Chinese do not wait for

    # Characters alone: what a character of several readings sounds like must not depend on those beside it.
    exact = lazy_pinyin(character, style=Style.TONE3, neutral_tone_with_five=True)[0]
    return _southern(exact.rstrip("12345")), exact


def _southern(plain: str) -> str:
    """Returns a syllable without the distinctions that speakers in the south do not make."""
    for written, spoken in (("zh", "z"), ("ch", "c"), ("sh", "s"), ("l", "n")):
        if plain.startswith(written):
            plain = spoken + plain[len(written) :]
            break
    if plain.endswith(("ang", "eng", "ing")):
        plain = plain[:-1]
    return plain


def sounds(tokens: Sequence[Token]) -> frozenset[str]:
    """Returns how some tokens, taken as one term, may sound; empty if that is unknown.

    The reading of some characters depends on their neighbours (藏 is cang, but zang in 藏青), and those may be wrong.
    So a term has two sounds: its characters read together, and each read alone.
    """
    han = [token.norm for token in tokens if token.is_han]
    if not han:
        return frozenset(filter(None, [_joined(tokens, [])]))
    from pypinyin import lazy_pinyin

    together = lazy_pinyin("".join(han))
    readings = [[syllable(character)[0] for character in han]]
    if len(together) == len(han):
        readings.append([_southern(plain) for plain in together])
    return frozenset(filter(None, (_joined(tokens, reading) for reading in readings)))


def _joined(tokens: Sequence[Token], reading: list[str]) -> str:
    """Returns the sound of the tokens; Chinese characters take theirs from `reading`, in order."""
    code = ""
    syllables = iter(reading)
    for token in tokens:
        if token.is_han:
            code += f"{next(syllables)}'"
            continue
        part = english(token.norm)
        if not part:
            return ""
        # Within a word these are not kept: so "sea horse" sounds like "seahorse".
        part = part.lstrip("awhy") if code and not code.endswith("'") else part
        code += part[1:] if part and code.endswith(part[0]) else part
    return code


def near(code: str) -> set[str]:
    """Returns the sound with one consonant left out, each in turn; the first one stays."""
    return {code[:at] + code[at + 1 :] for at in range(1, len(code))}
