"""A check of tags on one page: look at each photo, learn how tags go wrong here, say what is."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice, tee
from pathlib import Path
from typing import Any

import click
import numpy as np
import sqlalchemy as sa
from tqdm import tqdm

from dataset.catalogue.check_tables import Judgement
from dataset.catalogue.queries import in_parts
from dataset.catalogue.session import open_catalogue
from dataset.errors import BadInput, Failure
from dataset.export import write_json
from dataset.labels import Vocabulary
from dataset.states import make_folder
from model import check_papers
from model.checked import Answer, Checked, Store
from model.doubts import Tagging, tagging_of
from model.fetching import Fetcher, FetchOptions
from model.items import CatalogueSource, FeedSource, Item, Source
from model.judge import Judge, open_judge
from model.product_feed import REPLACEMENT, Feed
from model.reference import Reference, open_reference
from model.saved import Run, read_run
from model.seeing import CHUNK as SEEN_AT_ONCE
from model.seeing import Eyes, Shown
from model.sights import look_at, sights_of
from model.verdicts import NOTHING, UNCHECKED, Bar, bar_of, verdicts

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
    judge = open_judge(run, options.precision, options.cache)
    reference = open_reference(run, judge, options.cache, options.data)
    for told in reference.told:
        click.echo(told, err=True)
    eyes = Eyes(run.crop, run.built, judge.size)
    _look(source, eyes, judge, reference, store)
    tagging, bar = settle(store, judge.labels, options.seed)
    figures = _figures(store, run, judge, source, tagging, bar)
    check_papers.write(part, store, source, figures, options.seed)
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
    return FeedSource(options.feed, root, vocabulary, fetcher, run.crop.by_zone)


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
        session.execute(sa.delete(Judgement))
        for some in in_parts(answered):
            session.execute(sa.insert(Judgement), some)


def _judgement(one: Checked, key: str) -> dict[str, Any]:
    return {
        "image_id": one.image_id,
        "label": one.label,
        "model": key,
        "verdict": one.verdict,
        "suggested": one.suggested,
        "probability": one.probability or 0.0,
        "given": one.given or 0.0,
        "margin": one.margin or 0.0,
        "cost": one.expected or 0.0,
        "nearest": json.dumps(one.nearest, ensure_ascii=False),
    }


def _finish(part: Path, out: Path) -> None:
    """Leave only the papers in PART, and give it its name OUT."""
    for name in (ASKED, LOOKED):
        (part / name).unlink(missing_ok=True)
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)
