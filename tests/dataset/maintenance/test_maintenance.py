"""Verify, take down, export and merge catalogues."""

import gzip
import io
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from dataset.catalogue import workers
from dataset.catalogue.models import (
    Base,
    CropDecision,
    ImageRow,
    LabelDecision,
    PostRow,
    Separation,
    Sighting,
    TagVerdictRow,
    TakedownRow,
)
from dataset.duplicates.hashing import fingerprint
from dataset.duplicates.pair_decisions import separated_images
from dataset.duplicates.pipeline import undo_cluster
from dataset.errors import BadInput, Failure
from dataset.images.io import open_photo, sha256_of
from dataset.images.store import ImageStore
from dataset.maintenance.archive import export_catalogue, import_archive
from dataset.maintenance.cli import catalogue
from dataset.maintenance.takedown import TakedownList, take_down
from dataset.maintenance.verify import verify
from tests.support.catalogue_data import CatalogueBuilder, photo_bytes


@pytest.fixture
def builder(tmp_path: Path, backend: str) -> CatalogueBuilder:
    """Two posts of anna and one of bert with a photo each; bert's post has anna's first one too."""
    made = CatalogueBuilder(tmp_path)
    posts = [made.post(name, "polo", author=name[:4]) for name in ("anna1", "anna2", "bert1")]
    made.image(photo_bytes(1), posts[0], posts[2])
    made.image(photo_bytes(2), posts[1])
    made.image(photo_bytes(3), posts[2])
    return made


def key_of(seed: int) -> str:
    return ImageStore.key(sha256_of(photo_bytes(seed)), "jpg")


def count(builder: CatalogueBuilder, table: Any, **values: object) -> int:
    with builder.sessions() as session:
        query = sa.select(sa.func.count()).select_from(table).filter_by(**values)
        return session.scalar(query) or 0


def call(builder: CatalogueBuilder, *arguments: str) -> tuple[int, str]:
    place = ("--catalogue", builder.catalogue, "--images", str(builder.store))
    done = CliRunner().invoke(catalogue, [*arguments, *place])
    return done.exit_code, done.output


def test_damaged_files_are_listed_and_repaired(builder: CatalogueBuilder) -> None:
    assert call(builder, "verify")[0] == 0
    root = builder.store.root
    (root / key_of(1)).unlink()
    (root / key_of(2)).write_bytes(photo_bytes(9))
    stray = root / "ab" / "cd" / "stray.jpg"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"x")
    status, output = call(builder, "verify")
    assert status == 1
    for line in (f"missing: {key_of(1)}", f"changed: {key_of(2)}", "orphaned: ab/cd/stray.jpg"):
        assert line in output
    assert call(builder, "verify", "--repair")[0] == 0
    assert not stray.exists() and not (root / key_of(2)).exists()
    assert count(builder, Sighting, state="pending") == 3
    assert count(builder, ImageRow, state="stored") == 1
    assert call(builder, "verify")[0] == 0


def test_a_running_crawl_prevents_a_verification(builder: CatalogueBuilder) -> None:
    with builder.sessions.begin() as session:
        workers.register(session)
    with pytest.raises(Failure, match="a crawl is writing to this catalogue"):
        verify(builder.sessions, builder.store)


def test_an_author_is_taken_down_with_posts_photos_and_copies(
    builder: CatalogueBuilder, backend: str
) -> None:
    status, output = call(builder, "forget", "@anna", "--who", "me")
    assert (status, "2 posts and 2 photos were deleted" in output) == (0, True), output
    assert count(builder, PostRow) == 1
    assert not (builder.store.root / key_of(1)).exists()
    # Bert's post stays, without the photo.
    assert count(builder, Sighting, state="rejected", reason="taken down") == 1
    assert count(builder, ImageRow) == 1
    # The name is left in no file of the database.
    if backend == "sqlite":
        path = Path(builder.catalogue)
        assert b"anna" not in b"".join(p.read_bytes() for p in path.parent.glob(f"{path.name}*"))


def test_a_photo_and_its_copies_are_listed_as_taken_down(builder: CatalogueBuilder) -> None:
    done = take_down(builder.sessions, builder.store, key_of(1), "me")
    assert (done.posts, done.images) == (0, 1)
    known = TakedownList()
    with builder.sessions() as session:
        known.catch_up(session)
    small = photo_bytes(1, (90, 120), quality=60)
    assert known.has_image(sha256_of(small), fingerprint(open_photo(small)))
    other = photo_bytes(7)
    assert not known.has_image(sha256_of(other), fingerprint(open_photo(other)))


