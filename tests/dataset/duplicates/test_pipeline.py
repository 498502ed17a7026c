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
from tests.support.catalogue_data import Filling


@pytest.fixture
def filling(tmp_path: Path) -> Filling:
    return Filling(tmp_path)


def jpeg(photo: Image.Image, quality: int = 90) -> bytes:
    out = io.BytesIO()
    photo.save(out, "JPEG", quality=quality)
    return out.getvalue()


def run(filling: Filling, again: bool = False) -> DedupResult:
    return dedup(filling.sessions, filling.store, again)


def clusters(filling: Filling) -> list[list[int]]:
    """Return the ids of the images of each cluster."""
    found: dict[int, list[int]] = {}
    with filling.sessions() as session:
        for image, cluster in session.execute(
            sa.select(ImageRow.id, ImageRow.cluster_id).order_by(ImageRow.id)
        ):
            found.setdefault(cluster or 0, []).append(image)
    return sorted(found.values())


def fill(filling: Filling) -> None:
    """Add three photos, and a mirrored and a bordered copy of the first, in a post each."""
    for number, photo in enumerate(
        [drawn(1), drawn(2), ImageOps.mirror(drawn(1)), ImageOps.expand(drawn(1), 30), drawn(3)]
    ):
        filling.image(jpeg(photo), filling.post(f"p{number}", "polo"))


def test_copies_get_the_oldest_cluster(filling: Filling) -> None:
    fill(filling)
    done = run(filling)
    assert (done.images, done.compared, done.clusters, done.duplicates) == (5, 5, 3, 2)
    assert clusters(filling) == [[1, 3, 4], [2], [5]]
    with filling.sessions() as session:
        assert session.scalar(sa.select(ImageRow.cluster_id).where(ImageRow.id == 4)) == 1
        turned = session.get(NearDuplicateRow, (1, 3))
        assert turned and turned.mirrored and turned.similarity >= DUPLICATE_SIMILARITY


@pytest.mark.parametrize("old", [0, pytest.param(50, marks=pytest.mark.slow)])
def test_turned_copies_are_near_duplicates(filling: Filling, old: int) -> None:
    for number in range(6 + old):
        filling.image(jpeg(drawn(number)), filling.post(f"p{number}", "polo"))
    if old:
        run(filling)
    for number in range(6):
        copy = ImageOps.mirror(drawn(number)) if number >= 3 else drawn(number)
        copy = copy.rotate(90 * (1 + number % 3), expand=True)
        filling.image(jpeg(copy, 60), filling.post(f"turned {number}", "polo"))
    assert run(filling).duplicates == 6
    pairs = [found for found in clusters(filling) if len(found) > 1]
    assert pairs == [[number, number + 6 + old] for number in range(1, 7)]


def test_images_are_compared_once(filling: Filling) -> None:
    fill(filling)
    run(filling)
    again = run(filling)
    assert (again.fingerprinted, again.compared, again.duplicates) == (0, 0, 2)
    filling.image(jpeg(drawn(2), 40), filling.post("new", "polo"))
    assert run(filling).compared == 1
    assert clusters(filling) == [[1, 3, 4], [2, 6], [5]]
    assert run(filling, again=True).compared == 6
    assert clusters(filling) == [[1, 3, 4], [2, 6], [5]]


def test_copies_of_copies_are_one_cluster(filling: Filling) -> None:
    photo = drawn(4)
    for number in range(4):
        filling.image(jpeg(photo), filling.post(f"p{number}", "polo"))
        photo = photo.crop((6, 8, photo.width - 6, photo.height - 8))
    run(filling)
    assert clusters(filling) == [[1, 2, 3, 4]]


def test_an_undone_cluster_stays_undone(filling: Filling) -> None:
    fill(filling)
    run(filling)
    assert undo_cluster(filling.sessions, 1, "anna") == 3
    assert clusters(filling) == [[1], [2], [3], [4], [5]]
    for again in (False, True):
        run(filling, again)
        assert clusters(filling) == [[1], [2], [3], [4], [5]]
    filling.image(jpeg(drawn(1), 35), filling.post("new", "polo"))
    run(filling)
    assert sorted(map(len, clusters(filling))) == [1, 1, 1, 1, 2]
    with filling.sessions() as session:
        assert {row.who for row in session.scalars(sa.select(Separation))} == {"anna"}
        pairs = list_possible(session)
    assert pairs[0]["similarity"] >= DUPLICATE_SIMILARITY


def test_only_clusters_of_several_images_can_be_undone(filling: Filling) -> None:
    fill(filling)
    run(filling)
    for number, message in ((2, "one image"), (99, "no image")):
        with pytest.raises(BadInput, match=message):
            undo_cluster(filling.sessions, number, "anna")


def test_clusters_are_listed_with_the_best_copy_first(filling: Filling) -> None:
    fill(filling)
    run(filling)
    with filling.sessions() as session:
        (only,) = list_clusters(session)
    sizes = [open_photo(filling.store.read(key)).width for key in only["photos"]]
    assert (only["cluster"], sizes) == (1, [280, 280, 340])


def test_no_file_is_deleted_and_missing_ones_are_counted(filling: Filling) -> None:
    fill(filling)
    files = sorted((filling.folder / "images").rglob("*.jpg"))
    files[0].unlink()
    assert run(filling).unreadable == 1
    assert sorted((filling.folder / "images").rglob("*.jpg")) == files[1:]
    with filling.sessions() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(FingerprintRow)) == 4


def test_placeholders_are_not_near_duplicates(filling: Filling) -> None:
    for number in range(30):
        blank = Image.new("RGB", (200 + number, 200), (number, 250, 250))
        filling.image(jpeg(blank), filling.post(f"p{number}", "polo"))
    assert run(filling).duplicates == 0


def test_rehash_reads_all_photos_again(filling: Filling) -> None:
    filling.image(jpeg(drawn(1)), filling.post("1", "polo"))
    run(filling)
    with filling.sessions.begin() as session:
        views = session.scalar(sa.select(FingerprintRow.views))
        session.execute(sa.update(FingerprintRow).values(views=bytes(64)))
    assert dedup(filling.sessions, filling.store, rebuild=True).fingerprinted == 0
    assert dedup(filling.sessions, filling.store, rehash=True).fingerprinted == 1
    with filling.sessions() as session:
        assert session.scalar(sa.select(FingerprintRow.views)) == views


def test_only_what_an_image_lacks_is_measured(filling: Filling) -> None:
    fill(filling)
    run(filling)

    def rows() -> list[tuple[object, ...]]:
        columns = FingerprintRow.__table__.columns
        with filling.sessions() as session:
            return [tuple(row) for row in session.execute(sa.select(*columns).order_by("image_id"))]

    before = rows()
    with filling.sessions.begin() as session:
        for image, lacking in enumerate((["text"], ["features"], ["text", "features"]), 1):
            update = sa.update(FingerprintRow).where(FingerprintRow.image_id == image)
            session.execute(update.values(dict.fromkeys(lacking)))
    assert rows() != before
    assert run(filling).fingerprinted == 0
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
