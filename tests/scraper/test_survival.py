"""Tests that crawls survive kills, concurrent processes, Ctrl-C and full disks."""

import contextlib
import os
import random
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from dataset.catalogue import workers
from dataset.catalogue.session import open_catalogue
from scraper.sample_shop.http import SiteRequest, SiteResponse
from scraper.sample_shop.server import SampleShop, ShopOptions, serve
from scraper.scheduler import MAX_ACTIVE_IMAGES
from tests.support.catalogues import catalogue_of, rows
from tests.support.crawls import CrawlProcess, class_folder, crawl, start

POLOS = 40
requires_proc = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="no /proc to look at"
)
# The content of a catalogue without ids and times, which differ between crawls.
CONTENTS = (
    "SELECT site, hashtag, cursor, later, state, reason, total, pages, posts, worker_id, again"
    " FROM searches",
    "SELECT site, site_id, title, brand, price, currency, author, record FROM posts",
    "SELECT sha256, phash, width, height, format, bytes, store_key, state, reason FROM images",
    "SELECT site_id, position, fallbacks, key, s.state, s.reason, sha256, worker_id"
    " FROM sightings s JOIN posts p ON p.id = post_id LEFT JOIN images i ON i.id = image_id",
    "SELECT site_id, text, source FROM post_hashtags JOIN posts p ON p.id = post_id"
    " JOIN hashtags h ON h.id = hashtag_id",
    "SELECT sha256, views, pixels, contrast, blur, text, compared FROM fingerprints"
    " JOIN images i ON i.id = image_id",
    "SELECT a.sha256, b.sha256 FROM images a JOIN images b ON b.cluster_id = a.cluster_id",
    "SELECT count(*) FROM workers",
)
NEAR_DUPLICATES = (
    "SELECT a.sha256, b.sha256, similarity"
    " FROM resemblances JOIN images a ON a.id = one_id JOIN images b ON b.id = other_id"
)


