"""Predict the photos of items with a run's model, and cache the network outputs on disk."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from dataset.images.io import sha256_of
from dataset.utils import keras_backend
from dataset.utils.engines import LOCAL_ENGINE, Engine
from model.inference.output_cache import OutputCache, PhotoOutputs, stack_outputs, view_name
from model.inference.preprocessing import (
    PhotoInput,
    Preprocessor,
    describe_read_error,
)
from model.similar.index_file import IndexItem
from model.similar.sources import IndexEntry

if TYPE_CHECKING:
    from model.inference.predictor import NetworkOutputs, Predictor
    from model.inference.saved_run import SavedRun

CHUNK_SIZE = 256


@dataclass(frozen=True)
class CachedItem:
    """An item with cached network outputs.

    Attributes:
        item: The item.
        view: Name of its photo in the cache; empty if there is a problem.
        problem: Why the photo can't be used, or empty.
        photo: The photo.
    """

    item: IndexItem
    view: str = ""
    problem: str = ""
    photo: PhotoInput | None = None


@dataclass(frozen=True)
class Embedder:
    """A run's model with preprocessing and a cache of network outputs.

    Attributes:
        run: The run.
        folder: Folder of the cache; None: the default.
        engine: Runs the network.
    """

    run: "SavedRun"
    folder: Path | None = None
    engine: Engine = LOCAL_ENGINE

    @cached_property
    def predictor(self) -> "Predictor":
        """The run's network."""
        from model.inference.predictor import load_predictor

        return load_predictor(self.run)

    @property
    def cache_key(self) -> str:
        """Changes whenever the predictions would change."""
        return self.outputs.key

    @cached_property
    def outputs(self) -> OutputCache:
        """The cache of network outputs."""
        return OutputCache.of_run(self.run, self.predictor, self.folder)

    @cached_property
    def _preprocessor(self) -> Preprocessor:
        return Preprocessor(self.run.crop, self.run.build_options, self.predictor.size)

    def predict(self, entries: Iterator[IndexEntry]) -> Iterator[CachedItem]:
        """Predict entries and yield them as items with cached network outputs, in their order."""
        from model.inference.predictor import PredictionTask

        items: list[CachedItem] = []
        views: deque[str] = deque()
        problems: dict[str, str] = {}
        with tqdm(desc="photos", unit="", disable=None) as bar:
            task = PredictionTask(self.predictor.network, self._preprocessor)
            results = self.engine.map(task, self._missing(entries, items, views, bar))
            while batch := list(islice(results, task.batch_size)):
                outputs = {}
                for predicted in batch:
                    view = views.popleft()
                    if predicted.features is None or predicted.logits is None:
                        problems[view] = predicted.photo.problem
                    else:
                        outputs[view] = PhotoOutputs(predicted.features, predicted.logits)
                self.outputs.put(outputs)
                bar.update(len(batch))
        for item in items:
            problem = problems.get(item.view)
            yield replace(item, view="", problem=problem) if problem else item

    def _missing(
        self,
        entries: Iterator[IndexEntry],
        items: list[CachedItem],
        views: deque[str],
        bar: tqdm,
    ) -> Iterator[PhotoInput]:
        """Yield the photos without cached outputs, each once.

        Args:
            entries: The entries.
            items: Receives an item for each entry.
            views: Receives the name of each yielded photo in the cache.
            bar: Advances by the entries that are skipped.
        """
        requested: set[str] = set()
        with ThreadPoolExecutor() as pool:
            while chunk := list(islice(entries, CHUNK_SIZE)):
                new = list(pool.map(_hash_photo, chunk))
                items += new
                known = requested.union(self.outputs.get([item.view for item in new if item.view]))
                # A mapping, because a photo may occur twice.
                missing = {
                    item.view: item.photo
                    for item in new
                    if item.photo is not None and item.view not in known
                }
                requested |= missing.keys()
                bar.update(len(chunk) - len(missing))
                for view, photo in missing.items():
                    views.append(view)
                    yield photo

    def load_outputs(self, items: Sequence[CachedItem]) -> "NetworkOutputs":
        """Load the network outputs of items from the cache."""
        cached = self.outputs.get([item.view for item in items])
        return stack_outputs([cached[item.view] for item in items])


def load_embedder(
    folder: Path, cache: Path | None = None, engine: Engine = LOCAL_ENGINE
) -> Embedder:
    """Load the embedder of a run.

    Args:
        folder: The run directory.
        cache: Folder of the cache; None: the default.
        engine: Runs the network.

    Raises:
        BadInput: The folder is not a run directory.
        Failure: The model can't be read.
    """
    keras_backend.import_backend()
    from model.inference.saved_run import load_run

    return Embedder(load_run(folder), cache, engine)


def _hash_photo(entry: IndexEntry) -> CachedItem:
    """Return an entry with the SHA-256 of its photo, which its name in the cache begins with."""
    item, photo = entry.item, entry.photo
    if photo is None:
        return CachedItem(item, problem=entry.problem)
    if not item.sha256:
        try:
            item = replace(item, sha256=sha256_of(photo.read()))
        except (OSError, ValueError) as error:
            return CachedItem(item, problem=describe_read_error(error))
    return CachedItem(item, view_name(item.sha256, photo.crop), photo=photo)
