"""Claims of pending images by workers, within each tag's limit of images.

Posts of several tags may show the same image. It is claimed only if each of these tags has quota
left, so that no tag exceeds its limit. Each function is one step of a transaction that the caller
commits.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import Hashtag, PostHashtag, PostRow, Sighting
from dataset.catalogue.queries import in_batches, table_of
from dataset.maintenance.takedown import photo_name
from dataset.vocabulary import normalize_word
from scraper.items import FINAL, GONE


@dataclass(frozen=True)
class PendingImage:
    """An image to download.

    Attributes:
        url: The preferred URL.
        fallbacks: URLs to try if the image is not at `url`.
        post: The site's id of a post that shows the image.
        key: The site's id of the image, for images whose URL changes.
    """

    url: str
    fallbacks: tuple[str, ...]
    post: str
    key: str | None
    is_renewed: bool = False


def takedown_names(image: PendingImage, site: str) -> list[str]:
    """Return the names of an image, beside its URL, under which it may have been taken down."""
    return [*image.fallbacks, *([photo_name(site, image.key)] if image.key else [])]


@dataclass
class Quota:
    """The number of images that a tag may still get.

    Attributes:
        words: The normalized words that the tag is searched under.
        left: Number of images that may still be claimed.
    """

    words: frozenset[str]
    left: int


_SIGHTINGS, _POSTS, _TAGS, _HASHTAGS = map(table_of, (Sighting, PostRow, PostHashtag, Hashtag))


def _is_found_under(words_parameter: str = "words") -> sa.ColumnElement[bool]:
    """Return the condition that a sighting's post was found by a search for given words.

    The site is the bound parameter `site`. The condition is a correlated subquery, so that the
    database evaluates it only for the sightings that the other conditions select.

    Args:
        words_parameter: Name of the bound parameter that holds the normalized words.
    """
    return (
        sa.exists()
        .where(
            _POSTS.c.id == _SIGHTINGS.c.post_id,
            _POSTS.c.site == sa.bindparam("site"),
            _TAGS.c.post_id == _POSTS.c.id,
            _TAGS.c.source == "search",
            _TAGS.c.hashtag_id == _HASHTAGS.c.id,
            _HASHTAGS.c.text.in_(sa.bindparam(words_parameter, expanding=True)),
        )
        .correlate(_SIGHTINGS)
    )


# The statements are built once, because building one takes longer than running it.
_IS_PENDING = _SIGHTINGS.c.state == "pending"
_HAS_URL = _SIGHTINGS.c.url.in_(sa.bindparam("urls", expanding=True))
_SELECT_CLAIMED_URLS = sa.select(_SIGHTINGS.c.url).where(_SIGHTINGS.c.worker_id > 0)
# The URL is compared too, because a post saved later may show an image that is already claimed.
_IS_CLAIMABLE = (_IS_PENDING, _SIGHTINGS.c.url.not_in(_SELECT_CLAIMED_URLS), _is_found_under())
# An additional condition if some tags have no quota left: no post of these tags shows the image.
_IS_IN_NO_FULL_TAG = _SIGHTINGS.c.url.not_in(
    sa.select(_SIGHTINGS.c.url).where(_IS_PENDING, _is_found_under("full"))
)
_SELECT_ANY_CLAIMABLE = sa.select(_SIGHTINGS.c.id).where(*_IS_CLAIMABLE).limit(1)
_SELECT_CLAIMABLE = (
    sa.select(
        _SIGHTINGS.c.url,
        sa.func.max(_SIGHTINGS.c.fallbacks),
        sa.func.min(_POSTS.c.site_id),
        sa.func.min(_SIGHTINGS.c.key),
    )
    .join(_POSTS, _POSTS.c.id == _SIGHTINGS.c.post_id)
    .where(*_IS_CLAIMABLE)
    .group_by(_SIGHTINGS.c.url)
    .order_by(sa.func.min(_SIGHTINGS.c.id))
    .limit(sa.bindparam("limit"))
)
_PROCESSED = _SIGHTINGS.alias()
# Images that were missing (HTTP 403, 404 or 410) are requested again for another post.
_HAS_OUTCOME = sa.or_(
    _PROCESSED.c.state == "stored",
    (_PROCESSED.c.state == "rejected") & _PROCESSED.c.reason.not_in(GONE),
)
_SELECT_KNOWN_OUTCOMES = (
    sa.select(_SIGHTINGS.c.url, _PROCESSED.c.state, _PROCESSED.c.reason, _PROCESSED.c.image_id)
    .join(_PROCESSED, _PROCESSED.c.url == _SIGHTINGS.c.url)
    .where(*_IS_CLAIMABLE, _HAS_OUTCOME)
    .order_by(_SIGHTINGS.c.id)
)
_CLAIM = sa.update(_SIGHTINGS).where(_HAS_URL, _IS_PENDING).values(worker_id=sa.bindparam("worker"))
_SELECT_STATES = (
    sa.select(_SIGHTINGS.c.url, _SIGHTINGS.c.state).where(_HAS_URL, _is_found_under()).distinct()
)
_FAILED_TEMPORARILY = (_SIGHTINGS.c.state == "rejected", _SIGHTINGS.c.reason.not_in(FINAL))
_RETRY = (
    sa.update(_SIGHTINGS)
    # The sightings of all posts are reset, because posts share the outcome of an image.
    .where(
        *_FAILED_TEMPORARILY,
        _SIGHTINGS.c.url.in_(
            sa.select(_SIGHTINGS.c.url).where(*_FAILED_TEMPORARILY, _is_found_under())
        ),
    )
    .values(state="pending", reason=None, image_id=None)
)


def _search_parameters(site: str, hashtags: Iterable[str]) -> dict[str, object]:
    return {"site": site, "words": [normalize_word(hashtag) for hashtag in hashtags]}


def retry_failed(session: Session, site: str, hashtags: Sequence[str]) -> int:
    """Retry images whose download failed with a temporary error; return their number."""
    return session.connection().execute(_RETRY, _search_parameters(site, hashtags)).rowcount


def count_stored(session: Session, site: str, words: Sequence[str], limit: int) -> int:
    """Count the stored images of a tag.

    Args:
        session: The session.
        site: The site.
        words: The words that the tag is searched under.
        limit: Number at which counting stops.
    """
    images = (
        sa.select(Sighting.image_id)
        .join(PostHashtag, PostHashtag.post_id == Sighting.post_id)
        .join(Hashtag, Hashtag.id == PostHashtag.hashtag_id)
        .join(PostRow, PostRow.id == Sighting.post_id)
        .where(Hashtag.text.in_(map(normalize_word, words)), PostHashtag.source == "search")
        .where(Sighting.state == "stored", PostRow.site == site)
        .distinct()
        .limit(limit)
    )
    return session.scalar(sa.select(sa.func.count()).select_from(images.subquery())) or 0


def count_claimed(session: Session, site: str, hashtags: Sequence[str]) -> int:
    """Count the pending images of hashtags that any worker has claimed."""
    connection = session.connection()
    # Duplicates are removed here, because for a DISTINCT the database would scan all URLs.
    claimed_urls = sorted(set(connection.execute(_SELECT_CLAIMED_URLS).scalars()))
    if not claimed_urls:
        return 0
    parameters = {**_search_parameters(site, hashtags), "urls": claimed_urls}
    return sum(state == "pending" for _, state in connection.execute(_SELECT_STATES, parameters))


def has_claimable(
    session: Session, site: str, hashtags: Sequence[str], quotas: Sequence[Quota] = ()
) -> bool:
    """Return whether hashtags have pending images to claim.

    Args:
        session: The session.
        site: The site.
        hashtags: The searched hashtags.
        quotas: Quotas of all tags with a limit. Images of a tag without quota left are not counted.
    """
    return bool(_select(session, _SELECT_ANY_CLAIMABLE, site, hashtags, quotas))


def remaining_quota(session: Session, site: str, words: Sequence[str], limit: int) -> Quota:
    """Return how many images a tag is short of its limit; claimed images count as stored."""
    left = limit - count_stored(session, site, words, limit) - count_claimed(session, site, words)
    return Quota(frozenset(map(normalize_word, words)), left)


def claim_images(
    session: Session,
    site: str,
    hashtags: Sequence[str],
    limit: int,
    worker: int,
    quotas: Sequence[Quota] = (),
) -> list[PendingImage]:
    """Claim pending images of hashtags, so that no other worker downloads them.

    Images that were downloaded for other posts meanwhile get their outcome instead.

    Args:
        session: The session.
        site: The site.
        hashtags: The searched hashtags.
        limit: Maximum number of images to claim.
        worker: Id of the worker that claims them.
        quotas: Quotas of all tags with a limit; they are reduced by the claimed images.
    """
    _copy_known_outcomes(session, site, hashtags, quotas)
    rows = _select(session, _SELECT_CLAIMABLE, site, hashtags, quotas, limit=limit)
    images = {
        url: PendingImage(url, tuple(fallbacks.split("\n")) if fallbacks else (), post, key)
        for url, fallbacks, post, key in rows
    }
    urls = _reserve_quotas(session, site, list(images), quotas)
    session.connection().execute(_CLAIM, {"urls": urls, "worker": worker})
    return [images[url] for url in urls]


def _select(
    session: Session,
    query: sa.Select[Any],
    site: str,
    hashtags: Sequence[str],
    quotas: Sequence[Quota],
    **parameters: object,
) -> Sequence[Any]:
    """Run a query of claimable images, without images of tags that have no quota left.

    Args:
        session: The session.
        query: A query with the conditions `_IS_CLAIMABLE`.
        site: The site.
        hashtags: The searched hashtags.
        quotas: Quotas of all tags with a limit.
        parameters: Further bound parameters of the query.
    """
    full_words = [word for quota in quotas if quota.left <= 0 for word in quota.words]
    if full_words:
        query, parameters = query.where(_IS_IN_NO_FULL_TAG), {**parameters, "full": full_words}
    search_parameters = _search_parameters(site, hashtags)
    return session.connection().execute(query, {**search_parameters, **parameters}).all()


def _reserve_quotas(
    session: Session, site: str, urls: Sequence[str], quotas: Sequence[Quota]
) -> list[str]:
    """Return the URLs for which all their tags have quota left, and reduce these quotas."""
    if not quotas:
        return list(urls)
    words_by_url = defaultdict[str, set[str]](set)
    for url, word in session.execute(
        sa.select(Sighting.url, Hashtag.text)
        .join(PostRow, PostRow.id == Sighting.post_id)
        .join(PostHashtag, PostHashtag.post_id == PostRow.id)
        .join(Hashtag, Hashtag.id == PostHashtag.hashtag_id)
        .where(Sighting.url.in_(urls), Sighting.state == "pending", PostRow.site == site)
        .where(PostHashtag.source == "search")
    ):
        words_by_url[url].add(word)
    return [
        url
        for url in urls
        if _reserve_image([quota for quota in quotas if quota.words & words_by_url[url]])
    ]


def _reserve_image(quotas: Sequence[Quota]) -> bool:
    """Reduce each quota by one image; return False and change nothing if one is used up."""
    if any(quota.left <= 0 for quota in quotas):
        return False
    for quota in quotas:
        quota.left -= 1
    return True


def _copy_known_outcomes(
    session: Session, site: str, hashtags: Sequence[str], quotas: Sequence[Quota]
) -> None:
    """Give pending images the outcome of their download for another post, within the quotas."""
    rows = _select(session, _SELECT_KNOWN_OUTCOMES, site, hashtags, quotas)
    outcomes = {url: outcome for url, *outcome in rows}
    for batch in in_batches(outcomes):
        for url in _reserve_quotas(session, site, batch, quotas):
            state, reason, image_id = outcomes[url]
            session.execute(
                sa.update(Sighting)
                .where(Sighting.url == url, Sighting.state == "pending")
                .values(state=state, reason=reason, image_id=image_id)
                .execution_options(synchronize_session=False)
            )


def has_quota_for(session: Session, site: str, url: str, quotas: Sequence[Quota]) -> bool:
    """Return whether a pending image fits into the quotas of all its tags."""
    return bool(_reserve_quotas(session, site, [url], quotas))


def images_by_post(
    session: Session, site: str, posts: Sequence[str], words: Sequence[str]
) -> dict[str, int]:
    """Count the stored and claimed images of posts that were not found under some words yet.

    They would count for these words as soon as the posts are saved under them.

    Args:
        session: The session.
        site: The site.
        posts: The site's ids of the posts.
        words: The words that a tag is searched under.
    """
    is_found = (
        sa.exists()
        .where(PostHashtag.post_id == PostRow.id, PostHashtag.source == "search")
        .where(Hashtag.id == PostHashtag.hashtag_id)
        .where(Hashtag.text.in_(map(normalize_word, words)))
    )
    counts: dict[str, int] = {}
    for batch in in_batches(posts):
        query = (
            sa.select(PostRow.site_id, sa.func.count())
            .join(Sighting, Sighting.post_id == PostRow.id)
            .where(PostRow.site == site, PostRow.site_id.in_(batch), ~is_found)
            .where((Sighting.state == "stored") | Sighting.worker_id.is_not(None))
            .group_by(PostRow.site_id)
        )
        counts |= {site_id: count for site_id, count in session.execute(query)}  # noqa: C416
    return counts


def release_images(session: Session, urls: Sequence[str], worker: int) -> None:
    """Release claimed images that a worker did not download."""
    session.execute(
        sa.update(Sighting)
        .where(Sighting.url.in_(urls), Sighting.worker_id == worker)
        .values(worker_id=None)
        .execution_options(synchronize_session=False)
    )
