"""Tests of the crawl as a Scrapy project: Scrapy's commands, settings and other components."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from scraper.sample_shop.server import SampleShop, ShopOptions, serve
from scraper.settings import PROTECTED_COMPONENTS, PROTECTED_SETTINGS
from scraper.spiders.base import site_names
from tests.support.catalogues import rows
from tests.support.crawls import class_folder, crawl, run_scrapy

PROJECT = Path(__file__).parents[2]
PRODUCTS = 5
# A middleware, an extension and a pipeline as users write them.
COMPONENTS = """
from scrapy import signals


class CountingMiddleware:
    requests = 0

    def process_request(self, request):
        CountingMiddleware.requests += 1


class ItemPipeline:
    results = []

    def process_item(self, item):
        if hasattr(item, "result"):
            ItemPipeline.results.append(item.result)
        return item


class Report:
    def __init__(self, crawler):
        self.stats = crawler.stats
        crawler.signals.connect(self.write, signals.spider_closed)

    @classmethod
    def from_crawler(cls, crawler):
        return cls(crawler)

    def write(self, reason):
        import json

        values = {name: value for name, value in self.stats.get_stats().items() if "/" in name}
        with open("report.json", "w") as file:
            results = {"requests": CountingMiddleware.requests, "results": ItemPipeline.results}
            json.dump({"reason": reason, "stats": values, **results}, file)
