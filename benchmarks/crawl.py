"""Compare crawls with Scrapy's ImagesPipeline: images per second, memory and large catalogues.

    python benchmarks/crawl.py peers --photos ../shared/data/clothing [--side 1280]
    python benchmarks/crawl.py million --photos ../shared/data/clothing
    python benchmarks/crawl.py processes --photos ../shared/data/clothing
    python benchmarks/crawl.py memory --images 20000
    python benchmarks/crawl.py hashes --photos ../shared/data/clothing

`peers` crawls real photos from a loopback server in its own process that serves from memory. Both
sides use eight concurrent requests and no delays. The pipeline stores files and runs one INSERT
per image; this project also hashes, detects near duplicates and is crash-safe. `--side` enlarges
the photos. `million` runs the same crawl into an empty catalogue and into one of 1,000,000 images,
a hundredth of them under the crawled hashtag. `processes` compares one crawl process with two on
the same catalogue, from a server that takes 0.1 s per response. `memory` uses drawn images, which
are all different. `hashes` compares the perceptual hash of a JPEG decoded at a reduced size with
the hash at full size.
"""

import asyncio
import io
import json
import multiprocessing
import os
import resource
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import imagehash
import numpy as np
import sqlalchemy as sa
from scrapy import Request

from dataset.catalogue.models import (
    Cluster,
    FingerprintRow,
    Hashtag,
    ImageRow,
    PostHashtag,
    PostRow,
    Sighting,
)
from dataset.catalogue.session import open_catalogue
from dataset.duplicates.hashing import (
    COLOUR_PIXELS,
    MIN_DECODED_PIXELS,
    THUMBNAIL_PIXELS,
    VIEW_COUNT,
)
from dataset.images.io import find_photos, open_photo
from dataset.utils.cli_options import format_table
from dataset.vocabulary import load_vocabulary
from scraper import settings
from scraper.items import Page, Photo, Post
from scraper.spiders.base import HashtagSpider

PER_PAGE = 100
TAG = "benchmark"
RECORD = b"x" * 300
CONCURRENT_REQUESTS = settings.CONCURRENT_REQUESTS_PER_DOMAIN


# Server.


class PhotoServer(asyncio.Protocol):
    """Serve HTTP/1.1 on one connection: /photo/N, and /page/N with the images of a page as JSON."""

    photo: Callable[[int], bytes]
    count: int
    delay: float

    def connection_made(self, transport: Any) -> None:
        """Store the transport."""
        self.transport, self.waiting = transport, b""

    def data_received(self, data: bytes) -> None:
        """Respond to each complete request."""
        *requests, self.waiting = (self.waiting + data).split(b"\r\n\r\n")
        for request in requests:
            _, kind, number = request.split(b" ", 2)[1].split(b"/")
            body = self.photo(int(number)) if kind == b"photo" else self._page(int(number))
            head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
            asyncio.get_running_loop().call_later(
                self.delay, self.transport.write, head % len(body) + body
            )

    def _page(self, number: int) -> bytes:
        photos = range(number * PER_PAGE, min((number + 1) * PER_PAGE, self.count))
        return json.dumps({"photos": list(photos), "of": self.count}).encode()


def serve(paths: list[Path], count: int, ready: Any, delay: float = 0) -> None:
    """Serve images until the process is killed.

    Args:
        paths: Image files; if empty, images are drawn.
        count: Number of images.
        ready: Queue that receives the port.
        delay: Seconds before each response.
    """
    photos = [path.read_bytes() for path in paths]

    class Handler(PhotoServer):
        def photo(self, number: int) -> bytes:
            return photos[number] if photos else draw_photo(number)

    Handler.count, Handler.delay = count, delay

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Handler, "127.0.0.1", 0)
        ready.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def draw_photo(number: int) -> bytes:
    """Draw an image of coloured squares that differs from all others."""
    from tests.support.catalogue_data import photo_bytes

    return photo_bytes(number)


class Run(NamedTuple):
    """The result of a crawl.

    Attributes:
        seconds: Wall-clock time.
        images: Number of images.
        megabytes: Peak memory of the crawl's main process.
        cpu: CPU seconds of all its processes.
    """

    seconds: float
    images: int
    megabytes: float
    cpu: float


# This project.