def test_an_unknown_url_can_be_taken_down(builder: CatalogueBuilder) -> None:
    status, output = call(builder, "forget", "https://x.test/p/later/", "--url")
    assert (status, "crawls and imports will skip it" in output) == (0, True)
    known = TakedownList()
    with builder.sessions() as session:
        known.catch_up(session)
    assert known.has_name("url", [None, "https://x.test/p/later/"])
    with pytest.raises(BadInput, match="no image"):
        take_down(builder.sessions, builder.store, "0" * 12, "me")


def contents_of(builder: CatalogueBuilder) -> dict[str, set]:
    """Return the sightings and images of a catalogue without ids."""
    with builder.sessions() as session:
        shown = sa.select(PostRow.site_id, Sighting.position, Sighting.state, ImageRow.sha256)
        joined = shown.join(Sighting, Sighting.post_id == PostRow.id)
        rows = session.execute(joined.outerjoin(ImageRow, ImageRow.id == Sighting.image_id))
        images = sa.select(ImageRow.sha256, ImageRow.state, ImageRow.store_key)
        return {"sightings": {*rows}, "images": {*session.execute(images)}}


def test_an_exported_catalogue_is_imported_unchanged(
    builder: CatalogueBuilder, tmp_path: Path
) -> None:
    with builder.sessions.begin() as session:
        image = session.scalar(sa.select(ImageRow.id).limit(1))
        session.add(LabelDecision(image_id=image, label="polo", who="anna"))
        session.add(CropDecision(image_id=image, model="m", zone="", keep_whole=True, who="anna"))
        session.add(
            TagVerdictRow(
                **{"image_id": image, "label": "polo", "model": "m", "verdict": "mistake"},
                **{"probability": 0.9, "tag_probability": 0.1, "margin": 0.8, "cost": 0.9},
            )
        )
    file = tmp_path / "all.tar"
    assert call(builder, "export", str(file))[0] == 0
    (tmp_path / "two").mkdir()
    other = CatalogueBuilder(tmp_path / "two")
    for expected in ((3, 3, 1), (0, 0, 0)):
        done = import_archive(other.sessions, other.store, file)
        assert (done.images, done.posts, done.searches) == expected
    assert contents_of(other) == contents_of(builder)
    assert verify(other.sessions, other.store).is_intact
    for table in Base.__subclasses__():
        assert count(other, table) == count(builder, table), table


def test_a_merge_keeps_the_takedowns_of_both_catalogues(
    builder: CatalogueBuilder, tmp_path: Path
) -> None:
    (tmp_path / "two").mkdir()
    other = CatalogueBuilder(tmp_path / "two")
    known, new = other.post("bert1", "polo", author="bert"), other.post("carl1", "dress")
    other.image(photo_bytes(3), known)
    other.image(photo_bytes(4), known, new)
    take_down(other.sessions, other.store, key_of(4), "me")
    other.image(photo_bytes(5), new)
    take_down(builder.sessions, builder.store, key_of(2), "me")
    other.image(photo_bytes(2), new)
    file = tmp_path / "other.tar"
    export_catalogue(other.sessions, other.store, file)
    done = import_archive(builder.sessions, builder.store, file)
    assert (done.images, done.posts, done.taken_down, done.lost) == (1, 1, 1, 0)
    assert {image[0] for image in contents_of(builder)["images"]} == {
        sha256_of(photo_bytes(seed)) for seed in (1, 3, 5)
    }
    assert count(builder, TakedownRow) == 2
    assert verify(builder.sessions, builder.store).is_intact


def test_an_import_skips_a_url_that_was_taken_down(
    builder: CatalogueBuilder, tmp_path: Path
) -> None:
    file = tmp_path / "all.tar"
    export_catalogue(builder.sessions, builder.store, file)
    (tmp_path / "two").mkdir()
    other = CatalogueBuilder(tmp_path / "two")
    with builder.sessions() as session:
        url = session.scalar(sa.select(Sighting.url).order_by(Sighting.id))
    take_down(other.sessions, other.store, str(url), "me", "url")
    import_archive(other.sessions, other.store, file)
    assert count(other, Sighting, url=url) == 0
    assert count(other, Sighting) == count(builder, Sighting) - 1


def exported(other: CatalogueBuilder, file: Path) -> Path:
    export_catalogue(other.sessions, other.store, file)
    return file


