"""Store items with predictions and verdicts in an SQLite file, so that memory stays small."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dataset.errors import Failure
from dataset.feeds.tables import REPLACEMENT
from model.feeds.sources import TaggedItem

SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
  number INTEGER PRIMARY KEY, id TEXT, image TEXT, tag TEXT, label TEXT, class_index INTEGER,
  cost REAL, rows TEXT, image_id INTEGER, sha256 TEXT, problem TEXT,
  note TEXT, no_garment_reason TEXT, probabilities BLOB, features BLOB, nearest TEXT,
  verdict TEXT, suggested TEXT,
  probability REAL, tag_probability REAL, margin REAL, expected_cost REAL,
  learning_rank INTEGER
);
CREATE INDEX IF NOT EXISTS by_cost ON items (expected_cost DESC, number);
CREATE INDEX IF NOT EXISTS by_photo ON items (sha256);
"""
BATCH_ROWS = 2_000
# Distinct reasons and pairs that are returned at most; a broken feed may have one per row.
MAX_GROUPS = 100
PREDICTION_COLUMNS = (
    *("number", "id", "image", "tag", "label", "class_index", "cost", "rows", "image_id"),
    *("sha256", "problem", "note", "no_garment_reason", "probabilities", "features", "nearest"),
)
VERDICT_COLUMNS = (
    "verdict",
    "suggested",
    "probability",
    "tag_probability",
    "margin",
    "expected_cost",
)
# Items without an expected cost come last. There is an index, because sorting needs memory.
RANK_ORDER = "ORDER BY expected_cost DESC, number"
HAS_PREDICTION = "probabilities IS NOT NULL AND class_index IS NOT NULL AND no_garment_reason = ''"


@dataclass(frozen=True)
class PhotoPrediction:
    """The prediction for a photo.

    Attributes:
        problem: Why the photo can't be read, or empty.
        no_garment_reason: Why the photo shows no garment, or empty.
        probabilities: Calibrated probabilities of shape (classes,); None without a prediction.
        nearest: The nearest training photos.
        features: Projected features, float16 array; None without a prediction.
    """

    problem: str = ""
    no_garment_reason: str = ""
    probabilities: np.ndarray | None = None
    nearest: Sequence[dict[str, Any]] = ()
    features: np.ndarray | None = None


@dataclass(frozen=True)
class ItemPrediction:
    """An item with the prediction for its photo.

    Attributes:
        item: The item.
        class_index: Class index of its label; None if the model does not have it.
        sha256: SHA-256 of the photo.
        photo: The prediction.
        problem: Why the tag can't be checked, or empty.
    """

    item: TaggedItem
    class_index: int | None
    sha256: str = ""
    photo: PhotoPrediction = field(default_factory=PhotoPrediction)
    problem: str = ""


@dataclass(frozen=True)
class PredictionBatch:
    """Predictions of n items.

    Attributes:
        numbers: Numbers of the items.
        probabilities: Float64 array of shape (n, classes).
        class_indices: Class indices of the tags, shape (n,).
        costs: Costs of wrong tags, shape (n,).
    """

    numbers: list[int]
    probabilities: np.ndarray
    class_indices: np.ndarray
    costs: np.ndarray


@dataclass(frozen=True)
class ItemVerdict:
    """The verdict on an item; see `Verdicts`. Values are None without a prediction."""

    number: int
    verdict: str
    suggested: str | None = None
    probability: float | None = None
    tag_probability: float | None = None
    margin: float | None = None
    expected_cost: float | None = None


@dataclass(frozen=True)
class CheckedItem:
    """An item with its prediction and verdict."""

    number: int
    id: str
    image: str
    tag: str
    label: str
    rows: list[dict[str, Any]]
    image_id: int | None
    problem: str
    note: str
    no_garment_reason: str
    nearest: list[dict[str, Any]]
    verdict: str
    suggested: str | None
    probability: float | None
    tag_probability: float | None
    margin: float | None
    expected_cost: float | None
    learning_rank: int | None

    @property
    def fields(self) -> dict[str, Any]:
        """Column of the feed -> value, in the first row of the item."""
        return self.rows[0] if self.rows else {}

    @property
    def reason(self) -> str:
        """Why the tag was not checked or no garment was seen, or a note on the row."""
        return self.problem or self.no_garment_reason or self.note


