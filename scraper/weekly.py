"""Sites that let an account ask for so many different hashtags in seven days."""

import hashlib

import click
from sqlalchemy.orm import Session

from dataset.catalogue.models import RequestedHashtag
from dataset.catalogue.stats import WEEK, requested_this_week
from dataset.vocabulary import normalize_word
from scraper.credentials import is_account
from scraper.errors import SiteRefused
from scraper.spiders.base import HashtagSpider

# A warning comes when so many are left.
FEW = 5


def claim(session: Session, site: str, spider: HashtagSpider, hashtag: str) -> None:
    """Count HASHTAG as asked of SITE today, unless it was asked in the last seven days.

    Raises:
        SiteRefused: the account has asked for as many as it may.
    """
    if spider.weekly_hashtags is None:
        return
    allowed, account, text = spider.weekly_hashtags, account_of(spider), normalize_word(hashtag)
    rows = requested_this_week(session, site, account)
    if text in {row.hashtag for row in rows}:
        return
    if len(rows) >= allowed:
        free = rows[0].requested + WEEK
        raise SiteRefused(
            f"{spider.title} lets an account ask for {allowed} different hashtags in 7 days, and"
            f" {len(rows)} were asked for: {text!r} has to wait until {free:%Y-%m-%d %H:%M} UTC"
        )
    session.add(RequestedHashtag(site=site, account=account, hashtag=text, allowed=allowed))
    left = allowed - len(rows) - 1
    if left <= FEW:
        click.echo(
            f"{spider.title}: {left} of {allowed} different hashtags are left for these 7 days",
            err=True,
        )


def account_of(spider: HashtagSpider) -> str:
    """A name for whose credentials these are, from which they can't be told."""
    told = "\n".join(value for name, value in sorted(spider.secrets.items()) if is_account(name))
    return hashlib.sha256(told.encode()).hexdigest()[:12]