def test_an_import_skips_photos_of_a_url_or_author_that_was_taken_down(
    builder: CatalogueBuilder, tmp_path: Path
) -> None:
    file = exported(builder, tmp_path / "all.tar")
    with builder.sessions() as session:
        url = session.scalar(
            sa.select(Sighting.url)
            .join(ImageRow, ImageRow.id == Sighting.image_id)
            .where(ImageRow.sha256 == sha256_of(photo_bytes(3)))
        )
    for number, (what, left) in enumerate({str(url): {1, 2}, "@anna": {3}}.items()):
        folder = tmp_path / f"other{number}"
        folder.mkdir()
        other = CatalogueBuilder(folder)
        # The catalogue is empty, so the SHA-256 of the photo is not known yet.
        take_down(other.sessions, other.store, what, "me", "author" if "@" in what else "url")
        import_archive(other.sessions, other.store, file)
        digests = {sha256_of(photo_bytes(seed)) for seed in left}
        assert {image[0] for image in contents_of(other)["images"]} == digests
        assert count(other, Sighting, state="pending") == 0
        assert verify(other.sessions, other.store).is_intact


@pytest.mark.parametrize("what", ["@anna", "https://x.test/p/anna1/"])
def test_an_import_applies_the_takedowns_of_the_archive(
    builder: CatalogueBuilder, tmp_path: Path, what: str
) -> None:
    (tmp_path / "two").mkdir()
    other = CatalogueBuilder(tmp_path / "two")
    take_down(other.sessions, other.store, what, "me", "author" if "@" in what else "url")
    done = import_archive(builder.sessions, builder.store, exported(other, tmp_path / "other.tar"))
    left = {3} if what == "@anna" else {2, 3}
    assert done.taken_down == 3 - len(left)
    assert {image[0] for image in contents_of(builder)["images"]} == {
        sha256_of(photo_bytes(seed)) for seed in left
    }
    assert count(builder, PostRow, site_id="anna1") == 0
    assert not (builder.store.root / key_of(1)).exists()
    assert verify(builder.sessions, builder.store).is_intact


def test_separated_images_stay_separate_after_an_import(
    builder: CatalogueBuilder, tmp_path: Path
) -> None:
    with builder.sessions.begin() as session:
        images = session.scalars(sa.select(ImageRow).order_by(ImageRow.id)).all()
        images[1].cluster_id = cluster = images[0].cluster_id
    undo_cluster(builder.sessions, int(cluster or 0), "anna")
    file = exported(builder, tmp_path / "all.tar")
    (tmp_path / "two").mkdir()
    other = CatalogueBuilder(tmp_path / "two")
    # The ids of clusters differ between the catalogues.
    other.image(photo_bytes(8), other.post("own", "polo"))
    for _ in range(2):
        import_archive(other.sessions, other.store, file)
    with other.sessions() as session:
        apart = separated_images(session)
        digests = {row.id: row.sha256 for row in session.scalars(sa.select(ImageRow))}
    assert {digests[image] for image in apart} == {sha256_of(photo_bytes(n)) for n in (1, 2)}
    assert len(frozenset.intersection(*apart.values())) == 1
    assert count(other, Separation) == 2


def test_a_damaged_archive_is_reported_and_a_lost_photo_stays_pending(
    builder: CatalogueBuilder, tmp_path: Path
) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 200)
    status, output = call(builder, "import", str(tmp_path / "bad.tar"))
    assert (status, "catalogue export" in output, "Traceback" in output) == (2, True, False)
    file, short = tmp_path / "all.tar", tmp_path / "short.tar"
    export_catalogue(builder.sessions, builder.store, file)
    with tarfile.open(file) as whole, tarfile.open(short, "w") as part:
        for entry in whole:
            if key_of(1) not in entry.name:
                part.addfile(entry, whole.extractfile(entry))
    (tmp_path / "two").mkdir()
    other = CatalogueBuilder(tmp_path / "two")
    assert import_archive(other.sessions, other.store, short).lost == 1
    assert count(other, Sighting, state="pending") == 2


def with_database(archive: Path, change: Callable[[bytes], bytes]) -> Path:
    """Write a copy of an archive with another catalogue."""
    changed = archive.with_name("changed.tar")
    with tarfile.open(archive) as source, tarfile.open(changed, "w") as target:
        for member in source:
            file = source.extractfile(member)
            data = file.read() if file else b""
            if member.name == "catalogue.sqlite":
                data = change(data)
                member.size = len(data)
            target.addfile(member, io.BytesIO(data))
    return changed


