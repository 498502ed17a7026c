"""A page's posts on their way into the catalogue, in a few statements for all of them."""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, selectinload

from dataset.catalogue.queries import in_parts
from dataset.catalogue.tables import OR, Hashtag, PostHashtag, PostRow, Search, Sighting
from dataset.labels import normalise
from scraper.fetching import GONE
from scraper.hashtags import as_hashtag, hashtags_in
from scraper.spiders.base import Photo, Post


def save_posts(
    session: Session, search: Search, posts: Sequence[Post], reason: str | None = None
) -> None:
    """Keep POSTS of SEARCH with their hashtags, their photos as wanted or refused for REASON."""
    rows = _rows(session, search.site, posts)
    tags = (
        (rows[post.site_id].id, text, source)
        for post in posts
        for text, source in _hashtags(search.hashtag, post)
        if text
    )
    _save_hashtags(session, dict.fromkeys(tags))
    urls = [photo.url for post in posts for photo in post.photos]
    refused = {"state": "refused", "reason": reason}
    known = dict.fromkeys(urls, refused) if reason else _refusals(session, urls)
    for post in posts:
        _save_photos(rows[post.site_id], post, known)
    session.flush()


def _rows(session: Session, site: str, posts: Sequence[Post]) -> dict[str, PostRow]:
    """The row of each post by its id, made where it is new."""
    rows: dict[str, PostRow] = {}
    for part in in_parts(dict.fromkeys(post.site_id for post in posts)):
        query = sa.select(PostRow).where(PostRow.site == site, PostRow.site_id.in_(part))
        found = session.scalars(query.options(selectinload(PostRow.sightings)))
        rows |= {row.site_id: row for row in found}
    for post in posts:
        if post.site_id not in rows:
            rows[post.site_id] = _new_post(site, post)
    session.add_all(rows.values())
    session.flush()
    return rows


def _new_post(site: str, post: Post) -> PostRow:
    return PostRow(
        site=site,
        site_id=post.site_id,
        url=post.url,
        title=post.title,
        brand=post.brand,
        price=post.price,
        currency=post.currency,
        author=post.author,
        posted=post.posted,
        record=zlib.compress(_as_json(post.record).encode()),
        sightings=[],
    )


def _as_json(record: Mapping[str, Any]) -> str:
    try:
        return json.dumps(record, ensure_ascii=False, sort_keys=True, default=str)
    except RecursionError:
        # Nested so deep that it could only just be read.
        return "{}"


def _hashtags(query: str, post: Post) -> Iterator[tuple[str, str]]:
    """Each hashtag of POST, normalised, with where it comes from."""
    in_text = [normalise(tag) for tag in (*post.hashtags, *hashtags_in(post.title))]
    yield from ((tag, "search") for tag in map(normalise, _found_under(query, in_text)))
    yield from ((tag, "caption") for tag in in_text)
    yield from ((tag, "attribute") for tag in map(normalise, post.attributes))


def _found_under(query: str, hashtags: Sequence[str]) -> list[str]:
    """The words of QUERY among HASHTAGS; all where none is, as a site may see more than we do."""
    words, tags = query.split(OR), {as_hashtag(tag) for tag in hashtags}
    return [word for word in words if as_hashtag(word) in tags] or words


def _save_hashtags(session: Session, wanted: Mapping[tuple[int, str, str], None]) -> None:
    """Keep each post's id, hashtag and source in WANTED."""
    ids = _hashtag_ids(session, [text for _, text, _ in wanted])
    known: set[tuple[int, int, str]] = set()
    for part in in_parts(dict.fromkeys(post for post, _, _ in wanted)):
        kept = sa.select(PostHashtag.post_id, PostHashtag.hashtag_id, PostHashtag.source)
        known |= {(*row,) for row in session.execute(kept.where(PostHashtag.post_id.in_(part)))}
    rows = [
        {"post_id": post, "hashtag_id": ids[text], "source": source}
        for post, text, source in wanted
        if (post, ids[text], source) not in known
    ]
    if rows:
        session.execute(sa.insert(PostHashtag), rows)


def _hashtag_ids(session: Session, texts: Sequence[str]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for part in in_parts(dict.fromkeys(texts)):
        found = session.scalars(sa.select(Hashtag).where(Hashtag.text.in_(part)))
        ids |= {tag.text: tag.id for tag in found}
    new = [Hashtag(text=text) for text in dict.fromkeys(texts) if text not in ids]
    session.add_all(new)
    session.flush()
    return ids | {tag.text: tag.id for tag in new}


def _refusals(session: Session, urls: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Why photos at URLS were refused where any post, of whatever search, showed them before.

    Those that were stored are taken when they are claimed, as long as the tag may have them.
    """
    outcomes: dict[str, dict[str, Any]] = {}
    for part in in_parts(dict.fromkeys(urls)):
        query = sa.select(Sighting.url, Sighting.state, Sighting.reason, Sighting.image_id)
        for url, state, reason, image_id in session.execute(
            query.where(Sighting.url.in_(part), Sighting.state == "refused")
        ):
            outcomes[url] = {"state": state, "reason": reason, "image_id": image_id}
    return outcomes


def _save_photos(row: PostRow, post: Post, known: Mapping[str, dict[str, Any]]) -> None:
    addresses = {sighting.url for sighting in row.sightings}
    keys = {sighting.key: sighting for sighting in row.sightings if sighting.key}
    for photo in post.photos:
        if photo.key in keys:
            _renew_address(keys[photo.key], photo)
        elif photo.url not in addresses:
            outcome = known.get(photo.url, {})
            row.sightings.append(
                Sighting(
                    url=photo.url,
                    key=photo.key,
                    fallbacks="\n".join(photo.fallbacks),
                    position=len(row.sightings),
                    **outcome,
                )
            )
            addresses.add(photo.url)


def _renew_address(sighting: Sighting, photo: Photo) -> None:
    """A signed address is fresh when it is seen again; one that ran out has another chance."""
    if sighting.state == "wanted" or sighting.reason in GONE:
        sighting.url, sighting.fallbacks = photo.url, "\n".join(photo.fallbacks)
        sighting.state, sighting.reason = "wanted", None
