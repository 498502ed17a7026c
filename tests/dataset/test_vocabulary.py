"""Words and labels."""

from pathlib import Path

import pytest

from dataset.errors import BadInput
from dataset.vocabulary import OTHER_FACET, load_vocabulary, normalize_word


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("#Поло", "поло"),
        ("ШЛЁПАНЦЫ", "шлепанцы"),
        ("Polo", "polo"),
        ("  polo \n shirt ", "polo shirt"),
        ("##tag", "tag"),
        ("И\u0306од", "йод"),
    ],
)
def test_words_are_normalised(word: str, expected: str) -> None:
    assert normalize_word(word) == expected


def test_at_least_forty_labels_have_words_in_both_languages() -> None:
    labels = load_vocabulary().labels
    assert len(labels) >= 40
    for label in labels.values():
        letters = "".join(label.words)
        assert any("a" <= c <= "z" for c in letters), label
        assert any("а" <= c <= "я" for c in letters), label


def test_every_word_of_the_label_is_searched() -> None:
    words = load_vocabulary().words_of("#Polo")
    assert {"polo", "poloshirt", "поло", "рубашка поло"} <= set(words)


@pytest.mark.parametrize("hashtag", ["polo", "PoloShirt", "рубашкаполо", "рубашка_поло", "#поло"])
def test_a_hashtag_finds_its_label(hashtag: str) -> None:
    assert load_vocabulary().label_of(hashtag) == "polo"


def test_a_tag_in_no_label_is_searched_as_typed_and_is_its_own_label() -> None:
    vocabulary = load_vocabulary()
    assert vocabulary.label_of("кимоно") is None
    assert vocabulary.words_of("Кимоно") == ("кимоно",)
    assert vocabulary.label_or_hashtag("#Кимоно") == "кимоно"


def test_an_own_file_extends_and_takes_words_over(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        '[kimono]\nwords = ["kimono", "кимоно"]\n'
        '[polo]\nwords = ["тенниска"]\n'
        '[tee]\nwords = ["футболка"]\n',
        encoding="utf-8",
    )
    vocabulary = load_vocabulary(own)
    assert vocabulary.label_of("кимоно") == "kimono"
    assert vocabulary.label_of("тенниска") == vocabulary.label_of("поло") == "polo"
    assert vocabulary.label_of("футболка") == "tee"
    assert vocabulary.label_of("футболки") == "t-shirt"


def test_an_own_file_can_replace_the_built_in_labels(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('replace = true\n[kimono]\nwords = ["кимоно"]\n', encoding="utf-8")
    assert list(load_vocabulary(own).labels) == ["kimono"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[a]\nwords = "x"', "words = 'x'"),
        ('[a]\nwords = ["x"]\n[b]\nwords = ["#X"]', "both"),
        ("[a", "not TOML"),
        ("a = 3", "not 3"),
    ],
)
def test_a_bad_own_file_is_named_with_what_is_wrong(
    tmp_path: Path, text: str, message: str
) -> None:
    own = tmp_path / "own.toml"
    own.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=message) as caught:
        load_vocabulary(own)
    assert "own.toml" in caught.value.message


def test_a_missing_own_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.toml"):
        load_vocabulary(tmp_path / "none.toml")


def test_labels_of_one_facet_exclude_each_other() -> None:
    vocabulary = load_vocabulary(multi_label=True)
    assert vocabulary.conflicts(["jeans", "blouse", "coat", "sneakers", "red", "striped"]) == []
    assert vocabulary.conflicts(["jeans", "red", "shorts", "blue"]) == [
        ["jeans", "shorts"],
        ["red", "blue"],
    ]


def test_a_dress_excludes_what_is_worn_above_and_below_and_a_suit_goes_with_a_shirt() -> None:
    vocabulary = load_vocabulary(multi_label=True)
    assert vocabulary.conflicts(["blouse", "jeans", "dress"]) == [["blouse", "jeans", "dress"]]
    assert vocabulary.conflicts(["dress", "coat", "boots", "hat"]) == []
    assert vocabulary.conflicts(["suit", "shirt"]) == []


def test_every_built_in_label_has_a_facet_and_own_ones_share_the_last() -> None:
    vocabulary = load_vocabulary(multi_label=True)
    assert all(label.facet for label in vocabulary.labels.values())
    assert vocabulary.facets[-1] == OTHER_FACET
    assert vocabulary.facets_of("кимоно") == (OTHER_FACET,)
    assert vocabulary.conflicts(["кимоно", "ootd", "jeans"]) == [["кимоно", "ootd"]]


@pytest.mark.parametrize(
    ("word", "label"),
    [
        ("Тёмно-синий", "navy"),
        ("синие", "blue"),
        ("dark_blue", "navy"),
        ("Grey", "gray"),
        ("в горошек", "polka-dot"),
        ("plaid", "checked"),
        ("клетка", "checked"),
        ("бордовый", "burgundy"),
    ],
)
def test_colours_and_patterns_are_known_where_photos_have_several_labels(
    word: str, label: str
) -> None:
    assert load_vocabulary(multi_label=True).label_of(word) == label
    assert load_vocabulary().label_of(word) is None


def test_own_labels_inherit_the_facet_of_wider_ones_and_can_set_it(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        '[shirt-dress]\nwithin = ["dress"]\n'
        '[skirt]\nfacet = "Skirts"\n'
        "[kimono]\n"
        '[jeans]\nwords = ["denims"]\n',
        encoding="utf-8",
    )
    vocabulary = load_vocabulary(own, multi_label=True)
    assert vocabulary.facets_of("shirt-dress") == ("upper", "lower")
    # Narrower labels follow.
    assert vocabulary.facets_of("skirt") == vocabulary.facets_of("mini-skirt") == ("skirts",)
    assert vocabulary.facets_of("kimono") == (OTHER_FACET,)
    assert vocabulary.facets_of("jeans") == ("lower",)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("[kimono]\nfacet = 3", "kimono"),
        ('[kimono]\nfacet = ["upper", "lower"]', "kimono"),
        ('[kimono]\nfacet = ""', "kimono"),
        ('[kimono]\nfacet = "upper+"', "kimono"),
        ('[kimono]\nfacet = "upper+upper"', "kimono"),
        ('[Kimono]\nfacet = "upper"\n[kimono]\nfacet = "lower"', "kimono"),
        ('[kimono]\nfacet = "upper"\nwithin = ["skirt"]', "kimono"),
        ('[kimono]\nwithin = ["skirt", "shirt"]', "kimono"),
        ('replace = true\n[a]\nfacet = "x"\n[b]\nfacet = "y"\nwithin = ["a"]', "b"),
    ],
)
def test_wrong_facets_are_refused_by_file_and_label(text: str, label: str, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as error:
        load_vocabulary(own, multi_label=True)
    assert str(own) in str(error.value)
    assert f"[{label}]" in str(error.value)
    assert "facet" in str(error.value)


def test_a_label_within_labels_of_two_facets_is_no_error_where_photos_have_one_label(
    tmp_path: Path,
) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[kimono]\nwithin = ["dress", "outwear"]', encoding="utf-8")
    assert load_vocabulary(own).narrowest(["dress", "kimono", "outwear"]) == ["kimono"]
