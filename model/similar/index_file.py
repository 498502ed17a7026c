"""The index file: an SQLite database of items, their vectors, and the embedding.

Vectors are stored in blocks of up to BLOCK_ROWS rows in float16, each with a checksum. Each change
is one transaction. Columns named `place` hold the keys of items.
"""

import contextlib
import io
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from dataset.catalogue.queries import in_batches
from dataset.errors import BadInput, Failure, first_line
from dataset.utils.files import atomic_path, exclusive_use

# Photos of at least this similarity are duplicates; `benchmarks/similar.py copies` measures it.
COPY_SIMILARITY = 0.97


@dataclass(frozen=True, slots=True)
class IndexItem:
    """A photo with the data of its product; unknown text is empty.

    Attributes:
        id: Identifies the item in results.
        sha256: SHA-256 of the photo.
        image: What the source calls the photo.
        product: Equal for photos of one product.
        cluster: Equal for near duplicates of one photo.
    """

    id: str
    sha256: str
    image: str
    site: str = ""
    label: str = ""
    price: float | None = None
    currency: str = ""
    product: str = ""
    cluster: str = ""
    title: str = ""
    url: str = ""


FIELDS = tuple(field.name for field in fields(IndexItem))


@dataclass(frozen=True)
class Filters:
    """Conditions on results; empty: no condition."""

    sites: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    price_from: float | None = None
    price_to: float | None = None

    def __bool__(self) -> bool:
        return bool(self.sites or self.labels) or (self.price_from, self.price_to) != (None, None)


@dataclass(frozen=True)
class SearchResult:
    """A result of a search.

    Attributes:
        item: The item.
        similarity: Its similarity to the query, at most 1.
        duplicates: Ids of less similar duplicates of the item.
    """

    item: IndexItem
    similarity: float
    duplicates: tuple[str, ...] = ()


def duplicate_keys(item: IndexItem) -> tuple[tuple[str, str], ...]:
    """Return pairs of field and value that an item shares with its duplicates."""
    values = {"sha256": item.sha256, "cluster": item.cluster, "product": item.product}
    return tuple((name, value) for name, value in values.items() if value)


def are_duplicates(first: IndexItem, second: IndexItem) -> bool:
    """Return whether two items show the same photo or product."""
    return not set(duplicate_keys(first)).isdisjoint(duplicate_keys(second))


DTYPE = np.float16
BLOCK_ROWS = 4096
# SQLite values have at most 1 GB.
PIECE_BYTES = 64 << 20
COLUMNS = ", ".join(FIELDS)
# Part of a message of SQLite -> remedy. For other messages, the file is taken as damaged.
REMEDIES = {
    "locked": "another find-similar is using it; try again later",
    "full": "nothing was changed; free disk space, then repeat the command",
    "disk I/O": "nothing was changed; check the disk, then repeat the command",
    "readonly": "its folder can't be written; make it writable, or name another with --index",
}
REBUILD = "build it again with find-similar --build, or name another with --index"


