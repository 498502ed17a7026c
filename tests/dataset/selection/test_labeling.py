"""Labels by hashtags and decisions, wider and narrower labels, conflicts."""

from datetime import datetime
from typing import Any

from dataset.selection.candidates import Candidate, Exclusions, SourcePost
from dataset.selection.labeling import (
    LABEL_CONFLICT,
    LabeledImage,
    assign_label_sets,
    assign_labels,
    limit_classes,
)
from dataset.vocabulary import load_vocabulary


def photo(number: int, *tags: str, decisions: tuple[tuple[int, str | None], ...] = ()) -> Candidate:
    posts = tuple(SourcePost(n, "u", "lamoda", None, (tag,)) for n, tag in enumerate(tags))
    sha256 = f"{number:064x}"
    return Candidate(
        number, sha256, "k", number, 9, 9, 9, posts=posts, decisions=decisions, copies=(number,)
    )


def labels(*photos: Candidate, conflicts: str = "drop") -> tuple[list[str], Exclusions]:
    exclusions = Exclusions()
    given = assign_labels(photos, load_vocabulary(), (), exclusions, conflicts)
    return [one.label for one in given], exclusions


def test_of_a_label_and_one_that_it_holds_the_narrower_counts() -> None:
    assert labels(photo(1, "обувь", "кроссовки"))[0] == ["sneakers"]
    assert labels(photo(1, "бомбер", "куртка", "верхняя одежда"))[0] == ["bomber"]
    assert labels(photo(1, "юбка", "мини-юбка"))[0] == ["mini-skirt"]


def test_two_labels_neither_of_which_holds_the_other_are_a_conflict() -> None:
    given, exclusions = labels(photo(1, "поло", "джинсы"), photo(2, "обувь", "туфли", "кеды"))
    assert given == []
    assert exclusions.counts == {LABEL_CONFLICT: 2}
    assert [one.detail for one in exclusions.images] == ["polo, jeans", "heels, sneakers"]


def test_the_first_label_is_taken_where_that_is_asked() -> None:
    assert labels(photo(1, "джинсы", "поло"), conflicts="first")[0] == ["jeans"]


def test_a_wider_label_is_taken_where_only_that_is_wished() -> None:
    some = [photo(1, "обувь", "кроссовки"), photo(2, "кроссовки"), photo(3, "обувь", "поло")]
    exclusions = Exclusions()
    given = assign_labels(some, load_vocabulary(), ["shoes"], exclusions)
    assert [(one.photo.image_id, one.label) for one in given] == [(1, "shoes")]
    assert exclusions.counts == {"label not requested": 1, LABEL_CONFLICT: 1}


def test_own_tags_are_labels_in_any_script() -> None:
    assert labels(photo(1, "🔥"), photo(2, "Кимоно"))[0] == ["🔥", "кимоно"]


def test_the_latest_word_of_a_person_wins() -> None:
    assert labels(photo(1, "поло", "джинсы", decisions=((1, "hat"), (2, "cap"))))[0] == ["cap"]
    given, exclusions = labels(photo(1, "поло", decisions=((1, "hat"), (2, None))))
    assert (given, exclusions.counts) == ([], {"excluded by a reviewer": 1})


def test_a_class_is_cut_to_those_that_earlier_builds_have() -> None:
    some = [LabeledImage(photo(number, "поло"), ("polo",)) for number in range(10)]
    kept, _ = limit_classes(some, 1, 3, Exclusions(), frozenset({7, 9}))
    assert [one.photo.image_id for one in kept] == [0, 7, 9]


def post(number: int, tag: str, day: int | None = None) -> SourcePost:
    posted = None if day is None else datetime(2026, 5, day)
    return SourcePost(number, f"u{number}", "instagram", None, (tag,), posted)


def copied(*posts: SourcePost, own: int) -> Candidate:
    return Candidate(
        1, "0" * 64, "k", 1, 9, 9, 9, posts=posts, own_posts=frozenset({own}), copies=(1, 2)
    )


def test_a_repost_under_another_hashtag_does_not_change_the_label() -> None:
    dated = copied(post(1, "поло", 20), post(2, "джинсы", 3), own=1)
    assert labels(dated)[0] == ["jeans"]
    # Without dates the post of the best copy counts: a repost has another copy.
    assert labels(copied(post(1, "поло"), post(2, "джинсы", 3), own=1))[0] == ["polo"]
    same_day = copied(post(1, "поло", 3), post(2, "джинсы", 3), own=1)
    assert labels(same_day)[1].counts == {LABEL_CONFLICT: 1}


def test_the_label_of_the_latest_build_decides_a_conflict() -> None:
    photos = [photo(1, "поло", "джинсы"), photo(2, "поло", "джинсы")]
    given = assign_labels(
        photos, load_vocabulary(), (), Exclusions(), "exclude", {1: "jeans", 2: "dress"}
    )
    assert [one.label for one in given] == ["jeans"]


def label_sets(
    *photos: Candidate, requested: tuple[str, ...] = (), **options: Any
) -> tuple[list[tuple[str, ...]], Exclusions]:
    exclusions = Exclusions()
    vocabulary = load_vocabulary(multi_label=True)
    given = assign_label_sets(photos, vocabulary, requested, exclusions, **options)
    return [one.labels for one in given], exclusions


