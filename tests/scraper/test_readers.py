"""Photos are read in processes of their own, which may die and know no secret."""

import contextlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dataset.errors import Failure
from scraper import readers
from scraper.examining import BROKEN, Fetched, Refused, examine
from scraper.readers import Readers
from tests.dataset.filling import photo_bytes

PROC = Path("/proc/self/task")


@pytest.fixture
def one() -> Iterator[Readers]:
    with contextlib.closing(Readers(1)) as made:
        yield made


def children() -> list[int]:
    if not PROC.exists():
        pytest.skip("no /proc to find processes by")
    told = [path.read_text() for path in PROC.glob("*/children")]
    return [int(pid) for pid in " ".join(told).split()]


def begun(one: Readers) -> int:
    """The process of ONE, which has read a photo."""
    before = set(children())
    one.examine(photo_bytes(1))
    (process,) = set(children()) - before
    return process


def test_they_say_what_this_process_would_say() -> None:
    bodies = [photo_bytes(1), photo_bytes(2)[:-300], b"", photo_bytes(3, (74, 90))]
    with contextlib.closing(Readers(2)) as two, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(two.examine, bodies * 3))
    for body, there in zip(bodies * 3, found, strict=True):
        here = examine(body)
        if isinstance(here, Fetched) and isinstance(there, Fetched):
            assert there.fingerprint.packed == here.fingerprint.packed
            assert (there.sha256, there.phash) == (here.sha256, here.phash)
        else:
            assert there == here


def test_one_that_was_killed_is_replaced(one: Readers) -> None:
    for _ in range(2):
        os.kill(begun(one), signal.SIGKILL)
        assert isinstance(one.examine(photo_bytes(2)), Fetched)
        one.close()


@pytest.mark.parametrize("does", ["sys.exit(3)", "__import__('time').sleep(60)"])
def test_a_photo_that_ends_its_reader_or_holds_it_up_is_refused(
    one: Readers, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    reads = "read_for(int(sys.argv[1]))"
    hostile = f"import scraper.readers as r; r.examine = lambda body: {does}; {reads}"
    with monkeypatch.context() as patch:
        patch.setattr(readers, "LONGEST", 0.2)
        patch.setattr(readers, "PROGRAM", readers.PROGRAM.replace(reads, hostile))
        assert one.examine(photo_bytes(1)) == Refused(BROKEN)
    # The next one has another reader.
    assert isinstance(one.examine(photo_bytes(2)), Fetched)


@pytest.mark.parametrize(
    "says",
    [
        "b'no JSON'",
        "b'{}'",
        'b\'{"reason": "x"}\'',
        "b'x' * 20000",
        "__import__('pickle').dumps(print)",
        "good.replace(b'JPEG', b'../x')",
        'good.replace(b\'"phash": "\', b\'"phash": "../\')',
        "good[:-1]",
        "good.replace(b'[', b'[-')",
    ],
)
def test_what_a_photo_may_have_made_of_a_reader_is_not_believed(
    one: Readers, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    reads = "read_for(int(sys.argv[1]))"
    hostile = (
        "import scraper.readers as r; told = r.as_bytes\n"
        f"def lie(outcome):\n    good = told(outcome)\n    return {says}\n"
        f"r.as_bytes = lie\n{reads}"
    )
    with monkeypatch.context() as patch:
        patch.setattr(
            readers, "PROGRAM", readers.PROGRAM.replace("; ", "\n").replace(reads, hostile)
        )
        assert one.examine(photo_bytes(1)) == Refused(BROKEN)
    assert isinstance(one.examine(photo_bytes(2)), Fetched)


def test_where_none_can_be_begun_no_photo_is_blamed(
    one: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "PROGRAM", "raise SystemExit(1)")
    with pytest.raises(Failure, match="can't be begun"):
        one.examine(photo_bytes(1))


def test_it_knows_no_secret_and_goes_with_its_asker(
    one: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITTER_TOKEN", "hush")
    process = begun(one)
    assert b"hush" not in Path(f"/proc/{process}/environ").read_bytes()
    one.close()
    assert process not in children()
