"""From the catalogue's rows to photos, one a cluster, with the posts that tie them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import (
    FingerprintRow,
    Hashtag,
    ImageRow,
    LabelDecision,
    PostHashtag,
    PostRow,
    Sighting,
)
from dataset.catalogue.queries import is_stored
from dataset.images.quality import ImageQuality


@dataclass(frozen=True, slots=True)
class SourcePost:
    """A post or product that shows photos; `hashtags`: those that count, the oldest first."""

    id: int
    url: str
    site: str
    author: str | None
    hashtags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored image with all that is known of it.

    `decisions`: (number, label) of people's words on it. `copies`: ids of its cluster's images.
    """

    image_id: int
    sha256: str
    store_key: str
    cluster: int
    width: int
    height: int
    bytes: int
    phash: str | None = None
    quality: ImageQuality | None = None
    posts: tuple[SourcePost, ...] = ()
    decisions: tuple[tuple[int, str | None], ...] = ()
    copies: tuple[int, ...] = ()

    @property
    def post_urls(self) -> list[str]:
        """The addresses of its posts."""
        return sorted({post.url for post in self.posts})

    @property
    def sites(self) -> list[str]:
        """The sites that it was found on."""
        return sorted({post.site for post in self.posts})

    @property
    def hashtags(self) -> list[str]:
        """The hashtags that it was found under."""
        return sorted({tag for post in self.posts for tag in post.hashtags})


@dataclass(frozen=True, slots=True)
class ExcludedImage:
    """An image that a build leaves out, and why."""

    photo: Candidate
    reason: str
    detail: str = ""


@dataclass
class Exclusions:
    """What a build leaves out: every image, and reason -> count."""

    counts: Counter[str] = field(default_factory=Counter)
    images: list[ExcludedImage] = field(default_factory=list)

    def add(self, photo: Candidate, reason: str, detail: str = "") -> None:
        """Leave PHOTO out for REASON; DETAIL says what about it."""
        self.counts[reason] += 1
        self.images.append(ExcludedImage(photo, reason, detail))


def load_candidates(
    session: Session,
    tells: Callable[[str], bool] | None = None,
    clusters: Sequence[int] | None = None,
) -> list[Candidate]:
    """All stored images, in the order of their SHA-256, so that builds repeat.

    With TELLS, which says of a hashtag whether it is a label's, those in captions and titles count
    too; where one of them does, the words that the post was found under count only if they do.
    With CLUSTERS, some hundreds at most, only images of these.
    """
    some = None if clusters is None else ImageRow.cluster_id.in_(clusters)
    chosen = None if some is None else sa.select(ImageRow.id).where(some)
    shown = sa.select(Sighting.image_id, Sighting.post_id).distinct()
    words = sa.select(LabelDecision.id, LabelDecision.image_id, LabelDecision.label)
    posts = _posts(session, tells, chosen)
    seen = _grouped(session, _restrict(shown, Sighting.image_id, chosen))
    decided: dict[int, list[tuple[int, str | None]]] = defaultdict(list)
    for number, image, label in session.execute(
        _restrict(words, LabelDecision.image_id, chosen).where(LabelDecision.undone.is_(None))
    ):
        decided[image].append((number, label))
    images = session.execute(
        sa.select(
            ImageRow.id,
            ImageRow.sha256,
            ImageRow.store_key,
            ImageRow.cluster_id,
            ImageRow.width,
            ImageRow.height,
            ImageRow.bytes,
            ImageRow.phash,
            FingerprintRow.contrast,
            FingerprintRow.blur,
            FingerprintRow.text,
        )
        .outerjoin(FingerprintRow, FingerprintRow.image_id == ImageRow.id)
        .where(*([ImageRow.state == "stored"] if some is None else [is_stored(ImageRow), some]))
        .order_by(ImageRow.sha256)
    )
    return [_candidate(row, seen, posts, decided) for row in images]


def _restrict(query: sa.Select, column: Any, chosen: sa.Select | None) -> sa.Select:
    return query if chosen is None else query.where(column.in_(chosen))


def _posts(
    session: Session, tells: Callable[[str], bool] | None, images: sa.Select | None
) -> dict[int, SourcePost]:
    known: dict[str, str] = {}
    chosen = (
        None if images is None else sa.select(Sighting.post_id).where(Sighting.image_id.in_(images))
    )
    tags = _hashtags(session, "search", known, chosen)
    if tells is not None:
        for post, written in _hashtags(session, "caption", known, chosen).items():
            both = dict.fromkeys([*tags.get(post, ()), *written])
            tags[post] = [tag for tag in both if tells(tag)] or tags.get(post, [])
    rows = session.execute(
        _restrict(
            sa.select(PostRow.id, PostRow.url, PostRow.site, PostRow.author), PostRow.id, chosen
        )
    )
    return {
        number: SourcePost(
            number, url, known.setdefault(site, site), author, tuple(tags.get(number, ()))
        )
        for number, url, site, author in rows
    }


def _hashtags(
    session: Session, source: str, known: dict[str, str], posts: sa.Select | None
) -> dict[int, list[str]]:
    """The hashtags of each post, of POSTS or of all, that come from SOURCE, the oldest first."""
    tags: dict[int, list[str]] = defaultdict(list)
    query = sa.select(PostHashtag.post_id, Hashtag.text).join(Hashtag)
    for post, text in session.execute(
        _restrict(query, PostHashtag.post_id, posts)
        .where(PostHashtag.source == source)
        .order_by(Hashtag.id)
    ):
        # One string a hashtag and not one a post.
        tags[post].append(known.setdefault(text, text))
    return tags


def _grouped(session: Session, query: sa.Executable) -> dict[int, list[Any]]:
    groups: dict[int, list[Any]] = defaultdict(list)
    for key, value in session.execute(query):
        groups[key].append(value)
    return groups


def _candidate(
    row: Any,
    seen: Mapping[int, list[int]],
    posts: Mapping[int, SourcePost],
    decided: Mapping[int, list[tuple[int, str | None]]],
) -> Candidate:
    image, sha256, key, cluster, width, height, size, phash, contrast, blur, text = row
    return Candidate(
        image_id=image,
        sha256=sha256,
        store_key=key,
        cluster=cluster,
        width=width,
        height=height,
        bytes=size,
        phash=phash,
        quality=None if blur is None else ImageQuality(contrast, blur, text),
        posts=tuple(posts[post] for post in sorted(seen.get(image, ()))),
        decisions=tuple(decided.get(image, ())),
        copies=(image,),
    )


def select_best_copies(candidates: Iterable[Candidate], drops: Exclusions) -> list[Candidate]:
    """One image a cluster, that of most pixels, then bytes; it speaks for the whole cluster."""
    clusters: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        clusters[candidate.cluster].append(candidate)
    kept = [_best_copy(members, drops) for members in clusters.values()]
    return sorted(kept, key=lambda one: one.sha256)


def _best_copy(members: Sequence[Candidate], drops: Exclusions) -> Candidate:
    if len(members) == 1:
        return members[0]
    best = max(members, key=lambda c: (c.width * c.height, c.bytes, c.sha256))
    for member in members:
        if member is not best:
            drops.add(member, "duplicate of another photo", f"of {best.sha256}")
    posts = {post.id: post for member in members for post in member.posts}
    return replace(
        best,
        posts=tuple(posts[number] for number in sorted(posts)),
        decisions=tuple(sorted(d for member in members for d in member.decisions)),
        copies=tuple(sorted(member.image_id for member in members)),
    )
