"""What is heard of a catalogue in a transcript, and what is not."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cope.keywords import Vocabulary, page_terms, query_terms, text_score

TITLES = {
    "apple": "Apple Juice",
    "carrot": "Carrot Juice",
    "coconut": "Coconut Juice",
    "cordial": "Seaberry Cordial",
    "lager": "Seaman Lager",
    "plimsolls": "White Plimsolls",
    "hoodie": "White Hoodie",
    "paint": "Nebula Night Sky Paint",
    "phone": "Nova 12 Phone",
    "苹果汁": "苹果汁",
    "胡萝卜汁": "胡萝卜汁",
    "沙棘": "沙棘浓缩饮料",
    "连帽衫": "蓝色连帽衫",
    "围巾": "羊毛围巾",
}


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    vocabulary = Vocabulary()
    for product_id, title in TITLES.items():
        vocabulary.add(product_id, title, brand="Saleor", category="Goods", attributes={"color": "Deep Blue"})
    return vocabulary


def best(vocabulary: Vocabulary, text: str) -> tuple[str, float]:
    """Returns the product that the text names most, with the lead of its text score over the next one."""
    query = query_terms(vocabulary.extract(text))
    scores = sorted(
        ((text_score(page_terms(title, "Saleor", "Goods"), query), product) for product, title in TITLES.items()),
        reverse=True,
    )
    return scores[0][1], scores[0][0] - scores[1][0]


@pytest.mark.parametrize(
    ("text", "product"),
    [
        ("This apple juice is fresh.", "apple"),
        ("carrot juices, full of vitamins", "carrot"),
        ("the SEA BERRY cordial, sweet and sour", "cordial"),
        ("let me show you the seabury cordial", "cordial"),
        ("the semen logger is brewed in small batches", "lager"),
        ("white plimpsils perfect for summer", "plimsolls"),
        ("our Nebula Knight Sky Paint", "paint"),
        ("the nova 12 phone", "phone"),
        ("这款苹果汁非常新鲜", "苹果汁"),
        ("這款蘋果汁,非常新鮮", "苹果汁"),
        ("這瓶胡蘿蔔芝富含維生素", "胡萝卜汁"),
        ("殺擊濃縮飲料 酸酸甜甜", "沙棘"),
        ("這間藍色蓮帽山特別舒服", "连帽衫"),
        ("羊毛圍進 手感柔軟", "围巾"),
        ("Ａｐｐｌｅ　Ｊｕｉｃｅ", "apple"),
    ],
)
def test_the_spoken_product_leads_however_the_recogniser_spells_it(
    vocabulary: Vocabulary, text: str, product: str
) -> None:
    found, lead = best(vocabulary, text)
    assert found == product
    assert lead > 0.2


@pytest.mark.parametrize(
    "text",
    [
        "Hello everybody, thanks for joining the stream tonight.",
        "If you like it, hit the heart and subscribe.",
        "大家好，欢迎来到直播间。",
        "喜歡的朋友點一下關注,謝謝大家",
        "1, 2, 3, 500 ml, 2 kg",
        "...",
        "",
    ],
)
def test_chat_numbers_and_silence_give_no_keywords(vocabulary: Vocabulary, text: str) -> None:
    assert vocabulary.extract(text) == []


def test_keywords_are_spelled_as_in_the_catalogue(vocabulary: Vocabulary) -> None:
    assert "Seaberry Cordial" in dict(vocabulary.extract("sea berry cordials"))
    assert "胡萝卜汁" in dict(vocabulary.extract("胡蘿蔔汁"))


def test_words_that_many_products_share_weigh_less(vocabulary: Vocabulary) -> None:
    weights = dict(vocabulary.extract("apple juice by saleor"))
    assert weights["Apple Juice"] > weights["Apple"] > weights["Juice"]
    assert weights["Saleor"] < 0.3


def test_everyday_words_are_not_taken_for_names_that_sound_alike() -> None:
    vocabulary = Vocabulary()
    vocabulary.add("p", "Red Shopping Cart T-shirt")
    vocabulary.add("q", "豆汁")
    assert "Shopping" not in dict(vocabulary.extract("shipping is free"))
    assert "豆汁" not in dict(vocabulary.extract("斗志昂扬"))


def test_a_character_is_known_by_the_reading_that_its_word_gives_it() -> None:
    vocabulary = Vocabulary()
    vocabulary.add("p", "星尘藏青油漆")
    assert "星尘藏青油漆" in dict(vocabulary.extract("這一款是我們的星塵葬清油器。"))


def test_phrases_that_the_catalogue_does_not_know_weigh_little(vocabulary: Vocabulary) -> None:
    found = vocabulary.extract("apple juice, cold pressed in copper barrels", "en")
    unknown = {word: weight for word, weight in found if word in ("cold pressed", "copper barrels")}
    assert set(unknown) == {"cold pressed", "copper barrels"}
    assert all(weight <= 0.2 for weight in unknown.values())


def test_a_language_without_stop_words_gives_only_words_of_the_catalogue(vocabulary: Vocabulary) -> None:
    assert vocabulary.extract("bardzo dobry produkt", "pl") == []
    assert vocabulary.extract("apple juice jest bardzo dobry", "xx-unknown")[0][0] == "Apple Juice"


def test_a_withdrawn_page_is_forgotten_and_a_new_one_replaces_the_old() -> None:
    vocabulary = Vocabulary()
    vocabulary.add("p", "Apple Juice")
    vocabulary.add("q", "Pear Juice")
    vocabulary.add("p", "Plum Jam")
    assert len(vocabulary) == 2
    [(term, weight)] = vocabulary.extract("apple")
    assert term == "apple" and weight == pytest.approx(0.06)
    assert dict(vocabulary.extract("plum jam"))["Plum Jam"] == 1.0
    vocabulary.remove("p")
    vocabulary.remove("never there")
    assert "Plum Jam" not in dict(vocabulary.extract("plum jam"))
    assert "q" in vocabulary and "p" not in vocabulary


def test_other_scripts_are_matched_as_they_are_spelled() -> None:
    vocabulary = Vocabulary()
    for title in ("Яблочный сок", "น้ำแอปเปิ้ล", "사과 주스", "りんごジュース", "عصير تفاح"):
        vocabulary.add(title, title)
    for title in ("Яблочный сок", "น้ำแอปเปิ้ล", "사과 주스", "りんごジュース", "عصير تفاح"):
        assert vocabulary.extract(f"{title}!", "ru")[0][0] == unicodedata.normalize("NFKC", title)


pages = st.dictionaries(
    st.sampled_from("abcdef"),
    st.tuples(
        st.text(max_size=20) | st.sampled_from(list(TITLES.values())),
        st.sampled_from(["", "Saleor", "Acme"]),
        st.dictionaries(st.sampled_from(["color", "title_zh"]), st.text(max_size=8), max_size=2),
    ),
    max_size=6,
)


def filled(entries: dict[str, tuple[str, str, dict[str, str]]]) -> Vocabulary:
    vocabulary = Vocabulary()
    for product_id, (title, brand, attributes) in entries.items():
        vocabulary.add(product_id, title, brand, attributes=attributes)
    return vocabulary


@given(first=pages, second=pages, text=st.text(max_size=60) | st.sampled_from(list(TITLES.values())))
@settings(deadline=None, max_examples=100)
def test_following_a_catalogue_equals_starting_with_it(
    first: dict[str, tuple[str, str, dict[str, str]]], second: dict[str, tuple[str, str, dict[str, str]]], text: str
) -> None:
    vocabulary = filled(first)
    for product_id in first:
        if product_id not in second:
            vocabulary.remove(product_id)
    for product_id, (title, brand, attributes) in second.items():
        vocabulary.add(product_id, title, brand, attributes=attributes)
    fresh = filled(dict(reversed(second.items())))
    said = f"{text} {' '.join(title for title, _, _ in second.values())}"
    assert vocabulary.extract(said) == fresh.extract(said)
    for product_id in second:
        vocabulary.remove(product_id)
    assert vars(vocabulary) == vars(Vocabulary())


@given(text=st.text(), language=st.none() | st.text(max_size=5))
@settings(deadline=None, max_examples=150)
def test_any_text_in_any_language_gives_weights_in_range(
    vocabulary: Vocabulary, text: str, language: str | None
) -> None:
    found = vocabulary.extract(text, language)
    assert len({word for word, _ in found}) == len(found) <= 16
    assert all(0 < weight <= 1 for _, weight in found)
    assert found == vocabulary.extract(text, language)
