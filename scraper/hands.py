"""Threads for what would hold up an event loop: files, and the catalogue.

An executor's hand-over costs a photo more than what is done for it: few threads take what waits,
and all that is done meanwhile is told at once.
"""

import asyncio
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")
# Whom to tell, what came of it, and what was raised instead.
_Done = tuple["asyncio.Future[Any]", Any, BaseException | None]


class Hands:
    """At most MOST threads, begun when they are needed; one does what it is given in turn."""

    def __init__(self, most: int) -> None:
        self._most, self._begun = most, 0
        self._desk = _Desk()
        # They end when nobody can give them anything any more.
        weakref.finalize(self, self._desk.close, most)

    def do(self, work: Callable[..., Result], *arguments: object) -> "asyncio.Future[Result]":
        """What WORK returns for ARGUMENTS, or raises, done by one of the threads."""
        told = self._desk.give(work, arguments)
        if self._begun < min(self._desk.under_way, self._most):
            self._begun += 1
            threading.Thread(target=self._desk.serve, daemon=True).start()
        return told


class _Desk:
    """What waits for a thread, and what is done and not told yet.

    `under_way`: how much was given and is not told, as the loop knows it.
    """

    def __init__(self) -> None:
        self.under_way = 0
        self._jobs: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
        self._done: list[_Done] = []
        self._lock = threading.Lock()

    def give(self, work: Callable[..., Any], arguments: tuple[object, ...]) -> "asyncio.Future":
        """In the loop: have WORK done."""
        loop = asyncio.get_running_loop()
        told = loop.create_future()
        self.under_way += 1
        self._jobs.put((loop, told, work, arguments))
        return told

    def serve(self) -> None:
        """In a thread: do what comes."""
        while (job := self._jobs.get()) is not None:
            loop, told, work, arguments = job
            done: _Done
            try:
                done = (told, work(*arguments), None)
            except BaseException as error:  # noqa: BLE001 - who waits for it raises it
                done = (told, None, error)
            with self._lock:
                self._done.append(done)
                first = len(self._done) == 1
            if first:
                try:
                    loop.call_soon_threadsafe(self._tell)
                except RuntimeError:
                    # The loop has ended, and nobody waits any more.
                    self._done.clear()
            # A photo is not kept until the next one comes.
            del job, told, work, arguments, done

    def _tell(self) -> None:
        """In the loop: tell what was done."""
        with self._lock:
            done = self._done.copy()
            self._done.clear()
        self.under_way -= len(done)
        for told, result, error in done:
            if told.done():
                # Who gave it was cancelled.
                continue
            if error is None:
                told.set_result(result)
            else:
                told.set_exception(error)

    def close(self, threads: int) -> None:
        """Let THREADS end."""
        for _ in range(threads):
            self._jobs.put(None)
