import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope.keywords.markup import plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<p>Soft<br/>warm</p><ul><li>one</li><li>two</li></ul>", "Soft warm one two"),
        ("Tom &amp; Jerry &#39;90 &#x2122;", "Tom & Jerry '90 ™"),
        ("&lt;p&gt;Soft&lt;/p&gt;", "Soft"),
        ("&amp;lt;b&amp;gt;Soft&amp;lt;/b&amp;gt;", "Soft"),
        ("H<sub>2</sub>O", "H2O"),
        ("<a href=\"x\" class='y'>link</a>", "link"),
        ("<style>p {color: red}</style>Soft<script>a < b</script>", "Soft"),
        ("I <3 this, size < medium and > small, R&D, AT&T", "I <3 this, size < medium and > small, R&D, AT&T"),
        ("two  spaces\nstay", "two  spaces\nstay"),
        ("<b>", ""),
    ],
)
def test_what_a_reader_sees_stays(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.text("<>&;/ab p#123", max_size=40))
def test_what_is_plain_stays_as_it_is(text: str) -> None:
    once = plain(plain(plain(text)))
    assert plain(once) == once
