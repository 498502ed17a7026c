"""A run's own photos, beside which others are seen: the nearest, and who was learned from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from tqdm import tqdm

from dataset.errors import BadInput, Failure, first_line
from dataset.export.layout import MANIFEST
from model.data.features import EXACT, Outputs, OutputsCache, Views, default_folder
from model.data.loading import Data, Example, boxed, digests, find_data, read
from model.data.metadata import origins
from model.inference.predictor import BATCH, Judge
from model.inference.saved_run import Run
from model.network.inception import LEAST_SPREAD
from model.tag_check.noise_model import opinions
from model.training.config import TrainOptions
from model.training.linear_probe import columns
from model.training.stages import HEAD, prepare

# More training photos than this are not compared with; a random part of them speaks for all.
MOST = 20_000
# Fewer training photos a label than this can't be judged by models that leave a part of them out.
LEAST = 5
# What shows no garment is less like any training photo than this share of the validation photos,
# than so many deviations below their median, and than what still looks like something known.
STRANGE, DEVIATIONS, KNOWN = 0.002, 4.0, 0.5
SEEN = "photos that the run learned from are judged by the model that saw them: "


@dataclass(frozen=True)
class Near:
    """A training photo that looks like one in question. `similarity`: a cosine, 1 for the same."""

    sha256: str
    path: str
    label: str
    similarity: float


@dataclass(frozen=True)
class Reference:
    """Training photos as the model sees them, and what others say of them.

    `vectors`: (n, width) float32 of unit length, of `known`; `mean`, `spread`: (width,), by which
    outputs are levelled first. `opinions`: SHA-256 -> calibrated shares, (classes,), of models that
    never saw that photo, of all that was learned from. `least`: a lower similarity is strange.
    """

    known: Sequence[Near]
    vectors: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    least: float
    opinions: Mapping[str, np.ndarray]
    told: tuple[str, ...] = ()

    def nearest(self, outputs: np.ndarray, seen: Sequence[str], count: int) -> list[list[Near]]:
        """The COUNT training photos that look most like each of OUTPUTS, (n, width) float32.

        SEEN: the photos' own SHA-256, which are not named as their own neighbours.
        """
        similarity = self.levelled(outputs) @ self.vectors.T
        found = []
        for mine, sha256 in zip(similarity, seen, strict=True):
            some = np.argpartition(-mine, min(count + 1, len(mine) - 1))[: count + 1]
            ordered = sorted(some.tolist(), key=lambda place: -mine[place])
            near = [replace(self.known[i], similarity=float(mine[i])) for i in ordered]
            found.append([one for one in near if one.sha256 != sha256][:count])
        return found

    def levelled(self, outputs: np.ndarray) -> np.ndarray:
        """OUTPUTS, (n, width), with the mean and spread of training photos, of unit length."""
        values = (outputs - self.mean) / self.spread
        found: np.ndarray = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
        return found


def open_reference(run: Run, judge: Judge, cache: Path | None, data: Path | None) -> Reference:
    """The reference of RUN, whose photos are in the folder DATA, or where it learned from them.

    Raises:
        BadInput: that folder is gone.
    """
    folder = data or run.data
    if folder is None or not folder.is_dir():
        raise BadInput(
            f"the photos that {run.folder} learned from are not in {folder}; say with --data where"
            " they are now"
        )
    found = find_data(folder)
    if list(found.labels) != list(run.labels):
        raise BadInput(
            f"--data {folder} has other labels than {run.folder}: {', '.join(found.labels)}"
        )
    names = _Names(found)
    frozen, told = _frozen(run, found, cache)
    said, doubted = _opinions(run, names, frozen)
    # A head alone was taught: the trunk sees what it saw before.
    if frozen is not None and run.kept == HEAD:
        train, validation = (_of(frozen, split, _taps(run)) for split in ("train", "validation"))
    else:
        kept = OutputsCache(cache or default_folder(), f"judged-{judge.key}", EXACT)
        train, validation = (
            _looked_at(names, found.of(split), judge, kept) for split in ("train", "validation")
        )
    return _reference(names, train, validation, said, (*told, *doubted))


@dataclass(frozen=True)
class _Names:
    """What the photos of DATA are called elsewhere; each file is read once for it."""

    data: Data

    @cached_property
    def files(self) -> dict[Example, str]:
        """SHA-256 of the readable train and validation photos, as they are in the data."""
        photos = [one for one in self.data.examples if one.split != "test"]
        return digests(self.data.folder, photos, {})

    @cached_property
    def originals(self) -> dict[str, str]:
        """Path in a build -> SHA-256 of the photo in the catalogue; empty for plain folders."""
        path = self.data.folder / MANIFEST
        if not path.exists() or "sha256" not in pq.read_schema(path).names:
            return {}
        rows = pq.read_table(path, columns=["path", "sha256"]).to_pydict()
        return dict(zip(rows["path"], rows["sha256"], strict=True))


def _reference(
    names: _Names,
    train: "Vectors",
    validation: "Vectors",
    said: Mapping[str, np.ndarray],
    told: tuple[str, ...],
) -> Reference:
    examples, outputs = _some(train)
    mean, spread = outputs.mean(axis=0), outputs.std(axis=0) + LEAST_SPREAD
    files, originals = names.files, names.originals
    known = [Near(originals.get(e.path, files.get(e, "")), e.path, e.label, 1.0) for e in examples]
    bare = Reference(known, outputs, mean, spread, -1.0, said, told)
    ready = replace(bare, vectors=bare.levelled(outputs))
    if not len(validation.outputs):
        return ready
    similarity = (ready.levelled(validation.outputs) @ ready.vectors.T).max(axis=1)
    return replace(ready, least=_least(similarity))


def _least(similarity: np.ndarray) -> float:
    """What less than is strange, by the LIKENESS, (n,), of photos to the nearest they never saw."""
    middle = np.median(similarity)
    # 1.48 makes a standard deviation of the median of deviations (Rousseeuw and Croux, 1993).
    spread = 1.48 * np.median(np.abs(similarity - middle))
    return float(min(np.quantile(similarity, STRANGE), middle - DEVIATIONS * spread, KNOWN))


@dataclass(frozen=True)
class Vectors:
    """Photos with their trunk outputs, (n, width) float32."""

    examples: Sequence[Example]
    outputs: np.ndarray


def _some(vectors: Vectors) -> tuple[Sequence[Example], np.ndarray]:
    """MOST of VECTORS at most, drawn at random."""
    if len(vectors.examples) <= MOST:
        return vectors.examples, vectors.outputs
    chosen = np.sort(np.random.default_rng(0).choice(len(vectors.examples), MOST, replace=False))
    return [vectors.examples[place] for place in chosen], vectors.outputs[chosen]


def _of(frozen: Outputs, split: str, taps: Sequence[str]) -> Vectors:
    """The photos of SPLIT in FROZEN, seen by TAPS."""
    mine = [place for place, example in enumerate(frozen.examples) if example.split == split]
    values = frozen.values[mine][:, 0, columns(taps)].astype(np.float32)
    return Vectors([frozen.examples[place] for place in mine], values)


def _taps(run: Run) -> list[str]:
    return str(run.facts.get("taps", "")).split("+")


def _looked_at(
    names: _Names, examples: Sequence[Example], judge: Judge, cache: OutputsCache
) -> Vectors:
    """The readable ones of EXAMPLES, seen by JUDGE; what it saw before is in the CACHE."""
    files = {one: names.files[one] for one in examples if one in names.files}
    known = cache.get(list(files.values()))
    lacking = [one for one, sha256 in files.items() if sha256 not in known]
    batch: dict[str, np.ndarray] = {}

    def look() -> None:
        outputs = judge.outputs(np.stack(list(batch.values())))
        new = dict(zip(batch, outputs, strict=True))
        cache.put(new)
        known.update(new)
        batch.clear()

    shown = tqdm(total=len(lacking), desc="photos of the run", unit=" photos", disable=None)
    for example, pixels in read(names.data.folder, lacking, partial(boxed, size=judge.size)):
        shown.update()
        if not isinstance(pixels, str):
            batch[files[example]] = pixels
        if len(batch) == BATCH:
            look()
    if batch:
        look()
    shown.close()
    there = [one for one, sha256 in files.items() if sha256 in known]
    width = int(judge.features.output.shape[-1])
    values = np.array([known[files[one]] for one in there], EXACT).reshape(-1, width)
    return Vectors(there, values)


def _frozen(run: Run, data: Data, cache: Path | None) -> tuple[Outputs | None, tuple[str, ...]]:
    """What the trunk that RUN began with sees in its train and validation photos; or why not."""
    asked = run.facts.get("options", {})
    weights = asked.get("weights", "imagenet")
    if weights == "none":
        return None, (SEEN + "its trunk learned from these alone",)
    options = TrainOptions(
        data.folder,
        run.folder,
        weights,
        image_size=int(asked.get("image_size", 299)),
        precision=str(asked.get("precision", "auto")),
        cache=cache,
    )
    try:
        extractor = prepare(options).extractor
    except (Failure, OSError) as error:
        return None, (SEEN + f"the trunk that it began with can't be had: {first_line(error)}",)
    parts = [extractor.outputs(data, split, Views()) for split in ("train", "validation")]
    return replace(
        parts[0],
        examples=[*parts[0].examples, *parts[1].examples],
        values=np.concatenate([part.values for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
    ), ()


def _opinions(
    run: Run, names: _Names, frozen: Outputs | None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """What heads that never saw them say of the train and validation photos, by SHA-256.

    On the trunk as it was before the run taught it: a fine-tuned one remembers the tags.
    """
    if frozen is None:
        return {}, ()
    classes = len(run.labels)
    if np.bincount(frozen.targets, minlength=classes).min() < LEAST:
        return {}, (SEEN + f"a label has fewer than {LEAST} of them",)
    values = frozen.values[:, 0, columns(_taps(run))].astype(np.float32)
    groups = origins(names.data.folder, frozen.examples).groups
    seed = int(run.facts.get("seed", 0))
    shares = opinions(values, frozen.targets, groups, classes, seed)
    found = {}
    for one, mine in zip(frozen.examples, shares, strict=True):
        # A build's file is another than the original that a feed or the catalogue shows.
        for sha256 in {names.files.get(one, ""), names.originals.get(one.path, "")} - {""}:
            found[sha256] = mine
    return found, ()
