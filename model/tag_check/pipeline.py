"""What a run's model and training photos say of the photos of items."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
from dataset.errors import BadInput, Failure
from dataset.utils.files import make_folder, replace_folder, write_json
from dataset.vocabulary import Vocabulary
from model.evaluation.calibration import softmax
from model.feeds.product_feed import REPLACEMENT, Feed, levels
from model.feeds.remote_images import Fetcher, FetchOptions
from model.feeds.sources import CatalogueSource, FeedSource, Item, Source
from model.inference.predictor import Judge, Looked, open_judge
from model.inference.preprocessing import CHUNK as SEEN_AT_ONCE
from model.inference.preprocessing import Eyes, Seen, Shown
from model.inference.saved_run import Run, read_run
from model.tag_check import output
from model.tag_check.noise_model import (
    NOTHING,
    UNCHECKED,
    Bar,
    Tagging,
    bar_of,
    tagging_of,
    verdicts,
)
from model.tag_check.store import Answer, Checked, Look, Sight, Store
from model.tag_check.training_reference import Reference, open_reference

NEAREST = 3
LOOKS_LIKE_NOTHING = "unlike all photos that the model learned from"


def sights_of(
    items: Sequence[Item],
    photos: Mapping[int, Seen],
    judge: Judge,
    reference: Reference,
    store: Store,
) -> dict[int, Sight]:
    """What is seen in PHOTOS, by the numbers of their ITEMS; those shown before are in STORE."""
    pixels = {n: one.pixels for n, one in photos.items() if one.pixels is not None}
    numbers = list(pixels)
    sights = {n: Sight(one.problem) for n, one in photos.items() if one.problem}
    if numbers:
        looked = judge.look(np.stack(list(pixels.values())))
        digests = [photos[number].sha256 for number in numbers]
        near = reference.nearest(looked.outputs, digests, NEAREST)
        for place, number in enumerate(numbers):
            shares = _shares(photos[number], looked, place, reference)
            nothing = photos[number].blank
            if not nothing and near[place] and near[place][0].similarity < reference.least:
                nothing = LOOKS_LIKE_NOTHING
            sights[number] = Sight("", nothing, shares, [_plain(one) for one in near[place]])
    zones = {item.number: item.wanted.zone for item in items if item.wanted}
    fresh = {(photos[n].sha256, zones[n]): sight for n, sight in sights.items()}
    for number, one in photos.items():
        if one.again:
            key = (one.sha256, zones[number])
            known = fresh.get(key) or store.seen_before(*key)
            assert known is not None, "a photo is shown again before it was kept"
            fresh[key] = sights[number] = known
    return sights


def look_at(
    item: Item, photos: Mapping[int, Seen], sights: Mapping[int, Sight], labels: Sequence[str]
) -> Look:
    """ITEM with what is seen of it in SIGHTS, and what is wrong with its photo or its tag."""
    place = _place(item, labels)
    if item.number not in photos:
        return Look(item, place, problem=item.problem)
    sight = sights[item.number]
    unknown = "" if place is not None else f"the model has no label {item.label!r}"
    problem = "" if sight.problem else unknown
    return Look(item, place, photos[item.number].sha256, sight, problem)


def _plain(near: Any) -> dict[str, Any]:
    return {**asdict(near), "similarity": round(near.similarity, 4)}


def _place(item: Item, labels: Sequence[str]) -> int | None:
    """The place of ITEM's label among LABELS, by the vocabulary's name or as it stands there."""
    spelt = (name for level in levels(item.tag) for name in (level, level.casefold()))
    for name in (item.label, *spelt):
        if name in labels:
            return labels.index(name)
    return None


def _shares(seen: Seen, looked: Looked, place: int, reference: Reference) -> np.ndarray:
    """What a model that never saw the photo says of it."""
    known = reference.opinions.get(seen.sha256)
    return softmax(looked.logits[place : place + 1])[0] if known is None else known


ASKED, LOOKED = "options.json", "looked.sqlite"
# How tags go wrong is learned from so many items at most, drawn at random.
SAMPLE = 20_000


@dataclass(frozen=True)
class CheckOptions:
    """What `check-tags` was asked for. `feed` None: the catalogue."""

    run: Path
    out: Path
    feed: Feed | None = None
    image_root: Path | None = None
    catalogue: str = "catalogue.sqlite"
    images: Path | str = "images"
    data: Path | None = None
    vocabulary: Path | None = None
    precision: str = "auto"
    cache: Path | None = None
    seed: int = 0
    fetch: FetchOptions = field(default_factory=FetchOptions)


def check(options: CheckOptions, vocabulary: Vocabulary) -> dict[str, Any]:
    """Check the tags that OPTIONS name, write the papers into --out, and return the figures.

    Until it is done the folder is `<out>.unfinished`; the same command goes on there.

    Raises:
        BadInput: no run or catalogue there, or a check with other options was cut off at --out.
        Failure: the model can't be used, or there is nothing to check.
    """
    with Fetcher(options.fetch) as fetcher:
        return _check(options, vocabulary, fetcher)


def _check(options: CheckOptions, vocabulary: Vocabulary, fetcher: Fetcher) -> dict[str, Any]:
    run = read_run(options.run)
    source = _source(options, run, vocabulary, fetcher)
    part = _begin(options)
    store = Store(part / LOOKED)
    judge = open_judge(run, options.precision)
    reference = open_reference(run, judge, options.cache, options.data)
    for told in reference.told:
        click.echo(told, err=True)
    eyes = Eyes(run.crop, run.built, judge.size)
    _look(source, eyes, judge, reference, store)
    tagging, bar = settle(store, judge.labels, options.seed)
    figures = _figures(store, run, judge, source, tagging, bar)
    output.write(part, store, source, figures, options.seed)
    if options.feed and (count := store.undecoded()):
        click.echo(
            f"{count} rows of {options.feed.path} have bytes that are not {options.feed.encoding}:"
            f" they are written as {REPLACEMENT}. Name the feed's encoding with --encoding",
            err=True,
        )
    if isinstance(source, CatalogueSource):
        _remember(store, options.catalogue, judge)
    _finish(part, options.out)
    return figures


def _source(options: CheckOptions, run: Run, vocabulary: Vocabulary, fetcher: Fetcher) -> Source:
    if options.feed is None:
        return CatalogueSource(options.catalogue, options.images, vocabulary, run.crop)
    root = options.image_root or options.feed.path.parent
    if not root.is_dir():
        raise BadInput(f"--image-root {root}: no such folder")
    return FeedSource(options.feed, root, vocabulary, fetcher, run.crop.uses_zones)


def _begin(options: CheckOptions) -> Path:
    part = options.out.with_name(options.out.name + ".unfinished")
    # An address may hold a password, and how the network is used changes nothing that was seen.
    left_out = ("catalogue", "fetch")
    plain = {name: value for name, value in asdict(options).items() if name not in left_out}
    asked = json.loads(json.dumps(plain, default=str))
    before = part / ASKED
    if before.is_file() and json.loads(before.read_text(encoding="utf-8")) != asked:
        raise BadInput(
            f"{part} is a check with other options that was cut off; remove it, or name another"
            " --out"
        )
    make_folder(part, options.out)
    write_json(asked, before)
    return part


def _look(source: Source, eyes: Eyes, judge: Judge, reference: Reference, store: Store) -> None:
    """Look at all items that STORE does not have yet, a chunk at a time."""
    done = store.last()
    coming, shown = tee(_from(source, store, done))
    # `see` draws a chunk ahead of what is kept: the second iterator gives the items again.
    wanted = (item.wanted for item in shown if item.wanted is not None)
    seen = (one for chunk in eyes.see(wanted, Shown()) for one in chunk)
    with tqdm(initial=done, desc="items", unit=" items", disable=None) as bar:
        while some := list(islice(coming, 2 * SEEN_AT_ONCE)):
            photos = {item.number: next(seen) for item in some if item.wanted is not None}
            sights = sights_of(some, photos, judge, reference, store)
            store.add([look_at(item, photos, sights, judge.labels) for item in some])
            bar.update(len(some))
    if not store.last():
        raise Failure(f"{source.name} has no items to check")


def _from(source: Source, store: Store, done: int) -> Iterator[Item]:
    """The items of SOURCE after the DONE first; those must be what they were."""
    items = source.items(max(0, done - 1))
    if done:
        last = next(items, None)
        if last is None or last.id != store.id_of(done):
            raise Failure(
                f"{source.name} has changed since the check was cut off; remove"
                f" {store.path.parent} and begin anew"
            )
    return items


def settle(store: Store, labels: Sequence[str], seed: int) -> tuple[Tagging, Bar]:
    """Answer every item of STORE by how tags go wrong in it; returns that, and the bar.

    Raises:
        Failure: not one tag can be judged.
    """
    count = store.judged()
    store.unanswered(UNCHECKED, "shares IS NULL OR place IS NULL")
    store.unanswered(NOTHING, "unseen != ''")
    if not count:
        raise Failure(
            "not one tag can be judged: "
            + ", ".join(f"{count} {why}" for why, count in store.counts("problem").items())[:300]
        )
    shares, places = _drawn(store, count, seed)
    tagging = tagging_of(shares, places)
    bar = bar_of(tagging, shares, places)
    for some in store.shares():
        said = verdicts(tagging, bar, some.shares, some.places)
        store.answer(
            [
                Answer(
                    number,
                    said.verdict[i],
                    labels[int(said.best[i])],
                    float(said.probability[i]),
                    float(said.given[i]),
                    float(said.margin[i]),
                    float(said.wrong[i] * some.costs[i]),
                )
                for i, number in enumerate(some.numbers)
            ]
        )
    return tagging, bar


def _drawn(store: Store, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares and tags' places of SAMPLE of the COUNT items of STORE; of all where these are few."""
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(count, min(count, SAMPLE), replace=False))
    shares, places, start = [], [], 0
    for some in store.shares():
        end = start + len(some.numbers)
        mine = drawn[np.searchsorted(drawn, start) : np.searchsorted(drawn, end)] - start
        shares.append(some.shares[mine])
        places.append(some.places[mine])
        start = end
    return np.concatenate(shares), np.concatenate(places)


