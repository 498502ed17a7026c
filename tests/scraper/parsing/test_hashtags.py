"""Tests of hashtag parsing."""

import pytest

from scraper.parsing.hashtags import find_hashtags, group_words, to_hashtag, unique_hashtags


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("#polo and #Polo_Shirt.", ("polo", "Polo_Shirt")),
        ("Новая #рубашкаПоло, #поло! #поло", ("рубашкаПоло", "поло")),
        ("#polo#dress#2 (#skirt) «#юбка»#", ("polo", "dress", "skirt", "юбка")),
        ("see https://shop.example/a#polo and www.shop.example/#dress #coat", ("coat",)),
        ("No1 #1 #2026 #2026look mail&#39;s a#b", ("2026look",)),
        (
            "#ひとつ ＃ふたつ #l\u2019été #café #cafe\u0301",
            ("ひとつ", "ふたつ", "l", "café", "cafe\u0301"),
        ),
        ("#👗 #dress👗 # polo ##polo #_ #__", ("dress", "polo")),
        ("#हिन्दी #עברית", ("हिन्दी", "עברית")),
        ("", ()),
        (None, ()),
    ],
)
def test_hashtags_in_text(text: str | None, tags: tuple[str, ...]) -> None:
    assert find_hashtags(text) == tags


def test_search_terms_become_hashtags() -> None:
    terms = ("polo shirt", "t-shirt", "#Поло", "polo_shirt", "हिन्दी", "👗")
    tags = ("poloshirt", "tshirt", "Поло", "polo_shirt", "हिन्दी", "")
    assert tuple(map(to_hashtag, terms)) == tags
    assert unique_hashtags(["polo", "polo shirt", "poloshirt", "po-lo"]) == ["polo", "polo shirt"]


def test_terms_are_grouped_within_a_limit() -> None:
    terms = ["a", "bb", "c", "dddd", "e"]
    assert group_words(terms, lambda group: len("".join(group)) <= 3) == [
        *(("a", "bb"), ("c",), ("dddd",), ("e",))
    ]


@pytest.mark.parametrize("piece", ["#a", "#a\u0301", "##a", "#"])
def test_long_text_is_parsed_in_linear_time(piece: str) -> None:
    tags = set(find_hashtags(piece * (1_000_000 // len(piece))))
    assert tags == {piece.strip("#")} - {""}
