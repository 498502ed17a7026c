"""Check tags: predict the photos of items, fit the noise model, and write verdicts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache, partial
from itertools import chain, islice, tee
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
from dataset.feeds.cells import TagLists, category_levels
from dataset.feeds.product_feed import XML, ProductFeed
from dataset.feeds.tables import REPLACEMENT
from dataset.review.queues import PROPOSED
from dataset.utils.engines import LOCAL_ENGINE, Engine
from dataset.utils.files import (
    exclusive_use,
    make_folder,
    replace_folder,
    unfinished_path,
    write_json,
)
from dataset.vocabulary import Vocabulary
from model.evaluation.calibration import softmax
from model.feeds.sources import (
    CatalogueSource,
    FeedSource,
    FetchOptions,
    ImageFetcher,
    ItemSource,
    ListedTag,
    TaggedItem,
    known_tags,
)
from model.inference.output_cache import OutputCache, view_name
from model.inference.predictor import (
    NetworkOutputs,
    Predictor,
    SavedRun,
    load_predictor,
    load_run,
    prepare_photos,
)
from model.inference.preprocessing import CHUNK_SIZE, PreparedPhoto, Preprocessor, RecentPhotos
from model.tag_check import output
from model.tag_check.noise_model import (
    MISSING,
    MISTAKE,
    NO_GARMENT,
    NOT_CHECKED,
    UNSURE,
    NoiseModel,
    Thresholds,
    active_learning_order,
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
    normalize_rows,
)
from model.tag_check.training_reference import TrainingNeighbour, TrainingReference, build_reference

NEAREST_PHOTOS = 3
# Width of the features that are kept until the end of a check.
FEATURE_WIDTH = 64
# Number of the most uncertain items that are ordered by active learning.
MAX_ACTIVE_LEARNING_ITEMS = 5_000
UNLIKE_TRAINING = "unlike all training photos"


def predict_photos(
    photos: Mapping[int, PreparedPhoto],
    views: Mapping[int, str],
    predictor: Predictor,
    cache: OutputCache,
    reference: TrainingReference,
    store: CheckStore,
) -> dict[int, PhotoPrediction]:
    """Predict photos.

    Args:
        photos: Number of an item -> its preprocessed photo.
        views: Number of an item -> name of its photo in the cache.
        predictor: The network.
        cache: The cache of network outputs.
        reference: The training photos.
        store: Has the predictions of repeated photos.

    Returns:
        Number of an item -> prediction.
    """
    predictions = {n: PhotoPrediction(p.problem) for n, p in photos.items() if p.problem}
    prepared = {n: photo for n, photo in photos.items() if photo.pixels is not None}
    if prepared:
        readable = list(prepared.values())
        outputs = cache.predict(predictor, [views[number] for number in prepared], readable)
        judged = compare_with_training(readable, outputs, reference)
        predictions |= dict(zip(prepared, judged, strict=True))
    known = {photos[number].sha256: prediction for number, prediction in predictions.items()}
    for number, photo in photos.items():
        if photo.is_repeated:
            prediction = known.get(photo.sha256) or store.find_prediction(photo.sha256)
            assert prediction is not None, "a photo is repeated before its prediction is stored"
            known[photo.sha256] = predictions[number] = prediction
    return predictions


def compare_with_training(
    photos: Sequence[PreparedPhoto], outputs: NetworkOutputs, reference: TrainingReference
) -> list[PhotoPrediction]:
    """Compare photos with the training photos.

    Training photos and their copies get out-of-fold probabilities. Outliers are marked as showing
    no garment.

    Args:
        photos: Photos with pixels.
        outputs: The outputs of the network for them.
        reference: The training photos.
    """
    hashes = [photo.sha256 for photo in photos]
    unknown = [row for row, sha256 in enumerate(hashes) if sha256 not in reference.out_of_fold]
    pixels = [photos[row].pixels for row in unknown]
    originals = reference.find_originals(
        outputs.features[unknown], [array for array in pixels if array is not None]
    )
    # A copy of a training photo gets the probabilities of that photo.
    for row, original in zip(unknown, originals, strict=True):
        hashes[row] = hashes[row] if original is None else original.sha256
    nearest = reference.nearest(outputs.features, hashes, NEAREST_PHOTOS)
    projected = project_features(outputs.features)
    predictions = []
    for row, photo in enumerate(photos):
        reason = photo.no_garment_reason
        if not reason and nearest[row] and nearest[row][0].similarity < reference.min_similarity:
            reason = UNLIKE_TRAINING
        predictions.append(
            PhotoPrediction(
                "",
                reason,
                _probabilities(hashes[row], outputs, row, reference),
                [_nearest_as_json(near) for near in nearest[row]],
                projected[row],
            )
        )
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


@dataclass(frozen=True)
class LabelScheme:
    """The labels of a model, and which of them exclude each other.

    Attributes:
        labels: The labels.
        members: Facet -> class indices of its labels. A model of one label per photo has one facet
            without a name.
        thresholds: Facet -> the lowest probability of a label that is certain; None if none is.
        vocabulary: Defines labels and their facets.
    """

    labels: Sequence[str]
    members: Mapping[str, Sequence[int]]
    thresholds: Mapping[str, float | None]
    vocabulary: Vocabulary

    @classmethod
    def of_run(cls, run: SavedRun, vocabulary: Vocabulary) -> "LabelScheme":
        """Return the labels of a run."""
        labels = run.labels
        members = {
            facet: [labels.index(name) for name in names] for facet, names in run.facets.items()
        }
        return cls(labels, members or {"": range(len(labels))}, run.facet_thresholds, vocabulary)

    @property
    def is_multi_label(self) -> bool:
        """Whether a photo can have several labels."""
        return "" not in self.members

    def facets_of(self, class_index: int) -> list[str]:
        """Return the facets of a label."""
        return [facet for facet, members in self.members.items() if class_index in members]

    def find_facet(self, class_index: int, column_facet: str) -> str:
        """Return the facet in which a tag is checked: that of its column, if it has the label."""
        facets = self.facets_of(class_index)
        return column_facet if column_facet in facets else facets[0]

    def find_facets(self, tags: Sequence[ListedTag]) -> set[str]:
        """Return the facets of tags, also those of labels that the model lacks."""
        facets = {tag.facet for tag in tags}
        for tag in tags:
            class_index = find_class_index(tag, self.labels)
            facets.update(() if class_index is None else self.facets_of(class_index))
            facets.update(self.vocabulary.facets_of(tag.label))
        return facets

    def find_missing(
        self, tags: Sequence[ListedTag], probabilities: np.ndarray
    ) -> dict[str, tuple[str, float]]:
        """Find labels that a photo certainly has, in facets without a tag.

        Args:
            tags: The tags of the item.
            probabilities: Probabilities of shape (classes,).

        Returns:
            Facet -> label and its probability within the facet.
        """
        filled, missing = self.find_facets(tags), {}
        for facet, members in self.members.items():
            threshold = self.thresholds.get(facet)
            if facet in filled or threshold is None:
                continue
            own = normalize_rows(probabilities[None, list(members)].astype(np.float64))[0]
            best = members[int(own.argmax())]
            facets = set(self.facets_of(best))
            if own.max() >= threshold and facets.isdisjoint(filled):
                missing[facet] = (self.labels[best], float(own.max()))
                filled |= facets
        return missing


def predict_item(
    item: TaggedItem,
    photos: Mapping[int, PreparedPhoto],
    predictions: Mapping[int, PhotoPrediction],
    scheme: LabelScheme,
) -> list[ItemPrediction]:
    """Join the tags of an item with the prediction for its photo, and find their problems.

    Args:
        item: The item.
        photos: Number of an item -> its preprocessed photo.
        predictions: Number of an item -> prediction.
        scheme: The model's labels.

    Returns:
        A prediction for each tag, and one for each tag that is missing.
    """
    tags = find_checked_tags(item, scheme)
    if item.number not in photos:
        problem = item.problem
        return [_tag_prediction(item, tag, scheme, problem=problem) for tag in tags]
    sha256, photo = photos[item.number].sha256, predictions[item.number]
    checked, problems = [], _wider_tags(tags, scheme)
    probable: int | None = None
    indices = [find_class_index(tag, scheme.labels) for tag in tags]
    rivals = [index for index in indices if index is not None]
    if len(rivals) > 1 and not scheme.is_multi_label and photo.probabilities is not None:
        # The labels of a photo do not exclude each other, but the model gives only one.
        probabilities = photo.probabilities
        probable = max(rivals, key=lambda index: float(probabilities[index]))
    for tag, index in zip(tags, indices, strict=True):
        problem = item.problem or problems.get(tag.label, "")
        excluded: Sequence[int] = ()
        if probable is not None and index == probable:
            excluded = [other for other in rivals if other != index]
        elif probable is not None:
            label = scheme.labels[probable]
            problem = f"the model gives one label per photo, and {label!r} is more probable"
        problem = "" if photo.problem else problem
        checked.append(_tag_prediction(item, tag, scheme, sha256, photo, problem, excluded))
    if scheme.is_multi_label and photo.probabilities is not None and not photo.no_garment_reason:
        missing = scheme.find_missing(tags, photo.probabilities)
        checked += [
            ItemPrediction(item, None, sha256, photo, "", ListedTag("", ""), facet, (), proposal)
            for facet, proposal in missing.items()
        ]
    return checked


def _tag_prediction(
    item: TaggedItem,
    tag: ListedTag,
    scheme: LabelScheme,
    sha256: str = "",
    photo: PhotoPrediction | None = None,
    problem: str = "",
    excluded: Sequence[int] = (),
) -> ItemPrediction:
    photo = photo or PhotoPrediction()
    class_index = None if problem else find_class_index(tag, scheme.labels)
    facet = "" if class_index is None else scheme.find_facet(class_index, tag.facet)
    if class_index is None and not problem and not photo.problem:
        problem = f"the model has no label {tag.label!r}"
    return ItemPrediction(item, class_index, sha256, photo, problem, tag, facet, excluded)


def find_checked_tags(item: TaggedItem, scheme: LabelScheme) -> list[ListedTag]:
    """Return the tags of an item that get a verdict, at least one.

    For a model of one label per photo, the tags of a list are checked only if the model has several
    of their labels: categories, too, have separators.
    """
    whole = ListedTag(item.tag, item.label)
    if scheme.is_multi_label:
        return list(item.tags) or [whole]
    by_index: dict[int, ListedTag] = {}
    for tag in item.tags:
        class_index = find_class_index(tag, scheme.labels)
        if class_index is not None:
            by_index.setdefault(class_index, tag)
    tags = list(by_index.values())
    wider = _wider_tags(tags, scheme)
    tags = [tag for tag in tags if tag.label not in wider]
    is_known = find_class_index(whole, scheme.labels) is not None
    return tags if len(tags) > 1 or (tags and not is_known) else [whole]


def _wider_tags(tags: Sequence[ListedTag], scheme: LabelScheme) -> dict[str, str]:
    """Return label -> why it is not checked: another tag is narrower, as sneakers of shoes."""
    return {
        wide: f"it contains {tag.label!r}, another tag of the row"
        for tag in tags
        for wide in scheme.vocabulary.wider(tag.label)
    }


def _nearest_as_json(photo: TrainingNeighbour) -> dict[str, Any]:
    return {**asdict(photo), "similarity": round(photo.similarity, 4)}


def find_class_index(tag: ListedTag, labels: Sequence[str]) -> int | None:
    """Return the class index of a tag's label, or of the tag as it is spelled."""
    tags = (name for level in category_levels(tag.tag) for name in (level, level.casefold()))
    for name in (tag.label, *tags):
        if name in labels:
            return labels.index(name)
    return None


