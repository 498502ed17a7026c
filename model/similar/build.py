"""Build an index and change it: predict photos, fit the embedding, and store vectors.

`Embedder` predicts the photos of items with a run's model, and caches the network outputs on disk.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from dataset.errors import BadInput, Failure, shorten_for_display
from dataset.images.io import sha256_of
from dataset.utils import keras_backend
from dataset.utils.engines import LOCAL_ENGINE, Engine
from model.inference.embedding import MAX_SAMPLE, Embedding, fit_embedding
from model.inference.output_cache import OutputCache, PhotoOutputs, stack_outputs, view_name
from model.inference.preprocessing import (
    PhotoInput,
    Preprocessor,
    describe_read_error,
)
from model.similar.copies import (
    COPIES_VERSION,
    MAX_COMPARED,
    find_copies,
    group_copies,
    is_of_catalogue,
    signature_cache,
)
from model.similar.index_file import IndexFile, IndexItem, create_index, lock_index, open_index
from model.similar.search import GRAPH, MAX_EXACT_ITEMS, Graph, exact_neighbors, measure_recall
from model.similar.sources import IndexEntry, IndexSource, read_photo

if TYPE_CHECKING:
    from model.inference.predictor import NetworkOutputs, Predictor, SavedRun

EMBEDDING = "embedding"
# Fact about the search that grouped the copies of an index; earlier indexes have none.
COPIES = "copies"
CHUNK_SIZE = 2048
# An index that grew to this many times the photos of its embedding should be built again.
MAX_GROWTH = 4
# Problems that are shown in full; the others are counted.
MAX_SHOWN_PROBLEMS = 20
EMBEDDER_CHUNK_SIZE = 256


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
            while chunk := list(islice(entries, EMBEDDER_CHUNK_SIZE)):
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
    from model.inference.predictor import load_run

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


@dataclass
class IndexUpdate:
    """The result of a build or a change of an index.

    Attributes:
        count: Number of items in the index.
        new: Number of new items.
        problems: Ids of excluded items with reasons.
        recall: Recall of the graph; None without a graph.
        outgrown: Number of photos that the embedding was fitted on, if the index is much larger.
        products: Number of products of the new items; 0: unknown.
        copies: Number of items of the index that show the photo of another one.
        unread: Number of photos that could not be read again to compare them.
    """

    count: int = 0
    new: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    recall: float | None = None
    outgrown: int | None = None
    products: int = 0
    copies: int = 0
    unread: int = 0

    def lines(self) -> Iterator[str]:
        """Yield the result as lines for the terminal; those of excluded items begin so."""
        of_products = f": photos of {self.products} products" if self.products < self.new else ""
        yield f"{self.count} items in the index, {self.new} of them new" + (
            of_products if self.products else ""
        )
        if self.copies:
            yield f"items that show the same photo as another one: {self.copies}"
        if self.unread:
            yield (
                f"{self.unread} photos of the index can't be read again, so copies of them are not"
                " found"
            )
        for name, reason in self.problems[:MAX_SHOWN_PROBLEMS]:
            yield f"excluded {shorten_for_display(name)}: {shorten_for_display(reason)}"
        others = Counter(
            reason.partition(":")[0] for _, reason in self.problems[MAX_SHOWN_PROBLEMS:]
        )
        for reason, count in sorted(others.items()):
            yield f"excluded {count} more: {shorten_for_display(reason)}"
        if self.outgrown is not None:
            yield (
                f"the embedding was fitted on {self.outgrown} photos; --build fits it on all photos"
                " again"
            )
        if self.recall is not None:
            yield (
                f"more than {MAX_EXACT_ITEMS:,} items: searches are approximate and find"
                f" {self.recall:.1%} of the 10 nearest items (measured on a sample)"
            )


def build_index(path: Path, embedder: Embedder, source: IndexSource) -> IndexUpdate:
    """Build an index; an existing one is replaced when the new one is complete.

    Network outputs are cached: an interrupted build continues.

    Args:
        path: The index file.
        embedder: The model.
        source: The items.

    Raises:
        Failure: No photo can be used, or the file can't be written.
    """
    with lock_index(path):
        update = IndexUpdate()
        items = _usable_items(
            embedder.predict(source.entries(embedder.run.crop, embedder.engine)), update
        )
        if not items:
            raise Failure(f"no photo can be used: {'; '.join(islice(update.lines(), 1, 4))}")
        items, _ = _with_clusters(embedder, {}, source.facts, items, update)
        embedding = _fit_embedding(embedder, items)
        with create_index(path) as index:
            fitted_on = min(len(items), MAX_SAMPLE)
            index.set_facts(
                {
                    **_model_facts(embedder),
                    "source": source.facts,
                    "learned_from": fitted_on,
                    COPIES: COPIES_VERSION,
                }
            )
            index.write_arrays(EMBEDDING, embedding.to_arrays())
            _add_vectors(index, embedder, embedding, items)
            update.count = update.new = len(index)
            update.copies = _count_copies(index)
            update.products = _product_count(items)
            update.recall = _update_graph(index)
        return update


def add_items(
    path: Path, embedder: Embedder, entries: Callable[[dict[str, str]], Iterator[IndexEntry]]
) -> IndexUpdate:
    """Add items that the index does not have yet.

    Args:
        path: The index file.
        embedder: The model.
        entries: Facts of the index's source -> items.

    Raises:
        BadInput: There is no such index.
        Failure: It was built with another model.
    """
    with lock_index(path), closing(open_index(path)) as index:
        facts = index.facts()
        require_same_model(path, facts, embedder)
        update = IndexUpdate()
        known = dict(index.all_items())
        ids = {item.id for item in known.values()}
        new = (entry for entry in entries(facts["source"]) if entry.item.id not in ids)
        items = _usable_items(embedder.predict(new), update)
        if items:
            embedding = Embedding.from_arrays(index.read_arrays(EMBEDDING))
            is_compared = facts.get(COPIES) == COPIES_VERSION
            items, changed = _with_clusters(
                embedder, known, facts["source"], items, update, is_compared
            )
            with index.transaction():
                index.set_clusters(changed)
                index.set_facts({COPIES: COPIES_VERSION})
                keys, vectors = _add_vectors(index, embedder, embedding, items)
                _join_catalogue_clusters(index, embedder, items, keys, vectors)
                update.recall = _update_graph(index, keys, vectors)
        update.count, update.new = len(index), len(items)
        update.copies = _count_copies(index)
        update.products = _product_count(items)
        fitted_on = int(facts["learned_from"])
        is_outgrown = fitted_on < min(MAX_SAMPLE, len(index) // MAX_GROWTH)
        update.outgrown = fitted_on if is_outgrown else None
        return update


def remove_items(path: Path, names: Sequence[str]) -> IndexUpdate:
    """Remove items from an index: all named ones, or none.

    Args:
        path: The index file.
        names: Ids, SHA-256 prefixes, products or URLs; a product stands for all its photos.

    Raises:
        BadInput: There is no such index, an item is unknown, or no item would be left.
    """
    with lock_index(path), closing(open_index(path)) as index:
        keys: set[int] = set()
        for name in names:
            matches = index.find(name, -1)
            if not matches:
                shown = shorten_for_display(name)
                raise BadInput(f"{path} has no item {shown!r}; nothing was removed")
            keys |= {key for key, _ in matches}
        if len(keys) == len(index):
            raise BadInput(f"these are all items of {path}; delete the file instead")
        with index.transaction():
            index.remove(sorted(keys))
            recall = _remove_from_graph(index, np.array(sorted(keys)))
        return IndexUpdate(count=len(index), recall=recall)


def run_of_index(path: Path) -> Path:
    """Return the run directory of the model that an index was built with."""
    with closing(open_index(path)) as index:
        return Path(index.facts()["run"])


def require_same_model(path: Path, facts: dict[str, str], embedder: Embedder) -> None:
    """Raise Failure if an index was built with another model or preprocessing.

    Args:
        path: The index file.
        facts: Its facts.
        embedder: The model.
    """
    if facts["model"] != embedder.cache_key:
        raise Failure(
            f"--index {path} was built with another model, precision or crops"
            f" ({facts['run']}) than --model {embedder.run.folder}; build it again with"
            " find-similar --build"
        )


def _model_facts(embedder: Embedder) -> dict[str, str]:
    return {"model": embedder.cache_key, "run": str(embedder.run.folder.absolute())}


def _usable_items(items: Iterator[CachedItem], update: IndexUpdate) -> list[CachedItem]:
    """Return the items without problems, each id once; the problems are added to the update."""
    usable: dict[str, CachedItem] = {}
    for cached in items:
        problem = cached.problem or ("duplicate id" if cached.item.id in usable else "")
        if problem:
            update.problems.append((cached.item.id, problem))
        else:
            usable[cached.item.id] = cached
    return list(usable.values())


def _with_clusters(
    embedder: Embedder,
    known: Mapping[int, IndexItem],
    source_facts: Mapping[str, str],
    items: Sequence[CachedItem],
    update: IndexUpdate,
    is_compared: bool = True,
) -> tuple[list[CachedItem], dict[int, str]]:
    """Give new items the clusters of copies; the update counts unread photos.

    Args:
        embedder: Its folder has the cache of signatures.
        known: Items of the index by key.
        source_facts: Facts of the index's source.
        items: New items.
        update: The result of the build.
        is_compared: Whether the items of the index have been compared with each other.

    Returns:
        The new items, and the changed clusters of known items by key.
    """
    known_items = list(known.values())

    def read(number: int) -> bytes:
        if number < len(known_items):
            return read_photo(source_facts, known_items[number].image)
        photo = items[number - len(known_items)].photo
        assert photo is not None
        return photo.read()

    all_items = [*known_items, *(cached.item for cached in items)]
    is_new = [not is_compared] * len(known_items) + [True] * len(items)
    groups = group_copies(all_items, is_new, read, signature_cache(embedder.outputs.file))
    update.unread = groups.unread
    changed = {
        key: cluster
        for (key, item), cluster in zip(known.items(), groups.clusters, strict=False)
        if item.cluster != cluster
    }
    clustered = [
        replace(cached, item=replace(cached.item, cluster=cluster))
        for cached, cluster in zip(items, groups.clusters[len(known_items) :], strict=True)
    ]
    return clustered, changed


def _join_catalogue_clusters(
    index: IndexFile,
    embedder: Embedder,
    items: Sequence[CachedItem],
    keys: np.ndarray,
    vectors: np.ndarray,
) -> None:
    """Give new photos the cluster of the catalogue's photo that they are copies of.

    A catalogue may have too many photos to read all of them for a few new ones, so only the nearest
    ones are compared.

    Args:
        index: The index, which has the new photos.
        embedder: Its folder has the cache of signatures.
        items: The new photos.
        keys: Their keys, (n,).
        vectors: Their vectors, (n, d).
    """
    all_items = dict(index.all_items())
    all_keys, all_vectors = index.vectors()
    is_candidate = np.array([is_of_catalogue(all_items[key]) for key in all_keys.tolist()], bool)
    is_file = np.array([not is_of_catalogue(all_items[key]) for key in keys.tolist()], bool)
    if not is_candidate.any() or not is_file.any():
        return
    count = min(MAX_COMPARED, int(is_candidate.sum()))
    rows = exact_neighbors(vectors[is_file], all_vectors[is_candidate], count).keys
    nearest, cache = all_keys[is_candidate][rows], signature_cache(embedder.outputs.file)
    for number, known in zip(np.flatnonzero(is_file).tolist(), nearest.tolist(), strict=True):
        item, photo = all_items[int(keys[number])], items[number].photo
        assert photo is not None
        copies = find_copies(index, known, item.sha256, photo.read, cache)
        if copies:
            cluster = min((copy.cluster for copy in copies), key=int)
            index.set_clusters(
                {
                    key: cluster
                    for key, other in all_items.items()
                    if other.id == item.id or (item.cluster and other.cluster == item.cluster)
                }
            )


def _count_copies(index: IndexFile) -> int:
    """Return the number of items that show the photo of another item."""
    photos = [item.cluster or item.sha256 for _, item in index.all_items()]
    return len(photos) - len(set(photos))


def _product_count(items: Sequence[CachedItem]) -> int:
    return len({cached.item.product or cached.item.id for cached in items})


def _fit_embedding(embedder: Embedder, items: Sequence[CachedItem]) -> Embedding:
    """Fit the embedding on a fixed random sample of items."""
    sample = np.random.default_rng(0).permutation(len(items))[:MAX_SAMPLE]
    outputs = embedder.load_outputs([items[index] for index in sorted(sample)])
    return fit_embedding(outputs.features, outputs.logits)


def _add_vectors(
    index: IndexFile, embedder: Embedder, embedding: Embedding, items: Sequence[CachedItem]
) -> tuple[np.ndarray, np.ndarray]:
    """Add items to an index; return their keys, (n,), and vectors, (n, d)."""
    chunks = []
    for start in range(0, len(items), CHUNK_SIZE):
        chunk = items[start : start + CHUNK_SIZE]
        outputs = embedder.load_outputs(chunk)
        vectors = embedding.vectors(outputs.features, outputs.logits)
        chunks.append((index.add([cached.item for cached in chunk], vectors), vectors))
    keys, rows = (np.concatenate(arrays) for arrays in zip(*chunks, strict=True))
    return keys, rows


def _update_graph(
    index: IndexFile, new_keys: np.ndarray | None = None, new_vectors: np.ndarray | None = None
) -> float | None:
    """Build the graph of a large index, or add new items to it; return its recall."""
    if len(index) <= MAX_EXACT_ITEMS:
        return None
    keys, vectors = index.vectors()
    data = index.read_bytes(GRAPH) if new_keys is not None else b""
    if data and new_keys is not None and new_vectors is not None:
        graph = Graph.from_bytes(data, vectors.shape[1])
        graph.add(new_keys, new_vectors)
    else:
        graph = Graph(vectors.shape[1])
        graph.add(keys, vectors)
    return _save_graph(index, graph, keys, vectors)


def _remove_from_graph(index: IndexFile, removed_keys: np.ndarray) -> float | None:
    """Remove items from the graph, or the graph of a small index; return its recall."""
    data = index.read_bytes(GRAPH)
    if not data:
        return None
    keys, vectors = index.vectors()
    if len(keys) <= MAX_EXACT_ITEMS:
        index.write_bytes(GRAPH, b"")
        index.delete_fact("recall")
        return None
    graph = Graph.from_bytes(data, vectors.shape[1])
    graph.remove(removed_keys)
    return _save_graph(index, graph, keys, vectors)


def _save_graph(index: IndexFile, graph: Graph, keys: np.ndarray, vectors: np.ndarray) -> float:
    """Store a graph and its recall, which is returned."""
    recall = measure_recall(graph, keys, vectors)
    index.write_bytes(GRAPH, graph.to_bytes())
    index.set_facts({"recall": recall})
    return recall
