"""Candidates with the hashtags that count for labels."""

from pathlib import Path

import pytest

from dataset.build import selection_options
from dataset.export.build_result import BuildOptions
from dataset.selection.candidates import load_candidates
from dataset.selection.planning import SelectionOptions, plan_build
from dataset.vocabulary import load_vocabulary
from tests.support.catalogue_data import Filling, photo_bytes


@pytest.fixture
def filling(tmp_path: Path) -> Filling:
    filling = Filling(tmp_path)
    captions = (["ootd", "Поло"], ["ootd", "jeans", "поло"], ["ootd"], ["kimono"])
    for number, caption in enumerate(captions):
        post = filling.post(str(number), "outfit", caption=caption)
        filling.image(photo_bytes(number), post)
    return filling


def choice(filling: Filling, hashtags: str, *labels: str) -> SelectionOptions:
    options = BuildOptions(
        filling.catalogue, filling.folder, filling.folder, 1, labels=labels, hashtags=hashtags
    )
    return selection_options(options, load_vocabulary())


def counted(filling: Filling, hashtags: str, *labels: str) -> dict[str, int]:
    with filling.sessions() as session:
        plan = plan_build(session, choice(filling, hashtags, *labels))
    given = [one.label for one in plan.images]
    return {label: given.count(label) for label in given} | dict(+plan.exclusions.counts)


def test_hashtags_of_captions_count_where_they_are_asked_for(filling: Filling) -> None:
    with filling.sessions() as session:
        assert [one.hashtags for one in load_candidates(session)] == [["outfit"]] * 4
        is_label = choice(filling, "all").is_label
        found = sorted(one.hashtags for one in load_candidates(session, is_label))
    assert found == [["jeans", "поло"], ["outfit"], ["outfit"], ["Поло"]]


def test_labels_that_nobody_searched_for(filling: Filling) -> None:
    assert counted(filling, "found") == {"outfit": 4}
    assert counted(filling, "all") == {"polo": 1, "outfit": 2, "conflict of labels": 1}
    assert counted(filling, "all", "kimono") == {
        "kimono": 1,
        "conflict of labels": 1,
        "label not requested": 2,
    }
