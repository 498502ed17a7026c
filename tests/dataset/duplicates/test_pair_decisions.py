"""Decisions on pairs: they merge or separate clusters, are undone, exported and imported."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from dataset.catalogue.models import ImageRow, NearDuplicateRow, PairDecision
from dataset.duplicates import pair_decisions
from dataset.duplicates.pipeline import dedup, undo_cluster, update_clusters
from dataset.errors import BadInput
from dataset.maintenance.archive import export_catalogue, import_archive
from dataset.maintenance.takedown import take_down
from tests.support.catalogue_data import CatalogueBuilder


@pytest.fixture
def builder(tmp_path: Path, backend: str) -> CatalogueBuilder:
    """Images 1 to 4 in clusters of their own; 1 and 2, and 2 and 3, may be near duplicates."""
    made = CatalogueBuilder(tmp_path)
    made.products("polo", 4, 0)
    dedup(made.sessions, made.store)
    with made.sessions.begin() as session:
        for one, other in ((1, 2), (2, 3)):
            session.add(
                NearDuplicateRow(one_id=one, other_id=other, mirrored=False, similarity=0.9)
            )
    return made


def say(builder: CatalogueBuilder, one: int, other: int, same: bool) -> int:
    with builder.sessions.begin() as session:
        return pair_decisions.decide_pair(session, one, other, same, "anna").id


def take_back(builder: CatalogueBuilder, number: int) -> None:
    with builder.sessions.begin() as session:
        pair_decisions.undo_decision(session, session.get_one(PairDecision, number))


def groups(builder: CatalogueBuilder) -> list[list[int]]:
    """Return the images of each cluster."""
    found: dict[int | None, list[int]] = {}
    with builder.sessions() as session:
        query = sa.select(ImageRow.id, ImageRow.cluster_id).order_by(ImageRow.id)
        for image, cluster in session.execute(query):
            found.setdefault(cluster, []).append(image)
    return sorted(found.values())


def test_near_duplicates_are_merged_until_it_is_undone(builder: CatalogueBuilder) -> None:
    number = say(builder, 2, 1, True)
    assert groups(builder) == [[1, 2], [3], [4]]
    update_clusters(builder.sessions)
    assert groups(builder) == [[1, 2], [3], [4]]
    take_back(builder, number)
    update_clusters(builder.sessions)
    assert groups(builder) == [[1], [2], [3], [4]]


def test_undo_splits_only_what_the_decision_has_merged(builder: CatalogueBuilder) -> None:
    first, second = say(builder, 1, 2, True), say(builder, 2, 3, True)
    assert groups(builder) == [[1, 2, 3], [4]]
    take_back(builder, first)
    assert groups(builder) == [[1], [2, 3], [4]]
    take_back(builder, second)
    assert groups(builder) == [[1], [2], [3], [4]]


def test_decisions_can_be_undone_in_any_order(builder: CatalogueBuilder) -> None:
    inner, outer = say(builder, 2, 3, True), say(builder, 1, 2, True)
    take_back(builder, inner)
    assert groups(builder) == [[1, 2], [3], [4]]
    take_back(builder, outer)
    assert groups(builder) == [[1], [2], [3], [4]]


def test_different_photos_stay_separate_until_it_is_undone(builder: CatalogueBuilder) -> None:
    number = say(builder, 1, 2, False)
    with builder.sessions.begin() as session:
        session.execute(sa.update(NearDuplicateRow).values(relation="same"))
    update_clusters(builder.sessions)
    assert groups(builder) == [[1], [2, 3], [4]]
    take_back(builder, number)
    update_clusters(builder.sessions)
    assert groups(builder) == [[1, 2, 3], [4]]


def test_a_later_decision_replaces_an_earlier_one(builder: CatalogueBuilder) -> None:
    say(builder, 1, 2, True)
    say(builder, 1, 2, False)
    assert groups(builder) == [[1], [2], [3], [4]]
    with builder.sessions() as session:
        words = session.scalars(sa.select(PairDecision).order_by(PairDecision.id)).all()
    assert [(word.same, word.undone is None) for word in words] == [(True, False), (False, True)]


def test_an_undone_cluster_stays_undone_despite_earlier_decisions(
    builder: CatalogueBuilder,
) -> None:
    say(builder, 1, 2, True)
    undo_cluster(builder.sessions, 1, "anna")
    update_clusters(builder.sessions)
    assert groups(builder) == [[1], [2], [3], [4]]


def test_decisions_are_exported_and_can_be_undone_after_import(
    builder: CatalogueBuilder, tmp_path: Path
) -> None:
    say(builder, 1, 2, True)
    say(builder, 3, 4, False)
    file = tmp_path / "all.tar"
    export_catalogue(builder.sessions, builder.store, file)
    (tmp_path / "two").mkdir()
    other = CatalogueBuilder(tmp_path / "two")
    for _ in range(2):
        import_archive(other.sessions, other.store, file)
        with other.sessions() as session:
            same = session.scalars(sa.select(PairDecision).filter_by(same=True)).one()
            assert session.scalar(sa.select(sa.func.count()).select_from(PairDecision)) == 2
    assert sorted(map(len, groups(other))) == [1, 1, 2]
    take_back(other, same.id)
    assert sorted(map(len, groups(other))) == [1, 1, 1, 1]


def test_a_takedown_deletes_decisions_on_the_photo(builder: CatalogueBuilder) -> None:
    say(builder, 1, 2, False)
    with builder.sessions() as session:
        name = session.get_one(ImageRow, 2).sha256
    take_down(builder.sessions, builder.store, name, "anna")
    with builder.sessions() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(PairDecision)) == 0
    with pytest.raises(BadInput, match="no image"):
        take_down(builder.sessions, builder.store, name, "anna")
