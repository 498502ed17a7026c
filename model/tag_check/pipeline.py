"""Check tags: predict the photos of items, fit the noise model, and write verdicts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from itertools import islice, tee
from pathlib import Path
from typing import Any

import click
import numpy as np
import sqlalchemy as sa
from tqdm import tqdm

from dataset.catalogue.models import TagVerdictRow
from dataset.catalogue.queries import in_batches
from dataset.catalogue.session import open_catalogue
from dataset.errors import BadInput, Failure, first_line, shorten_for_display
from dataset.feeds.cells import category_levels
from dataset.feeds.product_feed import XML, ProductFeed
from dataset.feeds.tables import REPLACEMENT
from dataset.review.queues import PROPOSED
from dataset.utils.files import exclusive_use, make_folder, replace_folder, write_json
from dataset.vocabulary import Vocabulary
from model.evaluation.calibration import softmax
from model.feeds.sources import (
    CatalogueSource,
    FeedSource,
    FetchOptions,
    ImageFetcher,
    ItemSource,
    TaggedItem,
)
from model.inference.predictor import NetworkOutputs, Predictor, load_predictor
from model.inference.preprocessing import CHUNK_SIZE, PreparedPhoto, Preprocessor, RecentPhotos
from model.inference.saved_run import SavedRun, load_run
from model.tag_check import output
from model.tag_check.learning_order import learning_order
from model.tag_check.noise_model import (
    MISTAKE,
    NO_GARMENT,
    NOT_CHECKED,
    UNSURE,
    NoiseModel,
    Thresholds,
    choose_thresholds,
    decide_verdicts,
    fit_noise_model,
)
from model.tag_check.store import (
    CheckedItem,
    CheckStore,
    ItemPrediction,
    ItemVerdict,
    PhotoPrediction,
)
from model.tag_check.training_reference import TrainingNeighbour, TrainingReference, build_reference

NEAREST_PHOTOS = 3
# Width of the features that are kept until the end of a check.
FEATURE_WIDTH = 64
# Items for which the order of decisions that teach most is computed: the most uncertain ones.
MAX_LEARNING_ITEMS = 5_000
UNLIKE_TRAINING = "unlike all training photos"


def predict_photos(
    photos: Mapping[int, PreparedPhoto],
    predictor: Predictor,
    reference: TrainingReference,
    store: CheckStore,
) -> dict[int, PhotoPrediction]:
    """Predict photos.

    Args:
        photos: Number of an item -> its preprocessed photo.
        predictor: The network.
        reference: The training photos.
        store: Has the predictions of repeated photos.

    Returns:
        Number of an item -> prediction.
    """
    pixels = {n: photo.pixels for n, photo in photos.items() if photo.pixels is not None}
    predictions = {n: PhotoPrediction(p.problem) for n, p in photos.items() if p.problem}
    if pixels:
        numbers = list(pixels)
        outputs = predictor.predict(np.stack(list(pixels.values())))
        hashes = [photos[number].sha256 for number in numbers]
        unknown = [row for row, sha256 in enumerate(hashes) if sha256 not in reference.out_of_fold]
        learned = reference.find_learned(
            outputs.features[unknown], [pixels[numbers[row]] for row in unknown]
        )
        # A copy of a learned photo is judged as that photo is.
        for row, same in zip(unknown, learned, strict=True):
            hashes[row] = hashes[row] if same is None else same.sha256
        nearest = reference.nearest(outputs.features, hashes, NEAREST_PHOTOS)
        projected = project_features(outputs.features)
        for row, number in enumerate(numbers):
            reason = photos[number].no_garment_reason
            if (
                not reason
                and nearest[row]
                and nearest[row][0].similarity < reference.min_similarity
            ):
                reason = UNLIKE_TRAINING
            predictions[number] = PhotoPrediction(
                "",
                reason,
                _probabilities(hashes[row], outputs, row, reference),
                [_nearest_as_json(photo) for photo in nearest[row]],
                projected[row],
            )
    known = {photos[number].sha256: prediction for number, prediction in predictions.items()}
    for number, photo in photos.items():
        if photo.is_repeated:
            prediction = known.get(photo.sha256) or store.find_prediction(photo.sha256)
            assert prediction is not None, "a photo is repeated before its prediction is stored"
            known[photo.sha256] = predictions[number] = prediction
    return predictions


def project_features(features: np.ndarray) -> np.ndarray:
    """Project features of shape (n, width) at random to float16 ones of shape (n, FEATURE_WIDTH).

    Scalar products stay about the same (Johnson & Lindenstrauss, 1984).
    """
    # Rows of length 1: sums of float16 do not overflow.
    projected = features @ _projection(features.shape[1])
    lengths = np.linalg.norm(projected, axis=1, keepdims=True)
    return (projected / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float16)


@cache
def _projection(width: int) -> np.ndarray:
    matrix = np.random.default_rng(0).normal(size=(width, FEATURE_WIDTH))
    return matrix.astype(np.float32)


def predict_item(
    item: TaggedItem,
    photos: Mapping[int, PreparedPhoto],
    predictions: Mapping[int, PhotoPrediction],
    labels: Sequence[str],
) -> ItemPrediction:
    """Join an item with the prediction for its photo, and find problems of its photo or tag.

    Args:
        item: The item.
        photos: Number of an item -> its preprocessed photo.
        predictions: Number of an item -> prediction.
        labels: The model's labels.
    """
    class_index = find_class_index(item, labels)
    if item.number not in photos:
        return ItemPrediction(item, class_index, problem=item.problem)
    prediction = predictions[item.number]
    has_label = class_index is not None
    label_problem = "" if has_label else f"the model has no label {item.label!r}"
    problem = "" if prediction.problem else label_problem
    return ItemPrediction(item, class_index, photos[item.number].sha256, prediction, problem)


def _nearest_as_json(photo: TrainingNeighbour) -> dict[str, Any]:
    return {**asdict(photo), "similarity": round(photo.similarity, 4)}


def find_class_index(item: TaggedItem, labels: Sequence[str]) -> int | None:
    """Return the class index of an item's label, or of its tag as it is spelled."""
    tags = (name for level in category_levels(item.tag) for name in (level, level.casefold()))
    for name in (item.label, *tags):
        if name in labels:
            return labels.index(name)
    return None


