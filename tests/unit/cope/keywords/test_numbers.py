import pytest

from cope.keywords import Vocabulary, page_terms, query_terms, text_score
from cope.keywords.numbers import with_digits
from cope.keywords.text import clean, tokens

PAGES = {
    "15": "Acme Phone 15 Pro",
    "16": "Acme Phone 16 Pro",
    "999": "Rouge Velvet Lipstick 999",
    "720": "Rouge Velvet Lipstick 720",
    "s24": "Galaxy S24 Ultra",
    "wh": "WH-1000XM5 Headphones",
    "a7": "Alpha A7 Camera",
    "pens": "Pens, pack of 24, 500ml ink",
    "zh": "丝绒口红 色号 888",
    "zh15": "苹果 15 Pro 手机",
}


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    known = Vocabulary()
    for product_id, title in PAGES.items():
        known.add(product_id, title)
    return known


def best(vocabulary: Vocabulary, said: str) -> set[str]:
    """The products that the words name best; none if nothing is named."""
    query = query_terms(vocabulary.extract(said, "zh" if any(ord(c) > 0x2E80 for c in said) else "en"))
    scores = {product_id: text_score(page_terms(title), query) for product_id, title in PAGES.items()}
    top = max(scores.values())
    return {product_id for product_id, score in scores.items() if score > 0.05 and score > top - 1e-6}


@pytest.mark.parametrize(
    ("said", "product_id"),
    [
        ("and this is the fifteen pro, ladies", "15"),
        ("look at the sixteen pro", "16"),
        ("my favourite is number 999", "999"),
        ("this one is shade nine ninety nine", "999"),
        ("number nine hundred and ninety-nine", "999"),
        ("number seven two zero", "720"),
        ("the S24 is here", "s24"),
        ("the s twenty four is here", "s24"),
        ("I wear the WH 1000 XM 5", "wh"),
        ("an A7 for you", "a7"),
        ("色号八八八", "zh"),
        ("八百八十八号很好看", "zh"),
        ("这个是888号", "zh"),
        ("十五Pro来了", "zh15"),
    ],
)
def test_a_number_that_names_is_understood(vocabulary: Vocabulary, said: str, product_id: str) -> None:
    assert product_id in best(vocabulary, said)
    assert not best(vocabulary, said) & (
        {"15", "16", "999", "720", "zh"} - {product_id, "15" if product_id == "zh15" else ""}
    )


@pytest.mark.parametrize(
    "said",
    [
        "only 999 today",
        "for nine ninety nine you get it",
        "we sold 720 of them",
        "I want a 7",
        "fifteen people are here, and 24 more",
        "只要888",
        "一共十五个",
        "number one in sales",
    ],
)
def test_a_price_or_a_count_names_nothing(vocabulary: Vocabulary, said: str) -> None:
    assert best(vocabulary, said) == set()


@pytest.mark.parametrize(
    ("said", "digits"),
    [
        ("twenty five", "25"),
        ("nine ninety nine", "999"),
        ("nineteen ninety", "1990"),
        ("one hundred and one", "101"),
        ("two thousand and twenty four", "2024"),
        ("two hundred fifty thousand", "250000"),
        ("nine nine nine", "999"),
        ("one zero one", "101"),
        ("fifteen", "15"),
        ("zero", "0"),
        ("十五", "15"),
        ("二十", "20"),
        ("二十五", "25"),
        ("九百九十九", "999"),
        ("一百零一", "101"),
        ("一零一", "101"),
        ("两千", "2000"),
        ("幺二三", "123"),
    ],
)
def test_number_words_are_read_as_they_are_written(said: str, digits: str) -> None:
    assert [token.norm for token in with_digits(tokens(clean(said)))[0]] == [digits]
