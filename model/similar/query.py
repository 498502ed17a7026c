"""Run the queries of `find-similar`: photos, items of the index, and photos of the catalogue."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from dataset.catalogue.queries import find_image
from dataset.catalogue.session import open_catalogue
from dataset.errors import BadInput
from dataset.images.io import sha256_of
from dataset.images.store import open_store
from model.inference.embedding import Embedding
from model.inference.preprocessing import PhotoInput, describe_read_error
from model.similar.build import EMBEDDING, CachedItem, Embedder, load_embedder, require_same_model
from model.similar.copies import MAX_COMPARED, find_copies, signature_cache
from model.similar.index_file import Filters, IndexFile, IndexItem, SearchResult
from model.similar.search import Query, Searcher
from model.similar.sources import FILE_PREFIX, IndexEntry


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search by `find-similar`; `find-similar --help` describes each."""

    names: tuple[str, ...]
    index: Path
    run: Path | None = None
    catalogue: str = "catalogue.sqlite"
    images: str = "images"
    cache: Path | None = None
    top: int = 12
    filters: Filters = field(default_factory=Filters)
    same_label: bool = False
    exclude_duplicates: bool = False


@dataclass(frozen=True)
class QueryResult:
    """The results of a query.

    Attributes:
        name: The query as it was given.
        item: The item of the index, or what is known of a photo.
        is_label_predicted: Whether the item's label is predicted by the model.
        results: The results, the most similar first.
        problem: Why the query has no results, or empty.
    """

    name: str
    item: IndexItem | None = None
    is_label_predicted: bool = False
    results: tuple[SearchResult, ...] = ()
    problem: str = ""


def run_queries(options: SearchOptions, index: IndexFile) -> list[QueryResult]:
    """Run the queries of `options.names`, in their order.

    Raises:
        BadInput: There is no such model, or no item passes a filter.
        Failure: The index is damaged or was built with another model.
    """
    _require_known_filters(options.filters, index)
    runner = _QueryRunner(options, index)
    queries = {name: runner.resolve(name) for name in dict.fromkeys(options.names)}
    new = {name: query for name, query in queries.items() if isinstance(query, IndexEntry)}
    embedded = runner.embed(list(new.values())) if new else []
    queries |= dict(zip(new, embedded, strict=True))
    return [runner.run(name, queries[name]) for name in options.names]


def _require_known_filters(filters: Filters, index: IndexFile) -> None:
    for column, values in (("site", filters.sites), ("label", filters.labels)):
        known = [name for name in index.distinct_values(column) if name] if values else []
        for value in values:
            if value not in known:
                choices = ", ".join(known) or "none"
                raise BadInput(f"--{column} {value}: not in {index.path}, which has: {choices}")


@dataclass(frozen=True)
class _QueryRunner:
    """Resolves the names of a command and searches for similar items."""

    options: SearchOptions
    index: IndexFile

    @cached_property
    def searcher(self) -> Searcher:
        """The index in memory."""
        return Searcher(self.index)

    def resolve(self, name: str) -> Query | IndexEntry | str:
        """Return an item of the index, a photo to embed, or a problem."""
        path = Path(name)
        try:
            data = path.read_bytes() if path.is_file() else None
        except (OSError, ValueError) as error:
            return describe_read_error(error)
        matches = self.index.find(sha256_of(data) if data is not None else name)
        if len(matches) > 1 and _is_ambiguous_prefix(name, matches):
            return "several items have such a SHA-256; add more digits"
        if matches:
            key, item = matches[0]
            return Query(self.searcher.vectors[self.searcher.row_of(key)], item, key)
        if data is not None:
            item = IndexItem(name, sha256_of(data), f"{FILE_PREFIX}{path.absolute()}")
            return IndexEntry(item, PhotoInput(path.read_bytes))
        return self._find_in_catalogue(name)

    def _find_in_catalogue(self, name: str) -> IndexEntry | str:
        """Return a photo of the catalogue, which may be newer than the index."""
        problem = f"no such file, and no such item in {self.index.path}"
        catalogue = self.options.catalogue
        if "://" not in catalogue and not Path(catalogue).exists():
            return problem
        with open_catalogue(catalogue, must_exist=True)() as session:
            try:
                row = find_image(session, name)
            except BadInput:
                return f"{problem} or in the catalogue"
            read = partial(open_store(self.options.images).read, str(row.store_key))
            return IndexEntry(
                IndexItem(row.sha256, row.sha256, str(row.store_key)), PhotoInput(read)
            )

    def embed(self, entries: Sequence[IndexEntry]) -> list[Query | str]:
        """Return a query, or a problem, for each photo that is not in the index."""
        facts = self.index.facts()
        embedder = load_embedder(self.options.run or Path(facts["run"]), self.options.cache)
        require_same_model(self.index.path, facts, embedder)
        embedding = Embedding.from_arrays(self.index.read_arrays(EMBEDDING))
        queries: list[Query | str] = []
        for cached in embedder.predict(iter(entries)):
            if cached.problem:
                queries.append(cached.problem)
                continue
            outputs = embedder.load_outputs([cached])
            label = embedder.predictor.labels[int(outputs.logits[0].argmax())]
            vector = embedding.vectors(outputs.features, outputs.logits)[0]
            item = replace(cached.item, label=label)
            copies = self._find_copies(embedder, cached, vector)
            queries.append(Query(vector, item, is_label_predicted=True, copies=copies))
        return queries

    def _find_copies(
        self, embedder: Embedder, cached: CachedItem, vector: np.ndarray
    ) -> tuple[IndexItem, ...]:
        """Return the items that show the photo of a query, if they are to be excluded."""
        if not self.options.exclude_duplicates or cached.photo is None:
            return ()
        keys = self.searcher.nearest(vector[None], MAX_COMPARED).keys[0]
        cache = signature_cache(embedder.outputs.file)
        known, digest = keys[keys >= 0].tolist(), cached.item.sha256
        return tuple(find_copies(self.index, known, digest, cached.photo.read, cache))

    def run(self, name: str, query: Query | IndexEntry | str) -> QueryResult:
        """Search for the items that are similar to a query."""
        if not isinstance(query, Query):
            return QueryResult(name, problem=str(query))
        options, filters = self.options, self.options.filters
        if options.same_label:
            if not query.item.label:
                return QueryResult(name, problem="it has no label; omit --same-label")
            filters = replace(filters, labels=(query.item.label,))
        results = self.searcher.search(query, options.top, filters, options.exclude_duplicates)
        return QueryResult(name, query.item, query.is_label_predicted, tuple(results))


def _is_ambiguous_prefix(name: str, matches: Sequence[tuple[int, IndexItem]]) -> bool:
    """Return whether a name is the beginning of different hashes, and not an id."""
    first, second = matches[0][1], matches[1][1]
    return first.sha256 != second.sha256 and all(
        item.sha256.startswith(name) and item.id != name for _, item in matches
    )