def _probabilities(
    sha256: str, outputs: NetworkOutputs, row: int, reference: TrainingReference
) -> np.ndarray:
    """Return probabilities of a model that was not trained on the photo."""
    out_of_fold = reference.out_of_fold.get(sha256)
    return softmax(outputs.logits[row : row + 1])[0] if out_of_fold is None else out_of_fold


OPTIONS_FILE, STORE_FILE = "options.json", "items.sqlite"
# Maximum size of the random sample of items that the noise model is fitted on.
MAX_FIT_ITEMS = 20_000
# Notes and repeated ids that are shown at most.
MAX_SHOWN = 10


@dataclass(frozen=True)
class CheckOptions:
    """Options of `check-tags`; `check-tags --help` describes each.

    Attributes:
        feed: The feed to check; None: the catalogue.
    """

    run: Path
    out: Path
    feed: ProductFeed | None = None
    image_root: Path | None = None
    catalogue: str = "catalogue.sqlite"
    images: Path | str = "images"
    data: Path | None = None
    vocabulary: Path | None = None
    precision: str = "auto"
    cache: Path | None = None
    seed: int = 0
    fetch: FetchOptions = field(default_factory=FetchOptions)


def check_tags(options: CheckOptions, vocabulary: Vocabulary) -> dict[str, Any]:
    """Check tags and write the output files.

    Until it is complete the folder is `<out>.unfinished`, from which the same command continues.

    Returns:
        The content of `check.json`.

    Raises:
        BadInput: There is no run or catalogue, or an interrupted check with other options.
        Failure: The model can't be used, or there are no items.
    """
    with ImageFetcher(options.fetch) as fetcher, exclusive_use(options.out, "--out"):
        try:
            return _check_tags(options, vocabulary, fetcher)
        except OSError as error:
            raise Failure(
                f"--out {options.out} can't be written: {first_line(error)}; free disk space, and"
                " repeat the command to continue, or name another folder"
            ) from error


def _check_tags(
    options: CheckOptions, vocabulary: Vocabulary, fetcher: ImageFetcher
) -> dict[str, Any]:
    run = load_run(options.run)
    if run.facets:
        raise BadInput(
            f"{options.run} has several labels per photo, and check-tags compares one; name a run"
            " that was trained on a build without --multi-label"
        )
    source = _open_source(options, run, vocabulary, fetcher)
    _require_same_options(options)
    predictor = load_predictor(run, options.precision)
    reference = build_reference(run, predictor, options.cache, options.data)
    folder = _begin_check(options)
    store = CheckStore(folder / STORE_FILE)
    for note in reference.notes:
        click.echo(note, err=True)
    preprocessor = Preprocessor(run.crop, run.build_options, predictor.size)
    _predict_items(source, preprocessor, predictor, reference, store)
    noise_model, thresholds = assign_verdicts(store, predictor.labels, options.seed)
    results = _results(store, run, predictor, source, noise_model, thresholds)
    training_folder = options.data or run.data
    assert training_folder is not None, "the reference has been built from it"
    output.write_results(folder, store, source, results, options.seed, training_folder)
    for note in _notes(options.feed, store):
        click.echo(note, err=True)
    if isinstance(source, CatalogueSource):
        numbers, probabilities, features = store.most_uncertain(
            (MISTAKE, UNSURE), MAX_LEARNING_ITEMS
        )
        order = learning_order(probabilities, features, options.seed) if numbers else ()
        store.save_learning_ranks([numbers[row] for row in order])
        _save_to_catalogue(store, options.catalogue, predictor)
    _finish_check(folder, options.out)
    return results


