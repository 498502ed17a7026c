"""Tests of the weekly hashtag quota across runs and accounts."""

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from dataset.catalogue.models import RequestedHashtag, now
from dataset.catalogue.session import open_catalogue
from dataset.maintenance.stats import format_stats, read_stats
from scraper.crawl.searches import account_of, use_hashtag_quota
from scraper.errors import SiteRefused
from scraper.spiders.base import HashtagSpider
from scraper.spiders.instagram import Spider as Instagram
from scraper.spiders.lamoda import Spider as Lamoda


def account(user: str) -> HashtagSpider:
    return Instagram(credentials={"INSTAGRAM_TOKEN": "EAAGsecret", "INSTAGRAM_USER": user})


def test_hashtag_beyond_the_weekly_quota_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = str(tmp_path / "c.sqlite")
    sessions = open_catalogue(catalogue)
    spider = account("17841400000000000")
    for n in range(30):
        with sessions.begin() as session:
            use_hashtag_quota(session, "instagram", spider, f"tag{n}")
    assert capsys.readouterr().err.splitlines()[0].startswith("Instagram: 5 of 30")
    with sessions.begin() as session:
        use_hashtag_quota(session, "instagram", spider, "Tag7")
    with sessions.begin() as session, pytest.raises(SiteRefused, match="has to wait until"):
        use_hashtag_quota(session, "instagram", spider, "another")
    with sessions.begin() as session:
        use_hashtag_quota(session, "instagram", account("2"), "another")
        use_hashtag_quota(session, "lamoda", Lamoda(), "another")
        session.execute(
            sa.update(RequestedHashtag)
            .where(RequestedHashtag.hashtag == "tag0")
            .values(requested=now() - timedelta(days=7, seconds=1))
        )
    with sessions.begin() as session:
        use_hashtag_quota(session, "instagram", spider, "another")
    stats = read_stats(catalogue, None, 10)
    assert sorted((line["requested"], line["allowed"]) for line in stats["week"]) == [
        (1, 30),
        (30, 30),
    ]
    assert "30 of 30 hashtags requested in 7 days" in format_stats(stats)
    written = (tmp_path / "c.sqlite").read_bytes()
    assert b"17841400000000000" not in written and b"EAAGsecret" not in written


def test_account_is_independent_of_its_token() -> None:
    first, second = account("1"), account("1")
    second.secrets["INSTAGRAM_TOKEN"] = "EAAGanother"
    assert account_of(first) == account_of(second) != account_of(account("2"))
