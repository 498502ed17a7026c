"""Trunk outputs on disk, so that a photo goes through a trunk once in its life.

One SQLite file a trunk; a row holds what one view of one photo gave. Rows are written in one
transaction a batch: a process that is killed loses the batch it was at.
"""

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from dataset.errors import Failure
from model.data.augmentation import Augmentation
from model.data.loading import Data, Example, boxed, digests, read, targets_of
from model.network.inception import letterbox_layer

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


BATCH, CHUNK = 32, 256
NOTHING = Augmentation()


@dataclass(frozen=True)
class Outputs:
    """Trunk outputs of the readable photos of a split. `targets`: (n,) int, places in the labels.

    `values`: (n, views, width) float16, the unchanged photo's first; `unreadable`: path -> reason.
    """

    examples: list[Example]
    values: np.ndarray
    targets: np.ndarray
    unreadable: dict[str, str]


@dataclass(frozen=True)
class Views:
    """How a photo is shown to a frozen trunk: as it is, then AUGMENTATION's draws, COUNT in all.

    Draws hang on the photo and the augmentation alone, so that every later training finds them.
    """

    augmentation: Augmentation = NOTHING
    count: int = 1

    def names(self, seen: str) -> list[str]:
        """A name for each view of the photo SEEN, as `digests`; unlike ones for unlike views."""
        if not self.augmentation:
            return [f"{seen} plain"]
        # A mirror alone has two views, however many are asked for.
        count = min(self.count, 2) if self.augmentation.mirrors_only else self.count
        changed = [f"{seen} {self.augmentation} #{number}" for number in range(1, count)]
        return [f"{seen} plain", *changed]

    def show(self, pixels: np.ndarray, name: str) -> np.ndarray:
        """PIXELS, (size, size, 3) uint8, as the view NAME shows them."""
        if name.endswith(" plain"):
            return pixels
        rng = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
        return self.augmentation.apply(pixels, rng, mirror=int(name.rpartition("#")[2]) % 2 == 1)


@dataclass(frozen=True)
class Extractor:
    """A trunk that is asked for outputs. `features`: pixels, (batch, size, size, 3) -> outputs."""

    features: keras.Model
    cache: OutputsCache

    def outputs(self, data: Data, split: str, views: Views) -> Outputs:
        """What the trunk says of the photos of SPLIT, out of the cache where it is there."""
        unreadable: dict[str, str] = {}
        examples: list[Example] = []
        parts = [np.zeros((0, len(views.names("")), int(self.features.output.shape[-1])), DTYPE)]
        wanted = data.of(split)
        with tqdm(total=len(wanted), desc=f"trunk, {split}", unit=" photos", disable=None) as bar:
            for start in range(0, len(wanted), CHUNK):
                some = wanted[start : start + CHUNK]
                found = self._chunk(data, some, views, unreadable)
                examples += found
                parts += [np.stack(values)[None] for values in found.values()]
                bar.update(len(some))
        targets = targets_of(examples, data.labels)
        return Outputs(examples, np.concatenate(parts), targets, unreadable)

    def _chunk(
        self, data: Data, some: Sequence[Example], views: Views, unreadable: dict[str, str]
    ) -> dict[Example, list[np.ndarray]]:
        shas = digests(data.folder, some, unreadable)
        names = {example: views.names(sha) for example, sha in shas.items()}
        known = self.cache.get([name for mine in names.values() for name in mine])
        lacking = [one for one, mine in names.items() if any(name not in known for name in mine)]
        for batch in self._batches(
            data, {one: names[one] for one in lacking}, views, known, unreadable
        ):
            outputs = np.asarray(self.features.predict_on_batch(np.stack(list(batch.values()))))
            new = dict(zip(batch, _finite(outputs), strict=True))
            self.cache.put(new)
            known |= new
        return {
            one: [known[name] for name in mine]
            for one, mine in names.items()
            if one.path not in unreadable
        }

    def _batches(
        self,
        data: Data,
        lacking: Mapping[Example, Sequence[str]],
        views: Views,
        known: Mapping[str, np.ndarray],
        unreadable: dict[str, str],
    ) -> Iterator[dict[str, np.ndarray]]:
        """Views of LACKING that are not KNOWN, name -> pixels, at most BATCH at once."""
        batch: dict[str, np.ndarray] = {}
        size = int(self.features.input.shape[1])
        for example, photo in read(data.folder, list(lacking), partial(boxed, size=size)):
            if isinstance(photo, str):
                unreadable[example.path] = photo
                continue
            for name in lacking[example]:
                if name in known:
                    continue
                batch[name] = views.show(photo, name)
                if len(batch) == BATCH:
                    yield batch
                    batch = {}
        if batch:
            yield batch


def _finite(outputs: np.ndarray) -> np.ndarray:
    """OUTPUTS as they are kept, which must be numbers: broken weights are told from here on."""
    with np.errstate(over="ignore"):
        kept = outputs.astype(DTYPE)
    if not np.isfinite(kept).all():
        raise Failure(
            "the trunk answers photos with numbers that are not finite, or too large:"
            " --weights are broken, or try --precision float32"
        )
    return kept


def raw_logits(
    network: keras.Model, data: Data, split: str, unreadable: dict[str, str]
) -> tuple[list[Example], np.ndarray]:
    """What NETWORK, pixels -> logits, says of the photos of SPLIT by the saved model's own path.

    (n, classes) float32 for the readable ones; why the others can't be read goes into UNREADABLE.
    """
    size = int(network.input.shape[1])
    letterbox = letterbox_layer(size)
    examples: list[Example] = []
    parts = [np.zeros((0, int(network.output.shape[-1])), np.float32)]
    batch: list[np.ndarray] = []
    for example, photo in read(data.folder, data.of(split), np.asarray):
        if isinstance(photo, str):
            unreadable[example.path] = photo
            continue
        examples.append(example)
        # Photos differ in size, so that each goes through the letterbox alone.
        batch.append(keras.ops.convert_to_numpy(letterbox(photo[None].astype(np.float32)))[0])
        if len(batch) == BATCH:
            parts.append(np.asarray(network.predict_on_batch(np.stack(batch))))
            batch = []
    if batch:
        parts.append(np.asarray(network.predict_on_batch(np.stack(batch))))
    return examples, np.concatenate(parts)
