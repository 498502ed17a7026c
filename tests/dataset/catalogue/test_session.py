"""Open new, old, newer, foreign and damaged catalogues."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from dataset.catalogue import models, session
from dataset.catalogue.models import Base, Search
from dataset.catalogue.session import HEAD, MIGRATIONS, open_catalogue
from dataset.errors import BadInput, Failure


def at_revision(path: Path, revision: str) -> None:
    """Create a catalogue of a revision with one search."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with sa.create_engine(f"sqlite:///{path}").begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.execute(
            sa.text(
                "INSERT INTO searches (site, hashtag, state, pages, posts, started, changed)"
                " VALUES ('lamoda', 'поло', 'open', 3, 9, '2026-01-02', '2026-01-02')"
            )
        )


def test_a_new_catalogue_has_exactly_the_mapped_tables(tmp_path: Path) -> None:
    sessions = open_catalogue(f"sqlite:///{tmp_path}/new.sqlite")
    with sessions() as session:
        difference = compare_metadata(
            MigrationContext.configure(session.connection()), Base.metadata
        )
    assert difference == []
    assert models.TagVerdictRow.__tablename__ in Base.metadata.tables
    assert models.Worker.__tablename__ in Base.metadata.tables
    assert models.LabelConflict.__tablename__ in Base.metadata.tables


def test_sqlite_is_in_wal_mode_with_foreign_keys_and_a_busy_timeout(tmp_path: Path) -> None:
    with open_catalogue(str(tmp_path / "c.sqlite"))() as session:
        answers = [
            session.scalar(sa.text(f"PRAGMA {name}"))
            for name in ("journal_mode", "foreign_keys", "busy_timeout")
        ]
    assert answers == ["wal", 1, 30_000]


def test_head_is_the_newest_migration() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == HEAD


def test_an_older_catalogue_is_backed_up_and_migrated(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    at_revision(path, "0001")
    with open_catalogue(str(path))() as session:
        assert session.scalar(sa.select(Search.hashtag)) == "поло"
        assert session.scalar(sa.text("SELECT count(*) FROM runs")) == 0
    copies = [p for p in tmp_path.iterdir() if ".before-" in p.name]
    assert len(copies) == 1
    with sqlite3.connect(copies[0]) as copy:
        assert copy.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
        assert copy.execute("SELECT hashtag FROM searches").fetchone() == ("поло",)


def test_a_newer_catalogue_is_rejected_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "newer.sqlite"
    open_catalogue(str(path))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Failure, match=r"newer fashion-tagger .*9999.*upgrade") as caught:
        open_catalogue(str(path))
    assert "\n" not in caught.value.message
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [("9999",)]


def test_a_database_of_another_program_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "theirs.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(Failure, match="songs"):
        open_catalogue(str(path))


def test_a_file_that_is_not_a_database_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0" * 1000)
    with pytest.raises(Failure, match="not a catalogue or is damaged"):
        open_catalogue(str(path))


@pytest.mark.parametrize("address", ["nosuch://x/y", "://"])
def test_an_unknown_url_is_a_usage_error(address: str) -> None:
    with pytest.raises(BadInput, match="not a URL of a catalogue"):
        open_catalogue(address)


@pytest.mark.parametrize(
    "url",
    [
        "nosuch://me:hunter2@host/db",
        "nosuch://me:hunter2",
        "postgresql://me:hunter1@hunter2@host/db",
        "postgresql://me:hunter1/hunter2",
        "postgresql://me:hunter2",
        "postgresql://me:hunter1/hunter2@127.0.0.1:9/db",
        "postgresql://me:hunter1?hunter2@127.0.0.1:9/db",
        "postgresql://127.0.0.1:9/db?password=hunter2",
    ],
)
def test_the_error_does_not_contain_any_part_of_the_password(url: str) -> None:
    with pytest.raises((BadInput, Failure)) as caught:
        open_catalogue(url)
    assert ("hunter" not in caught.value.message and caught.value.__cause__ is None) or (
        "hunter" not in str(caught.value.__cause__)
    )


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="check that the folder exists and is writable"):
        open_catalogue(str(tmp_path / "no" / "such" / "c.sqlite"))


def test_a_missing_catalogue_is_reported_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="crawl first"):
        open_catalogue(str(tmp_path / "c.sqlite"), must_exist=True)
    assert not (tmp_path / "c.sqlite").exists()


def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not hold for root.
    monkeypatch.setattr(session.os, "access", lambda path, mode: False)


def test_a_catalogue_in_a_read_only_place_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a ?%23.sqlite"
    sessions = open_catalogue(str(path))
    with sessions.begin() as writing:
        writing.add(Search(site="lamoda", hashtag="поло", state="open"))
    sessions.kw["bind"].dispose()
    read_only(monkeypatch)
    with open_catalogue(str(path), must_exist=True)() as reading:
        assert reading.scalar(sa.select(Search.hashtag)) == "поло"
    assert [place.name for place in tmp_path.iterdir()] == [path.name]
    with (
        pytest.raises(Failure, match="is read-only"),
        open_catalogue(str(path)).begin() as writing,
    ):
        writing.add(Search(site="lamoda", hashtag="dress", state="open"))
        writing.flush()


def test_a_read_only_catalogue_that_another_process_writes_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.sqlite"
    with open_catalogue(str(path)).begin() as writing:
        writing.add(Search(site="lamoda", hashtag="поло", state="open"))
    read_only(monkeypatch)
    with open_catalogue(str(path))() as reading:
        assert reading.scalar(sa.select(Search.hashtag)) == "поло"


def test_an_old_or_unclosed_read_only_catalogue_is_rejected_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.sqlite"
    at_revision(path, "0001")
    read_only(monkeypatch)
    with pytest.raises(Failure, match="earlier version and must be migrated"):
        open_catalogue(str(path))
    path.with_name("old.sqlite-wal").write_bytes(b"log")
    with pytest.raises(Failure, match=r"copy it with old\.sqlite-wal"):
        open_catalogue(str(path))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE searches SET started = 'no time'",
        "UPDATE searches SET hashtag = CAST(x'ff00ff' AS TEXT)",
        "ALTER TABLE searches DROP COLUMN reason",
        "DROP TABLE searches",
    ],
)
def test_damaged_rows_are_reported_without_a_traceback(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "c.sqlite"
    with open_catalogue(str(path)).begin() as writing:
        writing.add(Search(site="lamoda", hashtag="поло", state="open"))
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    with (
        pytest.raises(Failure, match=r"c\.sqlite: .*is damaged"),
        open_catalogue(str(path))() as reading,
    ):
        reading.scalars(sa.select(Search)).all()


def test_an_error_of_a_program_is_not_taken_for_damage(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mistake"), open_catalogue(str(tmp_path / "c.sqlite"))():
        raise ValueError("mistake")


def test_an_error_within_a_damaged_catalogue_is_reported_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    sessions = open_catalogue(str(path))
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO sightings (post_id, position, url, fallbacks, state)"
            " VALUES (99, 0, 'https://x.test/', '', 'pending')"
        )
    with pytest.raises(Failure, match="is damaged"), sessions():
        raise KeyError(99)
