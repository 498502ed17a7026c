"""From the catalogue's rows to labelled photos, one a cluster, with the posts that tie them."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.tables import Decision, Hashtag, ImageRow, PostHashtag, PostRow, Sighting
from dataset.labels import Vocabulary


@dataclass(frozen=True)
class Candidate:
    """A stored image with all that is known of it. `posts`: ids of the posts that show it."""

    image_id: int
    sha256: str
    store_key: str
    cluster: int
    width: int
    height: int
    bytes: int
    posts: tuple[int, ...] = ()
    post_urls: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    hashtags: tuple[str, ...] = ()
    decisions: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Labelled:
    """A photo to be written: the best of its cluster, and the posts of the whole cluster."""

    photo: Candidate
    label: str


@dataclass
class Drops:
    """Images that a build leaves out: reason -> count."""

    counts: Counter[str] = field(default_factory=Counter)


def load(session: Session) -> list[Candidate]:
    """All stored images, in the order of their SHA-256, so that builds repeat."""
    images = session.execute(
        sa.select(
            ImageRow.id,
            ImageRow.sha256,
            ImageRow.store_key,
            ImageRow.cluster_id,
            ImageRow.width,
            ImageRow.height,
            ImageRow.bytes,
        )
        .where(ImageRow.state == "stored")
        .order_by(ImageRow.sha256)
    ).all()
    posts = _grouped(session, sa.select(Sighting.image_id, Sighting.post_id).distinct())
    told = {
        row.id: (row.url, row.site)
        for row in session.execute(sa.select(PostRow.id, PostRow.url, PostRow.site))
    }
    tags = _grouped(
        session,
        sa.select(PostHashtag.post_id, Hashtag.text)
        .join(Hashtag)
        .where(PostHashtag.source == "search"),
    )
    decided = _grouped(
        session,
        sa.select(Decision.image_id, Decision.label)
        .where(Decision.undone.is_(None))
        .order_by(Decision.id),
    )
    return [_candidate(row, posts, told, tags, decided) for row in images]


def _grouped(session: Session, query: sa.Executable) -> dict[int, list[Any]]:
    groups: dict[int, list[Any]] = defaultdict(list)
    for key, value in session.execute(query):
        groups[key].append(value)
    return groups


def _candidate(
    row: Any,
    posts: Mapping[int, list[int]],
    told: Mapping[int, tuple[str, str]],
    tags: Mapping[int, list[str]],
    decided: Mapping[int, list[str | None]],
) -> Candidate:
    of_image = sorted(posts.get(row.id, []))
    return Candidate(
        image_id=row.id,
        sha256=row.sha256,
        store_key=row.store_key,
        cluster=row.cluster_id,
        width=row.width,
        height=row.height,
        bytes=row.bytes,
        posts=tuple(of_image),
        post_urls=tuple(sorted({told[post][0] for post in of_image})),
        sites=tuple(sorted({told[post][1] for post in of_image})),
        hashtags=tuple(sorted({tag for post in of_image for tag in tags.get(post, [])})),
        decisions=tuple(decided.get(row.id, [])),
    )


def fold(candidates: Iterable[Candidate], drops: Drops) -> list[Candidate]:
    """One image a cluster, that of most pixels, then bytes; it speaks for the whole cluster."""
    clusters: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        clusters[candidate.cluster].append(candidate)
    drops.counts["duplicate of another photo"] += sum(len(c) - 1 for c in clusters.values())
    return sorted((_spokesman(c) for c in clusters.values()), key=lambda c: c.sha256)


def _spokesman(members: Sequence[Candidate]) -> Candidate:
    best = max(members, key=lambda c: (c.width * c.height, c.bytes, c.sha256))
    return replace(
        best,
        posts=tuple(sorted({post for c in members for post in c.posts})),
        post_urls=tuple(sorted({url for c in members for url in c.post_urls})),
        sites=tuple(sorted({site for c in members for site in c.sites})),
        hashtags=tuple(sorted({tag for c in members for tag in c.hashtags})),
        decisions=tuple(label for c in members for label in c.decisions),
    )


def give_labels(
    photos: Iterable[Candidate],
    vocabulary: Vocabulary,
    wished: Collection[str],
    drops: Drops,
) -> list[Labelled]:
    """Photos with exactly one label, of WISHED labels where some are named.

    A person's latest decision is above all hashtags; None in it leaves the photo out.
    """
    labelled = []
    for photo in photos:
        labels = {vocabulary.label_or_own(tag) for tag in photo.hashtags}
        if photo.decisions:
            labels = {label for label in photo.decisions[-1:] if label is not None}
        if len(labels) != 1:
            drops.counts["two labels" if labels else "no label"] += 1
        elif wished and not labels <= set(wished):
            drops.counts["label not asked for"] += 1
        else:
            labelled.append(Labelled(photo, labels.pop()))
    return labelled


def limit_classes(
    labelled: Sequence[Labelled], minimum: int, maximum: int | None, drops: Drops
) -> tuple[list[Labelled], dict[str, int]]:
    """Classes of at least MINIMUM photos, cut to MAXIMUM; and the classes left out with counts."""
    sizes = Counter(item.label for item in labelled)
    short = {label: n for label, n in sorted(sizes.items()) if n < minimum}
    drops.counts["class too small"] += sum(short.values())
    kept, seen = [], Counter[str]()
    for item in labelled:
        if item.label in short:
            continue
        seen[item.label] += 1
        if maximum is not None and seen[item.label] > maximum:
            drops.counts["over --max-per-class"] += 1
        else:
            kept.append(item)
    return kept, short
