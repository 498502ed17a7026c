"""Opening an index, making one, and the right to write it.

A new index is written aside and renamed. Who writes holds a lock beside the file.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from dataset.errors import BadInput, Failure, first_line
from dataset.images import PART
from model.similar.file import IndexFile, damaged

# "FTsi": what the file says it is, and the version of its tables and vectors.
APPLICATION, VERSION = 0x46547369, 2
TABLES = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE arrays (name TEXT, part INTEGER, crc INTEGER NOT NULL, data BLOB NOT NULL,"
    " PRIMARY KEY (name, part))",
    "CREATE TABLE items (place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, sha256 TEXT NOT NULL,"
    " image TEXT NOT NULL, site TEXT NOT NULL, label TEXT NOT NULL, price REAL,"
    " currency TEXT NOT NULL, product TEXT NOT NULL, cluster TEXT NOT NULL, title TEXT NOT NULL,"
    " url TEXT NOT NULL)",
    *(f"CREATE INDEX items_{name} ON items ({name})" for name in ("sha256", "product", "url")),
    "CREATE TABLE blocks (number INTEGER PRIMARY KEY, crc INTEGER NOT NULL, places BLOB NOT NULL,"
    " vectors BLOB NOT NULL)",
)


def open_index(path: Path) -> IndexFile:
    """The index at PATH.

    Raises:
        BadInput: there is none.
        Failure: it is damaged, or no index of ours.
    """
    if not path.is_file():
        raise BadInput(
            f"--index {path}: no such file; make it with find-similar --build --model RUN_DIR"
        )
    try:
        base = _connect(path)
        names = ("application_id", "user_version")
        said = [base.execute(f"PRAGMA {name}").fetchone()[0] for name in names]
    except sqlite3.Error as error:
        raise damaged(path, first_line(error)) from error
    if said[0] != APPLICATION:
        base.close()
        raise damaged(path, "it is no index of find-similar")
    if said[1] != VERSION:
        base.close()
        raise damaged(path, f"it is of version {said[1]}, and this program reads {VERSION}")
    return IndexFile(path, base)


def _connect(path: Path) -> sqlite3.Connection:
    base = sqlite3.connect(path, timeout=30, isolation_level=None)
    base.execute("PRAGMA synchronous = FULL")
    # What is removed must not stay in the file.
    base.execute("PRAGMA secure_delete = ON")
    return base


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """The right to write the index PATH, alone.

    Raises:
        Failure: another process has it, or the folder can't be written.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise Failure(
            f"--index {path} can't be written: {error.strerror}; name another file"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise Failure(
            f"another find-similar is writing {path}; try again when that one has ended"
        ) from error
    try:
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def new_index(path: Path) -> Iterator[IndexFile]:
    """An empty index that takes PATH's place at the end, all at once; PATH must be locked.

    Raises:
        Failure: it can't be written.
    """
    aside = path.with_name(f"{PART}{path.name}")
    try:
        for left in (aside, aside.with_name(f"{aside.name}-journal")):
            left.unlink(missing_ok=True)
        with closing(_connect(aside)) as base:
            base.execute(f"PRAGMA application_id = {APPLICATION}")
            base.execute(f"PRAGMA user_version = {VERSION}")
            for table in TABLES:
                base.execute(table)
            index = IndexFile(path, base)
            with index.change():
                yield index
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except (OSError, sqlite3.Error) as error:
        raise Failure(
            f"--index {path} can't be written: {first_line(error)}; make room, or name another"
        ) from error
    finally:
        aside.unlink(missing_ok=True)
