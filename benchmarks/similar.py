"""Measure the quality and the speed of searches for similar items, and compare them with faiss.

    python benchmarks/similar.py quality --photos ../shared/data/clothing/validation --model RUN_DIR
    python benchmarks/similar.py copies --photos ../shared/data/clothing/validation --model RUN_DIR
    python benchmarks/similar.py speed --photos ../shared/data/clothing/train --model RUN_DIR

`quality`: the fraction of the ten nearest photos that have the class of the query, by backbone
features (as they are, standardized, on principal axes), by the probabilities of the labels, and by
both as in find-similar. The run must not have been trained on the photos. A run that was trained
without some of the classes shows how kinds are found that it does not know.

`copies`: the similarity of modified copies of photos, and of different photos.

`speed`: sets of 100,000 and 1,000,000 vectors that are derived from those of the photos: each one
is the vector of a photo, moved a third of the way to another one of its class, with noise of a
fifth of its length, normalized. 2,000 queries are made in the same way. faiss-cpu uses its flat
index, which is exact, HNSW with the same number of neighbours, and IVF; each with its recall of
the ten nearest vectors of the flat index.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from dataset.utils.cli_options import format_table

if TYPE_CHECKING:
    from model.inference.predictor import NetworkOutputs
    from model.similar.build import Embedder

NEAREST, QUERIES, BATCH = 10, 2000, 256
TO_ANOTHER, NOISE = 1 / 3, 1 / 5
HEAD = ("search", "recall@10", "single /s", f"{BATCH} per batch /s", "build s")


@click.group()
def main() -> None:
    """Measure the quality and the speed of searches for similar items."""


def photos_option(command: Callable) -> Callable:
    """Add the options that all commands have."""
    command = click.option("--photos", type=click.Path(exists=True, path_type=Path), required=True)(
        command
    )
    command = click.option(
        "--model", "run", type=click.Path(exists=True, path_type=Path), required=True
    )(command)
    return click.option("--cache", type=click.Path(path_type=Path))(command)


def predict_folder(
    embedder: "Embedder", folder: Path
) -> tuple["NetworkOutputs", np.ndarray, list[Path]]:
    """Return the network outputs of the photos of a folder, their classes, and their paths."""
    from model.similar.sources import FolderIndexSource

    source = FolderIndexSource(folder)
    cached_items = [
        one
        for one in embedder.predict(source.entries(embedder.run.crop, embedder.engine))
        if one.view
    ]
    files = [folder / one.item.image for one in cached_items]
    return (
        embedder.load_outputs(cached_items),
        np.array([f.parent.name for f in files]),
        files,
    )


def unit(values: np.ndarray) -> np.ndarray:
    """Return vectors of shape (n, d), scaled to unit length."""
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


@main.command()
@photos_option
def quality(photos: Path, run: Path, cache: Path | None) -> None:
    """Measure the recall of the class among the ten nearest photos."""
    from model.inference.embedding import fit_embedding, fit_projection, sqrt_softmax
    from model.similar.build import load_embedder

    embedder = load_embedder(run, cache)
    network_outputs, classes, _ = predict_folder(embedder, photos)
    embedding = fit_embedding(network_outputs.features, network_outputs.logits)
    outputs = network_outputs.features
    standardized = (outputs - outputs.mean(axis=0)) / (outputs.std(axis=0) + 1e-3)
    ways = {
        "features": outputs,
        "standardized features": standardized,
        "principal axes": fit_projection(outputs, 246, True, 0).apply(outputs),
        "partly whitened principal axes": embedding.features.apply(outputs),
        "logits": network_outputs.logits - network_outputs.logits.mean(axis=1, keepdims=True),
        "square roots of the probabilities": sqrt_softmax(network_outputs.logits),
        "find-similar: both": embedding.vectors(outputs, network_outputs.logits),
    }
    known = np.isin(classes, embedder.predictor.labels)
    groups = {"classes of the run": known, "other classes": ~known}
    groups = {name: group for name, group in groups.items() if group.any()}
    click.echo(f"{len(classes)} photos of {len(set(classes))} classes, each one a query")
    rows = [
        (name, *(f"{recall_of(values, classes, group):.3f}" for group in groups.values()))
        for name, values in ways.items()
    ]
    head = [f"{name} ({group.sum()} photos)" for name, group in groups.items()]
    click.echo(format_table((f"recall@{NEAREST} of the class", *head), rows))


def recall_of(values: np.ndarray, classes: np.ndarray, asked: np.ndarray) -> float:
    """Return the fraction of the ten nearest photos that have the class of the query."""
    vectors = unit(values)
    products = vectors @ vectors.T - 4 * np.eye(len(vectors), dtype=np.float32)
    best = np.argsort(-products, axis=1)[:, :NEAREST]
    return float((classes[best] == classes[:, None])[asked].mean())


@main.command()
@photos_option
@click.option("--count", type=int, default=300, show_default=True, help="Photos that are copied.")
def copies(photos: Path, run: Path, cache: Path | None, count: int) -> None:
    """Measure the similarity of copies and of different photos, to choose COPY_SIMILARITY."""
    import io

    from PIL import Image

    from dataset.images.io import open_photo
    from model.data.loading import letterbox
    from model.inference.embedding import fit_embedding
    from model.similar.build import load_embedder
    from model.similar.index_file import COPY_SIMILARITY

    embedder = load_embedder(run, cache)
    network_outputs, _, files = predict_folder(embedder, photos)
    embedding = fit_embedding(network_outputs.features, network_outputs.logits)
    vectors = embedding.vectors(network_outputs.features, network_outputs.logits)
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
        predicted = embedder.predictor.predict(pixels)
        similarity = (embedding.vectors(predicted.features, predicted.logits) * vectors[some]).sum(
            axis=1
        )
        rows.append((name, *spread_of(similarity, COPY_SIMILARITY)))
    products = vectors @ vectors.T - 2 * np.eye(len(vectors), dtype=np.float32)
    rows.append(("the nearest other photo", *spread_of(products.max(axis=1), COPY_SIMILARITY)))
    click.echo(
        format_table(("similarity of", "1 %", "50 %", "99 %", f"at least {COPY_SIMILARITY}"), rows)
    )


def spread_of(similarity: np.ndarray, limit: float) -> tuple[str, str, str, str]:
    """Return percentiles of similarities, and the fraction that reaches a limit."""
    low, middle, high = np.percentile(similarity, (1, 50, 99))
    return f"{low:.3f}", f"{middle:.3f}", f"{high:.3f}", f"{(similarity >= limit).mean():.1%}"


def larger(vectors: np.ndarray, classes: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Derive a larger set of vectors of shape (count, d) from the vectors of photos."""
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
    """Return queries per second, measured for three seconds at most, and the results."""
    search(queries[:at_once])
    began, found = time.perf_counter(), []
    for start in range(0, len(queries), at_once):
        found.append(search(queries[start : start + at_once]))
        if time.perf_counter() - began > 3:
            break
    keys = np.concatenate(found)
    return len(keys) / (time.perf_counter() - began), keys