"""
ADDED = (
    *("-s", 'DOWNLOADER_MIDDLEWARES={"components.CountingMiddleware": 600}'),
    *("-s", 'ITEM_PIPELINES={"components.ItemPipeline": 900}'),
    *("-s", 'EXTENSIONS={"components.Report": 0}'),
)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[SampleShop]:
    photos = class_folder(tmp_path / "photos", "кимоно", PRODUCTS, size=(120, 160))
    with serve(ShopOptions(photos=photos, duplicates=0, double_tagged=0)) as shop:
        yield shop


def mirror(shop: SampleShop) -> Sequence[str]:
    return ("-a", f"site_url={shop.url}", "-a", f"image_url={shop.url}")


def test_scrapy_lists_the_sites(tmp_path: Path) -> None:
    done = run_scrapy(tmp_path, "list")
    assert done.stdout.split() == site_names()
    # scrapy.cfg names the settings.
    without_variable = (sys.executable, "-m", "scrapy", "list")
    listed = subprocess.check_output(without_variable, cwd=PROJECT, text=True, timeout=120)
    assert listed.split() == site_names()


def test_scrapy_crawl_and_crawl_share_a_catalogue(shop: SampleShop, tmp_path: Path) -> None:
    arguments = ("-a", "tags=кимоно", "-a", "max_images=2", "-s", "AUTOTHROTTLE_START_DELAY=0")
    done = run_scrapy(tmp_path, "crawl", "lamoda", *arguments, *mirror(shop))
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path, "SELECT count(*) FROM images") == [(2,)]
    assert "limit" in done.stdout and "'images/new': 2" in done.stderr
    status, output = crawl(shop, tmp_path, "--tags", "кимоно")
    assert status == 0, output
    assert rows(tmp_path, "SELECT count(*) FROM images") == [(PRODUCTS,)]
    assert {n for target, n in shop.requests.items() if "/img" in target} == {1}


def test_items_can_be_exported(shop: SampleShop, tmp_path: Path) -> None:
    arguments = ("-a", "tags=кимоно", "-O", "items.jsonl", "-s", "AUTOTHROTTLE_START_DELAY=0")
    done = run_scrapy(tmp_path, "crawl", "lamoda", *arguments, *mirror(shop))
    assert done.returncode == 0, done.stderr
    page, *images = map(json.loads, (tmp_path / "items.jsonl").read_text().splitlines())
    assert (page["search"], len(page["page"]["posts"])) == ("кимоно", PRODUCTS)
    assert [image["result"] for image in images] == ["new"] * PRODUCTS
    stored = rows(tmp_path, "SELECT sha256, bytes FROM images ORDER BY 1")
    assert sorted((image["outcome"]["sha256"], image["body"]) for image in images) == stored


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_no_file_of_a_crawl_has_a_secret(tmp_path: Path, level: str) -> None:
    token = "EAAGverysecret"
    options = ShopOptions(site="instagram", per_label=2, generation="expired-token")
    (tmp_path / "keys.env").write_text(f"INSTAGRAM_TOKEN={token}\nINSTAGRAM_USER=17841400000000000")
    (tmp_path / "keys.env").chmod(0o600)
    logs = ("-s", f"LOG_LEVEL={level}", "-s", "LOG_FILE=log.txt", "-O", "items.jsonl")
    with serve(options) as shop:
        arguments = ("-a", "tags=polo", "-a", "credentials=keys.env", *logs)
        done = run_scrapy(tmp_path, "crawl", "instagram", *arguments, *mirror(shop))
    (tmp_path / "keys.env").unlink()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"log.txt", "items.jsonl", "c.sqlite"}
    assert not [path for path in files if token.encode() in path.read_bytes()]
    assert token not in done.stdout + done.stderr
    assert "set INSTAGRAM_TOKEN" in done.stderr


def test_scrapy_parse_and_shell_read_a_page(shop: SampleShop, tmp_path: Path) -> None:
    url, allowed = f"{shop.url}/catalogsearch/result/?q=kimono", f"ALLOWED_HOSTS={shop.url}"
    quiet = ("-s", allowed, "-s", "LOG_LEVEL=ERROR")
    done = run_scrapy(tmp_path, "parse", url, "--spider=lamoda", *quiet)
    assert done.returncode == 0 and "'posts': " in done.stdout, done.stderr
    code = "spider.read(response.body, response.url).total"
    done = run_scrapy(tmp_path, "shell", url, "--spider=lamoda", "-c", code, *quiet)
    assert done.stdout.strip() == "0", done.stderr
    assert not (tmp_path / "c.sqlite").exists()


def test_scrapy_crawl_reports_missing_credentials_without_a_traceback(tmp_path: Path) -> None:
    done = run_scrapy(tmp_path, "crawl", "instagram", "-a", "tags=polo", "-s", "LOG_LEVEL=ERROR")
    assert "INSTAGRAM_TOKEN" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", PROTECTED_SETTINGS)
def test_protected_settings_cannot_be_changed(shop: SampleShop, tmp_path: Path, name: str) -> None:
    status, output = crawl(shop, tmp_path, "--tags", "кимоно", "-s", f"{name}=0")
    assert (status, f"-s {name}=0: can't be changed" in output) == (2, True), output
    assert not shop.requests


@pytest.mark.parametrize(
    ("setting", "component"),
    [
        (name, component)
        for name, components in PROTECTED_COMPONENTS.items()
        for component, order in components.items()
        if order is not None
    ],
)
def test_protected_components_cannot_be_removed(
    shop: SampleShop, tmp_path: Path, setting: str, component: str
) -> None:
    value = json.dumps({component: None})
    status, output = crawl(shop, tmp_path, "--tags", "кимоно", "-s", f"{setting}={value}")
    assert (status, f"{component} can't be removed" in output) == (2, True), output


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("DOWNLOAD_DELAY", "-s DOWNLOAD_DELAY: write NAME=VALUE"),
        ("DOWNLOAD_DELAY=soon", "a value of -s can't be used: could not convert"),
        ("ITEM_PIPELINES=mine.Pipeline", "write components as JSON"),
        ('EXTENSIONS={"missing.Extension": 0}', "a value of -s can't be used: No module named"),
    ],
)
def test_invalid_settings_are_usage_errors(
    shop: SampleShop, tmp_path: Path, setting: str, message: str
) -> None:
    status, output = crawl(shop, tmp_path, "--tags", "кимоно", "-s", setting)
    assert (status, message in output, "Traceback" in output) == (2, True, False), output


def test_other_components_work_beside_those_of_the_project(
    shop: SampleShop, tmp_path: Path
) -> None:
    (tmp_path / "components.py").write_text(COMPONENTS)
    speed = ("-s", "AUTOTHROTTLE_START_DELAY=0")
    done = run_scrapy(
        tmp_path, "crawl", "lamoda", "-a", "tags=кимоно", *ADDED, *speed, *mirror(shop)
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["reason"] == "finished"
    assert report["results"] == ["new"] * PRODUCTS
    # The middleware also sees the request of robots.txt.
    assert report["requests"] == sum(shop.requests.values())
    assert report["stats"]["images/new"] == PRODUCTS
    assert rows(tmp_path, "SELECT count(*) FROM images") == [(PRODUCTS,)]


def test_image_that_a_pipeline_drops_is_rejected(shop: SampleShop, tmp_path: Path) -> None:
    (tmp_path / "components.py").write_text(
        "from scrapy.exceptions import DropItem\n\n"
        "class Drop:\n"
        "    def process_item(self, item):\n"
        "        if hasattr(item, 'image'):\n"
        "            raise DropItem('too plain')\n"
        "        return item\n"
    )
    added = ("-s", 'ITEM_PIPELINES={"components.Drop": 50}', "-s", "AUTOTHROTTLE_START_DELAY=0")
    done = run_scrapy(tmp_path, "crawl", "lamoda", "-a", "tags=кимоно", *added, *mirror(shop))
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path, "SELECT reason, count(*) FROM sightings GROUP BY 1") == [
        ("dropped by an item pipeline", PRODUCTS)
    ]
    assert rows(tmp_path, "SELECT state FROM searches WHERE posts > 0") == [("finished",)]


def test_documented_components_work(shop: SampleShop, tmp_path: Path) -> None:
    document = (PROJECT / "docs" / "scrapy.md").read_text(encoding="utf-8")
    middleware, monitors = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    # The document's example delays requests at some hours of the day.
    assert "asyncio.sleep(10)" in middleware
    (tmp_path / "components.py").write_text(middleware.replace("sleep(10)", "sleep(0)"))
    (tmp_path / "monitors.py").write_text(monitors)
    commands = re.findall(r"^\$ (PYTHONPATH=\. .*)$", document.replace("\\\n", " "), re.MULTILINE)
    words = [word for command in commands for word in shlex.split(command)]
    settings = [value for option, value in pairwise(words) if option == "-s"]
    assert len(settings) == 4
    options = [option for setting in settings for option in ("-s", setting)]
    speed = ("-s", "AUTOTHROTTLE_START_DELAY=0")
    done = run_scrapy(
        tmp_path, "crawl", "lamoda", "-a", "tags=кимоно", *options, *speed, *mirror(shop)
    )
    assert "Images/At least one image is new... OK" in done.stderr, done.stderr
    assert "QuietHoursMiddleware" in done.stderr
    assert rows(tmp_path, "SELECT count(*) FROM images") == [(PRODUCTS,)]