def _notes(feed: ProductFeed | None, store: CheckStore) -> Iterator[str]:
    """Yield what was repaired in a feed, and what its owner should know."""
    if feed is None:
        return
    notes = [note for note in store.counts("note") if note]
    yield from map(shorten_for_display, notes[:MAX_SHOWN])
    if len(notes) > MAX_SHOWN:
        yield "further notes are in checked.csv, in the column reason"
    if repeated := store.repeated_ids():
        shown = ", ".join(f"{name} ({count} items)" for name, count in repeated[:MAX_SHOWN])
        more = ", ..." if len(repeated) > MAX_SHOWN else ""
        yield shorten_for_display(f"{feed.path} repeats ids: {shown}{more}")
    if count := store.undecoded_count():
        yield (
            f"{count} rows of {feed.path} have bytes that are not {feed.encoding}, written as"
            f" {REPLACEMENT}; name the feed's encoding with --encoding"
        )
    if feed.kind == XML:
        yield f"the corrected copy of {feed.path} is a table: {output.corrected_file_name(feed)}"


def _open_source(
    options: CheckOptions, run: SavedRun, vocabulary: Vocabulary, fetcher: ImageFetcher
) -> ItemSource:
    if options.feed is None:
        return CatalogueSource(options.catalogue, options.images, vocabulary, run.crop)
    root = options.image_root or options.feed.path.parent
    if not root.is_dir():
        raise BadInput(f"--image-root {root}: no such folder")
    return FeedSource(options.feed, root, vocabulary, fetcher)


def _begin_check(options: CheckOptions) -> Path:
    """Create the folder of an unfinished check, or return that of an interrupted one."""
    folder = _unfinished_folder(options.out)
    make_folder(folder, options.out)
    write_json(_options_as_json(options), folder / OPTIONS_FILE)
    return folder


def _unfinished_folder(out: Path) -> Path:
    return out.with_name(out.name + ".unfinished")


def _options_as_json(options: CheckOptions) -> dict[str, Any]:
    """Return the options that decide the results of a check."""
    # A URL may contain a password, and network options do not change predictions.
    values = {f.name: getattr(options, f.name) for f in fields(options)}
    for name in ("catalogue", "fetch", "cache", "feed"):
        del values[name]
    if options.feed is not None:
        feed = options.feed
        values["feed"] = [feed.path, feed.kind, feed.encoding, feed.header, asdict(feed.columns)]
    as_json: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return as_json


def _require_same_options(options: CheckOptions) -> None:
    """Raise BadInput if there is an interrupted check with other options that stored items."""
    folder = _unfinished_folder(options.out)
    path = folder / OPTIONS_FILE
    if not path.is_file() or not (folder / STORE_FILE).is_file():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        before = {}
    now = _options_as_json(options)
    names = [name for name in now if before.get(name) != now[name]]
    if names and CheckStore(folder / STORE_FILE).last_number():
        raise BadInput(
            f"{folder} is an interrupted check with another {', '.join(names)}; repeat its command,"
            " remove it, or name another --out"
        )


def _predict_items(
    source: ItemSource,
    preprocessor: Preprocessor,
    predictor: Predictor,
    reference: TrainingReference,
    store: CheckStore,
) -> None:
    """Predict and store all items that are not in the store, in chunks."""
    done = store.last_number()
    items, items_to_prepare = tee(_remaining_items(source, store, done))
    # `prepare` reads a chunk ahead of what is stored: the second iterator returns the items again.
    inputs = (item.photo for item in items_to_prepare if item.photo is not None)
    prepared = (photo for chunk in preprocessor.prepare(inputs, RecentPhotos()) for photo in chunk)
    with tqdm(initial=done, desc="items", unit=" items", disable=None) as bar:
        while chunk := list(islice(items, 2 * CHUNK_SIZE)):
            photos = {item.number: next(prepared) for item in chunk if item.photo is not None}
            predictions = predict_photos(photos, predictor, reference, store)
            store.add([predict_item(item, photos, predictions, predictor.labels) for item in chunk])
            bar.update(len(chunk))
    if not store.last_number():
        raise Failure(f"{source.name} has no items to check")


def _remaining_items(source: ItemSource, store: CheckStore, done: int) -> Iterator[TaggedItem]:
    """Return the items after the stored ones.

    Raises:
        Failure: The last stored item is another one in the source.
    """
    items = source.items(max(0, done - 1))
    if done:
        last = next(items, None)
        if last is None or last.id != store.id_of(done):
            raise Failure(
                f"{source.name} has changed since the check was interrupted; remove"
                f" {store.path.parent} and check again"
            )
    return items


