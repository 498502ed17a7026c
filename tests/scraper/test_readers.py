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

        async def examine_all() -> list[Fetched | Refused]:
            return await asyncio.gather(*(self._readers.examine(body) for body in bodies))

        return self._loop.run_until_complete(asyncio.wait_for(examine_all(), 60))

    def end_readers(self) -> None:
        """End the decoder processes; they are started again on the next use."""
        self._readers.close()

    def close(self) -> None:
        """End the decoder processes and the event loop."""
        self.end_readers()
        self._loop.close()


@pytest.fixture
def client() -> Iterator[DecoderClient]:
    with contextlib.closing(DecoderClient(1)) as decoder_client:
        yield decoder_client


def child_processes() -> list[int]:
    if not PROC.exists():
        pytest.skip("no /proc to find processes by")
    pids = [path.read_text() for path in PROC.glob("*/children")]
    return [int(pid) for pid in " ".join(pids).split()]


def start_decoder(client: DecoderClient) -> int:
    """Decode an image and return the id of the new decoder process."""
    before = set(child_processes())
    client.examine(photo_bytes(1))
    (pid,) = set(child_processes()) - before
    return pid


def is_photo(outcomes: list[Fetched | Refused]) -> bool:
    """Return whether the outcome is a single decoded image."""
    return [type(outcome) for outcome in outcomes] == [Fetched]


def test_results_equal_those_of_decoding_in_process() -> None:
    bodies = [photo_bytes(1), photo_bytes(2)[:-300], b"", photo_bytes(3, (74, 90))]
    with contextlib.closing(DecoderClient(2)) as decoders:
        outcomes = decoders.examine(*(bodies * 3))
    for body, decoded in zip(bodies * 3, outcomes, strict=True):
        expected = examine(body)
        if isinstance(expected, Fetched) and isinstance(decoded, Fetched):
            assert decoded.fingerprint.packed == expected.fingerprint.packed
            assert (decoded.sha256, decoded.phash) == (expected.sha256, expected.phash)
        else:
            assert decoded == expected


def test_only_needed_processes_are_started() -> None:
    before = set(child_processes())
    with contextlib.closing(DecoderClient(3)) as decoders:
        for _ in range(4):
            decoders.examine(photo_bytes(1))
        assert len(set(child_processes()) - before) == 1
        decoders.examine(*map(photo_bytes, range(2 * readers.AHEAD)))
        assert len(set(child_processes()) - before) == 2


def test_killed_process_is_replaced(client: DecoderClient) -> None:
    for _ in range(2):
        os.kill(start_decoder(client), signal.SIGKILL)
        assert is_photo(client.examine(photo_bytes(2)))
        client.end_readers()


@pytest.mark.parametrize("action", ["sys.exit(3)", "__import__('time').sleep(60)"])
def test_image_that_crashes_or_blocks_a_decoder_is_rejected(
    client: DecoderClient, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    read_call = "read_for(int(sys.argv[1]))"
    hostile = f"import scraper.readers as r; r.examine = lambda body: {action}; {read_call}"
    with monkeypatch.context() as patch:
        patch.setattr(readers, "LONGEST", 0.2)
        patch.setattr(readers, "PROGRAM", readers.PROGRAM.replace(read_call, hostile))
        assert client.examine(photo_bytes(1)) == [Refused(BROKEN)]
    # The next image gets another process.
    assert is_photo(client.examine(photo_bytes(2)))


@pytest.mark.parametrize(
    "value",
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
    client: DecoderClient, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    read_call = "read_for(int(sys.argv[1]))"
    hostile = (
        "import scraper.readers as r; encode = r.as_bytes\n"
        f"def corrupt(outcome):\n    good = encode(outcome)\n    return {value}\n"
        f"r.as_bytes = corrupt\n{read_call}"
    )
    with monkeypatch.context() as patch:
        patch.setattr(
            readers, "PROGRAM", readers.PROGRAM.replace("; ", "\n").replace(read_call, hostile)
        )
        assert client.examine(photo_bytes(1)) == [Refused(BROKEN)]
    assert is_photo(client.examine(photo_bytes(2)))


def test_crash_of_a_decoder_affects_only_its_image(
    client: DecoderClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_call = "read_for(int(sys.argv[1]))"
    hostile = (
        "import scraper.readers as r; reads = r.examine\n"
        "r.examine = lambda body: sys.exit(3) if len(body) == 666 else reads(body)\n"
        f"{read_call}"
    )
    program = readers.PROGRAM.replace("; ", "\n").replace(read_call, hostile)
    monkeypatch.setattr(readers, "PROGRAM", program)
    outcomes = client.examine(photo_bytes(1), b"x" * 666, *map(photo_bytes, range(2, 6)))
    assert outcomes.pop(1) == Refused(BROKEN)
    assert [type(outcome) for outcome in outcomes] == [Fetched] * 5


def test_image_larger_than_the_socket_buffer(client: DecoderClient) -> None:
    out = io.BytesIO()
    noise = Image.frombytes("RGB", (1000, 700), os.urandom(2_100_000))
    noise.save(out, "BMP")
    outcomes = client.examine(*[out.getvalue()] * 3)
    assert {photo.sha256 for photo in outcomes if isinstance(photo, Fetched)} == {
        sha256_of(out.getvalue())
    }
    assert [type(photo) for photo in outcomes] == [Fetched] * 3


@pytest.mark.parametrize("action", ["raise SystemExit(1)", "import time; time.sleep(60)"])
def test_failure_to_start_a_decoder_is_an_error(
    client: DecoderClient, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.setattr(readers, "LONGEST_BEGINNING", 0.2)
    monkeypatch.setattr(readers, "PROGRAM", action)
    with pytest.raises(Failure, match="can't be begun"):
        client.examine(photo_bytes(1))


def test_decoder_has_no_secrets_and_ends_with_its_client(
    client: DecoderClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITTER_TOKEN", "hush")
    process = start_decoder(client)
    assert b"hush" not in Path(f"/proc/{process}/environ").read_bytes()
    client.end_readers()
    assert process not in child_processes()
