"""Access to the catalogue of a test's folder: an SQLite file, or the URL in `catalogue.url`."""

from pathlib import Path

import sqlalchemy as sa

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