def contents(folder: Path) -> list[list]:
    """Return the content of a folder's catalogue without ids and times, and its image files."""
    files = [str(p.relative_to(folder)) for p in folder.glob("images/**/*") if p.is_file()]
    near_duplicates = [
        ({first, second}, round(score, 4)) for first, second, score in rows(folder, NEAR_DUPLICATES)
    ]
    content = [sorted(rows(folder, query), key=repr) for query in CONTENTS]
    return [*content, sorted(near_duplicates, key=lambda pair: sorted(pair[0])), sorted(files)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for label, first in (("polo", 0), ("dress", 500)):
        class_folder(folder, label, POLOS if label == "polo" else 8, first, (150, 200))
    return folder


@pytest.fixture
def shop(photos: Path) -> Iterator[SampleShop]:
    with serve(ShopOptions(photos=photos, duplicates=0.2, double_tagged=0.1)) as shop:
        yield shop


@pytest.fixture(scope="module")
def expected_contents(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list]:
    """Return the contents after a crawl without disturbances."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with serve(ShopOptions(photos=photos, duplicates=0.2, double_tagged=0.1)) as shop:
        status, output = crawl(shop, folder, "--tags", "polo,dress")
    assert status == 0, output
    return contents(folder)


def image_requests(shop: SampleShop) -> int:
    return sum(times for target, times in shop.requests.items() if target.startswith("/img"))


class Gate:
    """Hold the responses of all images but the first few until the gate is opened."""

    def __init__(self, shop: SampleShop, monkeypatch: pytest.MonkeyPatch, first: int = 4) -> None:
        self.waiting = 0
        self._original_respond, self._first, self._opened = shop.respond, first, threading.Event()
        monkeypatch.setattr(shop, "respond", self._respond)
        self._shop = shop

    def _respond(self, request: SiteRequest) -> SiteResponse:
        response = self._original_respond(request)
        if request.path.startswith("/img") and image_requests(self._shop) > self._first:
            self.waiting += 1
            self._opened.wait(120)
        return response

    def open(self) -> None:
        self._opened.set()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for a minute"
        time.sleep(0.005)


def kill(process: CrawlProcess) -> bool:
    """Kill a process; return whether it was running."""
    was_running = process.poll() is None
    process.kill()
    process.communicate()
    return was_running


def stored_files(folder: Path) -> list[Path]:
    """Return the stored image files."""
    return list(folder.glob("images/??/*/*"))


def committed_urls(folder: Path) -> set[str]:
    """Return the URLs of the images whose outcome is in the catalogue."""
    return {url for (url,) in rows(folder, "SELECT url FROM sightings WHERE state != 'pending'")}


def check_repeated_requests(shop: SampleShop, done: set[str]) -> None:
    """Check the repeated image requests after one kill.

    No committed image, and at most MAX_ACTIVE_IMAGES others, may have been requested twice.

    Args:
        shop: The sample shop.
        done: The URLs that were committed before the kill.
    """
    photos = {target: n for target, n in shop.requests.items() if target.startswith("/img")}
    repeated = {target for target, times in photos.items() if times > 1}
    assert set(photos.values()) <= {1, 2} and len(repeated) <= MAX_ACTIVE_IMAGES
    assert done and not any(url.endswith(target) for url in done for target in repeated)


def signal_all(processes: Iterable[int], number: int) -> None:
    for process in processes:
        # A decoder process ends after its crawl was killed.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def kill_repeatedly(shop: SampleShop, folder: Path, times: int, rng: random.Random) -> int:
    """Start a crawl several times and kill it at random times.

    Returns:
        How many of the processes were still running when they were killed.
    """
    kills = 0
    for _ in range(times):
        before = sum(shop.requests.values())
        process = start(shop, folder, "--tags", "polo,dress")
        wait_for(lambda: sum(shop.requests.values()) > before or process.poll() is not None)  # noqa: B023
        time.sleep(rng.uniform(0, 0.5))
        kills += kill(process)
    return kills


@pytest.mark.parametrize(
    "backend", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)
@pytest.mark.usefixtures("backend")
def test_kills_at_random_times_do_not_change_the_result(
    shop: SampleShop, expected_contents: list[list], tmp_path: Path
) -> None:
    kills = kill_repeatedly(shop, tmp_path, 3, random.Random(7))
    assert kills >= 2
    half = tmp_path / "images" / ".part-half"
    half.write_bytes(b"of a photo")
    status, output = crawl(shop, tmp_path, "--tags", "polo,dress")
    assert status == 0, output
    assert contents(tmp_path) == expected_contents
    # Only active requests of a killed process are repeated: images and two pages.
    repeated = sum(times - 1 for target, times in shop.requests.items() if target != "/robots.txt")
    assert repeated <= kills * (MAX_ACTIVE_IMAGES + 2)


@pytest.mark.slow
@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("seed", [1, 2])
def test_ten_kills_do_not_change_the_result(tmp_path: Path, seed: int) -> None:
    photos = class_folder(tmp_path / "photos", "polo", 300, 0, (150, 200))
    class_folder(photos, "dress", 20, 500, (150, 200))
    options = ShopOptions(photos=photos, duplicates=0.2, double_tagged=0.1)
    with serve(options) as shop:
        (tmp_path / "whole").mkdir()
        status, output = crawl(shop, tmp_path / "whole", "--tags", "polo,dress")
        assert status == 0, output
    with serve(options) as shop:
        kills = kill_repeatedly(shop, tmp_path, 10, random.Random(seed))
        assert kills == 10
        status, output = crawl(shop, tmp_path, "--tags", "polo,dress")
        assert status == 0, output
    assert contents(tmp_path) == contents(tmp_path / "whole")
    repeated = sum(times - 1 for target, times in shop.requests.items() if target != "/robots.txt")
    assert repeated <= kills * (MAX_ACTIVE_IMAGES + 2)


@pytest.mark.usefixtures("backend")
def test_two_processes_share_the_work(
    shop: SampleShop, expected_contents: list[list], tmp_path: Path
) -> None:
    processes = [start(shop, tmp_path, "--tags", "polo,dress") for _ in range(2)]
    output = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], output
    assert contents(tmp_path) == expected_contents
    repeated = {target for target, times in shop.requests.items() if times > 1}
    assert repeated <= {"/robots.txt"}


def test_other_process_takes_over_claims_of_a_killed_one(
    shop: SampleShop, expected_contents: list[list], tmp_path: Path
) -> None:
    processes = [start(shop, tmp_path, "--tags", "polo,dress") for _ in range(2)]
    wait_for(lambda: image_requests(shop) > 5)
    kill(processes[0])
    out, err = processes[1].communicate(timeout=120)
    assert processes[1].returncode == 0, out + err
    assert contents(tmp_path) == expected_contents


def _shorten_lease() -> None:
    workers.LEASE, workers.HEARTBEAT_SECONDS = timedelta(seconds=3), 1


@pytest.mark.parametrize(
    "backend", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)
@pytest.mark.usefixtures("backend")
def test_process_that_is_stopped_for_longer_than_its_lease_changes_nothing(
    shop: SampleShop, expected_contents: list[list], tmp_path: Path
) -> None:
    processes = [
        start(shop, tmp_path, "--tags", "polo,dress", before=_shorten_lease) for _ in range(2)
    ]
    wait_for(lambda: image_requests(shop) > 5)
    _stop_between_transactions(processes[0], tmp_path)
    out, err = processes[1].communicate(timeout=120)
    assert processes[1].returncode == 0, out + err
    processes[0].send_signal(signal.SIGCONT)
    out, err = processes[0].communicate(timeout=120)
    assert processes[0].returncode == 0, out + err
    assert contents(tmp_path) == expected_contents


def _stop_between_transactions(process: CrawlProcess, folder: Path) -> None:
    """Stop a process where it has no open transaction, for whose locks the others would wait."""
    for _ in range(50):
        process.send_signal(signal.SIGSTOP)
        wait_for(process.is_stopped)
        if not _has_open_transaction(folder):
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.05)
    raise AssertionError("the process is always in a transaction")


def _has_open_transaction(folder: Path) -> bool:
    """Return whether a transaction on the catalogue lasts for longer than a second."""
    catalogue = catalogue_of(folder)
    if catalogue.startswith("postgresql"):
        time.sleep(1.5)
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid != pg_backend_pid() AND xact_start < clock_timestamp() - interval '1 second'"
        )
        return bool(rows(folder, query)[0][0])
    connection = sqlite3.connect(catalogue, timeout=2)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return True
    finally:
        connection.close()
    return False


@requires_proc
@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    "backend", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)
@pytest.mark.parametrize(
    "moment", ["files are written", pytest.param("photos are read", marks=pytest.mark.slow)]
)
def test_kill_between_two_steps_repeats_only_active_requests(
    shop: SampleShop,
    expected_contents: list[list],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    gate = Gate(shop, monkeypatch)
    sessions = open_catalogue(catalogue_of(tmp_path))
    process = start(shop, tmp_path, "--tags", "polo,dress")
    wait_for(
        lambda: gate.waiting > 0 and bool(committed_urls(tmp_path)) and bool(process.children())
    )
    decoders = process.children()
    if moment == "photos are read":
        signal_all(decoders, signal.SIGSTOP)
    try:
        with sessions.begin():
            # No process can commit.
            before, done = image_requests(shop), committed_urls(tmp_path)
            files = len(stored_files(tmp_path))
            gate.open()
            wait_for(lambda: image_requests(shop) > before)
            if moment == "files are written":
                wait_for(lambda: len(stored_files(tmp_path)) > files)
            kill(process)
    finally:
        signal_all(decoders, signal.SIGCONT)
    # The decoder processes end by themselves.
    wait_for(lambda: not any(Path(f"/proc/{decoder}").exists() for decoder in decoders))
    sessions.kw["bind"].dispose()
    status, output = crawl(shop, tmp_path, "--tags", "polo,dress")
    assert status == 0, output
    assert contents(tmp_path) == expected_contents
    check_repeated_requests(shop, done)


@requires_proc
def test_killed_decoder_process_loses_no_image(
    shop: SampleShop, expected_contents: list[list], tmp_path: Path
) -> None:
    process = start(shop, tmp_path, "--tags", "polo,dress")
    wait_for(lambda: image_requests(shop) > 5)
    wait_for(lambda: bool(process.children()))
    signal_all(process.children(), signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert contents(tmp_path) == expected_contents


def test_ctrl_c_finishes_active_requests_and_a_second_one_stops_at_once(
    shop: SampleShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original_respond, delay, received = shop.respond, 0.7, 0

    def respond(request: SiteRequest) -> SiteResponse:
        nonlocal received
        if request.path.startswith("/img"):
            received += 1
            time.sleep(delay)
        return original_respond(request)

    monkeypatch.setattr(shop, "respond", respond)
    process = start(shop, tmp_path, "--tags", "polo")
    wait_for(lambda: received > 0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "repeat the command" in err) == (1, True)
    # Everything that the shop sent is stored, and no claim remains.
    assert rows(tmp_path, "SELECT count(*) FROM images") == [(image_requests(shop),)]
    assert rows(tmp_path, "SELECT count(*) FROM sightings WHERE worker_id IS NOT NULL") == [(0,)]

    delay, before = 30, received
    process = start(shop, tmp_path, "--tags", "polo")
    wait_for(lambda: received > before)
    process.send_signal(signal.SIGINT)
    wait_for(lambda: "Finishing" in process.output())
    assert process.poll() is None
    interrupted = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert time.monotonic() - interrupted < delay / 2


def test_full_disk_is_reported_and_keeps_the_catalogue_intact(
    shop: SampleShop, tmp_path: Path
) -> None:
    crawl(shop, tmp_path, "--tags", "dress")
    limit = (tmp_path / "c.sqlite").stat().st_size + 20_000
    process = start(
        shop,
        tmp_path,
        *("--tags", "polo"),
        before=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)),
    )
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "c.sqlite" in err and "free disk space" in err
    assert "Traceback" not in out + err
    with sqlite3.connect(tmp_path / "c.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_damaged_catalogue_is_reported_in_one_line(shop: SampleShop, tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    open_catalogue(str(path)).kw["bind"].dispose()
    data = bytearray(path.read_bytes())
    data[8192:-4096] = random.Random(1).randbytes(len(data) - 8192 - 4096)
    path.write_bytes(data)
    status, output = crawl(shop, tmp_path, "--tags", "polo")
    assert status == 1
    assert "damaged" in output and "Traceback" not in output
    assert len(output.strip().splitlines()) == 1
    assert path.read_bytes() == data


def test_unwritable_image_store_is_reported_in_one_line(shop: SampleShop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    status, output = crawl(shop, tmp_path, "--tags", "dress", "--images", "file/images")
    assert status == 1
    assert "--images" in output and len(output.strip().splitlines()) == 1
