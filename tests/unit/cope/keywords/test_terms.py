"""Pages and keywords as sparse vectors."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cope.keywords import further_titles, page_terms, query_terms, term_id, text_score, title_score

text = st.text(max_size=40)


def test_ids_are_the_same_in_every_release() -> None:
    assert term_id("juice") == 524719747
    assert term_id("苹果") == 3474798308


def test_equal_texts_score_one_and_strangers_nothing() -> None:
    page = page_terms("Apple Juice")
    assert text_score(page, query_terms([("apple juice", 1.0), ("apple", 0.58), ("juice", 0.58)])) > 0.95
    assert text_score(page, query_terms([("black hoodie", 1.0)])) == 0.0
    assert text_score(page, query_terms([])) == 0.0
    assert text_score(page_terms(""), query_terms([("apple", 1.0)])) == 0.0


def test_spaces_plurals_case_and_characters_make_no_difference() -> None:
    page = page_terms("Seaberry Cordial", attributes={"title_zh": "沙棘浓缩饮料"})
    assert text_score(page, query_terms([("SEA BERRY cordials", 1.0)])) > 0.2
    assert query_terms([("沙棘濃縮飲料", 1.0)]) == query_terms([("沙棘浓缩饮料", 1.0)])


def test_a_title_counts_more_than_a_description_that_says_the_same() -> None:
    query = query_terms([("ginger", 1.0)])
    titled = page_terms("Ginger Tea", description="A warming drink")
    described = page_terms("Warming Tea", description="A drink with ginger")
    assert text_score(titled, query) > 3 * text_score(described, query) > 0


def test_a_long_description_leaves_the_title_its_weight() -> None:
    query = query_terms([("apple juice", 1.0)])
    short, long = (page_terms("Apple Juice", description=text) for text in ("", "many other words here " * 50))
    assert text_score(long, query) > 0.9 * text_score(short, query)


def test_every_attribute_counts_and_titles_in_other_languages_count_as_titles() -> None:
    page = page_terms("Apple Juice", "Saleor", "Drinks", {"color": "green", "title_zh": "苹果汁"})
    english, chinese, color = (text_score(page, query_terms([(word, 1.0)])) for word in ("apple", "苹果", "green"))
    assert english > 0.3 and chinese > 0.3 > color > 0


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_keywords_without_weight_count_for_nothing(weight: float) -> None:
    assert query_terms([("apple juice", weight)]) == {}


@given(title=text, brand=text, description=text, attributes=st.dictionaries(st.text(max_size=8), text, max_size=3))
@settings(deadline=None, max_examples=100)
def test_any_page_is_a_unit_vector_with_32_bit_ids(
    title: str, brand: str, description: str, attributes: dict[str, str]
) -> None:
    page = page_terms(title, brand, "", attributes, description)
    assert all(0 <= term < 2**32 and 0 < weight <= 1.000001 for term, weight in page.items())
    assert not page or math.isclose(sum(weight**2 for weight in page.values()), 1.0)


@given(
    title=text,
    keywords=st.lists(st.tuples(text, st.floats(min_value=0.001, max_value=1.0)), max_size=6),
)
@settings(deadline=None, max_examples=100)
def test_any_keywords_score_between_nothing_and_one(title: str, keywords: list[tuple[str, float]]) -> None:
    query = query_terms(keywords)
    assert not query or math.isclose(sum(weight**2 for weight in query.values()), 1.0)
    assert 0.0 <= text_score(page_terms(title), query) <= 1.0
    assert query == query_terms(list(reversed(keywords)))


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("vine tomato", 1.0, 1.0),
        ("藤番茄", 1.0, 1.0),
        ("tomato", 0.0, 0.01),  # a regular tomato is one too
        ("vine", 0.0, 0.01),
        ("", 0.0, 0.0),
    ],
)
def test_a_title_counts_if_all_of_it_is_said(said, least, most):
    query = query_terms([(said, 0.3), ("apple", 0.9)])
    assert least <= title_score(["Vine Tomatoes", "藤番茄"], query) <= most


def test_a_title_without_words_is_never_said():
    assert title_score(["", "!"], query_terms([("apple", 1.0)])) == title_score([], {}) == 0.0


def test_a_page_has_titles_in_further_languages():
    assert further_titles({"title_zh": "苹果汁", "name-de": "Apfelsaft", "colour": "green", "title_fr": ""}) == (
        "Apfelsaft",
        "苹果汁",
    )
