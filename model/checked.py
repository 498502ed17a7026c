"""What was looked at and what came of it, in one SQLite file: memory does not grow with a feed."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.errors import Failure
from model.items import Item

SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
  number INTEGER PRIMARY KEY, id TEXT, image TEXT, tag TEXT, label TEXT, place INTEGER, cost REAL,
  fields TEXT, image_id INTEGER, sha256 TEXT, problem TEXT, unseen TEXT, shares BLOB,
  nearest TEXT, verdict TEXT, suggested TEXT, probability REAL, given REAL, margin REAL,
  expected REAL
);
CREATE INDEX IF NOT EXISTS by_cost ON items (expected DESC, number);
"""
READ = 5_000
COLUMNS = (
    *("number", "id", "image", "tag", "label", "place", "cost", "fields", "image_id", "sha256"),
    *("problem", "unseen", "shares", "nearest"),
)
# What is not known of an item sorts last.
RANKED = "ORDER BY expected IS NULL, expected DESC, number"


@dataclass(frozen=True)
class Look:
    """What was seen in an item's photo. `shares`: (classes,) calibrated, None: not looked at.

    `place`: its label's in the model's labels, or None. `unseen`: why no garment is seen.
    """

    item: Item
    place: int | None
    sha256: str = ""
    problem: str = ""
    unseen: str = ""
    shares: np.ndarray | None = None
    nearest: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True)
class Answer:
    """What is said of an item's tag, see `verdicts`; numbers are None where nothing was judged."""

    number: int
    verdict: str
    suggested: str | None = None
    probability: float | None = None
    given: float | None = None
    margin: float | None = None
    expected: float | None = None


@dataclass(frozen=True)
class Checked:
    """An item with all that is known of it."""

    number: int
    id: str
    image: str
    tag: str
    label: str
    fields: dict[str, Any]
    image_id: int | None
    problem: str
    unseen: str
    nearest: list[dict[str, Any]]
    verdict: str
    suggested: str | None
    probability: float | None
    given: float | None
    margin: float | None
    expected: float | None

    @property
    def reason(self) -> str:
        """Why nothing could be said of it, or nothing was seen; else empty."""
        return self.problem or self.unseen


class Store:
    """The file at PATH, made where it is not there. Each call is a transaction of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as base:
            base.executescript(SCHEMA)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The file, opened; what goes wrong with it is said in one line."""
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as base, base:
                base.row_factory = sqlite3.Row
                yield base
        except sqlite3.Error as error:
            raise Failure(
                f"{self.path} can't be used: {error}; make room, or remove {self.path.parent} and"
                " check anew"
            ) from error

    def last(self) -> int:
        """The number of the last item that was looked at, 0 for none: they come in order."""
        with self._open() as base:
            found: int = base.execute("SELECT coalesce(max(number), 0) FROM items").fetchone()[0]
            return found

    def id_of(self, number: int) -> str:
        """The id of the item NUMBER."""
        with self._open() as base:
            query = "SELECT id FROM items WHERE number = ?"
            return str(base.execute(query, (number,)).fetchone()[0])

    def add(self, looks: Sequence[Look]) -> None:
        """Keep LOOKS."""
        rows = [_row(look) for look in looks]
        marks = ", ".join("?" * len(COLUMNS))
        with self._open() as base:
            base.executemany(f"INSERT INTO items ({', '.join(COLUMNS)}) VALUES ({marks})", rows)

    def judged(self) -> list[int]:
        """Numbers of the items whose tags can be judged."""
        query = "SELECT number FROM items WHERE shares IS NOT NULL AND place IS NOT NULL"
        with self._open() as base:
            return [row[0] for row in base.execute(f"{query} AND unseen = '' ORDER BY number")]

    def shares(self, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of NUMBERS, ascending: shares (n, classes), places of tags (n,) int, and costs (n,)."""
        rows = []
        with self._open() as base:
            for start in range(0, len(numbers), 500):
                some = numbers[start : start + 500]
                marks = ",".join("?" * len(some))
                query = f"SELECT shares, place, cost FROM items WHERE number IN ({marks})"
                rows += base.execute(f"{query} ORDER BY number", some).fetchall()
        shares = np.stack([np.frombuffer(row[0], np.float32) for row in rows])
        places = np.array([row[1] for row in rows], np.int64)
        return shares.astype(np.float64), places, np.array([row[2] for row in rows])

    def answer(self, answers: Sequence[Answer]) -> None:
        """Keep ANSWERS beside their items."""
        rows = [
            (a.verdict, a.suggested, a.probability, a.given, a.margin, a.expected, a.number)
            for a in answers
        ]
        with self._open() as base:
            base.executemany(
                "UPDATE items SET verdict = ?, suggested = ?, probability = ?, given = ?,"
                " margin = ?, expected = ? WHERE number = ?",
                rows,
            )

    def unanswered(self, verdict: str, where: str) -> None:
        """Give VERDICT to the items that the SQL condition WHERE holds for."""
        with self._open() as base:
            base.execute(
                "UPDATE items SET verdict = ?, suggested = NULL, probability = NULL, given = NULL,"
                f" margin = NULL, expected = NULL WHERE {where}",
                (verdict,),
            )

    def ranked(self, verdict: str | None = None, most: int = -1) -> Iterator[Checked]:
        """Items, of one VERDICT or all, the highest expected cost first, MOST at most."""
        where = "WHERE verdict = ?" if verdict else ""
        with self._open() as base:
            asked = f"SELECT * FROM items {where} {RANKED} LIMIT {int(most)}"
            for row in base.execute(asked, (verdict,) if verdict else ()):
                yield _checked(row)

    def in_order(self) -> Iterator[Checked]:
        """Items in the order that they came in."""
        with self._open() as base:
            for row in base.execute("SELECT * FROM items ORDER BY number"):
                yield _checked(row)

    def counts(self, column: str) -> dict[str, int]:
        """How many items there are of each value of COLUMN, the commonest first."""
        query = f"SELECT {column}, count(*) FROM items GROUP BY 1 ORDER BY 2 DESC, 1"
        with self._open() as base:
            return {row[0]: row[1] for row in base.execute(query)}

    def mistakes(self) -> list[tuple[str, str, int]]:
        """Tag, suggestion, and how many mistakes are of these, the most first."""
        query = (
            "SELECT label, suggested, count(*) FROM items WHERE verdict = 'mistake'"
            " GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"
        )
        with self._open() as base:
            return [(row[0], row[1], row[2]) for row in base.execute(query)]


def _row(look: Look) -> tuple[Any, ...]:
    item = look.item
    shares = None if look.shares is None else look.shares.astype(np.float32).tobytes()
    fields = json.dumps(item.fields, ensure_ascii=False, default=str)
    known = (item.number, item.id, item.image, item.tag, item.label, look.place, item.cost)
    near = json.dumps(list(look.nearest), ensure_ascii=False)
    seen = (look.sha256, look.problem, look.unseen, shares, near)
    return tuple(map(_storable, (*known, fields, item.image_id, *seen)))


def _storable(value: Any) -> Any:
    """VALUE; text without the halves of signs that UTF-8 has no bytes for."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return value


def _checked(row: sqlite3.Row) -> Checked:
    names = Checked.__dataclass_fields__
    values = {name: row[name] for name in names}
    values |= {name: json.loads(row[name]) for name in ("fields", "nearest")}
    return Checked(**values)
