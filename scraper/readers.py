"""Processes that read photos: strangers' files are decoded beside the crawl, on the other cores.

Each knows no secret, holds no file and asks nobody: it gets the bytes of a photo and says what they
are, in words that can do nothing here. One that a photo kills or holds up is replaced, and the
photo refused.
"""

import contextlib
import os
import queue
import socket
import subprocess
import sys
from multiprocessing.connection import Connection

from dataset.errors import Failure, first_line
from scraper.examining import BROKEN, Fetched, Refused, as_bytes, examine, from_bytes

# A crawl asks and writes on one core; a few others read more than it can fetch.
MOST = 4
# How often a reader may end that begins or reads a photo: once something else may have ended it.
TRIES = 2
# Seconds after which a reader hangs: the largest photo takes two where nothing else runs.
LONGEST = 120
# What a reader says when it has begun, and the bytes of the longest that it says.
READY, MOST_TOLD = b"ready", 10_000
# What a reader runs; it finds modules where this process does, and not where it is called.
PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; from scraper.readers import read_for;"
    " read_for(int(sys.argv[1]))"
)
# What it gets of the environment, which may hold secrets.
KEPT = ("PATH", "HOME", "LANG", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class Readers:
    """As many processes as there are cores to spare, begun when they are needed first.

    Any thread may ask; those that find all of them busy wait.
    """

    def __init__(self, count: int | None = None) -> None:
        spare = min(MOST, max(1, (os.cpu_count() or 1) - 1))
        self._all = [_Reader() for _ in range(count or spare)]
        # The one that was freed last is asked next: a slow crawl begins no more than it needs.
        self._free: queue.LifoQueue[_Reader] = queue.LifoQueue()
        for reader in self._all:
            self._free.put(reader)

    def examine(self, body: bytes) -> Fetched | Refused:
        """See `examining.examine`; refused as broken, too, where reading BODY ends the process.

        Raises:
            Failure: no process can be begun.
        """
        reader = self._free.get()
        try:
            for left in reversed(range(TRIES)):
                try:
                    return reader.examine(body)
                except (EOFError, OSError, ValueError):
                    reader.close()
                except Failure:
                    if not left:
                        raise
            return Refused(BROKEN)
        finally:
            self._free.put(reader)

    def close(self) -> None:
        """End them."""
        for reader in self._all:
            reader.close()


class _Reader:
    """One process, begun when it is asked first."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Connection | None = None

    def examine(self, body: bytes) -> Fetched | Refused:
        """What BODY is.

        Raises:
            EOFError, OSError, ValueError: the process died, takes too long, or talks nonsense.
        """
        line = self._line or self._begin()
        line.send_bytes(body)
        if not line.poll(LONGEST):
            raise EOFError
        return from_bytes(line.recv_bytes(MOST_TOLD), body)

    def _begin(self) -> Connection:
        ours, its = socket.socketpair()
        self._line = Connection(ours.detach())
        try:
            with its:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, str(its.fileno()), *sys.path],
                    pass_fds=[its.fileno()],
                    env=_environment(),
                    # Ctrl-C in a terminal is for the crawl, which finishes what is in flight.
                    start_new_session=True,
                )
            self._line.recv_bytes(MOST_TOLD)
        except (EOFError, OSError) as error:
            self.close()
            raise Failure(
                f"a process that reads photos can't be begun ({first_line(error) or 'it ended'});"
                " see that memory is left, then repeat the command"
            ) from error
        return self._line

    def close(self) -> None:
        """End it, whatever it is at: it has nothing to finish."""
        if self._line is not None:
            self._line.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._line = self._process = None


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
