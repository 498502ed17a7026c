"""Trunk outputs on disk, so that a photo goes through a trunk once in its life.

One SQLite file a trunk; a row holds what one view of one photo gave. Rows are written in one
transaction a batch: a process that is killed loses the batch it was at.
"""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.errors import Failure

DTYPE = np.float16
EXACT = np.float32
# SQLite's own limit of values in one question is higher everywhere.
ASKED = 500


def default_folder() -> Path:
    """Where trunk outputs are kept when nobody says: the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fashion-tagger" / "trunk-outputs"


@dataclass(frozen=True)
class OutputsCache:
    """The outputs of the network KEY in FOLDER, by names of views, unlike for unlike ones."""

    folder: Path
    key: str
    dtype: type = DTYPE

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self.folder / f"{self.key}.sqlite"

    def get(self, views: Sequence[str]) -> dict[str, np.ndarray]:
        """What is kept of VIEWS: name -> (width,); the others are missing."""
        found: dict[str, np.ndarray] = {}
        with closing(self._open()) as base:
            for start in range(0, len(views), ASKED):
                some = views[start : start + ASKED]
                marks = ",".join("?" * len(some))
                asked = f"SELECT view, value FROM outputs WHERE view IN ({marks})"
                for view, value in base.execute(asked, some):
                    found[view] = np.frombuffer(value, self.dtype)
        return found

    def put(self, outputs: Mapping[str, np.ndarray]) -> None:
        """Keep OUTPUTS, name of a view -> (width,) float."""
        rows = [(view, value.astype(self.dtype).tobytes()) for view, value in outputs.items()]
        with closing(self._open()) as base, base:
            base.executemany("INSERT OR REPLACE INTO outputs VALUES (?, ?)", rows)

    def _open(self) -> sqlite3.Connection:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            base = sqlite3.connect(self.path, timeout=60)
            base.execute(
                "CREATE TABLE IF NOT EXISTS outputs"
                " (view TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
            )
        except (sqlite3.Error, OSError) as error:
            raise Failure(
                f"the cache of trunk outputs {self.path} can't be used: {error}; remove the file,"
                " or name another folder with --cache"
            ) from error
        return base
