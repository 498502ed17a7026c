"""Decoder processes: untrusted images are inspected outside the crawl's process.

A decoder process receives images and returns their properties. It has no credentials in
its environment, can't write files, and is limited in memory, CPU time and open files. It is not a
sandbox: it runs as the same user, may read that user's files and may open connections. Replies are
validated, because a hostile image may have taken over the process. A process that crashes or
hangs is replaced, and the image rejected.
"""

import asyncio
import contextlib
import fcntl
import importlib
import logging
import math
import os
import resource
import struct
import sys
from collections import deque
from dataclasses import dataclass
from typing import BinaryIO
from weakref import WeakKeyDictionary

import psutil

from dataset.errors import Failure, first_line
from scraper.decoding.inspection import (
    BROKEN,
    AcceptedImage,
    RejectedImage,
    decode_image,
    parse_outcome,
    serialize_decoded,
)

# A few processes inspect more images than a crawl downloads.
MAX_PROCESSES = 4
# Images that a process has at a time: the next one is there when a reply is sent.
IMAGES_PER_PROCESS = 2
# How often a process may end with an image: something else may have ended the first one.
MAX_ATTEMPTS = 2
# The largest image takes two seconds and a process half a second to start, on an idle machine.
IMAGE_TIMEOUT_SECONDS, START_TIMEOUT_SECONDS = 120, 120
# First message of a process, and the maximum size of each.
READY, MAX_REPLY_BYTES = b"ready", 10_000
LENGTH = struct.Struct("!I")
PIPE_BYTES = 1 << 20
# The program of a process; modules are found as in this process.
PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:];"
    " from scraper.decoding.pool import serve_decoder; serve_decoder()"
)
# Environment variables that a process gets; others may hold secrets.
ENVIRONMENT_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "PYTHONHOME",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
)
# Limits of a process: memory beyond that of its imports, CPU time per image, open files.
MAX_IMAGE_BYTES_IN_MEMORY, MAX_IMAGE_CPU_SECONDS, MAX_OPEN_FILES = 2 << 30, 60, 32

logger = logging.getLogger(__name__)
Outcome = AcceptedImage | RejectedImage


class DecoderPool:
    """As many processes as there are cores, at most MAX_PROCESSES, started when they are needed.

    A pool belongs to one event loop.

    Args:
        processes: Maximum number of processes.
    """

    def __init__(self, processes: int | None = None) -> None:
        count = processes or min(MAX_PROCESSES, os.cpu_count() or 1)
        self._decoders = [_Decoder() for _ in range(count)]
        self._slots = asyncio.Semaphore(IMAGES_PER_PROCESS * count)
        self._users = 0

    @classmethod
    def acquire(cls) -> "DecoderPool":
        """Return the pool that all spiders of the running event loop share."""
        loop = asyncio.get_running_loop()
        if loop not in _POOLS:
            _POOLS[loop] = cls()
        pool = _POOLS[loop]
        pool._users += 1
        return pool

    async def release(self) -> None:
        """End the processes if no other spider uses the pool."""
        self._users -= 1
        if not self._users:
            _POOLS.pop(asyncio.get_running_loop(), None)
            await self.close()

    async def start(self) -> None:
        """Start the first process; otherwise the first image starts it.

        Raises:
            Failure: No process can be started.
        """
        await self._decoders[0].start()

    async def inspect(self, body: bytes) -> Outcome:
        """Inspect an image; it is rejected as broken if it crashes or blocks processes.

        Raises:
            Failure: No process can be started.
        """
        async with self._slots:
            attempts = 0
            while True:
                # A slow crawl starts no more processes than it needs.
                decoder = min(self._decoders, key=_Decoder.load)
                try:
                    return await decoder.inspect(body)
                except _ProcessEnded as end:
                    # An image that took too long once would take as long again.
                    attempts += MAX_ATTEMPTS if end.is_hang else end.is_cause
                    if attempts >= MAX_ATTEMPTS and end.failure:
                        raise end.failure from end
                    if attempts >= MAX_ATTEMPTS:
                        return RejectedImage(BROKEN)

    async def close(self) -> None:
        """End all processes."""
        await asyncio.gather(*(decoder.close() for decoder in self._decoders))


