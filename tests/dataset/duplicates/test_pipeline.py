"""Deduplication of a catalogue: find, cluster, undo and repeat."""

import io
from pathlib import Path

import pytest
import sqlalchemy as sa
from PIL import Image, ImageOps

from dataset.catalogue.models import FingerprintRow, ImageRow, NearDuplicateRow, Separation
from dataset.duplicates.alignment import DUPLICATE_SIMILARITY
from dataset.duplicates.pipeline import DedupResult, StoredPhoto, dedup, undo_cluster
from dataset.errors import BadInput
from dataset.images.io import open_photo
from dataset.maintenance.stats import list_clusters, list_possible
from tests.dataset.duplicates.test_alignment import drawn
from tests.support.catalogue_data import CatalogueBuilder


@pytest.fixture
def builder(tmp_path: Path) -> CatalogueBuilder:
    return CatalogueBuilder(tmp_path)


def jpeg(photo: Image.Image, quality: int = 90) -> bytes:
    out = io.BytesIO()
    photo.save(out, "JPEG", quality=quality)
    return out.getvalue()


def run(builder: CatalogueBuilder, again: bool = False) -> DedupResult:
    return dedup(builder.sessions, builder.store, again)


def clusters(builder: CatalogueBuilder) -> list[list[int]]:
    """Return the ids of the images of each cluster."""
    found: dict[int, list[int]] = {}
    with builder.sessions() as session:
        for image, cluster in session.execute(
            sa.select(ImageRow.id, ImageRow.cluster_id).order_by(ImageRow.id)
        ):
            found.setdefault(cluster or 0, []).append(image)
    return sorted(found.values())


def fill(builder: CatalogueBuilder) -> None:
    """Add three photos, and a mirrored and a bordered copy of the first, in a post each."""
    for number, photo in enumerate(
        [drawn(1), drawn(2), ImageOps.mirror(drawn(1)), ImageOps.expand(drawn(1), 30), drawn(3)]
    ):
        builder.image(jpeg(photo), builder.post(f"p{number}", "polo"))


def test_copies_get_the_oldest_cluster(builder: CatalogueBuilder) -> None:
    fill(builder)
    done = run(builder)
    assert (done.images, done.compared, done.clusters, done.duplicates) == (5, 5, 3, 2)
    assert clusters(builder) == [[1, 3, 4], [2], [5]]
    with builder.sessions() as session:
        assert session.scalar(sa.select(ImageRow.cluster_id).where(ImageRow.id == 4)) == 1
        turned = session.get(NearDuplicateRow, (1, 3))
        assert turned and turned.mirrored and turned.similarity >= DUPLICATE_SIMILARITY


@pytest.mark.parametrize("old", [0, pytest.param(50, marks=pytest.mark.slow)])
def test_turned_copies_are_near_duplicates(builder: CatalogueBuilder, old: int) -> None:
    for number in range(6 + old):
        builder.image(jpeg(drawn(number)), builder.post(f"p{number}", "polo"))
    if old:
        run(builder)
    for number in range(6):
        copy = ImageOps.mirror(drawn(number)) if number >= 3 else drawn(number)
        copy = copy.rotate(90 * (1 + number % 3), expand=True)
        builder.image(jpeg(copy, 60), builder.post(f"turned {number}", "polo"))
    assert run(builder).duplicates == 6
    pairs = [found for found in clusters(builder) if len(found) > 1]
    assert pairs == [[number, number + 6 + old] for number in range(1, 7)]


def test_images_are_compared_once(builder: CatalogueBuilder) -> None:
    fill(builder)
    run(builder)
    again = run(builder)
    assert (again.fingerprinted, again.compared, again.duplicates) == (0, 0, 2)
    builder.image(jpeg(drawn(2), 40), builder.post("new", "polo"))
    assert run(builder).compared == 1
    assert clusters(builder) == [[1, 3, 4], [2, 6], [5]]
    assert run(builder, again=True).compared == 6
    assert clusters(builder) == [[1, 3, 4], [2, 6], [5]]


def test_copies_of_copies_are_one_cluster(builder: CatalogueBuilder) -> None:
    photo = drawn(4)
    for number in range(4):
        builder.image(jpeg(photo), builder.post(f"p{number}", "polo"))
        photo = photo.crop((6, 8, photo.width - 6, photo.height - 8))
    run(builder)
    assert clusters(builder) == [[1, 2, 3, 4]]