def assign_verdicts(
    store: CheckStore, labels: Sequence[str], seed: int
) -> tuple[NoiseModel, Thresholds]:
    """Fit the noise model on all items of a store, and store a verdict on each.

    Args:
        store: Items with predictions.
        labels: The model's labels.
        seed: Random seed.

    Raises:
        Failure: No tag can be checked.
    """
    count = store.prediction_count()
    store.set_verdict(NOT_CHECKED, "probabilities IS NULL OR class_index IS NULL")
    store.set_verdict(NO_GARMENT, "no_garment_reason != ''")
    if not count:
        reasons = ", ".join(f"{count} {why}" for why, count in store.counts("problem").items())
        raise Failure(f"no tag can be checked: {reasons[:300]}")
    probabilities, tags = _draw_sample(store, count, seed)
    noise_model = fit_noise_model(probabilities, tags)
    thresholds = choose_thresholds(noise_model, probabilities, tags)
    for batch in store.predictions():
        verdicts = decide_verdicts(
            noise_model, thresholds, batch.probabilities, batch.class_indices
        )
        store.save_verdicts(
            [
                ItemVerdict(
                    number,
                    verdicts.verdict[i],
                    labels[int(verdicts.best[i])],
                    float(verdicts.probability[i]),
                    float(verdicts.tag_probability[i]),
                    float(verdicts.margin[i]),
                    float(verdicts.wrong_probability[i] * batch.costs[i]),
                )
                for i, number in enumerate(batch.numbers)
            ]
        )
    return noise_model, thresholds


def _draw_sample(store: CheckStore, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and class indices of a random sample of MAX_FIT_ITEMS at most.

    Args:
        store: Items with predictions.
        count: Their number.
        seed: Random seed.
    """
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(count, min(count, MAX_FIT_ITEMS), replace=False))
    probabilities, class_indices, start = [], [], 0
    for batch in store.predictions():
        end = start + len(batch.numbers)
        rows = drawn[np.searchsorted(drawn, start) : np.searchsorted(drawn, end)] - start
        probabilities.append(batch.probabilities[rows])
        class_indices.append(batch.class_indices[rows])
        start = end
    return np.concatenate(probabilities), np.concatenate(class_indices)


def _results(
    store: CheckStore,
    run: SavedRun,
    predictor: Predictor,
    source: ItemSource,
    noise_model: NoiseModel,
    thresholds: Thresholds,
) -> dict[str, Any]:
    """Return the content of `check.json`."""
    counts, mistake = store.counts("verdict"), thresholds.mistake
    return {
        "checked": source.name,
        "model": f"{run.folder.name} {predictor.cache_key}",
        "labels": list(predictor.labels),
        "items": sum(counts.values()),
        "verdicts": counts,
        "repeated_ids": dict(store.repeated_ids()),
        "problems": {why: count for why, count in store.counts("problem").items() if why},
        "estimated_wrong_rate": noise_model.rate,
        "wrong_rate_interval": list(noise_model.rate_interval),
        "thresholds": {
            "agrees": thresholds.agrees,
            "mistake": mistake if np.isfinite(mistake) else None,
        },
        "expected_precision": thresholds.expected_precision,
    }


def _save_to_catalogue(store: CheckStore, catalogue: str, predictor: Predictor) -> None:
    """Replace the verdicts in the catalogue by those of this check, without proposed labels."""
    sessions = open_catalogue(catalogue, must_exist=True)
    rows = (
        _verdict_row(item, predictor.cache_key)
        for item in store.in_order()
        if item.image_id is not None
    )
    with sessions.begin() as session:
        session.execute(sa.delete(TagVerdictRow).where(TagVerdictRow.verdict != PROPOSED))
        for batch in in_batches(rows):
            session.execute(sa.insert(TagVerdictRow), batch)


def _verdict_row(item: CheckedItem, model: str) -> dict[str, Any]:
    return {
        "image_id": item.image_id,
        "label": item.label,
        "model": model,
        "verdict": item.verdict,
        "suggested": item.suggested,
        "probability": item.probability or 0.0,
        "tag_probability": item.tag_probability or 0.0,
        "margin": item.margin or 0.0,
        "cost": item.expected_cost or 0.0,
        "nearest": json.dumps(item.nearest, ensure_ascii=False),
        "learning_rank": item.learning_rank,
    }


def _finish_check(folder: Path, out: Path) -> None:
    """Remove the files that only a resumed check needs, and rename the folder."""
    for name in (OPTIONS_FILE, STORE_FILE):
        (folder / name).unlink(missing_ok=True)
    replace_folder(folder, out)
