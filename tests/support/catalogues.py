"""Where the catalogue of a test's folder is: an SQLite file, or what a file there says."""

from pathlib import Path

import sqlalchemy as sa

URL_FILE = "catalogue.url"


def catalogue_of(folder: Path, name: str = "c.sqlite") -> str:
    """The address of FOLDER's catalogue."""
    told = folder / URL_FILE
    return told.read_text(encoding="utf-8") if told.exists() else str(folder / name)


def rows(folder: Path, query: str) -> list[tuple]:
    """What QUERY finds in FOLDER's catalogue."""
    address = catalogue_of(folder)
    engine = sa.create_engine(address if "://" in address else f"sqlite:///{address}")
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query))]
    finally:
        engine.dispose()
