"""Photos are read in processes of their own, which may die and know no secret."""

import asyncio
import contextlib
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from dataset.errors import Failure
from dataset.images.io import sha256_of
from scraper import readers
from scraper.examining import BROKEN, Fetched, Refused, examine
from scraper.readers import Readers
from tests.support.catalogue_data import photo_bytes

PROC = Path("/proc/self/task")


class Asker:
    """Asks READERS from an event loop of its own."""

    def __init__(self, count: int) -> None:
        self._loop, self._readers = asyncio.new_event_loop(), Readers(count)

    def examine(self, *bodies: bytes) -> list[Fetched | Refused]:
        """What each of BODIES is, all asked at once."""

        async def ask() -> list[Fetched | Refused]:
            return await asyncio.gather(*(self._readers.examine(body) for body in bodies))

        return self._loop.run_until_complete(asyncio.wait_for(ask(), 60))

    def end_readers(self) -> None:
        """End the decoder processes; they are started again on the next use."""
        self._readers.close()

    def close(self) -> None:
        """End the readers, and the loop after them."""
        self.end_readers()
        self._loop.close()


@pytest.fixture
def one() -> Iterator[Asker]:
    with contextlib.closing(Asker(1)) as made:
        yield made


def children() -> list[int]:
    if not PROC.exists():
        pytest.skip("no /proc to find processes by")
    told = [path.read_text() for path in PROC.glob("*/children")]
    return [int(pid) for pid in " ".join(told).split()]


def begun(one: Asker) -> int:
    """The process of ONE, which has read a photo."""
    before = set(children())
    one.examine(photo_bytes(1))
    (process,) = set(children()) - before
    return process


def is_photo(found: list[Fetched | Refused]) -> bool:
    """Whether FOUND is one photo."""
    return [type(one) for one in found] == [Fetched]


def test_they_say_what_this_process_would_say() -> None:
    bodies = [photo_bytes(1), photo_bytes(2)[:-300], b"", photo_bytes(3, (74, 90))]
    with contextlib.closing(Asker(2)) as two:
        found = two.examine(*(bodies * 3))
    for body, there in zip(bodies * 3, found, strict=True):
        here = examine(body)
        if isinstance(here, Fetched) and isinstance(there, Fetched):
            assert there.fingerprint.packed == here.fingerprint.packed
            assert (there.sha256, there.phash) == (here.sha256, here.phash)
        else:
            assert there == here


def test_no_more_are_begun_than_are_needed() -> None:
    before = set(children())
    with contextlib.closing(Asker(3)) as three:
        for _ in range(4):
            three.examine(photo_bytes(1))
        assert len(set(children()) - before) == 1
        three.examine(*map(photo_bytes, range(2 * readers.AHEAD)))
        assert len(set(children()) - before) == 2


def test_one_that_was_killed_is_replaced(one: Asker) -> None:
    for _ in range(2):
        os.kill(begun(one), signal.SIGKILL)
        assert is_photo(one.examine(photo_bytes(2)))
        one.end_readers()


@pytest.mark.parametrize("does", ["sys.exit(3)", "__import__('time').sleep(60)"])
def test_a_photo_that_ends_its_reader_or_holds_it_up_is_refused(
    one: Asker, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    reads = "read_for(int(sys.argv[1]))"
    hostile = f"import scraper.readers as r; r.examine = lambda body: {does}; {reads}"
    with monkeypatch.context() as patch:
        patch.setattr(readers, "LONGEST", 0.2)
        patch.setattr(readers, "PROGRAM", readers.PROGRAM.replace(reads, hostile))
        assert one.examine(photo_bytes(1)) == [Refused(BROKEN)]
    # The next one has another reader.
    assert is_photo(one.examine(photo_bytes(2)))


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
        "b'[' * 9000",
        "'no bytes'",
    ],
)
def test_what_a_photo_may_have_made_of_a_reader_is_not_believed(
    one: Asker, monkeypatch: pytest.MonkeyPatch, says: str
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
        assert one.examine(photo_bytes(1)) == [Refused(BROKEN)]
    assert is_photo(one.examine(photo_bytes(2)))


def test_a_photo_that_ends_its_reader_takes_no_other_with_it(
    one: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = "read_for(int(sys.argv[1]))"
    hostile = (
        "import scraper.readers as r; reads = r.examine\n"
        "r.examine = lambda body: sys.exit(3) if len(body) == 666 else reads(body)\n"
        f"{reads}"
    )
    program = readers.PROGRAM.replace("; ", "\n").replace(reads, hostile)
    monkeypatch.setattr(readers, "PROGRAM", program)
    found = one.examine(photo_bytes(1), b"x" * 666, *map(photo_bytes, range(2, 6)))
    assert found.pop(1) == Refused(BROKEN)
    assert [type(other) for other in found] == [Fetched] * 5


def test_a_photo_larger_than_a_socket_takes_at_once(one: Asker) -> None:
    out = io.BytesIO()
    noise = Image.frombytes("RGB", (1000, 700), os.urandom(2_100_000))
    noise.save(out, "BMP")
    found = one.examine(*[out.getvalue()] * 3)
    assert {photo.sha256 for photo in found if isinstance(photo, Fetched)} == {
        sha256_of(out.getvalue())
    }
    assert [type(photo) for photo in found] == [Fetched] * 3


@pytest.mark.parametrize("does", ["raise SystemExit(1)", "import time; time.sleep(60)"])
def test_where_none_can_be_begun_no_photo_is_blamed(
    one: Asker, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    monkeypatch.setattr(readers, "LONGEST_BEGINNING", 0.2)
    monkeypatch.setattr(readers, "PROGRAM", does)
    with pytest.raises(Failure, match="can't be begun"):
        one.examine(photo_bytes(1))


def test_it_knows_no_secret_and_goes_with_its_asker(
    one: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITTER_TOKEN", "hush")
    process = begun(one)
    assert b"hush" not in Path(f"/proc/{process}/environ").read_bytes()
    one.end_readers()
    assert process not in children()