def _figures(
    store: Store, run: Run, judge: Judge, source: Source, tagging: Tagging, bar: Bar
) -> dict[str, Any]:
    counts = store.counts("verdict")
    return {
        "checked": source.name,
        "model": f"{run.folder.name} {judge.key}",
        "labels": list(judge.labels),
        "items": sum(counts.values()),
        "verdicts": counts,
        "problems": {why: n for why, n in store.counts("problem").items() if why},
        "estimated_wrong_rate": tagging.rate,
        "bar": {"agrees": bar.agrees, "mistake": bar.mistake if np.isfinite(bar.mistake) else None},
        "expected_precision": bar.right,
    }


def _remember(store: Store, catalogue: str, judge: Judge) -> None:
    """Let the catalogue's judgements be those of this check."""
    sessions = open_catalogue(catalogue, must_exist=True)
    answered = (_judgement(one, judge.key) for one in store.in_order() if one.image_id is not None)
    with sessions.begin() as session:
        session.execute(sa.delete(TagVerdictRow))
        for some in in_batches(answered):
            session.execute(sa.insert(TagVerdictRow), some)


def _judgement(one: Checked, key: str) -> dict[str, Any]:
    return {
        "image_id": one.image_id,
        "label": one.label,
        "model": key,
        "verdict": one.verdict,
        "suggested": one.suggested,
        "probability": one.probability or 0.0,
        "tag_probability": one.given or 0.0,
        "margin": one.margin or 0.0,
        "cost": one.expected or 0.0,
        "nearest": json.dumps(one.nearest, ensure_ascii=False),
    }


def _finish(part: Path, out: Path) -> None:
    """Leave only the papers in PART, and give it its name OUT."""
    for name in (ASKED, LOOKED):
        (part / name).unlink(missing_ok=True)
    replace_folder(part, out)
