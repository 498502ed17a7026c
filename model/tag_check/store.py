"""Store items with predictions and verdicts in an SQLite file, so that memory stays small.

There is a row for each tag of an item.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dataset.errors import Failure
from dataset.feeds.tables import REPLACEMENT
from model.feeds.sources import ListedTag, TaggedItem
from model.tag_check.noise_model import MISSING

SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
  key INTEGER PRIMARY KEY, number INTEGER, id TEXT, image TEXT, tag TEXT, label TEXT,
  class_index INTEGER, feed_column TEXT, tag_facet TEXT, facet TEXT, excluded TEXT, cost REAL,
  rows TEXT, image_id INTEGER, sha256 TEXT, problem TEXT,
  note TEXT, no_garment_reason TEXT, probabilities BLOB, features BLOB, nearest TEXT,
  verdict TEXT, suggested TEXT,
  probability REAL, tag_probability REAL, margin REAL, expected_cost REAL,
  learning_rank INTEGER
);
CREATE INDEX IF NOT EXISTS by_number ON items (number);
CREATE INDEX IF NOT EXISTS by_cost ON items (expected_cost DESC, key);
CREATE INDEX IF NOT EXISTS by_photo ON items (sha256);
"""
BATCH_ROWS = 2_000
# Distinct reasons and pairs that are returned at most; a broken feed may have one per row.
MAX_GROUPS = 100
PREDICTION_COLUMNS = (
    *("number", "id", "image", "tag", "label", "class_index", "feed_column", "tag_facet"),
    *("facet", "excluded", "cost", "rows", "image_id"),
    *("sha256", "problem", "note", "no_garment_reason", "probabilities", "features", "nearest"),
    *("verdict", "suggested", "probability"),
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
RANK_ORDER = "ORDER BY expected_cost DESC, key"
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
    """A tag of an item with the prediction for its photo.

    Attributes:
        item: The item.
        class_index: Class index of the tag's label; None if the model does not have it.
        sha256: SHA-256 of the photo.
        photo: The prediction.
        problem: Why the tag can't be checked, or empty.
        tag: The tag, if the item has several; None: that of the item.
        facet: The facet of the label; empty for a model of one label per photo.
        excluded: Class indices of labels that do not exclude the tag's, although they are of the
            same facet: those of the item's other tags, for a model of one label per photo.
        proposal: A label that no tag of the item names, and its probability; the tag is empty.
    """

    item: TaggedItem
    class_index: int | None
    sha256: str = ""
    photo: PhotoPrediction = field(default_factory=PhotoPrediction)
    problem: str = ""
    tag: ListedTag | None = None
    facet: str = ""
    excluded: Sequence[int] = ()
    proposal: tuple[str, float] | None = None


@dataclass(frozen=True)
class PredictionBatch:
    """Predictions for n tags.

    Attributes:
        keys: Keys of the tags.
        probabilities: Float64 array of shape (n, size of the facet); rows sum to 1.
        class_indices: Indices of the tags within the facet, shape (n,).
        costs: Costs of wrong tags, shape (n,).
    """

    keys: list[int]
    probabilities: np.ndarray
    class_indices: np.ndarray
    costs: np.ndarray


@dataclass(frozen=True)
class ItemVerdict:
    """The verdict on a tag; see `Verdicts`. Values are None without a prediction."""

    key: int
    verdict: str
    suggested: str | None = None
    probability: float | None = None
    tag_probability: float | None = None
    margin: float | None = None
    expected_cost: float | None = None


@dataclass(frozen=True)
class CheckedItem:
    """A tag of an item with its prediction and verdict.

    Attributes:
        feed_column: Column of the feed with the tag, if it is one of several of an item.
        tag_facet: Facet of that column, or empty.
        facet: Facet of the label, or empty.
    """

    key: int
    number: int
    id: str
    image: str
    tag: str
    label: str
    feed_column: str
    tag_facet: str
    facet: str
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
            query = "SELECT id FROM items WHERE number = ? LIMIT 1"
            return str(base.execute(query, (number,)).fetchone()[0])

    def add(self, predictions: Sequence[ItemPrediction]) -> None:
        """Store tags of items with their predictions; all of an item at once."""
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

    def prediction_count(self, facet: str) -> int:
        """Return the number of tags of a facet that can be checked."""
        with self._open() as base:
            query = f"SELECT count(*) FROM items WHERE {HAS_PREDICTION} AND facet = ?"
            return int(base.execute(query, (facet,)).fetchone()[0])

    def predictions(self, facet: str, members: Sequence[int]) -> Iterator[PredictionBatch]:
        """Yield the tags of a facet that can be checked, BATCH_ROWS at a time.

        An unknown cost is the mean of the known ones. Verdicts may be stored meanwhile.

        Args:
            facet: The facet.
            members: Class indices of its labels.
        """
        with self._open() as base:
            (mean,) = base.execute("SELECT coalesce(avg(cost), 1) FROM items").fetchone()
        query = (
            "SELECT key, probabilities, class_index, excluded, coalesce(cost, ?) AS cost"
            f" FROM items WHERE {HAS_PREDICTION} AND facet = ? AND key > ? ORDER BY key LIMIT ?"
        )
        last = 0
        while True:
            with self._open() as base:
                rows = base.execute(query, (mean, facet, last, BATCH_ROWS)).fetchall()
            if not rows:
                return
            yield _prediction_batch(rows, members)
            last = rows[-1]["key"]

    def most_uncertain(
        self, verdicts: Sequence[str], limit: int, members: Mapping[str, Sequence[int]]
    ) -> tuple[list[int], np.ndarray, np.ndarray]:
        """Return the tags of a catalogue with some verdicts, the closest predictions first.

        Args:
            verdicts: The verdicts.
            limit: Number of tags, at most.
            members: Facet -> class indices of its labels.

        Returns:
            Keys of n tags, probabilities of shape (n, classes), which are 0 outside the tag's
            facet, and features of shape (n, width).
        """
        marks = ", ".join("?" * len(verdicts))
        query = (
            f"SELECT key, facet, probabilities, features FROM items WHERE verdict IN ({marks})"
            " AND image_id IS NOT NULL AND features IS NOT NULL"
            " ORDER BY abs(margin), key LIMIT ?"
        )
        with self._open() as base:
            rows = base.execute(query, (*verdicts, limit)).fetchall()
        return (
            [row["key"] for row in rows],
            np.array([_facet_row(row, members) for row in rows]),
            np.array([np.frombuffer(row["features"], np.float16) for row in rows], np.float32),
        )

    def save_learning_ranks(self, keys: Sequence[int]) -> None:
        """Store the ranks of tags, which are in the order of their ranks."""
        rows = list(enumerate(keys))
        with self._open() as base:
            base.executemany("UPDATE items SET learning_rank = ? WHERE key = ?", rows)

    def save_verdicts(self, verdicts: Sequence[ItemVerdict]) -> None:
        """Store the verdicts on tags."""
        columns = ", ".join(f"{column} = :{column}" for column in VERDICT_COLUMNS)
        with self._open() as base:
            base.executemany(
                f"UPDATE items SET {columns} WHERE key = :key", list(map(vars, verdicts))
            )

    def set_verdict(self, verdict: str, where: str) -> None:
        """Store a verdict without a prediction.

        Args:
            verdict: The verdict.
            where: SQL condition of the tags.
        """
        nulls = ", ".join(f"{column} = NULL" for column in VERDICT_COLUMNS[1:])
        with self._open() as base:
            base.execute(f"UPDATE items SET verdict = ?, {nulls} WHERE {where}", (verdict,))

    def ranked(self, verdict: str | None = None, limit: int = -1) -> Iterator[CheckedItem]:
        """Yield tags with the highest expected cost first.

        Args:
            verdict: Only tags with this verdict.
            limit: Number of tags, at most; -1: all.
        """
        where = "WHERE verdict = ?" if verdict else ""
        with self._open() as base:
            query = f"SELECT * FROM items {where} {RANK_ORDER} LIMIT {int(limit)}"
            for row in base.execute(query, (verdict,) if verdict else ()):
                yield _checked_item(row)

    def in_order(self) -> Iterator[CheckedItem]:
        """Yield all tags, those of an item together."""
        with self._open() as base:
            for row in base.execute("SELECT * FROM items ORDER BY key"):
                yield _checked_item(row)

    def item_count(self) -> int:
        """Return the number of items."""
        with self._open() as base:
            return int(base.execute("SELECT count(DISTINCT number) FROM items").fetchone()[0])

    def has_tag_lists(self) -> bool:
        """Return whether an item has several tags."""
        with self._open() as base:
            query = "SELECT EXISTS (SELECT 1 FROM items WHERE feed_column != '')"
            return bool(base.execute(query).fetchone()[0])

    def counts(self, column: str, facet: str | None = None) -> dict[str, int]:
        """Return the number of tags by the value of a column, the MAX_GROUPS largest first.

        Args:
            column: The column.
            facet: Only tags of this facet.
        """
        where, values = ("WHERE facet = ?", (facet,)) if facet is not None else ("", ())
        query = (
            f"SELECT {column}, count(*) FROM items {where} GROUP BY 1 ORDER BY 2 DESC, 1"
            f" LIMIT {MAX_GROUPS}"
        )
        with self._open() as base:
            return {row[0]: row[1] for row in base.execute(query, values)}

    def repeated_ids(self) -> list[tuple[str, int]]:
        """Return the ids of several items with their numbers of items, the most frequent first."""
        query = (
            "SELECT id, count(DISTINCT number) FROM items WHERE id != '' GROUP BY id"
            f" HAVING count(DISTINCT number) > 1 ORDER BY 2 DESC, 1 LIMIT {MAX_GROUPS}"
        )
        with self._open() as base:
            return [(row[0], row[1]) for row in base.execute(query)]

    def undecoded_count(self) -> int:
        """Return how many items have replacement characters for invalid bytes."""
        # Rows are stored as ASCII.
        escaped = json.dumps(REPLACEMENT).strip('"')
        with self._open() as base:
            query = "SELECT count(DISTINCT number) FROM items WHERE instr(rows, ?)"
            return int(base.execute(query, (escaped,)).fetchone()[0])

    def spellings(self, verdict: str) -> dict[int, str]:
        """Return class index -> its most frequent tag among those with a verdict."""
        query = (
            "SELECT class_index, tag FROM items WHERE verdict = ? GROUP BY 1, 2"
            " ORDER BY count(*), tag"
        )
        with self._open() as base:
            return dict(base.execute(query, (verdict,)).fetchall())

    def pairs(self, verdict: str) -> list[tuple[str, str, int]]:
        """Return pairs of a label and the most probable one with their number of tags.

        Args:
            verdict: Only tags with this verdict.

        Returns:
            Label of the tag, most probable label and number, the most frequent first.
        """
        query = (
            "SELECT label, suggested, count(*) FROM items WHERE verdict = ?"
            f" GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT {MAX_GROUPS}"
        )
        with self._open() as base:
            return [(row[0], row[1], row[2]) for row in base.execute(query, (verdict,))]


def _prediction_batch(rows: Sequence[sqlite3.Row], members: Sequence[int]) -> PredictionBatch:
    stored = np.stack([np.frombuffer(row["probabilities"], np.float32) for row in rows])
    probabilities = stored.astype(np.float64)
    for values, row in zip(probabilities, rows, strict=True):
        values[json.loads(row["excluded"])] = 0.0
    is_whole = len(members) == probabilities.shape[1] and not any(
        row["excluded"] != "[]" for row in rows
    )
    if not is_whole:
        probabilities = normalize_rows(probabilities[:, list(members)])
    positions = {class_index: position for position, class_index in enumerate(members)}
    return PredictionBatch(
        [row["key"] for row in rows],
        probabilities,
        np.array([positions[row["class_index"]] for row in rows], np.int64),
        np.array([row["cost"] for row in rows], np.float64),
    )


def normalize_rows(probabilities: np.ndarray) -> np.ndarray:
    """Scale probabilities so that rows sum to 1."""
    total = probabilities.sum(axis=1, keepdims=True)
    normalized: np.ndarray = probabilities / np.maximum(total, np.finfo(np.float64).tiny)
    return normalized


def _facet_row(row: sqlite3.Row, members: Mapping[str, Sequence[int]]) -> np.ndarray:
    """Return the probabilities of a tag's facet, and 0 for other labels."""
    stored = np.frombuffer(row["probabilities"], np.float32)
    own = list(members[row["facet"]])
    if len(own) == len(stored):
        return stored
    values = np.zeros_like(stored)
    values[own] = normalize_rows(stored[None, own])[0]
    return values


def _item_row(prediction: ItemPrediction) -> tuple[Any, ...]:
    item, photo = prediction.item, prediction.photo
    values = photo.probabilities
    probabilities = None if values is None else values.astype(np.float32).tobytes()
    features = None if photo.features is None else photo.features.tobytes()
    tag = prediction.tag or ListedTag(item.tag, item.label)
    verdict = (MISSING, *prediction.proposal) if prediction.proposal else (None, None, None)
    row = (
        *(item.number, item.id, item.image, tag.tag, tag.label, prediction.class_index),
        *(tag.column, tag.facet, prediction.facet, json.dumps(list(prediction.excluded))),
        item.cost,
        # ASCII: JSON may have lone surrogates, which SQLite can't store.
        json.dumps(list(item.rows), default=str),
        *(item.image_id, prediction.sha256),
        *(prediction.problem or photo.problem, item.note, photo.no_garment_reason),
        *(probabilities, features),
        json.dumps(list(photo.nearest), ensure_ascii=False),
        *verdict,
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
