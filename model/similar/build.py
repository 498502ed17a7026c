"""Making an index and changing it: items -> what the model sees -> vectors -> one file."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from dataset.errors import BadInput, Failure, shorten_for_display
from model.inference.embedding import SAMPLE, Embedding, learn_embedding
from model.similar.embedder import Looker, Sight
from model.similar.index_file import IndexFile, new_index, open_index, writing
from model.similar.nearest import EXACT, Graph, recall
from model.similar.search import GRAPH
from model.similar.sources import Offer, Offers

EMBEDDING = "embedding"
CHUNK = 2048
# An index of this many times the photos that it learned from should learn anew.
OUTGROWN = 4
# Problems that are told in full; of more only how many.
TOLD = 20


@dataclass
class Changed:
    """What became of items: how many are in the index, new, and left out with their reasons.

    `recall`: of the graph, where there is one. `outgrown`: how many photos its vectors were learned
    from, where that is few beside what it holds now.
    """

    count: int = 0
    new: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    recall: float | None = None
    outgrown: int | None = None

    def lines(self) -> Iterator[str]:
        """It in words."""
        yield f"{self.count} items in the index, {self.new} of them new"
        for name, why in self.problems[:TOLD]:
            yield f"left out {shorten_for_display(name)}: {shorten_for_display(why)}"
        rest = Counter(why.partition(":")[0] for _, why in self.problems[TOLD:])
        for why, count in sorted(rest.items()):
            yield f"left out {count} more: {shorten_for_display(why)}"
        if self.outgrown is not None:
            yield (
                f"what makes photos alike was learned from {self.outgrown} photos; --build learns"
                " it anew from what is there now"
            )
        if self.recall is not None:
            yield (
                f"more than {EXACT:,} items: searches are approximate and find {self.recall:.1%} of"
                " the 10 nearest (measured on a sample)"
            )


def build(path: Path, looker: Looker, source: Offers) -> Changed:
    """Make the index PATH of SOURCE's items; an earlier one stays until the new one is whole.

    Photos that were looked at before, also by a build that was killed, are not looked at again.

    Raises:
        Failure: no photo can be used, or the file can't be written.
    """
    with writing(path):
        changed = Changed()
        sights = _usable(looker.look_at(source.offers(looker.run.crop)), changed)
        if not sights:
            raise Failure(f"no photo can be used: {'; '.join(islice(changed.lines(), 1, 4))}")
        embedding = _learned(looker, sights)
        with new_index(path) as index:
            learned = min(len(sights), SAMPLE)
            index.say({**_facts(looker), "source": source.facts, "learned_from": learned})
            index.keep_arrays(EMBEDDING, embedding.arrays())
            _put(index, looker, embedding, sights)
            changed.count = changed.new = len(index)
            changed.recall = _grow_graph(index)
        return changed


def add(path: Path, looker: Looker, offers: Callable[[dict[str, str]], Iterator[Offer]]) -> Changed:
    """Put those of OFFERS into the index PATH that it lacks; OFFERS is told where photos lie.

    Raises:
        BadInput: no such index.
        Failure: it was made with another model.
    """
    with writing(path):
        index = open_index(path)
        try:
            facts = index.facts()
            refuse_other_model(path, facts, looker)
            changed = Changed()
            known = {item.id for _, item in index.all_items()}
            new = (one for one in offers(facts["source"]) if one.item.id not in known)
            sights = _usable(looker.look_at(new), changed)
            if sights:
                embedding = Embedding.from_arrays(index.arrays_of(EMBEDDING))
                with index.change():
                    places, vectors = _put(index, looker, embedding, sights)
                    changed.recall = _grow_graph(index, places, vectors)
            changed.count, changed.new = len(index), len(sights)
            learned = int(facts["learned_from"])
            changed.outgrown = learned if learned < min(SAMPLE, len(index) // OUTGROWN) else None
            return changed
        finally:
            index.close()


def remove(path: Path, names: Sequence[str]) -> Changed:
    """Take the items NAMES out of the index PATH, all of them or none.

    A product's name or address takes out all its photos.

    Raises:
        BadInput: no such index, or it has no such item.
    """
    with writing(path):
        index = open_index(path)
        try:
            places: set[int] = set()
            for name in names:
                found = index.find(name, -1)
                if not found:
                    raise BadInput(
                        f"{path} has no item {shorten_for_display(name)!r}; nothing was removed"
                    )
                places |= {place for place, _ in found}
            if len(places) == len(index):
                raise BadInput(f"these are all items of {path}; remove the file instead")
            with index.change():
                index.remove(sorted(places))
                share = _prune_graph(index, np.array(sorted(places)))
            return Changed(count=len(index), recall=share)
        finally:
            index.close()


def run_of(path: Path) -> Path:
    """The folder of the run that made the index PATH."""
    index = open_index(path)
    try:
        return Path(index.facts()["run"])
    finally:
        index.close()


def refuse_other_model(path: Path, facts: dict[str, str], looker: Looker) -> None:
    """Raise Failure where the index PATH, with FACTS, was made with another model."""
    if facts["model"] != looker.key:
        raise Failure(
            f"--index {path} was made with another model or other crops ({facts['run']}) than"
            f" --model {looker.run.folder}; build it anew with find-similar --build"
        )


def _facts(looker: Looker) -> dict[str, str]:
    return {"model": looker.key, "run": str(looker.run.folder.absolute())}


def _usable(sights: Iterator[Sight], changed: Changed) -> list[Sight]:
    """Those of SIGHTS that were seen, each id once; CHANGED is told of the others."""
    kept: dict[str, Sight] = {}
    for sight in sights:
        problem = sight.problem or ("its id comes twice" if sight.item.id in kept else "")
        if problem:
            changed.problems.append((sight.item.id, problem))
        else:
            kept[sight.item.id] = sight
    return list(kept.values())


def _learned(looker: Looker, sights: Sequence[Sight]) -> Embedding:
    """The embedding of a sample of SIGHTS, the same one each time."""
    some = np.random.default_rng(0).permutation(len(sights))[:SAMPLE]
    looked = looker.seen([sights[place].name for place in sorted(some)])
    return learn_embedding(looked.outputs, looked.logits)


def _put(
    index: IndexFile, looker: Looker, embedding: Embedding, sights: Sequence[Sight]
) -> tuple[np.ndarray, np.ndarray]:
    """Put SIGHTS into INDEX; returns their places, (n,), and vectors, (n, d)."""
    parts = []
    for start in range(0, len(sights), CHUNK):
        some = sights[start : start + CHUNK]
        looked = looker.seen([sight.name for sight in some])
        vectors = embedding.vectors(looked.outputs, looked.logits)
        parts.append((index.add([sight.item for sight in some], vectors), vectors))
    places, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
    return places, rows


def _grow_graph(
    index: IndexFile, new: np.ndarray | None = None, vectors: np.ndarray | None = None
) -> float | None:
    """Let INDEX have the graph that it needs, its items NEW in it; returns the graph's recall."""
    if len(index) <= EXACT:
        return None
    places, all_vectors = index.vectors()
    known = index.bytes_of(GRAPH) if new is not None else b""
    if known and new is not None and vectors is not None:
        graph = Graph.read(known, all_vectors.shape[1])
        graph.add(new, vectors)
    else:
        graph = Graph(all_vectors.shape[1])
        graph.add(places, all_vectors)
    return _keep_graph(index, graph, places, all_vectors)


def _prune_graph(index: IndexFile, gone: np.ndarray) -> float | None:
    """Let INDEX's graph be without the places GONE; returns its recall."""
    known = index.bytes_of(GRAPH)
    if not known:
        return None
    places, vectors = index.vectors()
    if len(places) <= EXACT:
        index.keep_bytes(GRAPH, b"")
        index.unsay("recall")
        return None
    graph = Graph.read(known, vectors.shape[1])
    graph.remove(gone)
    return _keep_graph(index, graph, places, vectors)


def _keep_graph(index: IndexFile, graph: Graph, places: np.ndarray, vectors: np.ndarray) -> float:
    """Keep GRAPH in INDEX with its recall, which is returned."""
    share = recall(graph, places, vectors)
    index.keep_bytes(GRAPH, graph.write())
    index.say({"recall": share})
    return share