class BenchmarkSpider(HashtagSpider):
    """Parse the pages of the benchmark server."""

    name = "benchmark"
    title, needs, limits_text, checked = "Benchmark", "nothing", "none", "2026-11"
    site_url = image_url = "http://127.0.0.1"

    def search_request(self, query: str, cursor: str | None) -> Request:
        """Return the request of a page by its number."""
        return Request(f"{self.requested_url}/page/{cursor or 0}")

    def read(self, body: bytes, url: str) -> Page:
        """Return one post per image of the page."""
        base, _, number = url.rpartition("/page/")
        page = json.loads(body)
        posts = tuple(
            Post(str(n), f"{base}/post/{n}", (Photo(f"{base}/photo/{n}"),)) for n in page["photos"]
        )
        more = (int(number) + 1) * PER_PAGE < page["of"]
        return Page(posts, str(int(number) + 1) if more else None)


def crawl_with_this_project(address: str, folder: Path, results: Any) -> None:
    """Crawl the server into a folder and put the `Run` into a queue."""
    from scraper.crawl.process import project_settings
    from scraper.crawl.runner import crawl
    from scraper.crawl.searches import CrawlLimits

    values = {
        "CATALOGUE": str(folder / "catalogue.sqlite"),
        "IMAGES": folder / "images",
        "ALLOW_PRIVATE_HOSTS": True,
        "AUTOTHROTTLE_ENABLED": False,
        "ROBOTSTXT_OBEY": False,
        "LOG_LEVEL": "CRITICAL",
        "SUMMARY_ENABLED": False,
    }
    spider = BenchmarkSpider(address, address)
    start = time.perf_counter()
    result = crawl([spider], (TAG,), CrawlLimits(), load_vocabulary(), project_settings(values))
    seconds = time.perf_counter() - start
    (stats,) = result.searches
    results.put(Run(seconds, stats.outcomes.total(), *resource_usage()))


