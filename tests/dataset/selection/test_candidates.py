"""Candidates with the hashtags that count for labels, and quality gates with their thresholds."""

from dataclasses import replace
from pathlib import Path

import pytest

from dataset.build import selection_options
from dataset.errors import BadInput
from dataset.export.layout import BuildOptions
from dataset.images.quality import ImageQuality
from dataset.selection.candidates import (
    Candidate,
    Exclusions,
    SourcePost,
    apply_quality_gates,
    load_candidates,
    load_quality_gates,
)
from dataset.selection.planning import SelectionOptions, plan_build
from dataset.vocabulary import load_vocabulary
from tests.support.catalogue_data import CatalogueBuilder, photo_bytes

GOOD = Candidate(
    1,
    "ab" * 32,
    "k",
    1,
    600,
    800,
    9,
    quality=ImageQuality(200, 2.5, 0),
    posts=(SourcePost(1, "u", "lamoda", None, ()),),
)
POOR = {
    "too small": replace(GOOD, width=60),
    "extreme shape": replace(GOOD, width=250, height=800),
    "blank": replace(GOOD, quality=ImageQuality(5, 2.5, 0)),
    "blurred": replace(GOOD, quality=ImageQuality(200, 9, 0)),
    "text banner": replace(GOOD, quality=ImageQuality(200, 2.5, 0.3)),
}


@pytest.fixture
def builder(tmp_path: Path) -> CatalogueBuilder:
    builder = CatalogueBuilder(tmp_path)
    captions = (["ootd", "Поло"], ["ootd", "jeans", "поло"], ["ootd"], ["kimono"])
    for number, caption in enumerate(captions):
        post = builder.post(str(number), "outfit", caption=caption)
        builder.image(photo_bytes(number), post)
    return builder


def choice(builder: CatalogueBuilder, hashtags: str, *labels: str) -> SelectionOptions:
    options = BuildOptions(
        builder.catalogue, builder.folder, builder.folder, 1, labels=labels, hashtags=hashtags
    )
    return selection_options(options, load_vocabulary())


def counted(builder: CatalogueBuilder, hashtags: str, *labels: str) -> dict[str, int]:
    with builder.sessions() as session:
        plan = plan_build(session, choice(builder, hashtags, *labels))
    given = [one.label for one in plan.images]
    return {label: given.count(label) for label in given} | dict(+plan.exclusions.counts)


def test_hashtags_of_captions_count_where_they_are_asked_for(builder: CatalogueBuilder) -> None:
    with builder.sessions() as session:
        assert [one.hashtags for one in load_candidates(session)] == [["outfit"]] * 4
        is_label = choice(builder, "all").is_label
        found = sorted(one.hashtags for one in load_candidates(session, is_label))
    assert found == [["jeans", "поло"], ["outfit"], ["outfit"], ["Поло"]]


def test_labels_that_nobody_searched_for(builder: CatalogueBuilder) -> None:
    assert counted(builder, "found") == {"outfit": 4}
    assert counted(builder, "all") == {"polo": 1, "outfit": 2, "conflict of labels": 1}
    assert counted(builder, "all", "kimono") == {
        "kimono": 1,
        "conflict of labels": 1,
        "label not requested": 2,
    }


@pytest.mark.parametrize("reason", POOR)
def test_each_gate_stops_says_why_and_lists_the_photo(reason: str) -> None:
    exclusions = Exclusions()
    assert apply_quality_gates([GOOD, POOR[reason]], load_quality_gates(), exclusions) == [GOOD]
    assert exclusions.counts == {reason: 1}
    assert exclusions.images[0].photo == POOR[reason]
    assert "at least" in exclusions.images[0].detail or "at most" in exclusions.images[0].detail


def test_a_photo_that_nobody_looked_at_passes_what_needs_pixels() -> None:
    assert load_quality_gates().exclusion_reason(replace(GOOD, quality=None)) is None


def test_a_persons_label_opens_all_gates() -> None:
    decided = replace(POOR["blurred"], decisions=((1, "polo"),))
    assert apply_quality_gates([decided], load_quality_gates(), Exclusions()) == [decided]


def test_thresholds_are_a_sites_own(tmp_path: Path) -> None:
    own = tmp_path / "gates.toml"
    own.write_text("[default]\nside = 700\n[lamoda]\nside = 0\nblur = 2.0\n")
    gates = load_quality_gates(own)
    assert gates.exclusion_reason(GOOD) == ("blurred", "blur 2.5, at most 2")
    elsewhere = replace(GOOD, posts=(SourcePost(1, "u", "instagram", None, ()),))
    assert gates.exclusion_reason(elsewhere) == ("too small", "side 600, at least 700")


@pytest.mark.parametrize(
    "text", ["side = 3", "[default]\nsize = 3", '[default]\nside = "3"', "[", "[a]\nblur = true"]
)
def test_a_bad_file_is_named(tmp_path: Path, text: str) -> None:
    own = tmp_path / "own.toml"
    own.write_text(text)
    with pytest.raises(BadInput, match=r"own\.toml"):
        load_quality_gates(own)
