"""Processes that read photos: strangers' files are decoded beside the crawl, on the other cores.

Each knows no secret, holds no file and asks nobody: it gets the bytes of a photo and says what they
are, in words that can do nothing here. One that a photo kills or holds up is replaced, and the
photo refused.
"""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection

from dataset.errors import Failure, first_line
from scraper.examining import BROKEN, Fetched, Refused, as_bytes, examine, from_bytes

# A few read more than a crawl can fetch; large photos keep more than the cores beside it busy.
MOST = 4
# Photos that one has at a time: while it says what one is, the next has come.
AHEAD = 2
# How often a reader may end that begins or reads a photo: once something else may have ended it.
TRIES = 2
# Seconds after which a reader hangs: the largest photo takes two where nothing else runs, and a
# reader half a one to begin.
LONGEST, LONGEST_BEGINNING = 120, 120
# What a reader says when it has begun, and the bytes of the longest that it says.
READY, MOST_TOLD = b"ready", 10_000
# How a `Connection` writes the length of what follows, and how much is read at once.
LENGTH, AT_ONCE = struct.Struct("!i"), 65_536
# What a reader runs; it finds modules where this process does, and not where it is called.
PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; from scraper.readers import read_for;"
    " read_for(int(sys.argv[1]))"
)
# What it gets of the environment, which may hold secrets.
KEPT = ("PATH", "HOME", "LANG", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class Readers:
    """As many processes as there are cores, at most MOST, begun when they are needed first.

    They belong to one event loop; who finds all of them busy waits.
    """

    def __init__(self, count: int | None = None) -> None:
        count = count or min(MOST, os.cpu_count() or 1)
        self._all = [_Reader() for _ in range(count)]
        self._places = asyncio.Semaphore(AHEAD * count)

    def begin(self) -> None:
        """Begin the first one, which will be ready when something else is that takes its time.

        Raises:
            Failure: no process can be begun.
        """
        self._all[0].begin()

    async def examine(self, body: bytes) -> Fetched | Refused:
        """See `examining.examine`; refused as broken, too, where reading BODY ends the process.

        Raises:
            Failure: no process can be begun.
        """
        async with self._places:
            ends = 0
            while True:
                # A slow crawl begins no more than it needs.
                reader = min(self._all, key=_Reader.load)
                try:
                    return await reader.examine(body)
                except _Ended as end:
                    ends += end.guilty
                    if ends == TRIES and end.failure:
                        raise end.failure from end
                    if ends == TRIES:
                        return Refused(BROKEN)

    def close(self) -> None:
        """End them."""
        for reader in self._all:
            reader.close()


class _Ended(Exception):  # noqa: N818 - reads as what happened
    """A reader ended before it said what a photo is: because of it, if GUILTY.

    FAILURE: it ended before it read any.
    """

    def __init__(self, guilty: bool, failure: Failure | None = None) -> None:
        super().__init__()
        self.guilty, self.failure = guilty, failure


@dataclass(frozen=True)
class _Asked:
    body: bytes
    answer: "asyncio.Future[Fetched | Refused]"


class _Reader:
    """One decoder process, started on first use."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forget()

    def _forget(self) -> None:
        # What it was asked, in this order; what is not sent, and what it said that is not whole.
        self._asked: deque[_Asked] = deque()
        self._unsent: deque[memoryview] = deque()
        self._said = bytearray()
        self._ready = False
        self._limit: asyncio.TimerHandle | None = None

    def load(self) -> int:
        """How busy it is; one is begun rather than that all others have all that they may have."""
        return 2 * len(self._asked) if self._line else 2 * AHEAD - 1

    async def examine(self, body: bytes) -> Fetched | Refused:
        """What BODY is.

        Raises:
            _Ended: the process can't be begun, died, takes too long, or talks nonsense.
        """
        loop = asyncio.get_running_loop()
        asked = _Asked(body, loop.create_future())
        try:
            line = self.begin()
        except Failure as failure:
            raise _Ended(True, failure) from failure
        if self._loop is None:
            self._loop = loop
            loop.add_reader(line, self._hear, line)
        self._asked.append(asked)
        if len(self._asked) == 1:
            self._give_time()
        self._unsent.append(memoryview(LENGTH.pack(len(body)) + body))
        if len(self._unsent) == 1:
            self._send(line)
        return await asked.answer

    def begin(self) -> socket.socket:
        """The line to its process, begun if there is none.

        Raises:
            Failure: it can't be begun.
        """
        if self._line is not None:
            return self._line
        self._line, its = socket.socketpair()
        self._line.setblocking(False)
        try:
            with its:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, str(its.fileno()), *sys.path],
                    pass_fds=[its.fileno()],
                    env=_environment(),
                    # Ctrl-C in a terminal is for the crawl, which finishes what is in flight.
                    start_new_session=True,
                )
        except OSError as error:
            self.close()
            raise _not_begun(first_line(error)) from error
        return self._line

    def _give_time(self) -> None:
        """Let it take so long for the photo that it reads now, if it reads one, or to begin."""
        if self._limit is not None:
            self._limit.cancel()
        self._limit = None
        if self._loop is not None and self._asked:
            seconds = LONGEST if self._ready else LONGEST_BEGINNING
            self._limit = self._loop.call_later(seconds, self._end)

    def _send(self, line: socket.socket) -> None:
        """Send by LINE what it takes at once, and the rest when it takes more."""
        assert self._loop is not None
        try:
            while self._unsent:
                rest = self._unsent[0][line.send(self._unsent[0]) :]
                self._unsent.popleft()
                if rest:
                    self._unsent.appendleft(rest)
        except BlockingIOError:
            self._loop.add_writer(line, self._send, line)
        except OSError:
            self._end()
        else:
            self._loop.remove_writer(line)

    def _hear(self, line: socket.socket) -> None:
        """Take what it says by LINE."""
        try:
            said = line.recv(AT_ONCE)
            self._said += said
            while (word := self._word()) is not None:
                self._take(word)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            said = b""
        if not said:
            self._end()

    def _word(self) -> bytes | None:
        """What it has said next, None where that is not whole yet.

        Raises:
            ValueError: it is nonsense.
        """
        if len(self._said) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._said)
        if not 0 <= length <= MOST_TOLD:
            raise ValueError(f"{length} bytes are not said of a photo")
        end = LENGTH.size + length
        if len(self._said) < end:
            return None
        word = bytes(self._said[LENGTH.size : end])
        del self._said[:end]
        return word

    def _take(self, word: bytes) -> None:
        """WORD is what it says next.

        Raises:
            ValueError: it is nonsense.
        """
        if not self._ready:
            if word != READY:
                raise ValueError("it is not ready")
            self._ready = True
        elif not self._asked:
            raise ValueError("it was not asked")
        else:
            outcome = from_bytes(word, self._asked[0].body)
            asked = self._asked.popleft()
            if not asked.answer.done():
                asked.answer.set_result(outcome)
        self._give_time()

    def _end(self) -> None:
        """End the process; its request is sent to another one."""
        failure = None if self._ready else _not_begun("it ended")
        for number, one in enumerate(self.close()):
            if not one.answer.done():
                # It read the first one; where it read none, each has waited in vain.
                one.answer.set_exception(_Ended(number == 0 or failure is not None, failure))

    def close(self) -> "deque[_Asked]":
        """End it, whatever it is at: it has nothing to finish. Returns what it was asked."""
        if self._line is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._line)
                self._loop.remove_writer(self._line)
            self._line.close()
        if self._limit is not None:
            self._limit.cancel()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._line = self._process = self._loop = None
        asked = self._asked
        self._forget()
        return asked


def _not_begun(reason: str) -> Failure:
    return Failure(
        f"a process that reads photos can't be begun ({reason}); see that memory is left, then"
        " repeat the command"
    )


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    # Its products of matrices are small: threads would only wait for each other.
    return {**kept, "OPENBLAS_NUM_THREADS": "1"}


def read_for(handle: int) -> None:
    """In the reader: answer what comes by the socket HANDLE until its other end is gone."""
    line = Connection(handle)
    with contextlib.suppress(EOFError, OSError):
        line.send_bytes(READY)
        while True:
            line.send_bytes(as_bytes(examine(line.recv_bytes())))