def test_an_undone_cluster_stays_undone(builder: CatalogueBuilder) -> None:
    fill(builder)
    run(builder)
    assert undo_cluster(builder.sessions, 1, "anna") == 3
    assert clusters(builder) == [[1], [2], [3], [4], [5]]
    for again in (False, True):
        run(builder, again)
        assert clusters(builder) == [[1], [2], [3], [4], [5]]
    builder.image(jpeg(drawn(1), 35), builder.post("new", "polo"))
    run(builder)
    assert sorted(map(len, clusters(builder))) == [1, 1, 1, 1, 2]
    with builder.sessions() as session:
        assert {row.who for row in session.scalars(sa.select(Separation))} == {"anna"}
        pairs = list_possible(session)
    assert pairs[0]["similarity"] >= DUPLICATE_SIMILARITY


def test_only_clusters_of_several_images_can_be_undone(builder: CatalogueBuilder) -> None:
    fill(builder)
    run(builder)
    for number, message in ((2, "one image"), (99, "no image")):
        with pytest.raises(BadInput, match=message):
            undo_cluster(builder.sessions, number, "anna")


def test_clusters_are_listed_with_the_best_copy_first(builder: CatalogueBuilder) -> None:
    fill(builder)
    run(builder)
    with builder.sessions() as session:
        (only,) = list_clusters(session)
    sizes = [open_photo(builder.store.read(key)).width for key in only["photos"]]
    assert (only["cluster"], sizes) == (1, [280, 280, 340])


def test_no_file_is_deleted_and_missing_ones_are_counted(builder: CatalogueBuilder) -> None:
    fill(builder)
    files = sorted((builder.folder / "images").rglob("*.jpg"))
    files[0].unlink()
    assert run(builder).unreadable == 1
    assert sorted((builder.folder / "images").rglob("*.jpg")) == files[1:]
    with builder.sessions() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(FingerprintRow)) == 4


def test_placeholders_are_not_near_duplicates(builder: CatalogueBuilder) -> None:
    for number in range(30):
        blank = Image.new("RGB", (200 + number, 200), (number, 250, 250))
        builder.image(jpeg(blank), builder.post(f"p{number}", "polo"))
    assert run(builder).duplicates == 0


def test_rehash_reads_all_photos_again(builder: CatalogueBuilder) -> None:
    builder.image(jpeg(drawn(1)), builder.post("1", "polo"))
    run(builder)
    with builder.sessions.begin() as session:
        views = session.scalar(sa.select(FingerprintRow.views))
        session.execute(sa.update(FingerprintRow).values(views=bytes(64)))
    assert dedup(builder.sessions, builder.store, rebuild=True).fingerprinted == 0
    assert dedup(builder.sessions, builder.store, rehash=True).fingerprinted == 1
    with builder.sessions() as session:
        assert session.scalar(sa.select(FingerprintRow.views)) == views


def test_only_what_an_image_lacks_is_measured(builder: CatalogueBuilder) -> None:
    fill(builder)
    run(builder)

    def rows() -> list[tuple[object, ...]]:
        columns = FingerprintRow.__table__.columns
        with builder.sessions() as session:
            return [tuple(row) for row in session.execute(sa.select(*columns).order_by("image_id"))]

    before = rows()
    with builder.sessions.begin() as session:
        for image, lacking in enumerate((["text"], ["features"], ["text", "features"]), 1):
            update = sa.update(FingerprintRow).where(FingerprintRow.image_id == image)
            session.execute(update.values(dict.fromkeys(lacking)))
    assert rows() != before
    assert run(builder).fingerprinted == 0
    assert rows() == before


@pytest.mark.parametrize("size", [(90, 120), (192, 400), (384, 640), (800, 1536), (1600, 1700)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_stored_photo_is_decoded_as_by_itself(size: tuple[int, int], kind: str) -> None:
    out = io.BytesIO()
    drawn(5).resize(size).save(out, kind)
    stored = StoredPhoto(1, out.getvalue())
    for side in (192, 768, 320):
        decoded = stored.decoded(side)
        assert decoded == open_photo(out.getvalue(), side)
        assert stored.decoded(side) is decoded
