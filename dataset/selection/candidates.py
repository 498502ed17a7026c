"""Load the stored images of a catalogue as candidates for a build, and exclude some of them.

A build takes one copy per cluster, images with the requested licenses, and images that are good
enough to learn from, by thresholds per site (`gates.toml`).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import (
    FREE_LICENSES,
    NO_CREDIT,
    Credit,
    FingerprintRow,
    Hashtag,
    ImageRow,
    LabelDecision,
    NearDuplicateRow,
    PostHashtag,
    PostRow,
    Sighting,
)
from dataset.catalogue.queries import is_stored
from dataset.duplicates.verification import Relation
from dataset.errors import BadInput
from dataset.images.quality import ImageQuality
from dataset.vocabulary import read_toml

DUPLICATE = "duplicate of another photo"
OTHER_LICENSE = "license not requested"
# A copy ranks below the others if its fraction of text, decoration and frame exceeds that of the
# cleanest copy by more than the first number, or if its effective pixels are fewer than the second
# number times the most.
MAX_ADDED_DIFFERENCE, MIN_PIXELS_FRACTION = 0.01, 0.85
BUILT_IN_GATES = Path(__file__).with_name("gates.toml")
DEFAULT_SITE = "default"
# Gate -> (reason of an exclusion, whether the threshold is a minimum rather than a maximum).
GATES = {
    "side": ("too small", True),
    "shape": ("extreme shape", False),
    "contrast": ("blank", True),
    "blur": ("blurred", False),
    "text": ("text banner", False),
}
REASONS = tuple(reason for reason, _ in GATES.values())


@dataclass(frozen=True, slots=True)
class SourcePost:
    """A post or product that shows a candidate.

    Attributes:
        id: Primary key of the post in the catalogue.
        url: Address of the post.
        site: Name of the site.
        author: Author of the post, if known.
        hashtags: Hashtags that count for the label, in the order of their discovery.
        posted: When it was posted, if known.
        attributes: Attributes of the product, such as colour and category, if they were loaded.
    """

    id: int
    url: str
    site: str
    author: str | None
    hashtags: tuple[str, ...]
    posted: datetime | None = None
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored image that a build may use.

    Attributes:
        image_id: Primary key of the image in the catalogue.
        sha256: SHA-256 of the image file as 64 hexadecimal digits.
        store_key: Key of the file in the image store.
        cluster: Id of the cluster of near duplicates that holds the image.
        width: Width in pixels.
        height: Height in pixels.
        bytes: Size of the file.
        phash: Perceptual hash as 16 hexadecimal digits.
        quality: Measurements for the quality gates; None before the first measurement.
        content: Fraction of the image inside its uniform border.
        effective_pixels: Number of its pixels, fewer if it seems enlarged; None for one without
            copies.
        decoration: Fraction of the image that its copies do not have: text, stickers, a frame.
        posts: Posts that show the image or, after `select_best_copies`, any of its copies.
        decisions: Reviewers' label decisions as (decision id, label), oldest first. The label
            None excludes the image.
        own_posts: Ids of the posts that show this very file.
        copies: Ids of all images in the cluster.
        credit: License and author of this file; those of its copies may differ.
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
    content: float = 1.0
    effective_pixels: float | None = None
    decoration: float = 0.0
    posts: tuple[SourcePost, ...] = ()
    decisions: tuple[tuple[int, str | None], ...] = ()
    own_posts: frozenset[int] = frozenset()
    copies: tuple[int, ...] = ()
    credit: Credit = NO_CREDIT

    @property
    def post_urls(self) -> list[str]:
        """Return the sorted addresses of the posts."""
        return sorted({post.url for post in self.posts})

    @property
    def sites(self) -> list[str]:
        """Return the sorted names of the sites."""
        return sorted({post.site for post in self.posts})

    @property
    def hashtags(self) -> list[str]:
        """Return the sorted hashtags of the posts."""
        return sorted({tag for post in self.posts for tag in post.hashtags})


@dataclass(frozen=True, slots=True)
class ExcludedImage:
    """An image that a build does not use.

    Attributes:
        photo: The image.
        reason: One of the fixed reasons that reports count.
        detail: What the reason refers to, such as a label or a measured value.
    """

    photo: Candidate
    reason: str
    detail: str = ""


@dataclass
class Exclusions:
    """The images that a build does not use, with the number of images per reason."""

    counts: Counter[str] = field(default_factory=Counter)
    images: list[ExcludedImage] = field(default_factory=list)

    def add(self, photo: Candidate, reason: str, detail: str = "") -> None:
        """Exclude an image."""
        self.counts[reason] += 1
        self.images.append(ExcludedImage(photo, reason, detail))


def load_candidates(
    session: Session,
    is_label: Callable[[str], bool] | None = None,
    clusters: Sequence[int] | None = None,
    attributes: bool = False,
) -> list[Candidate]:
    """Load all stored images, ordered by SHA-256 so that builds are reproducible.

    Args:
        session: Session on the catalogue.
        is_label: If given, hashtags in captions and titles count as well. It returns whether a
            hashtag belongs to a label; a post with such hashtags is then described by them alone.
        clusters: If given, only images of these clusters are loaded (a few hundred at most).
        attributes: Whether the attributes of the products are loaded.
    """
    in_clusters = None if clusters is None else ImageRow.cluster_id.in_(clusters)
    image_ids = None if in_clusters is None else sa.select(ImageRow.id).where(in_clusters)
    posts = _load_posts(session, is_label, image_ids, attributes)
    posts_of_image = _grouped(
        session,
        _restrict(
            sa.select(Sighting.image_id, Sighting.post_id).distinct(), Sighting.image_id, image_ids
        ),
    )
    decisions: dict[int, list[tuple[int, str | None]]] = defaultdict(list)
    query = sa.select(LabelDecision.id, LabelDecision.image_id, LabelDecision.label)
    for number, image, label in session.execute(
        _restrict(query, LabelDecision.image_id, image_ids).where(LabelDecision.undone.is_(None))
    ):
        decisions[image].append((number, label))
    credits_of_image = _load_credits(session, image_ids)
    conditions = [ImageRow.state == "stored"]
    if in_clusters is not None:
        conditions = [is_stored(ImageRow), in_clusters]
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
            FingerprintRow.content,
            FingerprintRow.detail,
        )
        .outerjoin(FingerprintRow, FingerprintRow.image_id == ImageRow.id)
        .where(*conditions)
        .order_by(ImageRow.sha256)
    )
    decorations = _load_decorations(session, image_ids)
    return [
        _candidate(row, posts_of_image, posts, decisions, credits_of_image, decorations)
        for row in images
    ]


def _restrict(query: sa.Select, column: Any, ids: sa.Select | None) -> sa.Select:
    return query if ids is None else query.where(column.in_(ids))


def _load_decorations(session: Session, image_ids: sa.Select | None) -> dict[int, float]:
    """Return the largest decoration of images in comparison with their copies."""
    decorations: dict[int, float] = {}
    for image, decoration in (
        (NearDuplicateRow.one_id, NearDuplicateRow.one_decoration),
        (NearDuplicateRow.other_id, NearDuplicateRow.other_decoration),
    ):
        query = sa.select(image, sa.func.max(decoration)).where(
            NearDuplicateRow.relation == Relation.NEAR_DUPLICATE, decoration > 0
        )
        for number, value in session.execute(_restrict(query, image, image_ids).group_by(image)):
            decorations[number] = max(value, decorations.get(number, 0.0))
    return decorations


def _load_credits(session: Session, image_ids: sa.Select | None) -> dict[int, Credit]:
    """Return image id -> credit of the images whose license or author a site says.

    If sites state different licenses, the least restrictive one counts.
    """
    columns = (
        *(Sighting.license, Sighting.license_url, Sighting.author),
        *(Sighting.attribution, Sighting.source_page),
    )
    query = sa.select(Sighting.image_id, *columns).where(
        Sighting.image_id.is_not(None),
        sa.or_(Sighting.license.is_not(None), Sighting.author.is_not(None)),
    )
    found: dict[int, Credit] = {}
    for image, code, *values in session.execute(
        _restrict(query, Sighting.image_id, image_ids).order_by(Sighting.id)
    ):
        credit = Credit(code, *values)
        if image not in found or _rank(credit) < _rank(found[image]):
            found[image] = credit
    return found


def _rank(credit: Credit) -> int:
    """Return how much a license demands; an unknown one comes last."""
    if credit.license is not None and credit.license in FREE_LICENSES:
        return FREE_LICENSES.index(credit.license)
    return len(FREE_LICENSES) + (credit.license is None)


def select_licensed(
    candidates: Iterable[Candidate], licenses: Collection[str], exclusions: Exclusions
) -> list[Candidate]:
    """Keep images with some licenses.

    Args:
        candidates: Images as `load_candidates` returns them, copies included: the best copy with
            one of the licenses is used.
        licenses: Codes of the licenses; `unknown` for images without one. Empty: all.
        exclusions: Receives the other images.
    """
    kept = []
    for candidate in candidates:
        if not licenses or candidate.credit.code in licenses:
            kept.append(candidate)
        else:
            exclusions.add(candidate, OTHER_LICENSE, candidate.credit.code)
    return kept


def _load_posts(
    session: Session,
    is_label: Callable[[str], bool] | None,
    image_ids: sa.Select | None,
    attributes: bool,
) -> dict[int, SourcePost]:
    # One string object per distinct text: a catalogue has millions of equal ones.
    interned: dict[str, str] = {}
    post_ids = (
        None
        if image_ids is None
        else sa.select(Sighting.post_id).where(Sighting.image_id.in_(image_ids))
    )
    tags = _load_hashtags(session, "search", interned, post_ids)
    if is_label is not None:
        for post, written in _load_hashtags(session, "caption", interned, post_ids).items():
            both = dict.fromkeys([*tags.get(post, ()), *written])
            tags[post] = [tag for tag in both if is_label(tag)] or tags.get(post, [])
    words = _load_hashtags(session, "attribute", interned, post_ids) if attributes else {}
    query = sa.select(PostRow.id, PostRow.url, PostRow.site, PostRow.author, PostRow.posted)
    return {
        number: SourcePost(
            number,
            url,
            interned.setdefault(site, site),
            author,
            tuple(tags.get(number, ())),
            posted,
            tuple(words.get(number, ())),
        )
        for number, url, site, author, posted in session.execute(
            _restrict(query, PostRow.id, post_ids)
        )
    }


def _load_hashtags(
    session: Session, source: str, interned: dict[str, str], post_ids: sa.Select | None
) -> dict[int, list[str]]:
    """Return post id -> hashtags that come from `source`, in the order of their discovery."""
    tags: dict[int, list[str]] = defaultdict(list)
    query = sa.select(PostHashtag.post_id, Hashtag.text).join(Hashtag)
    for post, text in session.execute(
        _restrict(query, PostHashtag.post_id, post_ids)
        .where(PostHashtag.source == source)
        .order_by(Hashtag.id)
    ):
        tags[post].append(interned.setdefault(text, text))
    return tags


def _grouped(session: Session, query: sa.Executable) -> dict[int, list[Any]]:
    groups: dict[int, list[Any]] = defaultdict(list)
    for key, value in session.execute(query):
        groups[key].append(value)
    return groups


def _candidate(
    row: Any,
    posts_of_image: Mapping[int, list[int]],
    posts: Mapping[int, SourcePost],
    decisions: Mapping[int, list[tuple[int, str | None]]],
    credits_of_image: Mapping[int, Credit],
    decorations: Mapping[int, float],
) -> Candidate:
    image, sha256, key, cluster, width, height, size, phash, *measured = row
    contrast, blur, text, content, effective_pixels = measured
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
        content=1.0 if content is None else content,
        effective_pixels=effective_pixels,
        decoration=decorations.get(image, 0.0),
        posts=tuple(posts[post] for post in sorted(posts_of_image.get(image, ()))),
        decisions=tuple(decisions.get(image, ())),
        own_posts=frozenset(posts_of_image.get(image, ())),
        copies=(image,),
        credit=credits_of_image.get(image, NO_CREDIT),
    )


def select_best_copies(candidates: Iterable[Candidate], exclusions: Exclusions) -> list[Candidate]:
    """Keep the best copy of each cluster.

    The best copy gets the posts, decisions and copies of the whole cluster; the other members are
    excluded.

    Args:
        candidates: Images as `load_candidates` returns them.
        exclusions: Receives the other copies.

    Returns:
        One candidate per cluster, ordered by SHA-256.
    """
    clusters: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        clusters[candidate.cluster].append(candidate)
    best_copies = [_best_copy(members, exclusions) for members in clusters.values()]
    return sorted(best_copies, key=lambda candidate: candidate.sha256)


def order_copies(members: Iterable[Candidate]) -> list[Candidate]:
    """Order the copies of one photo, the best one first.

    The best copies have no decoration, frame or text, and the most effective pixels. Among copies
    with nearly the same number, those with fewer pixels come first: the others are enlarged.
    """
    members = list(members)
    most_added = min(map(_added, members)) + MAX_ADDED_DIFFERENCE
    most = max(_effective_pixels(member) for member in members if _added(member) <= most_added)

    def rank(member: Candidate) -> tuple:
        is_clean, effective = _added(member) <= most_added, _effective_pixels(member)
        is_detailed = is_clean and effective >= MIN_PIXELS_FRACTION * most
        pixels = member.width * member.height
        size = -pixels if is_detailed else effective
        return (is_clean, is_detailed, size, member.bytes, member.sha256)

    return sorted(members, key=rank, reverse=True)


def _added(member: Candidate) -> float:
    """Return the fraction of an image that is not the photo."""
    text = 0.0 if member.quality is None else member.quality.text
    return member.decoration + (1 - member.content) + text


def _effective_pixels(member: Candidate) -> float:
    return (
        member.width * member.height if member.effective_pixels is None else member.effective_pixels
    )


def _best_copy(members: Sequence[Candidate], exclusions: Exclusions) -> Candidate:
    if len(members) == 1:
        return members[0]
    best, *others = order_copies(members)
    for member in others:
        exclusions.add(member, DUPLICATE, f"of {best.sha256}")
    posts = {post.id: post for member in members for post in member.posts}
    return replace(
        best,
        posts=tuple(posts[number] for number in sorted(posts)),
        decisions=tuple(sorted(decision for member in members for decision in member.decisions)),
        copies=tuple(sorted(member.image_id for member in members)),
    )


@dataclass(frozen=True)
class QualityGates:
    """Thresholds of the quality gates.

    Attributes:
        sites: Site -> gate -> threshold. A threshold of 0 switches the gate off.
    """

    sites: Mapping[str, Mapping[str, float]]

    def for_site(self, site: str) -> Mapping[str, float]:
        """Return gate -> threshold for images of a site."""
        return {**self.sites[DEFAULT_SITE], **self.sites.get(site, {})}

    def exclusion_reason(self, photo: Candidate) -> tuple[str, str] | None:
        """Return why an image is excluded.

        Returns:
            The reason and the measured value beside its threshold; None for a good image.
        """
        thresholds = self.for_site(next(iter(photo.sites), DEFAULT_SITE))
        measured = _measurements(photo)
        for gate, (reason, is_minimum) in GATES.items():
            limit, value = thresholds[gate], measured.get(gate)
            if limit and value is not None and (value < limit if is_minimum else value > limit):
                bound = "at least" if is_minimum else "at most"
                return reason, f"{gate} {value:g}, {bound} {limit:g}"
        return None


def _measurements(photo: Candidate) -> dict[str, float]:
    short, long = sorted((photo.width, photo.height))
    measured = {"side": float(short), "shape": long / max(1, short)}
    if photo.quality:
        measured |= {
            "contrast": photo.quality.contrast,
            "blur": photo.quality.blur,
            "text": photo.quality.text,
        }
    return measured


def apply_quality_gates(
    photos: Iterable[Candidate], gates: QualityGates, exclusions: Exclusions
) -> list[Candidate]:
    """Return the images that pass all gates; images that a reviewer labeled always pass."""
    passed = []
    for photo in photos:
        is_reviewed = bool(photo.decisions and photo.decisions[-1][1])
        reason = None if is_reviewed else gates.exclusion_reason(photo)
        if reason:
            exclusions.add(photo, *reason)
        else:
            passed.append(photo)
    return passed


def load_quality_gates(path: Path | None = None) -> QualityGates:
    """Load the built-in thresholds, overridden by those in a TOML file.

    Raises:
        BadInput: The file can't be read, or names an unknown gate or a value that is no number.
    """
    sites = {name: dict(table) for name, table in read_toml(BUILT_IN_GATES).items()}
    for name, table in (read_toml(path) if path else {}).items():
        if not isinstance(table, dict):
            raise BadInput(
                f"{path}: {name} = {table!r} is outside any table; move it below [{DEFAULT_SITE}]"
            )
        for gate, value in table.items():
            if gate not in GATES or isinstance(value, bool) or not isinstance(value, int | float):
                raise BadInput(
                    f"{path}: [{name}] {gate} = {value!r} is not a quality gate; the gates are"
                    f" {', '.join(GATES)}, each a number, 0 to switch it off"
                )
        sites[name] = sites.get(name, {}) | table
    return QualityGates(sites)