def test_a_photo_keeps_one_label_a_facet() -> None:
    given, _ = label_sets(
        photo(1, "джинсы", "блузка", "red"), photo(2, "обувь", "кеды", "пальто"), photo(3, "платье")
    )
    assert given == [("blouse", "jeans", "red"), ("coat", "sneakers"), ("dress",)]


def test_the_facets_of_the_labels_are_known_and_no_others() -> None:
    vocabulary, exclusions = load_vocabulary(multi_label=True), Exclusions()
    (one, other) = assign_label_sets(
        [photo(1, "dress", "red"), photo(2, "suit", "shirt")], vocabulary, (), exclusions
    )
    assert (one.labels, one.facets) == (("dress", "red"), ("upper", "lower", "colour"))
    assert (other.labels, other.facets) == (("shirt", "suit"), ("upper", "outerwear", "lower"))


def test_only_labels_of_one_facet_are_a_conflict() -> None:
    given, exclusions = label_sets(photo(1, "jeans", "shorts", "blouse"), photo(2, "red", "blue"))
    assert given == []
    assert [image.detail for image in exclusions.images] == ["jeans, shorts", "red, blue"]
    assert exclusions.counts == {LABEL_CONFLICT: 2}


def test_a_conflict_can_leave_its_facet_unlabelled_or_take_the_first() -> None:
    both = photo(1, "jeans", "shorts", "blouse")
    assert label_sets(both, conflicts="unlabel")[0] == [("blouse",)]
    assert label_sets(both, conflicts="first")[0] == [("blouse", "jeans")]
    given, exclusions = label_sets(photo(1, "jeans", "shorts"), conflicts="unlabel")
    assert (given, exclusions.counts) == ([], {"no label": 1})


def test_hashtags_of_no_label_are_no_conflict_with_those_that_have_one() -> None:
    assert label_sets(photo(1, "moscow", "jeans", "ootd"))[0] == [("jeans",)]
    assert label_sets(photo(1, "kimono", "jeans"))[0] == [("jeans", "kimono")]
    assert label_sets(photo(1, "moscow", "ootd"))[1].counts == {LABEL_CONFLICT: 1}
    assert label_sets(photo(1, "moscow", "kimono"), requested=("kimono",))[0] == [("kimono",)]


def test_decisions_override_hashtags_in_their_facets() -> None:
    decided = photo(1, "jeans", "shorts", "red", decisions=((1, "skirt"), (2, "pants")))
    assert label_sets(decided)[0] == [("pants", "red")]
    assert label_sets(photo(1, "jeans", "blouse", decisions=((1, "dress"),)))[0] == [("dress",)]
    assert label_sets(photo(1, "jeans", decisions=((1, "красный"),)))[0] == [("jeans", "red")]
    given, exclusions = label_sets(photo(1, "jeans", decisions=((1, "pants"), (2, None))))
    assert (given, exclusions.counts) == ([], {"excluded by a reviewer": 1})


def test_labels_that_are_not_requested_are_left_out() -> None:
    photos = photo(1, "кеды", "обувь", "red"), photo(2, "jeans", "top", "blouse"), photo(3, "hat")
    given, exclusions = label_sets(*photos, requested=("shoes", "jeans"))
    assert given == [("shoes",), ("jeans",)]
    assert exclusions.counts == {"label not requested": 1}


def test_words_of_shops_fill_the_facets_that_no_hashtag_fills() -> None:
    def sold(tag: str, *attributes: str) -> Candidate:
        post = SourcePost(1, "u", "lamoda", None, (tag,), attributes=attributes)
        return Candidate(1, "0" * 64, "k", 1, 9, 9, 9, posts=(post,), copies=(1,))

    assert label_sets(sold("jeans", "Тёмно-синий", "Женский", "Шорты"))[0] == [("jeans", "navy")]
    assert label_sets(sold("jeans", "Синий", "Белый"))[0] == [("jeans",)]
    assert label_sets(sold("сарафан", "В клетку", "Блузка"))[0] == [("sundress", "checked")]


def test_the_original_post_and_the_latest_build_settle_a_facet() -> None:
    reposted = copied(post(1, "jeans", 1), post(2, "shorts", 2), post(3, "red", 3), own=1)
    assert label_sets(reposted)[0] == [("jeans", "red")]
    undated = photo(1, "jeans", "shorts", "red")
    assert label_sets(undated, earlier={1: "blouse, shorts"})[0] == [("shorts", "red")]


def test_small_and_full_classes_are_taken_from_photos_of_several_labels() -> None:
    some = [
        LabeledImage(photo(0, "x"), ("jeans", "red"), ("lower", "colour")),
        LabeledImage(photo(1, "x"), ("jeans", "blue"), ("lower", "colour")),
        LabeledImage(photo(2, "x"), ("jeans", "red"), ("lower", "colour")),
        LabeledImage(photo(3, "x"), ("blue",), ("colour",)),
        LabeledImage(photo(4, "x"), ("hat",), ("headwear",)),
        LabeledImage(photo(5, "x"), ("jeans",), ("lower",)),
    ]
    exclusions = Exclusions()
    kept, small = limit_classes(some, 2, 2, exclusions)
    assert [one.labels for one in kept] == [
        ("jeans", "red"),
        ("jeans", "blue"),
        ("red",),
        ("blue",),
    ]
    assert kept[2].facets == ("colour",)
    assert small == {"hat": 1}
    assert exclusions.counts == {"class too small": 1, "over --max-per-class": 1}