def run_sql(statement: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "c.sqlite"
            path.write_bytes(data)
            with closing(sqlite3.connect(path)) as connection:
                connection.execute(statement)
                connection.commit()
            return path.read_bytes()

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[: len(data) // 2], "malformed"),
        (lambda data: b"no database" * 500, "not a database"),
        (lambda data: data[:-8192] + bytes(8192), "damaged"),
        (run_sql("UPDATE images SET width = 'wide'"), "row 1 of images has no valid width"),
        (run_sql("UPDATE posts SET site_id = x'ff' WHERE id = 1"), "has no valid site_id"),
        (run_sql("UPDATE sightings SET image_id = 99"), "refers to a missing row of images"),
        (run_sql("UPDATE searches SET started = 'x'"), "a row of searches can't be read"),
        (run_sql("DROP TABLE sightings"), "no such table"),
    ],
)
def test_an_archive_with_a_damaged_catalogue_is_not_imported(
    builder: CatalogueBuilder, tmp_path: Path, change: Callable[[bytes], bytes], reason: str
) -> None:
    archive = with_database(exported(builder, tmp_path / "all.tar"), change)
    place = ("--catalogue", str(tmp_path / "new.sqlite"), "--images", str(tmp_path / "new"))
    done = CliRunner().invoke(catalogue, ["import", str(archive), *place])
    assert (done.exit_code, type(done.exception)) == (1, SystemExit)
    assert "changed.tar: " in done.output and reason in done.output
    assert not (tmp_path / "new.sqlite").exists() and not (tmp_path / "new").exists()


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_an_archive_that_is_cut_off_is_not_imported(
    builder: CatalogueBuilder, tmp_path: Path, suffix: str
) -> None:
    data = exported(builder, tmp_path / "all.tar").read_bytes()
    data = gzip.compress(data) if suffix == ".tar.gz" else data
    cut = tmp_path / f"cut{suffix}"
    place = ("--catalogue", str(tmp_path / "new.sqlite"), "--images", str(tmp_path / "new"))
    # The last two blocks of an archive, and padding, are empty.
    for missing in (12_000, len(data) // 2, len(data) - 10):
        cut.write_bytes(data[:-missing])
        done = CliRunner().invoke(catalogue, ["import", str(cut), *place])
        assert (done.exit_code, type(done.exception)) == (2, SystemExit), done.output
        assert not (tmp_path / "new.sqlite").exists()
    if suffix == ".tar.gz":
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 255
        cut.write_bytes(flipped)
        assert CliRunner().invoke(catalogue, ["import", str(cut), *place]).exit_code == 2
        cut.write_bytes(data)
        assert CliRunner().invoke(catalogue, ["import", str(cut), *place]).exit_code == 0


@pytest.mark.parametrize("name", ["catalogue.sqlite", "images/ab/cd/x.jpg"])
def test_a_large_entry_of_a_small_archive_is_not_read(tmp_path: Path, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = 3 << 30
    archive = tmp_path / "bomb.tar.gz"
    archive.write_bytes(gzip.compress(entry.tobuf() + bytes(100_000)))
    place = ("--catalogue", str(tmp_path / "new.sqlite"), "--images", str(tmp_path / "new"))
    done = CliRunner().invoke(catalogue, ["import", str(archive), *place])
    assert done.exit_code == 1
    assert f"its entry {name} has 3,221,225,472 bytes" in done.output


def test_verify_includes_the_integrity_check_of_sqlite(tmp_path: Path) -> None:
    made = CatalogueBuilder(tmp_path)
    made.image(photo_bytes(1), made.post("anna1", "polo"))
    made.sessions.kw["bind"].dispose()
    stray = made.store.root / "ab" / "cd" / "stray.jpg"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"x")
    path = Path(made.catalogue)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        query = "SELECT rootpage FROM sqlite_schema WHERE name = 'ix_sightings_url'"
        (page,) = connection.execute(query).fetchone()
    data = bytearray(path.read_bytes())
    position = data.index(b"https://", (page - 1) * 4096)
    data[position : position + 5] = b"other"
    path.write_bytes(data)
    status, output = call(made, "verify", "--repair")
    assert status == 1
    assert "damaged: " in output and "no photo was checked" in output
    assert stray.exists()
