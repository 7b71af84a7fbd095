"""Words read in pictures against the words of a catalogue."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cope.keywords import PrintedWords, page_names

SHOP = {
    "orange": (("God Morgon Orange Juice",), ("GOD MORGON", "APELSIN")),
    "apple": (("God Morgon Apple Juice",), ("GOD MORGON", "ÄPPLE")),
    "milk": (("Garant Ecological Milk",), ("GARANT", "MELLANMJOLK")),
    "tea": (("沙棘果汁", "Sea Buckthorn"), ()),
}


def words(shop=SHOP) -> PrintedWords:
    printed = PrintedWords()
    for product_id, (names, read) in shop.items():
        printed.add(product_id, names, read)
    return printed


def best(lines: list[str]) -> str:
    seen = words().seen([(line, 1.0) for line in lines])
    return max(seen, key=lambda one: seen[one].score)


def test_words_of_the_page_s_own_pictures_tell_siblings_apart() -> None:
    assert best(["GOD MORGON", "APELSIN"]) == "orange"
    assert best(["god morgon", "äpple"]) == "apple"


def test_a_misread_word_means_the_catalogue_s() -> None:
    assert best(["AFELSIN"]) == "orange"
    assert best(["MELLANMIOLK"]) == "milk"
    assert best(["沙辣果汁"]) == "tea"


@settings(deadline=None)  # the first text loads dictionaries
@given(
    st.sampled_from(["apelsin", "garant", "grapefruit", "mellanmjolk", "ecological", "orang"]),
    st.integers(0, 10),
    st.sampled_from(["sub", "add", "drop"]),
    st.sampled_from("qxz"),
)
def test_any_single_error_in_a_longer_word_is_mended(word: str, at: int, error: str, letter: str) -> None:
    printed = PrintedWords()
    printed.add("meant", [word])
    printed.add("other", ["unlike"])
    at %= len(word)
    read = word[:at] + ("" if error == "drop" else letter) + word[at + (error != "add") :]
    seen = printed.seen([(read, 1.0)])
    assert "meant" in seen or len(read) < 5


def test_joined_and_split_words_meet() -> None:
    assert best(["GODMORGON", "APELSIN"]) == "orange"
    assert best(["Buck thorn"]) == "tea"


def test_a_word_in_two_lines_meets_the_whole() -> None:
    seen = words().seen([("MOR", 1.0), ("GON", 1.0)])
    assert set(seen) == {"orange", "apple"}


def test_a_word_of_the_title_that_is_printed_on_the_product_says_most() -> None:
    printed = PrintedWords()
    printed.add("fruit", ["Red Grapefruit"])
    printed.add("carton", ["Red Grapefruit Juice"], ["red", "grapefruit"])
    printed.add("other", ["Lemon"])
    seen = printed.seen([("red", 1.0), ("grapefruit", 1.0)])
    assert seen["carton"].score > seen["fruit"].score


def test_what_many_share_says_less_than_what_is_rare() -> None:
    seen = words().seen([("juice", 1.0), ("garant", 1.0)])
    assert seen["milk"].score > seen["orange"].score > 0


def test_what_names_a_product_is_said_the_best_line_first() -> None:
    seen = words().seen([("click here", 1.0), ("morgon", 1.0), ("apelsin god morgon", 1.0)])
    assert seen["orange"].lines[0] == 2
    assert 0 not in seen["orange"].lines


def test_a_withdrawn_page_is_not_found() -> None:
    printed = words()
    printed.remove("milk")
    assert "milk" not in printed.seen([("garant", 1.0)])


def test_names_are_titles_first() -> None:
    names = page_names("Juice", "Bravo", {"title_zh": "果汁", "size": "1 l"})
    assert names == ("Juice", "果汁", "Bravo", "1 l")


@settings(deadline=None)  # the first text loads dictionaries
@given(st.permutations(list(SHOP)), st.lists(st.sampled_from(["GOD MORGON", "apelsin", "garamt", "xx"]), max_size=4))
def test_the_order_of_pages_does_not_matter(order: list[str], lines: list[str]) -> None:
    read = [(line, 0.9) for line in lines]
    assert words({one: SHOP[one] for one in order}).seen(read) == words().seen(read)
