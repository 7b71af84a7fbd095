"""Removes HTML from the texts of shops."""

import html
import re

# Only named tags: people write "size < medium and > small" and "<3".
_TAGS = (
    "a abbr address article aside b bdi bdo big blockquote body br button caption center cite code col colgroup dd del "
    "details dfn div dl dt em figcaption figure font footer form h1 h2 h3 h4 h5 h6 head header hr html i iframe img "
    "input ins kbd label li link main mark meta nav ol o:p p picture pre q s samp section small source span strike "
    "strong style sub summary sup svg table tbody td tfoot th thead title tr tt u ul var video wbr"
).split()
_UNSEEN = re.compile(r"<!--.*?(-->|$)|<(script|style)\b.*?(</\2\s*>|$)", re.IGNORECASE | re.DOTALL)
# Within a word these change its looks and not its letters: H<sub>2</sub>O.
_INLINE = re.compile(r"</?(?:a|b|em|font|i|mark|s|small|span|strong|sub|sup|u|wbr)(?:\s[^<>]*)?/?>", re.IGNORECASE)
_TAG = re.compile(rf"</?(?:{'|'.join(_TAGS)})(?:\s[^<>]*)?/?>|<!doctype[^<>]*>|<!\[CDATA\[|\]\]>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
# Feeds escape what was escaped before: &amp;lt;p&amp;gt;.
_MOST_LAYERS = 3


def plain(text: str) -> str:
    """Returns the text without tags, comments and scripts, its entities decoded, on one line.

    A text without any stays as it is.
    """
    for _ in range(_MOST_LAYERS):
        bare = _without_tags(text)
        decoded = _ENTITY.sub(lambda entity: html.unescape(entity[0]), bare)
        if decoded == text:
            break
        text = " ".join(decoded.split())
    return text


def _without_tags(text: str) -> str:
    if "<" not in text and "]]>" not in text:
        return text
    return _TAG.sub(" ", _INLINE.sub("", _UNSEEN.sub(" ", text)))
