"""Tests of `--check`, `--live`, `--dry-run` and `--credentials` on the sample shop."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from scraper.cli import crawl as crawl_command
from scraper.crawl.preflight import fields_found
from scraper.sample_shop.server import ShopOptions, serve
from scraper.spiders.base import Access, Credit, Photo, Post
from tests.support.crawls import crawl

SECRETS = {"INSTAGRAM_TOKEN": "EAAGverysecret", "INSTAGRAM_USER": "17841400000000000"}


def test_check_reports_account_search_and_fields(tmp_path: Path) -> None:
    options = ShopOptions(site="instagram", per_label=3, duplicates=0, double_tagged=0)
    with serve(options) as shop:
        status, output = crawl(
            shop,
            tmp_path,
            "--check",
            "--live",
            "--tags",
            "dress",
            site="instagram",
            secrets=SECRETS,
        )
    assert status == 0, output
    assert "ok     account: @sample.shop" in output
    # The newer two of three posts are recent media; the video is skipped.
    assert "ok     search for 'dress': 2 posts" in output
    lines = {line.split()[0]: line.split()[1:] for line in output.splitlines() if " of 2 " in line}
    assert lines["photos"] == ["2", "of", "2", "found"]
    assert lines["price"] == ["0", "of", "2", "missing"]
    assert not (tmp_path / "c.sqlite").exists() and not (tmp_path / "images").exists()


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ("expired-token", "set INSTAGRAM_TOKEN"),
        ("limited", "in about 23 minutes"),
        ("hashtag-limit", "30 different hashtags"),
    ],
)
def test_error_responses_are_explained_without_the_token(
    tmp_path: Path, generation: str, message: str
) -> None:
    with serve(ShopOptions(site="instagram", per_label=3, generation=generation)) as shop:
        for options in (("--check",), ("--tags", "polo")):
            status, output = crawl(shop, tmp_path, *options, site="instagram", secrets=SECRETS)
            assert (status, message in output, "EAAGverysecret" in output) == (1, True, False), (
                output
            )
            # The reason precedes the URL; a check cannot be continued.
            assert output.index(message) < output.index(shop.url)
            assert ("repeat the command" in output) == (options != ("--check",))
    assert b"EAAGverysecret" not in (tmp_path / "c.sqlite").read_bytes()


def test_dry_run_counts_without_storing_anything(tmp_path: Path) -> None:
    with serve(ShopOptions(per_label=3)) as shop:
        status, output = crawl(shop, tmp_path, "--tags", "polo,кимоно", "--dry-run")
        assert not any("/img" in target for target in shop.requests)
    assert status == 0, output
    table = {line.rsplit(maxsplit=1)[0].strip(): line.split()[-1] for line in output.splitlines()}
    assert int(table["polo"]) >= 3 and table["кимоно"] == "0"
    assert not (tmp_path / "c.sqlite").exists()


def test_dry_run_does_not_use_the_weekly_hashtag_quota(tmp_path: Path) -> None:
    with serve(ShopOptions(site="instagram", per_label=2)) as shop:
        options = ("--tags", "polo,dress", "--dry-run")
        status, output = crawl(shop, tmp_path, *options, site="instagram", secrets=SECRETS)
        assert not any("hashtag" in target for target in shop.requests)
    assert status == 0, output
    assert (
        "does not report how many posts there are; a crawl would use 9 of the 30 different"
        in output
    )


def test_dry_run_counts_a_single_page_without_total(tmp_path: Path) -> None:
    with serve(ShopOptions(site="wildberries", per_label=3, generation="older")) as shop:
        status, output = crawl(
            shop, tmp_path, "--tags", "кимоно,polo", "--dry-run", site="wildberries"
        )
    assert status == 0, output
    assert re.search(r"^polo  +[34]$", output, re.M) and re.search(r"^кимоно  +0$", output, re.M)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tags", "polo"), "INSTAGRAM_TOKEN"),
        (("--tags", "polo", "--set", "media=old"), "choose from both, recent, top"),
        (("--tags", "polo", "--set", "colour=red"), "no such setting"),
        (("--tags", "polo", "--set", "media"), "NAME=VALUE"),
        (("--tags", "polo", "--credentials", "nothing.env"), "can't be read"),
        (("--live", "--tags", "polo"), "--live requires --check"),
        (("--check", "--dry-run"), "--check and --dry-run can't be combined"),
        (("--tags", "polo", "--image-url", "shop"), "--image-url: 'shop' is not a URL"),
        (("--tags", ""), "--tags is missing"),
    ],
)
def test_usage_errors_name_the_option(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    with serve(ShopOptions(site="instagram", per_label=1)) as shop:
        no_secrets = dict.fromkeys(SECRETS, "")
        status, output = crawl(shop, tmp_path, *options, site="instagram", secrets=no_secrets)
    assert (status, message in output) == (2, True), output
    assert "Traceback" not in output


@pytest.mark.parametrize("order", ["--list --credentials {}", "--credentials {} --list"])
def test_list_shows_credentials_of_the_file_in_any_option_order(tmp_path: Path, order: str) -> None:
    file = tmp_path / "keys.env"
    file.write_text("INSTAGRAM_TOKEN=EAAGverysecret\n")
    file.chmod(0o600)
    done = CliRunner().invoke(crawl_command, order.format(file))
    assert "INSTAGRAM_TOKEN: a user access token of your app (set)" in done.output
    assert "EAAGverysecret" not in done.output


def test_list_sorts_sites_by_what_they_need() -> None:
    lines = CliRunner().invoke(crawl_command, "--list").output.splitlines()
    table = [re.split(r"  +", line) for line in lines[2 : lines.index("")]]
    levels = [access.value for access in Access]
    needs = [levels.index(row[1]) for row in table]
    assert needs == sorted(needs) and set(needs) >= {0, 1, 2, 4}
    assert table[0] == ["lamoda", "nothing", "https://www.lamoda.ru"]
    assert ["shopify", "the address of a shop or server", "any server"] in table
    # The details follow in the same order.
    assert [line for line in lines[lines.index("") :] if re.match(r"\w", line)] == [
        row[0] for row in table
    ]


def test_verbose_logs_requests_without_credentials_or_warnings(
    tmp_path: Path,
) -> None:
    with serve(ShopOptions(site="instagram", per_label=1)) as shop:
        _, output = crawl(shop, tmp_path, "--check", "-v", site="instagram", secrets=SECRETS)
        _, failed_output = crawl(
            shop, tmp_path, "--check", "-v", "--site-url", "http://127.0.0.1:1"
        )
    assert f"INFO: HTTP 200 {shop.url}/v25.0/ig_hashtag_search?user_id=[hidden]&q=polo" in output
    assert not any(secret in output for secret in SECRETS.values())
    # Scrapy warns about deprecated settings, for example.
    assert "WARNING" not in output
    assert (
        "INFO: no connection (nothing listens there) http://127.0.0.1:1/catalogsearch"
        in failed_output
    )


def test_hashtags_in_titles_count_as_a_found_field() -> None:
    posts = [Post("1", "https://shop.example/1", (), title="Polo #classic")]
    assert "hashtags    1 of 1  found" in fields_found(posts)
    assert "license" not in fields_found(posts)
    photo = Photo("https://shop.example/1.jpg", credit=Credit(license="by"))
    assert "license      1 of 1  found" in fields_found([replace(posts[0], photos=(photo,))])