def resource_usage() -> tuple[float, float]:
    """Return the peak memory of this process in MB, and CPU seconds including its children.

    The system also counts memory that a child shared with its parent before it started.
    """
    usages = [
        resource.getrusage(target) for target in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    return usages[0].ru_maxrss / 1024, sum(usage.ru_utime + usage.ru_stime for usage in usages)


# Scrapy's ImagesPipeline.


def crawl_with_scrapy(address: str, folder: Path, results: Any) -> None:
    """Crawl the server with Scrapy's ImagesPipeline and one INSERT per image."""
    import scrapy
    from scrapy.crawler import CrawlerProcess

    images = Counter[str]()

    class Insert:
        def open_spider(self) -> None:
            self.connection = sqlite3.connect(folder / "theirs.sqlite")
            self.connection.execute("CREATE TABLE photos (url TEXT, path TEXT, checksum TEXT)")

        def process_item(self, item: Any) -> Any:
            for image in item["images"]:
                row = (image["url"], image["path"], image["checksum"])
                self.connection.execute("INSERT INTO photos VALUES (?, ?, ?)", row)
                self.connection.commit()
                images["stored"] += 1
            return item

    class Spider(scrapy.Spider):
        name = "theirs"

        async def start(self) -> Any:
            yield scrapy.Request(f"{address}/page/0")

        def parse(self, response: Any) -> Iterator[Any]:
            page = json.loads(response.body)
            for number in page["photos"]:
                yield {"image_urls": [f"{address}/photo/{number}"]}
            following = int(response.url.rpartition("/")[2]) + 1
            if following * PER_PAGE < page["of"]:
                yield scrapy.Request(f"{address}/page/{following}")

    pipelines = {"scrapy.pipelines.images.ImagesPipeline": 1, Insert: 2}
    process = CrawlerProcess(
        {
            "ITEM_PIPELINES": pipelines,
            "IMAGES_STORE": str(folder / "theirs"),
            "CONCURRENT_REQUESTS_PER_DOMAIN": CONCURRENT_REQUESTS,
            "DOWNLOAD_DELAY": 0,
            "LOG_LEVEL": "ERROR",
            "TELNETCONSOLE_ENABLED": False,
            "AUTOTHROTTLE_ENABLED": False,
            "ROBOTSTXT_OBEY": False,
        }
    )
    process.crawl(Spider)
    start = time.perf_counter()
    process.start()
    results.put(Run(time.perf_counter() - start, images["stored"], *resource_usage()))


# Measurement.


def run(crawl: Callable, paths: list[Path], count: int, folder: Path) -> Run:
    """Run a crawl in its own process against its own server."""
    (result,) = run_processes(crawl, paths, count, folder, processes=1)
    return result


def run_processes(
    crawl: Callable,
    paths: list[Path],
    count: int,
    folder: Path,
    processes: int,
    delay: float = 0,
) -> list[Run]:
    """Run crawl processes on one folder against one server."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Queue(), context.Queue()
    server = context.Process(target=serve, args=(paths, count, ready, delay), daemon=True)
    server.start()
    arguments = (f"http://127.0.0.1:{ready.get()}", folder, results)
    clients = [context.Process(target=crawl, args=arguments) for _ in range(processes)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    server.terminate()
    if any(client.exitcode for client in clients):
        sys.exit(f"{crawl.__name__} failed")
    return [results.get() for _ in clients]


def photos_below(folder: Path) -> list[Path]:
    """Return the image files in a folder and its sub-folders."""
    return find_photos(folder.rglob("*")).paths


@click.group()
def main() -> None:
    """Measure the speed and memory of a crawl."""


photos_option = click.option(
    "--photos", type=click.Path(exists=True, path_type=Path), required=True
)


@main.command()
@photos_option
@click.option("--times", default=3, show_default=True, help="Rounds in turn; the fastest counts.")
@click.option("--side", type=int, help="Enlarge the longer side to this many pixels.")
def peers(photos: Path, times: int, side: int | None) -> None:
    """Print the images per second of both crawlers."""
    with tempfile.TemporaryDirectory() as folder:
        paths = photos_below(photos)
        if side:
            large = [Path(folder) / f"{number}.jpg" for number in range(len(paths))]
            for path, target in zip(paths, large, strict=True):
                target.write_bytes(enlarge(path, side))
            paths = large
        _compare(paths, times)


def _compare(paths: list[Path], times: int) -> None:
    runs: dict[str, list[Run]] = {"Scrapy's ImagesPipeline": [], "ours": []}
    for _ in range(times):
        for name, crawl in zip(runs, (crawl_with_scrapy, crawl_with_this_project), strict=True):
            with tempfile.TemporaryDirectory() as folder:
                runs[name].append(run(crawl, paths, len(paths), Path(folder)))
            click.echo(f"{name}: {runs[name][-1]}", err=True)
    best = {
        name: max(result.images / result.seconds for result in results)
        for name, results in runs.items()
    }
    cpu = {
        name: min(1000 * result.cpu / result.images for result in results)
        for name, results in runs.items()
    }
    scrapy_rate = best["Scrapy's ImagesPipeline"]
    rows = [
        (name, f"{rate:.0f}", f"{rate / scrapy_rate:.2f}x", f"{cpu[name]:.1f}")
        for name, rate in best.items()
    ]
    click.echo(format_table(("crawl", "images/s", "vs. Scrapy", "CPU ms/image"), rows))


@main.command()
@photos_option
@click.option("--images", default=1_000_000, show_default=True)
@click.option("--times", default=2, show_default=True, help="Rounds in turn; the fastest counts.")
def million(photos: Path, images: int, times: int) -> None:
    """Print images per second into an empty and into a large catalogue."""
    paths = photos_below(photos)
    rates: dict[int, list[float]] = {0: [], images: []}
    with tempfile.TemporaryDirectory() as full:
        fill_catalogue(Path(full) / "catalogue.sqlite", images)
        for _ in range(times):
            for size, size_rates in rates.items():
                with tempfile.TemporaryDirectory() as folder:
                    if size:
                        with sqlite3.connect(Path(full) / "catalogue.sqlite") as old:
                            new = sqlite3.connect(Path(folder) / "catalogue.sqlite")
                            old.backup(new)
                            new.close()
                    # Otherwise the system would write the copy to the disk during the crawl.
                    os.sync()
                    done = run(crawl_with_this_project, paths, len(paths), Path(folder))
                click.echo(f"{size:,} images before: {done}", err=True)
                size_rates.append(done.images / done.seconds)
    best = {size: max(size_rates) for size, size_rates in rates.items()}
    rows = [(f"{size:,}", f"{r:.0f}", f"{r / best[0]:.2f}x") for size, r in best.items()]
    click.echo(format_table(("images before", "images/s", "vs. empty"), rows))


def fill_catalogue(path: Path, images: int) -> None:
    """Create a catalogue of many images, two per post, under the benchmark tag and 99 others."""
    rng, batch = np.random.default_rng(0), 20_000
    sessions = open_catalogue(str(path))
    with sessions.begin() as session:
        session.add_all(Hashtag(id=n, text=f"{TAG}{n}" if n > 1 else TAG) for n in range(1, 101))
    for start in range(1, images + 1, batch):
        numbers = range(start, min(start + batch, images + 1))
        posts = range((start + 1) // 2, (numbers[-1] + 1) // 2 + 1)
        views = rng.integers(0, 1 << 63, (len(numbers), VIEW_COUNT), dtype=np.uint64)
        rows: list[tuple[type, list[dict[str, Any]]]] = [
            (Cluster, [{"id": n} for n in numbers]),
            (
                PostRow,
                [
                    {
                        "id": n,
                        "site": "old",
                        "site_id": str(n),
                        "url": f"u{n}",
                        "record": b"x" * 300,
                    }
                    for n in posts
                ],
            ),
            (
                PostHashtag,
                [{"post_id": n, "hashtag_id": 1 + n % 100, "source": "search"} for n in posts],
            ),
            (ImageRow, [_image(n) for n in numbers]),
            (Sighting, [_sighting(n) for n in numbers]),
            (
                FingerprintRow,
                [_fingerprint(n, view.tobytes()) for n, view in zip(numbers, views, strict=True)],
            ),
        ]
        with sessions.begin() as session:
            for table, values in rows:
                session.execute(sa.insert(table), values)
    sessions.kw["bind"].dispose()


def _image(number: int) -> dict[str, Any]:
    digits = f"{number:064x}"
    return {
        "id": number,
        "sha256": digits,
        "bytes": 30_000,
        "state": "stored",
        "store_key": f"{digits}.jpg",
        "cluster_id": number,
    }


def _sighting(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "post_id": (number + 1) // 2,
        "position": number % 2,
        "url": f"https://old.example/{number}.jpg",
        "state": "stored",
        "image_id": number,
    }


def _fingerprint(number: int, views: bytes) -> dict[str, Any]:
    pixels = bytes(THUMBNAIL_PIXELS * THUMBNAIL_PIXELS + 2 * COLOUR_PIXELS * COLOUR_PIXELS)
    quality = {"contrast": 50.0, "blur": 2.0, "text": 0.0, "compared": True}
    return {"image_id": number, "views": views, "pixels": pixels, **quality}


@main.command()
@photos_option
@click.option("--delay", default=0.1, show_default=True, help="Seconds per response.")
def processes(photos: Path, delay: float) -> None:
    """Print images per second of one process, and of two on the same catalogue."""
    paths, rows, base = photos_below(photos), [], 0.0
    for count in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            runs = run_processes(
                crawl_with_this_project, paths, len(paths), Path(folder), count, delay
            )
        rate = sum(done.images for done in runs) / max(done.seconds for done in runs)
        base = base or rate
        rows.append((str(count), f"{rate:.0f}", f"{rate / base:.2f}x"))
    click.echo(format_table(("processes", "images/s", "vs. one"), rows))


@main.command()
@click.option("--images", default=20_000, show_default=True)
def memory(images: int) -> None:
    """Print the peak memory of a crawl of 1,000 images and of one of --images."""
    rows = []
    for count in (1_000, images):
        with tempfile.TemporaryDirectory() as folder:
            done = run(crawl_with_this_project, [], count, Path(folder))
        rows.append((f"{count:,}", f"{done.megabytes:.0f}", f"{count / done.seconds:.0f}"))
    click.echo(format_table(("images", "MB", "images/s"), rows))


@main.command("hashes")
@photos_option
@click.option("--side", default=1_600, show_default=True, help="Enlarge the longer side to this.")
@click.option(
    "--at-least",
    default=MIN_DECODED_PIXELS,
    show_default=True,
    help="Minimum side of the decoded photo in pixels.",
)
@click.option("--limit", default=300, show_default=True)
def hashes(photos: Path, side: int, at_least: int, limit: int) -> None:
    """Print the distances between hashes of JPEGs decoded at full and at reduced size."""
    distances, times = Counter[int](), [0.0, 0.0]
    for path in photos_below(photos)[:limit]:
        data = enlarge(path, side)
        values = []
        for variant, min_pixels in enumerate((None, at_least)):
            start = time.process_time()
            values.append(int(str(imagehash.phash(open_photo(data, min_pixels))), 16))
            times[variant] += time.process_time() - start
        distances[(values[0] ^ values[1]).bit_count()] += 1
    within = sum(count for bits, count in distances.items() if bits <= 2) / distances.total()
    click.echo(
        f"within 2 bits: {within:.1%} of {distances.total()}; bits: {sorted(distances.items())}"
    )
    full, reduced = (1000 * seconds / distances.total() for seconds in times)
    click.echo(f"whole {full:.1f} ms, small {reduced:.1f} ms: {reduced / full:.2f}x")


def enlarge(path: Path, side: int) -> bytes:
    """Return a photo as a JPEG with a given length of the longer side in pixels."""
    photo = open_photo(path)
    scale = side / max(photo.size)
    out = io.BytesIO()
    size = (round(photo.width * scale), round(photo.height * scale))
    photo.resize(size).save(out, "JPEG", quality=90)
    return out.getvalue()


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[1]))
    main()
