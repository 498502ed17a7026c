"""Similar items: how often they are of the same class, and how fast they are found, beside faiss.

    python benchmarks/similar.py quality --photos ../shared/data/clothing/validation --model RUN_DIR
    python benchmarks/similar.py copies --photos ../shared/data/clothing/validation --model RUN_DIR
    python benchmarks/similar.py speed --photos ../shared/data/clothing/train --model RUN_DIR

`quality`: how many of the ten nearest photos are of a photo's own class, by what the run's backbone
says (mean-pooled outputs as they are, levelled, their principal axes), by its probabilities of the
labels, and by both together as find-similar has it. The run must not have learned from them. Of
classes that are labels of the run this is mostly how often its head is right; a run that learned
without some of the classes shows what is found of kinds that it does not know.

`speed`: sets of 100,000 and 1,000,000 vectors made of those of the photos by one rule: each is the
vector of a photo, a third of the way to another one of its class, with noise of a fifth of its
length; of unit length again. Queries are 2,000 made in the same way. faiss-cpu looks in its flat
index, which is exact, and in its own graph (HNSW, with our number of neighbours) and lists
(IVF); each with its recall of the ten nearest that the flat index finds.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from dataset.utils.tables import format_table

if TYPE_CHECKING:
    from model.inference.predictor import NetworkOutputs
    from model.similar.embedder import Embedder

NEAREST, QUERIES, BATCH = 10, 2000, 256
TO_ANOTHER, NOISE = 1 / 3, 1 / 5
HEAD = ("search", "recall@10", "one by one /s", f"{BATCH} at once /s", "made in s")


@click.group()
def main() -> None:
    """What similar items are worth, and what they cost."""


def photos_option(command: Callable) -> Callable:
    """The options that all have."""
    command = click.option("--photos", type=click.Path(exists=True, path_type=Path), required=True)(
        command
    )
    command = click.option(
        "--model", "run", type=click.Path(exists=True, path_type=Path), required=True
    )(command)
    return click.option("--cache", type=click.Path(path_type=Path))(command)


def seen(embedder: "Embedder", folder: Path) -> tuple["NetworkOutputs", np.ndarray, list[Path]]:
    """What the model sees in the photos of FOLDER, their classes by name, and their files."""
    from dataset.vocabulary import load_vocabulary
    from model.similar.sources import FolderIndexSource

    source = FolderIndexSource(folder, load_vocabulary())
    cached_items = [one for one in embedder.predict(source.entries(embedder.run.crop)) if one.view]
    files = [folder / one.item.image for one in cached_items]
    return (
        embedder.load_outputs(cached_items),
        np.array([f.parent.name for f in files]),
        files,
    )


def unit(values: np.ndarray) -> np.ndarray:
    """VALUES, (n, d), of unit length."""
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


@main.command()
@photos_option
def quality(photos: Path, run: Path, cache: Path | None) -> None:
    """Recall at ten of the same class, by way of comparing."""
    from model.inference.embedding import fit_embedding, fit_projection, sqrt_softmax
    from model.similar.embedder import load_embedder

    embedder = load_embedder(run, cache)
    looked, classes, _ = seen(embedder, photos)
    learned = fit_embedding(looked.features, looked.logits)
    outputs = looked.features
    levelled = (outputs - outputs.mean(axis=0)) / (outputs.std(axis=0) + 1e-3)
    ways = {
        "mean-pooled outputs, as they are": outputs,
        "each levelled": levelled,
        "principal axes of the levelled": fit_projection(outputs, 246, True, 0).apply(outputs),
        "the same, evened out half way": learned.features.apply(outputs),
        "logits alone": looked.logits - looked.logits.mean(axis=1, keepdims=True),
        "roots of the probabilities alone": sqrt_softmax(looked.logits),
        "find-similar: both": learned.vectors(outputs, looked.logits),
    }
    known = np.isin(classes, embedder.predictor.labels)
    groups = {"classes it learned": known, "other classes": ~known}
    groups = {name: group for name, group in groups.items() if group.any()}
    click.echo(f"{len(classes)} photos of {len(set(classes))} classes, each asked of the others")
    rows = [
        (name, *(f"{recall_of(values, classes, group):.3f}" for group in groups.values()))
        for name, values in ways.items()
    ]
    head = [f"{name} ({group.sum()} photos)" for name, group in groups.items()]
    click.echo(format_table((f"recall@{NEAREST} of the class", *head), rows))


def recall_of(values: np.ndarray, classes: np.ndarray, asked: np.ndarray) -> float:
    """Return the share of the ten nearest rows, the query itself excluded, of the query's class."""
    vectors = unit(values)
    products = vectors @ vectors.T - 4 * np.eye(len(vectors), dtype=np.float32)
    best = np.argsort(-products, axis=1)[:, :NEAREST]
    return float((classes[best] == classes[:, None])[asked].mean())