class IndexFile:
    """An open index.

    All methods raise Failure, with the file's name, if the database is damaged or locked.

    Args:
        path: The file.
        base: An open connection to it.
    """

    def __init__(self, path: Path, base: sqlite3.Connection) -> None:
        self.path, self._base = path, base

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._base
        except sqlite3.Error as error:
            raise damaged_index(self.path, first_line(error)) from error

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read a consistent state within the block; writers wait meanwhile."""
        with self._connection() as base:
            base.execute("BEGIN")
            try:
                yield
            finally:
                base.execute("COMMIT")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all changes of the block, or none if it raises."""
        with self._connection() as base:
            base.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                base.execute("ROLLBACK")
                raise
            base.execute("COMMIT")

    def facts(self) -> dict[str, Any]:
        """Return the facts about the index by name."""
        with self._connection() as base:
            rows = base.execute("SELECT name, value FROM facts").fetchall()
        return {name: json.loads(value) for name, value in rows}

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Store facts, values for JSON, by name."""
        rows = [(name, json.dumps(value)) for name, value in facts.items()]
        with self._connection() as base:
            base.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def delete_fact(self, name: str) -> None:
        """Delete a fact."""
        with self._connection() as base:
            base.execute("DELETE FROM facts WHERE name = ?", (name,))

    def write_bytes(self, name: str, data: bytes | memoryview) -> None:
        """Store bytes under a name."""
        with self._connection() as base:
            base.execute("DELETE FROM arrays WHERE name = ?", (name,))
            for part, start in enumerate(range(0, len(data), PIECE_BYTES)):
                piece = data[start : start + PIECE_BYTES]
                row = (name, part, zlib.crc32(piece), piece)
                base.execute("INSERT INTO arrays VALUES (?, ?, ?, ?)", row)

    def read_bytes(self, name: str) -> bytes:
        """Return the bytes of a name; empty if there are none."""
        with self._connection() as base:
            rows = base.execute(
                "SELECT crc, data FROM arrays WHERE name = ? ORDER BY part", (name,)
            )
            return b"".join(self._verified(crc, data) for crc, data in rows)

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Store arrays under a name."""
        out = io.BytesIO()
        np.savez(out, allow_pickle=False, **arrays)
        self.write_bytes(name, out.getvalue())

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return the arrays of `write_arrays`."""
        with np.load(io.BytesIO(self.read_bytes(name)), allow_pickle=False) as arrays:
            return dict(arrays)

    def _verified(self, crc: int, *data: bytes) -> bytes:
        joined = b"".join(data)
        if zlib.crc32(joined) != crc:
            raise damaged_index(self.path, "a checksum is wrong")
        return joined

    def add(self, items: Sequence[IndexItem], vectors: np.ndarray) -> np.ndarray:
        """Add items with their vectors.

        Args:
            items: n items.
            vectors: Array of shape (n, d).

        Returns:
            Their keys, int64 array of shape (n,).
        """
        with self._connection() as base:
            first = base.execute("SELECT COALESCE(MAX(place), -1) + 1 FROM items").fetchone()[0]
            keys = np.arange(first, first + len(items), dtype=np.int64)
            marks = ", ".join("?" * (len(FIELDS) + 1))
            base.executemany(
                f"INSERT INTO items (place, {COLUMNS}) VALUES ({marks})",
                ((int(key), *astuple(item)) for key, item in zip(keys, items, strict=True)),
            )
        for start in range(0, len(items), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            self._write_block(None, keys[rows], vectors[rows].astype(DTYPE))
        return keys

    def _write_block(self, number: int | None, keys: np.ndarray, vectors: np.ndarray) -> None:
        packed = keys.astype("<i8").tobytes(), vectors.astype("<f2").tobytes()
        row = (number, zlib.crc32(b"".join(packed)), *packed)
        with self._connection() as base:
            base.execute("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?)", row)

    def set_clusters(self, clusters: Mapping[int, str]) -> None:
        """Change the clusters of items, key -> cluster."""
        rows = [(cluster, key) for key, cluster in clusters.items()]
        with self._connection() as base:
            base.executemany("UPDATE items SET cluster = ? WHERE place = ?", rows)

    def remove(self, keys: Sequence[int]) -> None:
        """Remove items and their vectors."""
        with self._connection() as base:
            for batch in in_batches(keys):
                marks = ", ".join("?" * len(batch))
                base.execute(f"DELETE FROM items WHERE place IN ({marks})", batch)
            numbers = base.execute("SELECT number FROM blocks").fetchall()
        removed = np.array(list(keys), np.int64)
        for (number,) in numbers:
            block_keys, vectors = self._read_block(number)
            is_kept = ~np.isin(block_keys, removed)
            if is_kept.all():
                continue
            if is_kept.any():
                self._write_block(number, block_keys[is_kept], vectors[is_kept])
            else:
                self._base.execute("DELETE FROM blocks WHERE number = ?", (number,))

    def _read_block(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        with self._connection() as base:
            crc, *packed = base.execute(
                "SELECT crc, places, vectors FROM blocks WHERE number = ?", (number,)
            ).fetchone()
        self._verified(crc, *packed)
        keys = np.frombuffer(packed[0], "<i8")
        return keys, np.frombuffer(packed[1], "<f2").reshape(len(keys), -1)

    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the keys, shape (n,) int64, and vectors, (n, d) float32, of all items."""
        with self._connection() as base:
            numbers = [row[0] for row in base.execute("SELECT number FROM blocks ORDER BY number")]
        count = len(self)
        blocks = (self._read_block(number) for number in numbers)
        first = next(blocks, None)
        if first is None:
            return np.zeros(0, np.int64), np.zeros((0, 1), np.float32)
        keys = np.empty(count, np.int64)
        vectors = np.empty((count, first[1].shape[1]), np.float32)
        start = 0
        for block_keys, values in (first, *blocks):
            end = start + len(block_keys)
            if end > count or values.shape[1] != vectors.shape[1]:
                break
            keys[start:end], vectors[start:end] = block_keys, values
            start = end
        if start != count:
            raise damaged_index(self.path, "it does not have one vector per item")
        return keys, vectors

    def __len__(self) -> int:
        with self._connection() as base:
            return int(base.execute("SELECT COUNT(*) FROM items").fetchone()[0])

    def items(self, keys: Iterable[int]) -> dict[int, IndexItem]:
        """Return key -> item."""
        items = {}
        with self._connection() as base:
            for batch in in_batches(int(key) for key in keys):
                marks = ", ".join("?" * len(batch))
                query = f"SELECT place, {COLUMNS} FROM items WHERE place IN ({marks})"
                items.update({row[0]: IndexItem(*row[1:]) for row in base.execute(query, batch)})
        return items

    def all_items(self) -> Iterator[tuple[int, IndexItem]]:
        """Yield every key with its item."""
        with self._connection() as base:
            for row in base.execute(f"SELECT place, {COLUMNS} FROM items ORDER BY place"):
                yield row[0], IndexItem(*row[1:])

    def filter_keys(self, filters: Filters) -> np.ndarray:
        """Return the keys of the items that pass filters, int64 array in ascending order."""
        terms: list[str] = []
        values: list[str | float] = []
        for column, choices in (("site", filters.sites), ("label", filters.labels)):
            if choices:
                terms.append(f"{column} IN ({', '.join('?' * len(choices))})")
                values += list(choices)
        if filters.price_from is not None:
            terms.append("price >= ?")
            values.append(filters.price_from)
        if filters.price_to is not None:
            terms.append("price <= ?")
            values.append(filters.price_to)
        where = " AND ".join(terms) or "1"
        with self._connection() as base:
            rows = base.execute(f"SELECT place FROM items WHERE {where} ORDER BY place", values)
            return np.fromiter((row[0] for row in rows), np.int64)

    def find(self, name: str, limit: int = 2) -> list[tuple[int, IndexItem]]:
        """Find items by id, else by URL, else by product, else by the beginning of the SHA-256.

        Args:
            name: The name to find.
            limit: Number of items, at most.

        Returns:
            Keys and items.
        """
        if not name:
            # Unknown URLs and products are empty.
            return []
        # Arguments may have undecodable bytes, which SQLite can't compare.
        name = name.encode("utf-8", "replace").decode()
        digits = name if len(name) >= 8 and not set(name) - set("0123456789abcdef") else None
        conditions = [
            ("id = ?", name),
            ("url = ?", name),
            ("product = ? OR substr(product, instr(product, ':') + 1) = ?", name),
            *([("sha256 >= ? AND sha256 < ? || 'g'", digits)] if digits else []),
        ]
        with self._connection() as base:
            for where, value in conditions:
                rows = base.execute(
                    f"SELECT place, {COLUMNS} FROM items WHERE {where} ORDER BY place LIMIT ?",
                    (*[value] * where.count("?"), limit),
                ).fetchall()
                if rows:
                    return [(row[0], IndexItem(*row[1:])) for row in rows]
        return []

    def distinct_values(self, column: str) -> list[str]:
        """Return the distinct values of a column, site or label, in order."""
        with self._connection() as base:
            rows = base.execute(f"SELECT DISTINCT {column} FROM items ORDER BY 1")
            return [row[0] for row in rows]


