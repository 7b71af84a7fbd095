"""Removes secrets from all that is shown or logged: URLs carry users, passwords, tokens and pasted pictures."""

import re

# A longer URL carries a whole document, which nobody reads in a line.
LONGEST_URL = 200
# As above, for a whole text.
LONGEST_TEXT = 2_000

# The length of a scheme is bounded: without, a text of a million letters would take a quarter of an hour.
# A password may hold what ends a URL elsewhere: whoever writes one rarely escapes it.
_URL = re.compile(
    r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]{0,30})://(?P<rest>(?:[^\s\"<>:/?#@]*:[^\n:/?#@]{1,100}@)?[^\s\"<>]+)"
)
_WORD = re.compile(rf"[!-~]{{{LONGEST_URL + 50},}}")
_DATA = re.compile(r"\bdata:[\w/+.-]*[;,][^\s\"'<>]*", re.IGNORECASE)


def redacted(text: str) -> str:
    """Returns the text without user, password, query and fragment of the URLs in it, and without `data:` values.

    Long URLs and texts are cut.
    """
    text = _WORD.sub(lambda word: word[0][:LONGEST_URL] + "…", _URL.sub(_bare, _DATA.sub("data:…", text)))
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"


def without_user(url: str) -> str:
    """Returns the URL without user and password. Its query stays: without a login it can still be opened."""
    return re.sub(r"^([a-zA-Z][a-zA-Z0-9+.-]{0,30}://)[^/?#]*@", r"\1", url)


def _bare(match: re.Match[str]) -> str:
    rest = match["rest"]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        shown = rest[authority.rfind("@") + 1 :]
    elif "@" in rest and not re.fullmatch(r"[^:]*(:\d*)?|\[[^\]]*\](:\d*)?", authority):
        shown = rest.rpartition("@")[2]  # a password with an unescaped slash, question mark or hash in it
    else:
        shown = rest
    shown = re.split(r"[?#]", shown, maxsplit=1)[0]
    return f"{match['scheme']}://{shown[:LONGEST_URL]}{'…' if len(shown) > LONGEST_URL else ''}"