_POOLS: "WeakKeyDictionary[asyncio.AbstractEventLoop, DecoderPool]" = WeakKeyDictionary()


class _ProcessEnded(Exception):  # noqa: N818 - an event, not an error of its own
    """A process ended before it replied.

    Attributes:
        is_cause: Whether the image may be the cause.
        failure: Set if the process ended before it was ready.
        is_hang: Whether the image took too much time.
    """

    def __init__(
        self, is_cause: bool, failure: Failure | None = None, is_hang: bool = False
    ) -> None:
        super().__init__()
        self.is_cause, self.failure, self.is_hang = is_cause, failure, is_hang


@dataclass(frozen=True)
class _Pending:
    body: bytes
    outcome: "asyncio.Future[Outcome]"


class _Decoder:
    """A decoder process, started on first use and again after it ended."""

    def __init__(self) -> None:
        self._starting = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pending: deque[_Pending] = deque()
        self._is_ready = False
        # When the first pending image was started, in the time of the event loop.
        self._started = 0.0

    def load(self) -> int:
        """Return how busy the process is; a new one is started if all others have two images."""
        is_running = self._process is not None or self._pending
        return 2 * len(self._pending) if is_running else 2 * IMAGES_PER_PROCESS - 1

    async def inspect(self, body: bytes) -> Outcome:
        """Inspect an image.

        Raises:
            _ProcessEnded: The process can't be started, ended, hangs or sends an invalid reply.
        """
        pending = _Pending(body, asyncio.get_running_loop().create_future())
        self._pending.append(pending)
        try:
            process = await self.start()
        except Failure as failure:
            self._pending.remove(pending)
            raise _ProcessEnded(True, failure) from failure
        if len(self._pending) == 1:
            self._restart_timer()
        if process.stdin is not None and not pending.outcome.done():
            # Not awaited: at most two images are buffered, and both are in memory already.
            process.stdin.write(LENGTH.pack(len(body)) + body)
        return await pending.outcome

    async def start(self) -> asyncio.subprocess.Process:
        """Return the running process.

        Raises:
            Failure: It can't be started.
        """
        async with self._starting:
            if self._process is None:
                is_verbose = logger.isEnabledFor(logging.INFO)
                try:
                    self._process = await asyncio.create_subprocess_exec(
                        *(sys.executable, "-c", PROGRAM, *sys.path),
                        stdin=asyncio.subprocess.PIPE,
                        stdout=asyncio.subprocess.PIPE,
                        # Libraries in C write warnings about odd images.
                        stderr=None if is_verbose else asyncio.subprocess.DEVNULL,
                        env=_environment(),
                        # Ctrl-C in a terminal is for the crawl, which finishes active requests.
                        start_new_session=True,
                    )
                except OSError as error:
                    raise _start_failure(first_line(error)) from error
                self._reader = asyncio.ensure_future(self._read_replies(self._process))
                _enlarge_pipe(self._process)
            return self._process

    def _restart_timer(self) -> None:
        """Limit the time until the next reply, if one is expected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        process = self._process
        if self._pending and process is not None:
            seconds = IMAGE_TIMEOUT_SECONDS if self._is_ready else START_TIMEOUT_SECONDS
            loop = asyncio.get_running_loop()
            self._started = loop.time()
            self._timer = loop.call_later(seconds, _kill, process)

    async def _read_replies(self, process: asyncio.subprocess.Process) -> None:
        """Read replies until the process ends or sends an invalid one."""
        assert process.stdout is not None
        try:
            while True:
                (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
                if length > MAX_REPLY_BYTES:
                    raise ValueError(f"a reply of {length} bytes")
                self._handle(await process.stdout.readexactly(length))
        except (OSError, ValueError, asyncio.IncompleteReadError):
            _kill(process)
            await process.wait()
            self._fail_pending()

    def _handle(self, reply: bytes) -> None:
        """Handle the next reply.

        Raises:
            ValueError: It is invalid.
        """
        if not self._is_ready:
            if reply != READY:
                raise ValueError("the process is not ready")
            self._is_ready = True
        elif not self._pending:
            raise ValueError("a reply without an image")
        else:
            outcome = parse_outcome(reply, self._pending[0].body)
            pending = self._pending.popleft()
            if not pending.outcome.done():
                pending.outcome.set_result(outcome)
        self._restart_timer()

    def _fail_pending(self) -> None:
        """Fail all images of the ended process; those that it did not inspect go to another one."""
        failure = None if self._is_ready else _start_failure("it ended")
        # The system ends a process beyond its CPU time, and the timer beyond its time.
        seconds = asyncio.get_running_loop().time() - self._started
        is_hang = self._is_ready and seconds >= min(MAX_IMAGE_CPU_SECONDS, IMAGE_TIMEOUT_SECONDS)
        ended, self._pending = self._pending, deque()
        self._process, self._is_ready = None, False
        self._restart_timer()
        for index, pending in enumerate(ended):
            if not pending.outcome.done():
                # It inspected the first image; if it never got ready, all have waited in vain.
                is_cause = index == 0 or failure is not None
                end = _ProcessEnded(is_cause, failure, is_hang and index == 0)
                pending.outcome.set_exception(end)

    async def close(self) -> None:
        """End the process."""
        process, reader = self._process, self._reader
        if process is not None and reader is not None:
            _kill(process)
            await reader


def _enlarge_pipe(process: asyncio.subprocess.Process) -> None:
    """Let the pipe to a process hold most images, so that few writes wait for its reader."""
    assert process.stdin is not None
    pipe = process.stdin.transport.get_extra_info("pipe")
    # Linux has the operation, up to a limit of the system. A process that was killed at once has
    # closed its pipe, which is a ValueError.
    with contextlib.suppress(AttributeError, OSError, ValueError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def _start_failure(reason: str) -> Failure:
    return Failure(
        f"a decoder process can't be started ({reason}); free some memory, then repeat the command"
    )


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ENVIRONMENT_VARIABLES if name in os.environ}
    # Matrix products are small: threads would only wait for each other.
    return {**kept, "OPENBLAS_NUM_THREADS": "1"}


def serve_decoder() -> None:
    """Inspect images from standard input until it ends; runs in the decoder process."""
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    # imagehash imports it on first use; so the first image does not wait for it.
    importlib.import_module("scipy.fftpack")
    _limit_resources()
    with contextlib.suppress(EOFError, OSError):
        _write(replies, READY)
        while True:
            body = _read(requests)
            _limit_cpu_time()
            _write(replies, serialize_decoded(decode_image(body)))


def _limit_resources() -> None:
    memory = psutil.Process().memory_info().vms + MAX_IMAGE_BYTES_IN_MEMORY
    limits = (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    )
    for limit, value in limits:
        _, hard = resource.getrlimit(limit)
        is_higher = hard != resource.RLIM_INFINITY and value > hard
        # macOS has no limit of the address space.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (hard, hard) if is_higher else (value, value))


def _limit_cpu_time() -> None:
    """Limit the CPU time from now on; the system ends the process beyond it."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(usage.ru_utime + usage.ru_stime) + MAX_IMAGE_CPU_SECONDS
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    is_lower = hard == resource.RLIM_INFINITY or seconds < hard
    resource.setrlimit(resource.RLIMIT_CPU, (seconds if is_lower else hard, hard))


def _read(stream: BinaryIO) -> bytes:
    """Return the next message.

    Raises:
        EOFError: The stream has ended.
    """
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    (length,) = LENGTH.unpack(head)
    body = stream.read(length)
    if len(body) < length:
        raise EOFError
    return body


def _write(stream: BinaryIO, message: bytes) -> None:
    stream.write(LENGTH.pack(len(message)) + message)
    stream.flush()