@main.command()
@photos_option
@click.option("--counts", default="100000,1000000", show_default=True)
@click.option("--all/--no-all", "all_", default=True, help="Measure --all of the first count too.")
def speed(photos: Path, run: Path, cache: Path | None, counts: str, all_: bool) -> None:
    """Measure queries per second, compared with faiss-cpu, on all cores."""
    from model.inference.embedding import fit_embedding
    from model.similar.build import load_embedder

    network_outputs, classes, _ = predict_folder(load_embedder(run, cache), photos)
    embedding = fit_embedding(network_outputs.features, network_outputs.logits)
    vectors = embedding.vectors(network_outputs.features, network_outputs.logits)
    queries = larger(vectors, classes, QUERIES, 1)
    for number, count in enumerate(int(text) for text in counts.split(",")):
        made = larger(vectors, classes, count, 2)
        click.echo(f"\n{count:,} vectors of {made.shape[1]} numbers")
        click.echo(format_table(HEAD, speeds(made, queries)))
        if all_ and number == 0:
            click.echo(whole_shop(made, classes))


Search = Callable[[np.ndarray], np.ndarray]


def speeds(vectors: np.ndarray, queries: np.ndarray) -> list[tuple[str, ...]]:
    """Return a row of the table for each way of searching."""
    from model.similar.search import exact_neighbors

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
    """Return faiss' exhaustive search."""
    import faiss

    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    return lambda queries: flat.search(queries, NEAREST)[1]


def graph_of(vectors: np.ndarray) -> dict[str, Callable[[], Search]]:
    """Return name -> function that returns a search with this project's graph."""
    from model.similar.search import Graph

    graph = Graph(vectors.shape[1])
    keys = np.arange(len(vectors))
    graph.add(keys, vectors)

    def search(queries: np.ndarray) -> np.ndarray:
        return graph.search_rescored(queries, NEAREST, keys, vectors).keys

    return {"ours, graph": lambda: search}


def hnsw_of(vectors: np.ndarray) -> dict[str, Callable[[], Search]]:
    """Return searches with faiss' HNSW, with the same number of neighbours."""
    import faiss

    from model.similar.search import CONNECTIVITY, EXPANSION_ADD

    graph = faiss.IndexHNSWFlat(vectors.shape[1], CONNECTIVITY, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = EXPANSION_ADD
    graph.add(vectors)

    def set_up(width: int) -> Search:
        graph.hnsw.efSearch = width
        return lambda queries: graph.search(queries, NEAREST)[1]

    return {f"faiss, HNSW, efSearch {n}": partial(set_up, n) for n in (64, 96, 128)}


def lists_of(vectors: np.ndarray) -> dict[str, Callable[[], Search]]:
    """Return searches with faiss' inverted lists, with the recommended number of cells."""
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
    # A million vectors take an hour: print each row as it is measured.
    click.echo("  ".join(row), err=True)
    return row


def whole_shop(vectors: np.ndarray, classes: np.ndarray) -> str:
    """Measure find-similar --all on an index of the vectors."""
    from model.similar.cli import recommend_all
    from model.similar.index_file import IndexItem, create_index, lock_index

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
        summary = recommend_all(path, Path(name) / "recommendations.csv", 12)
        seconds, work = time.perf_counter() - began, time.process_time() - worked
    done = summary.partition(":")[0]
    return f"find-similar --all: {done} in {seconds:.0f} s, {work:.0f} s of work of the cores"


if __name__ == "__main__":
    main()