def _probabilities(
    sha256: str, outputs: NetworkOutputs, row: int, reference: TrainingReference
) -> np.ndarray:
    """Return probabilities of a model that was not trained on the photo.

    With facets, the logits are logarithms of probabilities. Those of facets without a label were
    not learned from the photo.
    """
    out_of_fold = reference.out_of_fold.get(sha256)
    if out_of_fold is not None and not np.isnan(out_of_fold).any():
        return out_of_fold
    logits = outputs.logits[row : row + 1]
    own = (np.exp(logits) if reference.is_multi_label else softmax(logits))[0]
    return own if out_of_fold is None else np.where(np.isnan(out_of_fold), own, out_of_fold)


OPTIONS_FILE, STORE_FILE = "options.json", "items.sqlite"
# Maximum size of the random sample of items that the noise model is fitted on.
MAX_FIT_ITEMS = 20_000
# Maximum number of notes, and of repeated ids, that are shown.
MAX_SHOWN = 10


@dataclass(frozen=True)
class CheckOptions:
    """Options of `check-tags`; `check-tags --help` describes each.

    Attributes:
        feed: The feed to check; None: the catalogue.
        add_missing: Whether the corrected feed gets the missing tags.
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
    add_missing: bool = False
    fetch: FetchOptions = field(default_factory=FetchOptions)


def check_tags(
    options: CheckOptions, vocabulary: Vocabulary, engine: Engine = LOCAL_ENGINE
) -> dict[str, Any]:
    """Check tags and write the output files.

    Until it is complete the folder is `<out>.unfinished`, from which the same command continues.

    Args:
        options: The options of the command.
        vocabulary: Defines labels.
        engine: Prepares and predicts the photos.

    Returns:
        The content of `check.json`.

    Raises:
        BadInput: There is no run or catalogue, or an interrupted check with other options.
        Failure: The model can't be used, or there are no items.
    """
    with ImageFetcher(options.fetch) as fetcher, exclusive_use(options.out, "--out"):
        try:
            return _check_tags(options, vocabulary, fetcher, engine)
        except OSError as error:
            raise Failure(
                f"--out {options.out} can't be written: {first_line(error)}; free disk space, and"
                " repeat the command to continue, or choose another folder"
            ) from error


def _check_tags(
    options: CheckOptions, vocabulary: Vocabulary, fetcher: ImageFetcher, engine: Engine
) -> dict[str, Any]:
    run = load_run(options.run)
    scheme = LabelScheme.of_run(run, vocabulary)
    source = _open_source(options, run, vocabulary, fetcher)
    _require_same_options(options)
    predictor = load_predictor(run, options.precision)
    reference = build_reference(run, predictor, options.cache, options.data)
    folder = _begin_check(options)
    store = CheckStore(folder / STORE_FILE)
    for note in reference.notes:
        click.echo(note, err=True)
    preprocessor = Preprocessor(run.crop, run.build_options, predictor.size)
    cache = OutputCache.of_run(run, predictor, options.cache)
    _predict_items(source, preprocessor, predictor, cache, reference, store, scheme, engine)
    checks = assign_verdicts(store, scheme, options.seed)
    results = _results(store, run, predictor, source, checks)
    training_folder = options.data or run.data
    assert training_folder is not None, "the reference has been built from it"
    output.write_results(
        folder, store, source, results, options.seed, training_folder, options.add_missing
    )
    for note in _notes(options.feed, store):
        click.echo(note, err=True)
    if isinstance(source, CatalogueSource):
        keys, probabilities, features = store.most_uncertain(
            (MISTAKE, UNSURE), MAX_ACTIVE_LEARNING_ITEMS, scheme.members
        )
        order = active_learning_order(probabilities, features, options.seed) if keys else ()
        store.save_learning_ranks([keys[row] for row in order])
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
        return CatalogueSource(
            options.catalogue, options.images, vocabulary, run.crop, bool(run.facets)
        )
    root = options.image_root or options.feed.path.parent
    if not root.is_dir():
        raise BadInput(f"--image-root {root}: no such folder")
    tag_lists = TagLists(known_tags(vocabulary, run.labels))
    needs_tag = not run.facets
    return FeedSource(options.feed, root, vocabulary, fetcher, tag_lists, needs_tag)


def _begin_check(options: CheckOptions) -> Path:
    """Create the folder of an unfinished check, or return that of an interrupted one."""
    folder = unfinished_path(options.out)
    make_folder(folder, options.out)
    write_json(_options_as_json(options), folder / OPTIONS_FILE)
    return folder


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
    folder = unfinished_path(options.out)
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
    cache: OutputCache,
    reference: TrainingReference,
    store: CheckStore,
    scheme: LabelScheme,
    engine: Engine,
) -> None:
    """Predict and store all items that are not in the store, in chunks."""
    done = store.last_number()
    items, items_to_prepare = tee(_remaining_items(source, store, done))
    # Photos are read ahead of what is stored: the second iterator returns the items again.
    inputs = (item.photo for item in items_to_prepare if item.photo is not None)
    chunks = prepare_photos(inputs, preprocessor, predictor, engine, RecentPhotos())
    prepared = (photo for chunk in chunks for photo in chunk)
    with tqdm(initial=done, desc="items", unit=" items", disable=None) as bar:
        while chunk := list(islice(items, 2 * CHUNK_SIZE)):
            photos, views = {}, {}
            for item in chunk:
                if item.photo is not None:
                    photo = photos[item.number] = next(prepared)
                    views[item.number] = view_name(photo.sha256, item.photo.crop)
            predictions = predict_photos(photos, views, predictor, cache, reference, store)
            tags = (predict_item(item, photos, predictions, scheme) for item in chunk)
            store.add(list(chain.from_iterable(tags)))
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


@dataclass(frozen=True)
class FacetCheck:
    """How the tags of a facet go wrong, and from which probabilities verdicts are given.

    Attributes:
        noise_model: How tags go wrong.
        thresholds: The thresholds of verdicts.
        tags: Number of tags that can be checked.
    """

    noise_model: NoiseModel
    thresholds: Thresholds
    tags: int


def assign_verdicts(store: CheckStore, scheme: LabelScheme, seed: int) -> dict[str, FacetCheck]:
    """Fit a noise model on the tags of each facet in a store, and store a verdict on each tag.

    Args:
        store: Items with predictions.
        scheme: The model's labels.
        seed: Random seed.

    Returns:
        Facet with tags -> how they were checked.

    Raises:
        Failure: No tag can be checked.
    """
    store.set_verdict(
        NOT_CHECKED,
        f"(probabilities IS NULL OR class_index IS NULL) AND verdict IS NOT '{MISSING}'",
    )
    store.set_verdict(NO_GARMENT, "no_garment_reason != ''")
    checks: dict[str, FacetCheck] = {}
    for facet, members in scheme.members.items():
        count = store.prediction_count(facet)
        if not count:
            continue
        probabilities, tags = _draw_sample(store, facet, members, count, seed)
        noise_model = fit_noise_model(probabilities, tags)
        check = FacetCheck(noise_model, choose_thresholds(noise_model, probabilities, tags), count)
        checks[facet] = check
        for batch in store.predictions(facet, members):
            verdicts = decide_verdicts(
                noise_model, check.thresholds, batch.probabilities, batch.class_indices
            )
            store.save_verdicts(
                [
                    ItemVerdict(
                        key,
                        verdicts.verdict[i],
                        scheme.labels[members[int(verdicts.best[i])]],
                        float(verdicts.probability[i]),
                        float(verdicts.tag_probability[i]),
                        float(verdicts.margin[i]),
                        float(verdicts.wrong_probability[i] * batch.costs[i]),
                    )
                    for i, key in enumerate(batch.keys)
                ]
            )
    if not checks:
        reasons = ", ".join(f"{count} {why}" for why, count in store.counts("problem").items())
        raise Failure(f"no tag can be checked: {reasons[:300]}")
    return checks


def _draw_sample(
    store: CheckStore, facet: str, members: Sequence[int], count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and class indices of a random sample of MAX_FIT_ITEMS at most.

    Args:
        store: Items with predictions.
        facet: The facet of the tags.
        members: Class indices of its labels.
        count: Number of the tags.
        seed: Random seed.
    """
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(count, min(count, MAX_FIT_ITEMS), replace=False))
    probabilities, class_indices, start = [], [], 0
    for batch in store.predictions(facet, members):
        end = start + len(batch.keys)
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
    checks: Mapping[str, FacetCheck],
) -> dict[str, Any]:
    """Return the content of `check.json`."""
    counts = store.counts("verdict")
    facts = {
        "checked": source.name,
        "model": f"{run.folder.name} {predictor.cache_key}",
        "labels": list(predictor.labels),
        "items": store.item_count(),
        "tags": sum(count for verdict, count in counts.items() if verdict != MISSING),
        "verdicts": counts,
        "repeated_ids": dict(store.repeated_ids()),
        "problems": {why: count for why, count in store.counts("problem").items() if why},
    }
    if "" in checks:
        return {**facts, **_facet_results(checks[""])}
    # Over all tags, the figures are means; the expected precision is that of all mistakes.
    by_facet = {
        facet: {
            "tags": check.tags,
            "verdicts": store.counts("verdict", facet),
            **_facet_results(check),
        }
        for facet, check in checks.items()
    }
    total = sum(check.tags for check in checks.values())
    mean = partial(np.average, weights=[check.tags for check in checks.values()])
    expected = [
        (result["verdicts"].get(MISTAKE, 0), result["expected_precision"])
        for result in by_facet.values()
    ]
    mistakes = sum(count for count, precision in expected if precision is not None)
    right = sum(count * precision for count, precision in expected if precision is not None)
    return {
        **facts,
        "estimated_wrong_rate": sum(c.noise_model.rate * c.tags for c in checks.values()) / total,
        "wrong_rate_interval": [
            float(mean([check.noise_model.rate_interval[end] for check in checks.values()]))
            for end in (0, 1)
        ],
        "expected_precision": right / mistakes if mistakes else None,
        "facets": by_facet,
    }


def _facet_results(check: FacetCheck) -> dict[str, Any]:
    noise_model, mistake = check.noise_model, check.thresholds.mistake
    return {
        "estimated_wrong_rate": noise_model.rate,
        "wrong_rate_interval": list(noise_model.rate_interval),
        "thresholds": {
            "agrees": check.thresholds.agrees,
            "mistake": mistake if np.isfinite(mistake) else None,
        },
        "expected_precision": check.thresholds.expected_precision,
    }


def _save_to_catalogue(store: CheckStore, catalogue: str, predictor: Predictor) -> None:
    """Replace the verdicts in the catalogue by those of this check, without proposed labels."""
    sessions = open_catalogue(catalogue, must_exist=True)
    rows = (
        _verdict_row(item, predictor.cache_key)
        for item in store.in_order()
        # A proposal of review is one for the whole photo.
        if item.image_id is not None and item.verdict != MISSING
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
