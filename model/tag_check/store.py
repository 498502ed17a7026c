"""What was looked at and what came of it, in one SQLite file: memory does not grow with a feed."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dataset.errors import Failure
from model.feeds.product_feed import REPLACEMENT
from model.feeds.sources import Item

SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
  number INTEGER PRIMARY KEY, id TEXT, image TEXT, tag TEXT, label TEXT, place INTEGER, cost REAL,
  fields TEXT, image_id INTEGER, sha256 TEXT, zone TEXT, problem TEXT, unseen TEXT, shares BLOB,
  nearest TEXT, verdict TEXT, suggested TEXT, probability REAL, given REAL, margin REAL,
  expected REAL
);
CREATE INDEX IF NOT EXISTS by_cost ON items (expected DESC, number);
CREATE INDEX IF NOT EXISTS by_photo ON items (sha256, zone);
"""
READ = 2_000
# So many different reasons and pairs are told; a broken feed may have one a row.
MOST = 100
COLUMNS = (
    *("number", "id", "image", "tag", "label", "place", "cost", "fields", "image_id", "sha256"),
    *("zone", "problem", "unseen", "shares", "nearest"),
)
# What is not known of an item sorts last; by this index, for sorting takes memory.
RANKED = "ORDER BY expected DESC, number"
JUDGED = "shares IS NOT NULL AND place IS NOT NULL AND unseen = ''"


@dataclass(frozen=True)
class Sight:
    """What was seen in a photo. `shares`: (classes,) calibrated, None: not looked at.

    `unseen`: why no garment is seen.
    """

    problem: str = ""
    unseen: str = ""
    shares: np.ndarray | None = None
    nearest: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True)
class Look:
    """What was seen in an item's photo, and what is wrong with it or its tag.

    `place`: its label's in the model's labels, or None.
    """

    item: Item
    place: int | None
    sha256: str = ""
    sight: Sight = field(default_factory=Sight)
    problem: str = ""


@dataclass(frozen=True)
class Given:
    """Items with what is needed to judge their tags, n of each.

    `shares`: (n, classes) float64; `places`: of tags, (n,) int; `costs`: (n,).
    """

    numbers: list[int]
    shares: np.ndarray
    places: np.ndarray
    costs: np.ndarray


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

    def seen_before(self, sha256: str, zone: str | None) -> Sight | None:
        """What was seen in the photo SHA256 for garments of ZONE."""
        query = (
            "SELECT problem, unseen, shares, nearest FROM items WHERE sha256 = ? AND zone IS ?"
            " LIMIT 1"
        )
        with self._open() as base:
            row = base.execute(query, (sha256, zone)).fetchone()
        if row is None:
            return None
        shares = None if row["shares"] is None else np.frombuffer(row["shares"], np.float32)
        # What else is wrong with an item is of its tag.
        problem = row["problem"] if shares is None else ""
        return Sight(problem, row["unseen"], shares, json.loads(row["nearest"]))

    def judged(self) -> int:
        """How many items have tags that can be judged."""
        with self._open() as base:
            query = f"SELECT count(*) FROM items WHERE {JUDGED}"
            return int(base.execute(query).fetchone()[0])

    def shares(self) -> Iterator[Given]:
        """The items that can be judged, in their order, READ at a time; they may be answered."""
        query = (
            f"SELECT number, shares, place, cost FROM items WHERE {JUDGED} AND number > ?"
            " ORDER BY number LIMIT ?"
        )
        last = 0
        while True:
            with self._open() as base:
                rows = base.execute(query, (last, READ)).fetchall()
            if not rows:
                return
            yield _given(rows)
            last = rows[-1]["number"]

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
        """How many items there are of each value of COLUMN, the MOST commonest first."""
        query = f"SELECT {column}, count(*) FROM items GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {MOST}"
        with self._open() as base:
            return {row[0]: row[1] for row in base.execute(query)}

    def undecoded(self) -> int:
        """Return how many items have characters in place of invalid bytes in their fields."""
        # Fields are stored as ASCII.
        escaped = json.dumps(REPLACEMENT).strip('"')
        with self._open() as base:
            query = "SELECT count(*) FROM items WHERE instr(fields, ?)"
            return int(base.execute(query, (escaped,)).fetchone()[0])

    def spellings(self, verdict: str) -> dict[int, str]:
        """How the tag of each place in the model's labels is written most often, by VERDICT."""
        query = (
            "SELECT place, tag FROM items WHERE verdict = ? GROUP BY 1, 2 ORDER BY count(*), tag"
        )
        with self._open() as base:
            return dict(base.execute(query, (verdict,)).fetchall())

    def mistakes(self) -> list[tuple[str, str, int]]:
        """Tag, suggestion, and how many mistakes are of these, the most first."""
        query = (
            "SELECT label, suggested, count(*) FROM items WHERE verdict = 'mistake'"
            f" GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT {MOST}"
        )
        with self._open() as base:
            return [(row[0], row[1], row[2]) for row in base.execute(query)]


def _given(rows: Sequence[sqlite3.Row]) -> Given:
    return Given(
        [row["number"] for row in rows],
        np.stack([np.frombuffer(row["shares"], np.float32) for row in rows]).astype(np.float64),
        np.array([row["place"] for row in rows], np.int64),
        np.array([row["cost"] for row in rows], np.float64),
    )


def _row(look: Look) -> tuple[Any, ...]:
    item, sight = look.item, look.sight
    shares = None if sight.shares is None else sight.shares.astype(np.float32).tobytes()
    # Escaped, for JSON may hold lone surrogates, which SQLite can't store.
    fields = json.dumps(item.fields, default=str)
    known = (item.number, item.id, item.image, item.tag, item.label, look.place, item.cost)
    near = json.dumps(list(sight.nearest), ensure_ascii=False)
    zone = item.wanted.zone if item.wanted else None
    seen = (look.sha256, zone, look.problem or sight.problem, sight.unseen, shares, near)
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
