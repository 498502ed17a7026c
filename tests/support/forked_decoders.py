"""Fork decoder processes from a server that has imported their modules.

Importing NumPy, SciPy and Pillow takes longer than the few images of a test. The tests of
`scraper.decoding.pool` and of killed crawls start the processes as users do.
"""

import asyncio
import multiprocessing
import os
from multiprocessing.connection import Connection
from typing import cast

from scraper.decoding import pool

# Modules of a decoder process; imagehash imports SciPy's on first use.
PRELOADED = ("scraper.decoding.pool", "scipy.fftpack")
LINE_BYTES = 1 << 16


class ForkedDecoder:
    """A forked decoder process, with the interface of `asyncio.subprocess.Process`.

    Attributes:
        stdin: Writer of the process's requests.
        stdout: Reader of its replies.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        requests, self._requests = context.Pipe(duplex=False)
        self._replies, replies = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve, args=(requests, replies))
        self._process.start()
        # The pipe ends with the process, so that the reader notices.
        requests.close()
        replies.close()

    async def connect(self) -> asyncio.subprocess.Process:
        """Connect the pipes to the running event loop, and return this process."""
        loop = asyncio.get_running_loop()
        self.stdout = asyncio.StreamReader(LINE_BYTES)
        reading = asyncio.StreamReaderProtocol(self.stdout)
        await loop.connect_read_pipe(lambda: reading, os.fdopen(_take(self._replies), "rb", 0))
        transport, writing = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, os.fdopen(_take(self._requests), "wb", 0)
        )
        self.stdin = asyncio.StreamWriter(transport, writing, None, loop)
        return cast(asyncio.subprocess.Process, self)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    async def wait(self) -> None:
        """Wait for the end of the process."""
        await asyncio.to_thread(self._process.join)
        self.stdin.close()


def _take(connection: Connection) -> int:
    """Return a copy of the file descriptor of a connection, which is closed."""
    descriptor = os.dup(connection.fileno())
    connection.close()
    return descriptor


def _serve(requests: Connection, replies: Connection) -> None:
    """Serve images in the new process."""
    import sys

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.stdin = os.fdopen(_take(requests), "r")
    sys.stdout = os.fdopen(_take(replies), "w")
    pool.serve_decoder()


async def start_forked() -> asyncio.subprocess.Process:
    """Fork a decoder process; takes the place of `scraper.decoding.pool.start_process`."""
    return await ForkedDecoder().connect()
