"""Languages by their tags."""

# Tags that name the same speech differently.
_SAME = {"cmn": "zh", "nb": "no", "fil": "tl", "iw": "he", "in": "id"}

LANGUAGES = frozenset(
    """
    af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu hy id is
    it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru sa sd si sk
    sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo yue zh
    """.split()
)
"""What Whisper understands, as it names it."""


def primary_tag(tag: str) -> str:
    """Returns what a language tag is called here: "zh-CN", "zh_Hans" and "cmn" are "zh"."""
    primary = tag.strip().lower().replace("_", "-").split("-")[0]
    return _SAME.get(primary, primary)
