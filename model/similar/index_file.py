"""The index: one SQLite file of items, their vectors and how vectors are made of photos.

Vectors lie in blocks of up to BLOCK rows, float16, each with its checksum. A change is one
transaction.
"""

import contextlib
import fcntl
import io
import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from dataset.catalogue.queries import in_batches
from dataset.errors import BadInput, Failure, first_line
from dataset.utils.files import atomic_path
from model.similar.items import FIELDS, Filters, Item

DTYPE = np.float16
BLOCK = 4096
# SQLite keeps at most 1 GB in a value.
PIECE = 64 << 20
COLUMNS = ", ".join(FIELDS)
# Words of SQLite's -> what to do; of all others the file is damaged.
REMEDIES = {
    "locked": "another find-similar is at it; try again when that one has ended",
    "full": "nothing was changed: make room, then repeat the command",
    "disk I/O": "nothing was changed: check the disk, then repeat the command",
    "readonly": "its folder can't be written; make it so, or name another with --index",
}


class IndexFile:
    """An open index. What it raises is a Failure that names the file."""

    def __init__(self, path: Path, base: sqlite3.Connection) -> None:
        self.path, self._base = path, base

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._base
        except sqlite3.Error as error:
            raise damaged(self.path, first_line(error)) from error

    @contextlib.contextmanager
    def as_it_is(self) -> Iterator[None]:
        """The index as it is now, whatever others change meanwhile; they wait, so be quick."""
        with self._explained() as base:
            base.execute("BEGIN")
            try:
                yield
            finally:
                base.execute("COMMIT")

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """One change of all that is done meanwhile: all of it holds, or nothing."""
        with self._explained() as base:
            base.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                base.execute("ROLLBACK")
                raise
            base.execute("COMMIT")

    def facts(self) -> dict[str, Any]:
        """What is said of the whole index."""
        with self._explained() as base:
            rows = base.execute("SELECT name, value FROM facts").fetchall()
        return {name: json.loads(value) for name, value in rows}

    def say(self, facts: Mapping[str, Any]) -> None:
        """Keep FACTS, anything JSON knows, by name."""
        rows = [(name, json.dumps(value)) for name, value in facts.items()]
        with self._explained() as base:
            base.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def unsay(self, name: str) -> None:
        """Forget the fact NAME."""
        with self._explained() as base:
            base.execute("DELETE FROM facts WHERE name = ?", (name,))

    def keep_bytes(self, name: str, data: bytes | memoryview) -> None:
        """Keep DATA under NAME."""
        with self._explained() as base:
            base.execute("DELETE FROM arrays WHERE name = ?", (name,))
            for part, start in enumerate(range(0, len(data), PIECE)):
                piece = data[start : start + PIECE]
                row = (name, part, zlib.crc32(piece), piece)
                base.execute("INSERT INTO arrays VALUES (?, ?, ?, ?)", row)

    def bytes_of(self, name: str) -> bytes:
        """What is kept under NAME; nothing where nothing is."""
        with self._explained() as base:
            rows = base.execute(
                "SELECT crc, data FROM arrays WHERE name = ? ORDER BY part", (name,)
            )
            return b"".join(self._checked(crc, data) for crc, data in rows)

    def keep_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep ARRAYS under NAME."""
        out = io.BytesIO()
        np.savez(out, allow_pickle=False, **arrays)
        self.keep_bytes(name, out.getvalue())

    def arrays_of(self, name: str) -> dict[str, np.ndarray]:
        """What `keep_arrays` kept under NAME."""
        with np.load(io.BytesIO(self.bytes_of(name)), allow_pickle=False) as found:
            return dict(found)

    def _checked(self, crc: int, *data: bytes) -> bytes:
        joined = b"".join(data)
        if zlib.crc32(joined) != crc:
            raise damaged(self.path, "a checksum is wrong")
        return joined

    def add(self, items: Sequence[Item], vectors: np.ndarray) -> np.ndarray:
        """Put ITEMS in with their VECTORS, (n, d); returns their places, (n,) int64."""
        with self._explained() as base:
            first = base.execute("SELECT COALESCE(MAX(place), -1) + 1 FROM items").fetchone()[0]
            places = np.arange(first, first + len(items), dtype=np.int64)
            marks = ", ".join("?" * (len(FIELDS) + 1))
            base.executemany(
                f"INSERT INTO items (place, {COLUMNS}) VALUES ({marks})",
                ((int(p), *astuple(item)) for p, item in zip(places, items, strict=True)),
            )
        for start in range(0, len(items), BLOCK):
            part = slice(start, start + BLOCK)
            self._put_block(None, places[part], vectors[part].astype(DTYPE))
        return places

    def _put_block(self, number: int | None, places: np.ndarray, vectors: np.ndarray) -> None:
        packed = places.astype("<i8").tobytes(), vectors.astype("<f2").tobytes()
        row = (number, zlib.crc32(b"".join(packed)), *packed)
        with self._explained() as base:
            base.execute("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?)", row)

    def remove(self, places: Sequence[int]) -> None:
        """Take the items at PLACES out, and their vectors with them."""
        with self._explained() as base:
            for some in in_batches(places):
                marks = ", ".join("?" * len(some))
                base.execute(f"DELETE FROM items WHERE place IN ({marks})", some)
            numbers = base.execute("SELECT number FROM blocks").fetchall()
        gone = np.array(list(places), np.int64)
        for (number,) in numbers:
            held, vectors = self._block(number)
            kept = ~np.isin(held, gone)
            if kept.all():
                continue
            if kept.any():
                self._put_block(number, held[kept], vectors[kept])
            else:
                self._base.execute("DELETE FROM blocks WHERE number = ?", (number,))

    def _block(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        with self._explained() as base:
            crc, *packed = base.execute(
                "SELECT crc, places, vectors FROM blocks WHERE number = ?", (number,)
            ).fetchone()
        self._checked(crc, *packed)
        places = np.frombuffer(packed[0], "<i8")
        return places, np.frombuffer(packed[1], "<f2").reshape(len(places), -1)

    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """Places, (n,) int64, and vectors, (n, d) float32, of all items."""
        with self._explained() as base:
            numbers = [row[0] for row in base.execute("SELECT number FROM blocks ORDER BY number")]
        count = len(self)
        blocks = (self._block(number) for number in numbers)
        first = next(blocks, None)
        if first is None:
            return np.zeros(0, np.int64), np.zeros((0, 1), np.float32)
        places = np.empty(count, np.int64)
        vectors = np.empty((count, first[1].shape[1]), np.float32)
        start = 0
        for held, values in (first, *blocks):
            end = start + len(held)
            if end > count or values.shape[1] != vectors.shape[1]:
                break
            places[start:end], vectors[start:end] = held, values
            start = end
        if start != count:
            raise damaged(self.path, "it has not one vector an item")
        return places, vectors

    def __len__(self) -> int:
        with self._explained() as base:
            return int(base.execute("SELECT COUNT(*) FROM items").fetchone()[0])

    def items(self, places: Iterable[int]) -> dict[int, Item]:
        """The items at PLACES."""
        found = {}
        with self._explained() as base:
            for some in in_batches(int(place) for place in places):
                marks = ", ".join("?" * len(some))
                asked = f"SELECT place, {COLUMNS} FROM items WHERE place IN ({marks})"
                found.update({row[0]: Item(*row[1:]) for row in base.execute(asked, some)})
        return found

    def all_items(self) -> Iterator[tuple[int, Item]]:
        """Every item with its place."""
        with self._explained() as base:
            for row in base.execute(f"SELECT place, {COLUMNS} FROM items ORDER BY place"):
                yield row[0], Item(*row[1:])

    def places_of(self, filters: Filters) -> np.ndarray:
        """Places of the items that FILTERS let through, (n,) int64 in order."""
        terms: list[str] = []
        values: list[str | float] = []
        for column, wanted in (("site", filters.sites), ("label", filters.labels)):
            if wanted:
                terms.append(f"{column} IN ({', '.join('?' * len(wanted))})")
                values += list(wanted)
        if filters.price_from is not None:
            terms.append("price >= ?")
            values.append(filters.price_from)
        if filters.price_to is not None:
            terms.append("price <= ?")
            values.append(filters.price_to)
        where = " AND ".join(terms) or "1"
        with self._explained() as base:
            rows = base.execute(f"SELECT place FROM items WHERE {where} ORDER BY place", values)
            return np.fromiter((row[0] for row in rows), np.int64)

    def find(self, name: str, most: int = 2) -> list[tuple[int, Item]]:
        """The items that NAME may mean, MOST at most: by id, address, product, or SHA-256's start.

        Only those of the first kind that has any.
        """
        if not name:
            # Addresses and products that are not known are empty.
            return []
        digits = name if len(name) >= 8 and not set(name) - set("0123456789abcdef") else None
        asked = [
            ("id = ?", name),
            ("url = ?", name),
            ("product = ? OR substr(product, instr(product, ':') + 1) = ?", name),
            *([("sha256 >= ? AND sha256 < ? || 'g'", digits)] if digits else []),
        ]
        with self._explained() as base:
            for where, value in asked:
                rows = base.execute(
                    f"SELECT place, {COLUMNS} FROM items WHERE {where} ORDER BY place LIMIT ?",
                    (*[value] * where.count("?"), most),
                ).fetchall()
                if rows:
                    return [(row[0], Item(*row[1:])) for row in rows]
        return []

    def known(self, column: str) -> list[str]:
        """What the items have in COLUMN, site or label, in order."""
        with self._explained() as base:
            rows = base.execute(f"SELECT DISTINCT {column} FROM items ORDER BY 1")
            return [row[0] for row in rows]


def damaged(path: Path, why: str) -> Failure:
    """What is raised where the index PATH can't be used, with what to do."""
    anew = "build it anew with find-similar --build, or name another with --index"
    remedy = next((said for sign, said in REMEDIES.items() if sign in why), anew)
    return Failure(f"the index {path} can't be used: {why}; {remedy}")


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
    try:
        with atomic_path(path) as temporary:
            # A killed process may have left one, which SQLite would apply to the new file.
            temporary.with_name(f"{temporary.name}-journal").unlink(missing_ok=True)
            with closing(_connect(temporary)) as base:
                base.execute(f"PRAGMA application_id = {APPLICATION}")
                base.execute(f"PRAGMA user_version = {VERSION}")
                for table in TABLES:
                    base.execute(table)
                index = IndexFile(path, base)
                with index.change():
                    yield index
    except (OSError, sqlite3.Error) as error:
        raise Failure(
            f"--index {path} can't be written: {first_line(error)}; make room, or name another"
        ) from error
