"""Tests of decoder processes, which may crash and receive no secrets."""

import asyncio
import contextlib
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataset.errors import Failure
from dataset.images.io import sha256_of
from scraper.decoding import pool
from scraper.decoding.inspection import BROKEN, AcceptedImage, RejectedImage, inspect_image
from scraper.decoding.pool import DecoderPool
from tests.support.catalogue_data import photo_bytes

PROC = Path("/proc/self/task")


class DecoderClient:
    """Decode images in an event loop of its own."""

    def __init__(self, count: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._pool = self._loop.run_until_complete(self._create(count))

    @staticmethod
    async def _create(count: int) -> DecoderPool:
        return DecoderPool(count)

    def examine(self, *bodies: bytes) -> list[AcceptedImage | RejectedImage]:
        """Decode images concurrently and return the outcomes in order."""

        async def examine_all() -> list[AcceptedImage | RejectedImage]:
            return await asyncio.gather(*(self._pool.inspect(body) for body in bodies))

        return self._loop.run_until_complete(asyncio.wait_for(examine_all(), 60))

    def end_readers(self) -> None:
        """End the decoder processes; they are started again on the next use."""
        self._loop.run_until_complete(self._pool.close())

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


def is_photo(outcomes: list[AcceptedImage | RejectedImage]) -> bool:
    """Return whether the outcome is a single decoded image."""
    return [type(outcome) for outcome in outcomes] == [AcceptedImage]


def test_results_equal_those_of_decoding_in_process() -> None:
    bodies = [photo_bytes(1), photo_bytes(2)[:-300], b"", photo_bytes(3, (74, 90))]
    with contextlib.closing(DecoderClient(2)) as decoders:
        outcomes = decoders.examine(*(bodies * 3))
    for body, decoded in zip(bodies * 3, outcomes, strict=True):
        expected = inspect_image(body)
        if isinstance(expected, AcceptedImage) and isinstance(decoded, AcceptedImage):
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
        decoders.examine(*map(photo_bytes, range(2 * pool.IMAGES_PER_PROCESS)))
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
    read_call = "serve_decoder()"
    hostile = (
        f"import scraper.decoding.pool as r; r.decode_image = lambda body: {action}; {read_call}"
    )
    with monkeypatch.context() as patch:
        patch.setattr(pool, "IMAGE_TIMEOUT_SECONDS", 0.2)
        patch.setattr(pool, "PROGRAM", pool.PROGRAM.replace(read_call, hostile))
        assert client.examine(photo_bytes(1)) == [RejectedImage(BROKEN)]
    # The next image gets another process.
    assert is_photo(client.examine(photo_bytes(2)))


@pytest.mark.parametrize(
    ("action", "attempts"),
    [("sys.exit(3)", 2), ("__import__('time').sleep(60)", 1), ("any(iter(int, 1))", 1)],
)
def test_image_that_hangs_is_not_tried_twice(
    client: DecoderClient, monkeypatch: pytest.MonkeyPatch, action: str, attempts: int
) -> None:
    started = []
    start_process = asyncio.create_subprocess_exec

    async def count(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        started.append(arguments)
        return await start_process(*arguments, **options)

    read_call = "serve_decoder()"
    hostile = (
        "import scraper.decoding.pool as r; r.MAX_IMAGE_CPU_SECONDS = 1;"
        f" r.decode_image = lambda body: {action}; {read_call}"
    )
    monkeypatch.setattr(pool, "PROGRAM", pool.PROGRAM.replace(read_call, hostile))
    monkeypatch.setattr(asyncio, "create_subprocess_exec", count)
    monkeypatch.setattr(pool, "IMAGE_TIMEOUT_SECONDS", 1 if "sleep" in action else 30)
    monkeypatch.setattr(pool, "MAX_IMAGE_CPU_SECONDS", 1 if "iter" in action else 60)
    assert client.examine(photo_bytes(1)) == [RejectedImage(BROKEN)]
    assert len(started) == attempts


INVALID_REPLIES = (
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
)


@pytest.mark.slow
def test_invalid_output_of_a_decoder_is_rejected(
    client: DecoderClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process replies to an image of one of these lengths with an invalid reply.
    bodies = [photo_bytes(1, (200 + number, 260)) for number in range(len(INVALID_REPLIES))]
    replies = {len(body): reply for body, reply in zip(bodies, INVALID_REPLIES, strict=True)}
    good = photo_bytes(2)
    assert len(replies) == len(bodies) and len(good) not in replies
    read_call = "serve_decoder()"
    hostile = (
        "import scraper.decoding.pool as r; encode, decode = r.serialize_decoded, r.decode_image\n"
        f"replies, lengths = {replies!r}, []\n"
        "def decode_image(body):\n    lengths.append(len(body))\n    return decode(body)\n"
        "def corrupt(outcome):\n    good = encode(outcome)\n"
        "    return eval(replies.get(lengths[-1], 'good'))\n"
        f"r.decode_image, r.serialize_decoded = decode_image, corrupt\n{read_call}"
    )
    program = pool.PROGRAM.replace("; ", "\n").replace(read_call, hostile)
    monkeypatch.setattr(pool, "PROGRAM", program)
    # Each invalid reply ends its process, and starting one takes most of the time.
    monkeypatch.setattr(pool, "MAX_ATTEMPTS", 1)
    for body, reply in zip(bodies, INVALID_REPLIES, strict=True):
        assert is_photo([inspect_image(body)])
        assert client.examine(body) == [RejectedImage(BROKEN)], reply
        assert is_photo(client.examine(good)), reply


def test_crash_of_a_decoder_affects_only_its_image(
    client: DecoderClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_call = "serve_decoder()"
    hostile = (
        "import scraper.decoding.pool as r; reads = r.decode_image\n"
        "r.decode_image = lambda body: sys.exit(3) if len(body) == 666 else reads(body)\n"
        f"{read_call}"
    )
    program = pool.PROGRAM.replace("; ", "\n").replace(read_call, hostile)
    monkeypatch.setattr(pool, "PROGRAM", program)
    outcomes = client.examine(photo_bytes(1), b"x" * 666, *map(photo_bytes, range(2, 6)))
    assert outcomes.pop(1) == RejectedImage(BROKEN)
    assert [type(outcome) for outcome in outcomes] == [AcceptedImage] * 5


def test_image_larger_than_the_socket_buffer(client: DecoderClient) -> None:
    out = io.BytesIO()
    noise = Image.frombytes("RGB", (1000, 700), os.urandom(2_100_000))
    noise.save(out, "BMP")
    outcomes = client.examine(*[out.getvalue()] * 3)
    assert {photo.sha256 for photo in outcomes if isinstance(photo, AcceptedImage)} == {
        sha256_of(out.getvalue())
    }
    assert [type(photo) for photo in outcomes] == [AcceptedImage] * 3


@pytest.mark.parametrize("action", ["raise SystemExit(1)", "import time; time.sleep(60)"])
def test_failure_to_start_a_decoder_is_an_error(
    client: DecoderClient, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.setattr(pool, "START_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(pool, "PROGRAM", action)
    with pytest.raises(Failure, match="can't be started"):
        client.examine(photo_bytes(1))


def test_decoder_has_no_secrets_and_ends_with_its_client(
    client: DecoderClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITTER_TOKEN", "hush")
    process = start_decoder(client)
    assert b"hush" not in Path(f"/proc/{process}/environ").read_bytes()
    client.end_readers()
    assert process not in child_processes()


def test_process_that_is_killed_while_it_starts_is_replaced(
    client: DecoderClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, killed = asyncio.create_subprocess_exec, list[int]()

    async def create_and_kill(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        process = await create(*arguments, **options)
        if not killed:
            killed.append(process.pid)
            process.kill()
            await process.wait()
            # Until its pipes are closed.
            await asyncio.sleep(0.1)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", create_and_kill)
    bodies = [photo_bytes(1), photo_bytes(2)]
    outcomes = client.examine(*bodies)
    assert killed and all(isinstance(outcome, AcceptedImage) for outcome in outcomes)
