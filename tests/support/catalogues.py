"""Access to the catalogue of a test's folder: an SQLite file, or the URL in `catalogue.url`."""

import contextlib
import functools
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

import sqlalchemy as sa

from dataset.catalogue import session

URL_FILE = "catalogue.url"


def catalogue_of(folder: Path, name: str = "c.sqlite") -> str:
    """Return the URL of a folder's catalogue."""
    url_file = folder / URL_FILE
    return url_file.read_text(encoding="utf-8") if url_file.exists() else str(folder / name)


def rows(folder: Path, query: str) -> list[tuple]:
    """Return the rows of a query on a folder's catalogue."""
    address = catalogue_of(folder)
    engine = sa.create_engine(address if "://" in address else f"sqlite:///{address}")
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query))]
    finally:
        engine.dispose()


@functools.cache
def new_catalogue() -> tuple[str, ...]:
    """Return the SQL statements of an empty catalogue with all migrations."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalogue.sqlite"
        session.open_catalogue(str(path)).kw["bind"].dispose()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            lines = tuple(connection.iterdump())
    return tuple(line for line in lines if line not in ("BEGIN TRANSACTION;", "COMMIT;"))


@contextlib.contextmanager
def fast_catalogues(statements: Sequence[str]) -> Iterator[None]:
    """Create new SQLite catalogues by some statements, and write files without disk syncs.

    No test simulates a power failure, and the migrations of a new file take longer than most
    tests. Older catalogues are migrated as usual.

    Args:
        statements: What `new_catalogue` returns.
    """
    set_pragmas, upgrade = session._set_pragmas, session._upgrade

    def set_pragmas_without_syncs(connection: sqlite3.Connection, record: object) -> None:
        set_pragmas(connection, record)
        connection.execute("PRAGMA synchronous = OFF")

    def create_or_upgrade(engine: sa.Engine) -> None:
        if engine.dialect.name != "sqlite" or sa.inspect(engine).get_table_names():
            upgrade(engine)
            return
        with engine.execution_options(**session.WRITE_OPTIONS).begin() as connection:
            # Of two processes, the second one waits and finds nothing to do.
            if not sa.inspect(connection).get_table_names():
                for statement in statements:
                    connection.exec_driver_sql(statement)

    with (
        patch.object(session, "_set_pragmas", set_pragmas_without_syncs),
        patch.object(session, "_upgrade", create_or_upgrade),
        patch.object(os, "fsync", lambda _: None),
    ):
        yield
