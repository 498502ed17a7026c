"""Tests of decoder processes, which may crash and receive no secrets."""

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


class DecoderClient:
    """Decode images in an event loop of its own."""

    def __init__(self, count: int) -> None:
        self._loop, self._readers = asyncio.new_event_loop(), Readers(count)

    def examine(self, *bodies: bytes) -> list[Fetched | Refused]:
        """Decode images concurrently and return the outcomes in order."""

        async def ask() -> list[Fetched | Refused]:
            return await asyncio.gather(*(self._readers.examine(body) for body in bodies))

        return self._loop.run_until_complete(asyncio.wait_for(ask(), 60))

    def end_readers(self) -> None:
        """End the decoder processes; they are started again on the next use."""
        self._readers.close()

    def close(self) -> None:
        """End the decoder processes and the event loop."""
        self.end_readers()
        self._loop.close()


@pytest.fixture
def one() -> Iterator[DecoderClient]:
    with contextlib.closing(DecoderClient(1)) as made:
        yield made


def child_processes() -> list[int]:
    if not PROC.exists():
        pytest.skip("no /proc to find processes by")
    told = [path.read_text() for path in PROC.glob("*/children")]
    return [int(pid) for pid in " ".join(told).split()]


def start_decoder(one: DecoderClient) -> int:
    """Decode an image and return the id of the new decoder process."""
    before = set(child_processes())
    one.examine(photo_bytes(1))
    (process,) = set(child_processes()) - before
    return process


def is_photo(found: list[Fetched | Refused]) -> bool:
    """Return whether the outcome is a single decoded image."""
    return [type(one) for one in found] == [Fetched]


def test_results_equal_those_of_decoding_in_process() -> None:
    bodies = [photo_bytes(1), photo_bytes(2)[:-300], b"", photo_bytes(3, (74, 90))]
    with contextlib.closing(DecoderClient(2)) as two:
        found = two.examine(*(bodies * 3))
    for body, there in zip(bodies * 3, found, strict=True):
        here = examine(body)
        if isinstance(here, Fetched) and isinstance(there, Fetched):
            assert there.fingerprint.packed == here.fingerprint.packed
            assert (there.sha256, there.phash) == (here.sha256, here.phash)
        else:
            assert there == here


def test_only_needed_processes_are_started() -> None:
    before = set(child_processes())
    with contextlib.closing(DecoderClient(3)) as three:
        for _ in range(4):
            three.examine(photo_bytes(1))
        assert len(set(child_processes()) - before) == 1
        three.examine(*map(photo_bytes, range(2 * readers.AHEAD)))
        assert len(set(child_processes()) - before) == 2


def test_killed_process_is_replaced(one: DecoderClient) -> None:
    for _ in range(2):
        os.kill(start_decoder(one), signal.SIGKILL)
        assert is_photo(one.examine(photo_bytes(2)))
        one.end_readers()


@pytest.mark.parametrize("does", ["sys.exit(3)", "__import__('time').sleep(60)"])
def test_image_that_crashes_or_blocks_a_decoder_is_rejected(
    one: DecoderClient, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    reads = "read_for(int(sys.argv[1]))"
    hostile = f"import scraper.readers as r; r.examine = lambda body: {does}; {reads}"
    with monkeypatch.context() as patch:
        patch.setattr(readers, "LONGEST", 0.2)
        patch.setattr(readers, "PROGRAM", readers.PROGRAM.replace(reads, hostile))
        assert one.examine(photo_bytes(1)) == [Refused(BROKEN)]
    # The next image gets another process.
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
def test_invalid_output_of_a_decoder_is_rejected(
    one: DecoderClient, monkeypatch: pytest.MonkeyPatch, says: str
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


def test_crash_of_a_decoder_affects_only_its_image(
    one: DecoderClient, monkeypatch: pytest.MonkeyPatch
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


def test_image_larger_than_the_socket_buffer(one: DecoderClient) -> None:
    out = io.BytesIO()
    noise = Image.frombytes("RGB", (1000, 700), os.urandom(2_100_000))
    noise.save(out, "BMP")
    found = one.examine(*[out.getvalue()] * 3)
    assert {photo.sha256 for photo in found if isinstance(photo, Fetched)} == {
        sha256_of(out.getvalue())
    }
    assert [type(photo) for photo in found] == [Fetched] * 3


@pytest.mark.parametrize("does", ["raise SystemExit(1)", "import time; time.sleep(60)"])
def test_failure_to_start_a_decoder_is_an_error(
    one: DecoderClient, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    monkeypatch.setattr(readers, "LONGEST_BEGINNING", 0.2)
    monkeypatch.setattr(readers, "PROGRAM", does)
    with pytest.raises(Failure, match="can't be begun"):
        one.examine(photo_bytes(1))


def test_decoder_has_no_secrets_and_ends_with_its_client(
    one: DecoderClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITTER_TOKEN", "hush")
    process = start_decoder(one)
    assert b"hush" not in Path(f"/proc/{process}/environ").read_bytes()
    one.end_readers()
    assert process not in child_processes()