class CheckStore:
    """The items of a check. Each method is a transaction.

    Args:
        path: The SQLite file, which is created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as base:
            base.executescript(SCHEMA)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as base, base:
                base.row_factory = sqlite3.Row
                yield base
        except sqlite3.Error as error:
            raise Failure(
                f"{self.path} can't be used: {error}; free disk space, or remove"
                f" {self.path.parent} and check again"
            ) from error

    def last_number(self) -> int:
        """Return the number of the last stored item, 0 without items; they are stored in order."""
        with self._open() as base:
            query = "SELECT coalesce(max(number), 0) FROM items"
            number: int = base.execute(query).fetchone()[0]
            return number

    def id_of(self, number: int) -> str:
        """Return the id of an item by its number."""
        with self._open() as base:
            query = "SELECT id FROM items WHERE number = ?"
            return str(base.execute(query, (number,)).fetchone()[0])

    def add(self, predictions: Sequence[ItemPrediction]) -> None:
        """Store items with their predictions."""
        rows = [_item_row(prediction) for prediction in predictions]
        columns, marks = ", ".join(PREDICTION_COLUMNS), ", ".join("?" * len(PREDICTION_COLUMNS))
        with self._open() as base:
            base.executemany(f"INSERT INTO items ({columns}) VALUES ({marks})", rows)

    def find_prediction(self, sha256: str) -> PhotoPrediction | None:
        """Return the stored prediction for a photo."""
        query = (
            "SELECT problem, no_garment_reason, probabilities, features, nearest FROM items"
            " WHERE sha256 = ? LIMIT 1"
        )
        with self._open() as base:
            row = base.execute(query, (sha256,)).fetchone()
        if row is None:
            return None
        data = row["probabilities"]
        probabilities = None if data is None else np.frombuffer(data, np.float32)
        # With a prediction, the problem is that of the item's tag.
        problem = row["problem"] if probabilities is None else ""
        nearest = json.loads(row["nearest"])
        features = None if data is None else np.frombuffer(row["features"], np.float16)
        return PhotoPrediction(problem, row["no_garment_reason"], probabilities, nearest, features)

    def prediction_count(self) -> int:
        """Return the number of items whose tags can be checked."""
        with self._open() as base:
            query = f"SELECT count(*) FROM items WHERE {HAS_PREDICTION}"
            return int(base.execute(query).fetchone()[0])

    def predictions(self) -> Iterator[PredictionBatch]:
        """Yield the items whose tags can be checked, BATCH_ROWS at a time.

        An unknown cost is the mean of the known ones. Verdicts may be stored meanwhile.
        """
        with self._open() as base:
            (mean,) = base.execute("SELECT coalesce(avg(cost), 1) FROM items").fetchone()
        query = (
            "SELECT number, probabilities, class_index, coalesce(cost, ?) AS cost FROM items"
            f" WHERE {HAS_PREDICTION} AND number > ? ORDER BY number LIMIT ?"
        )
        last = 0
        while True:
            with self._open() as base:
                rows = base.execute(query, (mean, last, BATCH_ROWS)).fetchall()
            if not rows:
                return
            yield _prediction_batch(rows)
            last = rows[-1]["number"]

    def most_uncertain(
        self, verdicts: Sequence[str], limit: int
    ) -> tuple[list[int], np.ndarray, np.ndarray]:
        """Return the items of a catalogue with some verdicts, the closest predictions first.

        Args:
            verdicts: The verdicts.
            limit: Number of items, at most.

        Returns:
            Numbers of n items, probabilities of shape (n, classes), and features of shape (n,
            width).
        """
        marks = ", ".join("?" * len(verdicts))
        query = (
            f"SELECT number, probabilities, features FROM items WHERE verdict IN ({marks})"
            " AND image_id IS NOT NULL AND features IS NOT NULL"
            " ORDER BY abs(margin), number LIMIT ?"
        )
        with self._open() as base:
            rows = base.execute(query, (*verdicts, limit)).fetchall()
        return (
            [row["number"] for row in rows],
            np.array([np.frombuffer(row["probabilities"], np.float32) for row in rows]),
            np.array([np.frombuffer(row["features"], np.float16) for row in rows], np.float32),
        )

    def save_learning_ranks(self, numbers: Sequence[int]) -> None:
        """Store the ranks of items, which are in the order of their ranks."""
        rows = list(enumerate(numbers))
        with self._open() as base:
            base.executemany("UPDATE items SET learning_rank = ? WHERE number = ?", rows)

    def save_verdicts(self, verdicts: Sequence[ItemVerdict]) -> None:
        """Store the verdicts on items."""
        columns = ", ".join(f"{column} = :{column}" for column in VERDICT_COLUMNS)
        with self._open() as base:
            base.executemany(
                f"UPDATE items SET {columns} WHERE number = :number", list(map(vars, verdicts))
            )

    def set_verdict(self, verdict: str, where: str) -> None:
        """Store a verdict without a prediction.

        Args:
            verdict: The verdict.
            where: SQL condition of the items.
        """
        nulls = ", ".join(f"{column} = NULL" for column in VERDICT_COLUMNS[1:])
        with self._open() as base:
            base.execute(f"UPDATE items SET verdict = ?, {nulls} WHERE {where}", (verdict,))

    def ranked(self, verdict: str | None = None, limit: int = -1) -> Iterator[CheckedItem]:
        """Yield items with the highest expected cost first.

        Args:
            verdict: Only items with this verdict.
            limit: Number of items, at most; -1: all.
        """
        where = "WHERE verdict = ?" if verdict else ""
        with self._open() as base:
            query = f"SELECT * FROM items {where} {RANK_ORDER} LIMIT {int(limit)}"
            for row in base.execute(query, (verdict,) if verdict else ()):
                yield _checked_item(row)

    def in_order(self) -> Iterator[CheckedItem]:
        """Yield all items by number."""
        with self._open() as base:
            for row in base.execute("SELECT * FROM items ORDER BY number"):
                yield _checked_item(row)

    def counts(self, column: str) -> dict[str, int]:
        """Return the number of items by the value of a column, the MAX_GROUPS largest first."""
        query = (
            f"SELECT {column}, count(*) FROM items GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {MAX_GROUPS}"
        )
        with self._open() as base:
            return {row[0]: row[1] for row in base.execute(query)}

    def repeated_ids(self) -> list[tuple[str, int]]:
        """Return the ids of several items with their numbers of items, the most frequent first."""
        query = (
            "SELECT id, count(*) FROM items WHERE id != '' GROUP BY id HAVING count(*) > 1"
            f" ORDER BY 2 DESC, 1 LIMIT {MAX_GROUPS}"
        )
        with self._open() as base:
            return [(row[0], row[1]) for row in base.execute(query)]

    def undecoded_count(self) -> int:
        """Return how many items have replacement characters for invalid bytes."""
        # Rows are stored as ASCII.
        escaped = json.dumps(REPLACEMENT).strip('"')
        with self._open() as base:
            query = "SELECT count(*) FROM items WHERE instr(rows, ?)"
            return int(base.execute(query, (escaped,)).fetchone()[0])

    def spellings(self, verdict: str) -> dict[int, str]:
        """Return class index -> its most frequent tag among the items with a verdict."""
        query = (
            "SELECT class_index, tag FROM items WHERE verdict = ? GROUP BY 1, 2"
            " ORDER BY count(*), tag"
        )
        with self._open() as base:
            return dict(base.execute(query, (verdict,)).fetchall())

    def pairs(self, verdict: str) -> list[tuple[str, str, int]]:
        """Return pairs of a label and the most probable one with their number of items.

        Args:
            verdict: Only items with this verdict.

        Returns:
            Label of the tag, most probable label and number, the most frequent first.
        """
        query = (
            "SELECT label, suggested, count(*) FROM items WHERE verdict = ?"
            f" GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT {MAX_GROUPS}"
        )
        with self._open() as base:
            return [(row[0], row[1], row[2]) for row in base.execute(query, (verdict,))]


def _prediction_batch(rows: Sequence[sqlite3.Row]) -> PredictionBatch:
    probabilities = np.stack([np.frombuffer(row["probabilities"], np.float32) for row in rows])
    return PredictionBatch(
        [row["number"] for row in rows],
        probabilities.astype(np.float64),
        np.array([row["class_index"] for row in rows], np.int64),
        np.array([row["cost"] for row in rows], np.float64),
    )


def _item_row(prediction: ItemPrediction) -> tuple[Any, ...]:
    item, photo = prediction.item, prediction.photo
    values = photo.probabilities
    probabilities = None if values is None else values.astype(np.float32).tobytes()
    features = None if photo.features is None else photo.features.tobytes()
    row = (
        *(item.number, item.id, item.image, item.tag, item.label, prediction.class_index),
        item.cost,
        # ASCII: JSON may have lone surrogates, which SQLite can't store.
        json.dumps(list(item.rows), default=str),
        *(item.image_id, prediction.sha256),
        *(prediction.problem or photo.problem, item.note, photo.no_garment_reason),
        *(probabilities, features),
        json.dumps(list(photo.nearest), ensure_ascii=False),
    )
    return tuple(map(_storable, row))


def _storable(value: Any) -> Any:
    """Replace lone surrogates in text, which UTF-8 can't encode."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return value


def _checked_item(row: sqlite3.Row) -> CheckedItem:
    values = {name: row[name] for name in CheckedItem.__dataclass_fields__}
    values |= {name: json.loads(row[name]) for name in ("rows", "nearest")}
    return CheckedItem(**values)