def damaged_index(path: Path, reason: str) -> Failure:
    """Return the error for an index that can't be used, with a remedy."""
    remedy = next((text for sign, text in REMEDIES.items() if sign in reason), REBUILD)
    return Failure(f"the index {path} can't be used: {reason}; {remedy}")


# The SQLite application id "FTsi", and the version of tables and vectors.
APPLICATION_ID, FORMAT_VERSION = 0x46547369, 2
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
    """Open an index.

    Raises:
        BadInput: The file does not exist.
        Failure: The file is damaged, not an index, or of another format version.
    """
    if not path.is_file():
        raise BadInput(
            f"--index {path}: no such file; build it with find-similar --build --model RUN_DIR"
        )
    try:
        base = _connect(path)
        application_id, version = (
            base.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version")
        )
    except sqlite3.Error as error:
        raise damaged_index(path, first_line(error)) from error
    if application_id != APPLICATION_ID:
        base.close()
        raise damaged_index(path, "it is not an index of find-similar")
    if version != FORMAT_VERSION:
        base.close()
        raise damaged_index(path, f"its format version is {version}, not {FORMAT_VERSION}")
    return IndexFile(path, base)


def _connect(path: Path) -> sqlite3.Connection:
    base = sqlite3.connect(path, timeout=30, isolation_level=None)
    base.execute("PRAGMA synchronous = FULL")
    # Removed items must not remain in the file.
    base.execute("PRAGMA secure_delete = ON")
    return base


def lock_index(path: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the exclusive right to write an index, see `exclusive_use`."""
    return exclusive_use(path, "--index")


@contextlib.contextmanager
def create_index(path: Path) -> Iterator[IndexFile]:
    """Create an empty index that replaces a file when the block succeeds.

    Args:
        path: The file to replace, which must be locked.

    Raises:
        Failure: The file can't be written.
    """
    try:
        with atomic_path(path) as temporary:
            # SQLite would apply the journal of a killed process to the new file.
            temporary.with_name(f"{temporary.name}-journal").unlink(missing_ok=True)
            with closing(_connect(temporary)) as base:
                base.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                base.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
                for table in TABLES:
                    base.execute(table)
                index = IndexFile(path, base)
                with index.transaction():
                    yield index
    except (OSError, sqlite3.Error) as error:
        raise Failure(
            f"--index {path} can't be written: {first_line(error)}; free disk space, or name"
            " another file"
        ) from error