@main.command()
@photos_option
@click.option("--count", type=int, default=300, show_default=True, help="Photos that are copied.")
def copies(photos: Path, run: Path, cache: Path | None, count: int) -> None:
    """How alike copies of photos are, and different photos of one class: where COPY should lie."""
    import io

    from PIL import Image

    from dataset.images.io import open_photo
    from model.data.loading import letterbox
    from model.inference.embedding import fit_embedding
    from model.similar.embedder import load_embedder
    from model.similar.items import COPY_SIMILARITY

    embedder = load_embedder(run, cache)
    looked, _, files = seen(embedder, photos)
    embedding = fit_embedding(looked.features, looked.logits)
    vectors = embedding.vectors(looked.features, looked.logits)
    some = np.random.default_rng(0).permutation(len(files))[:count]

    def jpeg(photo: Image.Image, quality: int) -> Image.Image:
        out = io.BytesIO()
        photo.save(out, "JPEG", quality=quality)
        return open_photo(out.getvalue())

    changes: dict[str, Callable[[Image.Image], Image.Image]] = {
        "JPEG quality 50": lambda photo: jpeg(photo, 50),
        "half the size": lambda photo: photo.resize((photo.width // 2, photo.height // 2)),
        "cropped 5 %": lambda photo: photo.crop(
            (photo.width // 20, photo.height // 20, photo.width * 19 // 20, photo.height * 19 // 20)
        ),
    }
    rows = []
    for name, change in changes.items():
        pixels = np.stack(
            [letterbox(change(open_photo(files[n])), embedder.predictor.size) for n in some]
        )
        told = embedder.predictor.predict(pixels)
        alike = (embedding.vectors(told.features, told.logits) * vectors[some]).sum(axis=1)
        rows.append((name, *spread_of(alike, COPY_SIMILARITY)))
    products = vectors @ vectors.T - 2 * np.eye(len(vectors), dtype=np.float32)
    rows.append(("the nearest other photo", *spread_of(products.max(axis=1), COPY_SIMILARITY)))
    click.echo(
        format_table(("similarity of", "1 %", "50 %", "99 %", f"at least {COPY_SIMILARITY}"), rows)
    )


def spread_of(alike: np.ndarray, limit: float) -> tuple[str, str, str, str]:
    """Percentiles of ALIKE, and how much of it is LIMIT or more."""
    low, middle, high = np.percentile(alike, (1, 50, 99))
    return f"{low:.3f}", f"{middle:.3f}", f"{high:.3f}", f"{(alike >= limit).mean():.1%}"


def larger(vectors: np.ndarray, classes: np.ndarray, count: int, seed: int) -> np.ndarray:
    """COUNT vectors made of VECTORS, (n, d), of CLASSES, (n,), by the rule above; (count, d)."""
    rng = np.random.default_rng(seed)
    order = np.argsort(classes, kind="stable")
    names, starts, sizes = np.unique(classes[order], return_index=True, return_counts=True)
    made = np.empty((count, vectors.shape[1]), np.float32)
    for start in range(0, count, 1 << 16):
        part = made[start : start + (1 << 16)]
        first = rng.integers(0, len(vectors), len(part))
        its = np.searchsorted(names, classes[first])
        other = order[starts[its] + rng.integers(0, 1 << 30, len(part)) % sizes[its]]
        part[:] = (1 - TO_ANOTHER) * vectors[first] + TO_ANOTHER * vectors[other]
        noise = rng.standard_normal(part.shape, dtype=np.float32)
        part += noise * (NOISE * np.linalg.norm(part, axis=1) / part.shape[1] ** 0.5)[:, None]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return made


def timed(
    search: Callable[[np.ndarray], np.ndarray], queries: np.ndarray, at_once: int
) -> tuple[float, np.ndarray]:
    """Queries a second, AT_ONCE together, for three seconds or all; and the places found."""
    search(queries[:at_once])
    began, found = time.perf_counter(), []
    for start in range(0, len(queries), at_once):
        found.append(search(queries[start : start + at_once]))
        if time.perf_counter() - began > 3:
            break
    places = np.concatenate(found)
    return len(places) / (time.perf_counter() - began), places


@main.command()
@photos_option
@click.option("--counts", default="100000,1000000", show_default=True)
@click.option("--all/--no-all", "all_", default=True, help="Measure --all of the first count too.")
def speed(photos: Path, run: Path, cache: Path | None, counts: str, all_: bool) -> None:
    """Queries a second against faiss-cpu, on this machine's cores."""
    from model.inference.embedding import fit_embedding
    from model.similar.embedder import load_embedder

    looked, classes, _ = seen(load_embedder(run, cache), photos)
    embedding = fit_embedding(looked.features, looked.logits)
    vectors = embedding.vectors(looked.features, looked.logits)
    queries = larger(vectors, classes, QUERIES, 1)
    for number, count in enumerate(int(text) for text in counts.split(",")):
        made = larger(vectors, classes, count, 2)
        click.echo(f"\n{count:,} vectors of {made.shape[1]} numbers")
        click.echo(format_table(HEAD, speeds(made, queries)))
        if all_ and number == 0:
            click.echo(whole_shop(made, classes))


Search = Callable[[np.ndarray], np.ndarray]


def speeds(vectors: np.ndarray, queries: np.ndarray) -> list[tuple[str, ...]]:
    """A row a way of searching VECTORS for QUERIES."""
    from model.similar.nearest import exact_neighbors

    flat = flat_of(vectors)
    truth = flat(queries)
    rows = [
        _row("faiss, flat", 0.0, flat, queries, truth),
        _row("ours", 0.0, lambda q: exact_neighbors(q, vectors, NEAREST).keys, queries, truth),
    ]
    for make in (graph_of, hnsw_of, lists_of):
        began = time.perf_counter()
        ways = make(vectors)
        seconds = time.perf_counter() - began
        rows += [_row(name, seconds, set_up(), queries, truth) for name, set_up in ways.items()]
    return rows


def flat_of(vectors: np.ndarray) -> Search:
    """Faiss' own comparison of all."""
    import faiss

    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    return lambda queries: flat.search(queries, NEAREST)[1]


def graph_of(vectors: np.ndarray) -> dict[str, Callable[[], Search]]:
    """Our graph of VECTORS: names of ways to search it, and what sets each up."""
    from model.similar.nearest import Graph

    graph = Graph(vectors.shape[1])
    places = np.arange(len(vectors))
    graph.add(places, vectors)

    def search(queries: np.ndarray) -> np.ndarray:
        return graph.search_rescored(queries, NEAREST, places, vectors).keys

    return {"ours, graph": lambda: search}


def hnsw_of(vectors: np.ndarray) -> dict[str, Callable[[], Search]]:
    """Faiss' graph with our number of neighbours."""
    import faiss

    from model.similar.nearest import CONNECTIVITY, EXPANSION_ADD

    graph = faiss.IndexHNSWFlat(vectors.shape[1], CONNECTIVITY, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = EXPANSION_ADD
    graph.add(vectors)

    def set_up(width: int) -> Search:
        graph.hnsw.efSearch = width
        return lambda queries: graph.search(queries, NEAREST)[1]

    return {f"faiss, HNSW, efSearch {n}": partial(set_up, n) for n in (64, 96, 128)}


def lists_of(vectors: np.ndarray) -> dict[str, Callable[[], Search]]:
    """Faiss' inverted lists, of as many cells as its authors advise."""
    import faiss

    cells = int(4 * len(vectors) ** 0.5)
    product = faiss.METRIC_INNER_PRODUCT
    lists: Any = faiss.index_factory(vectors.shape[1], f"IVF{cells},Flat", product)
    lists.train(vectors[: 64 * cells])
    lists.add(vectors)

    def set_up(probed: int) -> Search:
        lists.nprobe = probed
        return lambda queries: lists.search(queries, NEAREST)[1]

    return {f"faiss, IVF{cells}, nprobe {n}": partial(set_up, n) for n in (16, 64)}


def _row(
    name: str, seconds: float, search: Search, queries: np.ndarray, truth: np.ndarray
) -> tuple[str, ...]:
    alone, _ = timed(search, queries, 1)
    together, found = timed(search, queries, BATCH)
    pairs = zip(found.tolist(), truth.tolist(), strict=False)
    recall = float(np.mean([len(set(a) & set(b)) / NEAREST for a, b in pairs]))
    row = name, f"{recall:.3f}", f"{alone:.3g}", f"{together:.3g}", f"{seconds:.0f}"
    # A million vectors take an hour: what is known already is told.
    click.echo("  ".join(row), err=True)
    return row


def whole_shop(vectors: np.ndarray, classes: np.ndarray) -> str:
    """How long find-similar --all takes for an index of VECTORS."""
    from model.similar.cli import recommend_all
    from model.similar.index_file import create_index, lock_index
    from model.similar.items import IndexItem

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "similar.index"
        items = [
            IndexItem(f"item-{n}", f"{n:064x}", "", product=f"product-{n // 2}", price=float(n))
            for n in range(len(vectors))
        ]
        with lock_index(path), create_index(path) as index:
            index.set_facts({"source": {"kind": "folder", "photos": name}})
            index.add(items, vectors)
        began, worked = time.perf_counter(), time.process_time()
        said = recommend_all(path, Path(name) / "recommendations.csv", 12)
        seconds, work = time.perf_counter() - began, time.process_time() - worked
    done = said.partition(":")[0]
    return f"find-similar --all: {done} in {seconds:.0f} s, {work:.0f} s of work of the cores"


if __name__ == "__main__":
    main()
