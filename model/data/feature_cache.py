"""A cache of network outputs on disk.

It is one SQLite file per network, with a row per view of a photo. Rows are written in one
transaction per batch, so a killed process loses one batch at most.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.errors import Failure
from dataset.images.io import PIXELS_VERSION

CACHE_DTYPE = np.float16
EXACT_DTYPE = np.float32
# Below SQLite's own limit of parameters per statement.
MAX_SQL_VALUES = 500


def default_cache_folder() -> Path:
    """Return the folder of cached features in the user's cache folder."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise Failure("there is no home folder; name a folder of cached features: --cache") from (
            error
        )
    return Path(base) / "fashion-tagger" / "features"


@dataclass(frozen=True)
class FeatureCache:
    """A cache of network outputs by the name of a view.

    Attributes:
        folder: Folder of the SQLite file.
        key: Name of the file; must be different for networks with different outputs.
        dtype: NumPy type of the stored values.
    """

    folder: Path
    key: str
    dtype: type = CACHE_DTYPE

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self.folder / f"{self.key}.sqlite"

    def get(self, views: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the cached outputs of some views, name -> array of shape (width,)."""
        outputs: dict[str, np.ndarray] = {}
        with self._open() as base:
            for start in range(0, len(views), MAX_SQL_VALUES):
                names = views[start : start + MAX_SQL_VALUES]
                marks = ",".join("?" * len(names))
                query = f"SELECT view, value FROM outputs WHERE view IN ({marks})"
                for view, value in base.execute(query, names):
                    outputs[view] = np.frombuffer(value, self.dtype)
        return outputs

    def put(self, outputs: Mapping[str, np.ndarray]) -> None:
        """Store outputs, name of a view -> array of shape (width,)."""
        rows = [(view, value.astype(self.dtype).tobytes()) for view, value in outputs.items()]
        with self._open() as base, base:
            base.executemany("INSERT OR REPLACE INTO outputs VALUES (?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the file.

        Raises:
            Failure: It can't be read or written: the disk is full, for example.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as base:
                base.execute(
                    "CREATE TABLE IF NOT EXISTS outputs"
                    " (view TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
                )
                (version,) = base.execute("PRAGMA user_version").fetchone()
                if version != PIXELS_VERSION:
                    # These are outputs of photos that were read in another way.
                    with base:
                        base.execute("DELETE FROM outputs")
                        base.execute(f"PRAGMA user_version = {PIXELS_VERSION}")
                yield base
        except (sqlite3.Error, OSError) as error:
            raise Failure(
                f"the feature cache {self.path} can't be used: {error}; free disk space or remove"
                " the file, or choose another folder with --cache"
            ) from error
