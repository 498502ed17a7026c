"""Tests of `catalogue forget`: addresses of posts, photos and authors match in any notation."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from dataset.catalogue.models import ImageRow, PostRow, Sighting, TakedownRow
from dataset.images.io import sha256_of
from dataset.maintenance.cli import catalogue
from dataset.maintenance.takedown import TakedownList, canonical_url
from tests.support.catalogue_data import CatalogueBuilder, photo_bytes

LAMODA = "https://a.lmcdn.ru/img600x866/M/P/MP002XW1G7O5_22861704_1_v1.jpg"
# Site, id, URL and author of each post, with the URL, the fallbacks and the key of its photo.
POSTS = [
    ("lamoda", "MP002XW1G7O5", "https://www.lamoda.ru/p/mp002xw1g7o5/", "Анна"),
    ("wildberries", "12345678", "https://www.wildberries.ru/catalog/12345678/detail.aspx", None),
    ("instagram", "1789000111", "https://www.instagram.com/p/CqXyZabcdef/", "Bert.Style"),
    ("instagram", "1789000222", "https://www.instagram.com/p/CQxyzABCDEF/", "carl"),
    ("twitter", "1700000000000000001", "https://x.com/Dora/status/1700000000000000001", "Dora"),
    ("pinterest", "99887766554433", "https://www.pinterest.com/pin/99887766554433/", "eve"),
]
PHOTOS = [
    (LAMODA, LAMODA.replace("img600x866", "product"), None),
    ("https://basket-01.wbbasket.ru/vol123/part12345/12345678/images/big/1.webp", "", None),
    ("https://scontent.cdninstagram.com/v/t51/1_2_n.jpg?oh=one&oe=two", "", "1789000111"),
    ("https://scontent.cdninstagram.com/v/t51/3_4_n.jpg?oh=one&oe=two", "", "1789000222"),
    ("https://pbs.twimg.com/media/GAbcdEf123?format=jpg&name=orig", "", None),
    (
        "https://i.pinimg.com/originals/ab/cd/ef/abcdef0123456789.jpg",
        "https://i.pinimg.com/736x/ab/cd/ef/abcdef0123456789.jpg\nhttps://i.pinimg.com/x/y.jpg",
        None,
    ),
]

# What identifies a photo does not depend on the database.
ON_SQLITE = pytest.mark.parametrize(
    "backend", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)


@pytest.fixture
def builder(tmp_path: Path, backend: str) -> CatalogueBuilder:
    made = CatalogueBuilder(tmp_path)
    for number, ((site, site_id, url, author), (photo, fallbacks, key)) in enumerate(
        zip(POSTS, PHOTOS, strict=True)
    ):
        post = made.post(site_id, "polo", author=author)
        made.image(photo_bytes(number), post)
        with made.sessions.begin() as session:
            session.execute(sa.update(PostRow).filter_by(id=post).values(site=site, url=url))
            session.execute(
                sa.update(Sighting)
                .filter_by(post_id=post)
                .values(url=photo, fallbacks=fallbacks, key=key)
            )
    return made


def forget(builder: CatalogueBuilder, *arguments: str) -> Result:
    place = ("--catalogue", builder.catalogue, "--images", str(builder.store), "--who", "me")
    return CliRunner().invoke(catalogue, ["forget", *arguments, *place])


def left(builder: CatalogueBuilder) -> tuple[set[str], set[str]]:
    """Return the ids of the posts and the SHA-256 of the images that are left."""
    with builder.sessions() as session:
        return {*session.scalars(sa.select(PostRow.site_id))}, {
            *session.scalars(sa.select(ImageRow.sha256))
        }


@ON_SQLITE
@pytest.mark.parametrize(
    ("number", "url"),
    [
        (0, "https://www.lamoda.ru/p/mp002xw1g7o5/"),
        (0, "https://www.lamoda.ru/p/mp002xw1g7o5"),
        (0, "http://lamoda.ru/p/MP002XW1G7O5/"),
        (0, "HTTPS://WWW.LAMODA.RU/P/MP002XW1G7O5/"),
        (0, "https://www.lamoda.ru/p/mp002xw1g7o5/clothes-befree-plate-2024/"),
        (0, "https://www.lamoda.ru/p/mp002xw1g7o5/?utm_source=mail&utm_medium=x#reviews"),
        (0, "https://www.lamoda.by/p/mp002xw1g7o5/clothes-befree-plate/?sku=1"),
        (0, "www.lamoda.ru/p/mp002xw1g7o5/"),
        (1, "https://www.wildberries.ru/catalog/12345678/detail.aspx?targetUrl=XS&size=1"),
        (1, "https://wildberries.ru/catalog/12345678/"),
        (1, "https://global.wildberries.ru/product/polo?card=12345678"),
        (2, "https://instagram.com/p/CqXyZabcdef/?igshid=abc=="),
        (2, "https://www.instagram.com/reel/CqXyZabcdef/"),
        (2, "https://www.instagram.com/bert.style/p/CqXyZabcdef/?img_index=1"),
        (4, "https://twitter.com/dora/status/1700000000000000001?s=20&t=abc"),
        (4, "https://mobile.twitter.com/i/web/status/1700000000000000001"),
        (4, "https://x.com/Renamed/status/1700000000000000001/photo/1"),
        (5, "https://ru.pinterest.com/pin/99887766554433/"),
        (5, "https://www.pinterest.de/pin/t-shirt-with-collar--99887766554433/?mt=login"),
    ],
)
def test_a_post_is_known_again_by_its_address_and_id(
    builder: CatalogueBuilder, number: int, url: str
) -> None:
    done = forget(builder, url)
    assert done.exit_code == 0, done.output
    assert "1 posts and 1 photos were deleted" in done.output
    posts, images = left(builder)
    assert {post[1] for post in POSTS} - posts == {POSTS[number][1]}
    assert sha256_of(photo_bytes(number)) not in images
    known = TakedownList()
    with builder.sessions() as session:
        known.catch_up(session)
    site, site_id, stored, _ = POSTS[number]
    for address in (url if "://" in url else f"https://{url}", stored, f"{stored}?utm_source=x"):
        assert known.has_post("", "", address, None), address
    assert known.has_post(site, site_id, "https://new.test/", None)
    assert not any(
        known.has_post(*post) for index, post in enumerate(POSTS) if index not in (number, 2, 3)
    )


@ON_SQLITE
@pytest.mark.parametrize(
    ("number", "url"),
    [
        (0, LAMODA),
        (0, LAMODA.replace("img600x866", "product")),
        (0, LAMODA.replace("img600x866", "img236x341") + "?v=2"),
        (0, LAMODA.replace("https:", "http:").replace("a.lmcdn", "A.LMCDN")),
        (1, PHOTOS[1][0] + "?r=1"),
        (2, "https://scontent.cdninstagram.com/v/t51/1_2_n.jpg?oh=new&oe=other"),
        (4, "https://pbs.twimg.com/media/GAbcdEf123.jpg"),
        (4, "https://pbs.twimg.com/media/GAbcdEf123?format=png&name=large"),
        (5, "https://i.pinimg.com/736x/ab/cd/ef/abcdef0123456789.jpg"),
        (5, "https://i.pinimg.com/236x/ab/cd/ef/abcdef0123456789.jpg"),
        (5, "https://i.pinimg.com/x/y.jpg"),
    ],
)
def test_a_photo_is_known_again_by_its_addresses(
    builder: CatalogueBuilder, number: int, url: str
) -> None:
    done = forget(builder, url)
    assert done.exit_code == 0, done.output
    assert "0 posts and 1 photos were deleted" in done.output
    posts, images = left(builder)
    assert len(posts) == len(POSTS)
    assert len(images) == len(POSTS) - 1 and sha256_of(photo_bytes(number)) not in images
    known = TakedownList()
    with builder.sessions() as session:
        known.catch_up(session)
        assert session.scalar(sa.select(Sighting.state).filter_by(image_id=None)) == "rejected"
    photo, fallbacks, key = PHOTOS[number]
    assert known.has_photo("instagram", None, [photo])
    assert not fallbacks or known.has_photo("x", None, ["https://x.test/", *fallbacks.split("\n")])
    assert not key or known.has_photo(POSTS[number][0], key, ["https://x.test/"])


@ON_SQLITE
@pytest.mark.parametrize(
    ("name", "site_id"),
    [
        ("@анна", "MP002XW1G7O5"),
        ("АННА", "MP002XW1G7O5"),
        (" bert.style ", "1789000111"),
        ("https://www.instagram.com/Bert.Style/", "1789000111"),
        ("https://x.com/dora?lang=en", "1700000000000000001"),
    ],
)
def test_an_author_is_known_again(builder: CatalogueBuilder, name: str, site_id: str) -> None:
    done = forget(builder, name)
    assert done.exit_code == 0, done.output
    assert {post[1] for post in POSTS} - left(builder)[0] == {site_id}


@ON_SQLITE
@pytest.mark.parametrize(
    "what",
    [
        "anno",
        "@typo",
        "https://www.lamoda.ru/p/mp002xw1g7o6/",
        "https://other.test/p/mp002xw1g7o5/",
        "https://www.lamoda.ru/",
        "https://www.wildberries.ru/catalog/1234567/detail.aspx",
        "https://i.pinimg.com/originals/ab/cd/ef/other.jpg",
        "https://[broken/",
    ],
)
def test_what_the_catalogue_does_not_have_changes_nothing(
    builder: CatalogueBuilder, what: str
) -> None:
    before = left(builder)
    done = forget(builder, what)
    assert done.exit_code == 1
    assert "nothing was changed" in done.output and "--author" in done.output
    with builder.sessions() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(TakedownRow)) == 0
    option = "--url" if "://" in what else "--author"
    done = forget(builder, what, option)
    assert done.exit_code == 0, done.output
    assert "crawls and imports will skip it" in done.output
    assert left(builder) == before
    known = TakedownList()
    with builder.sessions() as session:
        known.catch_up(session)
    kind = option.removeprefix("--")
    assert known.has_name(kind, [what]) and not known.has_name(kind, [f"{what}x"])


def test_an_address_that_fits_several_photos_changes_nothing(builder: CatalogueBuilder) -> None:
    with builder.sessions.begin() as session:
        for number, sighting in enumerate(session.scalars(sa.select(Sighting).limit(2))):
            sighting.url = f"https://shop.test/photo?id={number}"
    done = forget(builder, "https://shop.test/photo?size=2")
    assert done.exit_code == 1
    assert "several posts or photos" in done.output
    assert forget(builder, "https://shop.test/photo?id=1").exit_code == 0
    assert len(left(builder)[1]) == len(POSTS) - 1


def test_takedowns_of_earlier_versions_hold(builder: CatalogueBuilder) -> None:
    url = "https://www.Lamoda.ru/p/later/"
    with builder.sessions.begin() as session:
        digest = sha256_of(url.casefold().encode())
        session.add(TakedownRow(kind="url", digest=digest, who="me"))
    known = TakedownList()
    with builder.sessions() as session:
        known.catch_up(session)
    assert known.has_name("url", [url])


def test_canonical_urls() -> None:
    assert canonical_url("http://me@www.X.test//a/B/?b=2&utm_source=m&a=1#top") == (
        "x.test/a/b?a=1&b=2"
    )
    assert canonical_url("https://x.test") == "x.test"
