"""Parallel work in threads, for functions that release the global interpreter lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, cast

T = TypeVar("T")


def map_in_threads(
    work: Callable, jobs: Iterable, ahead: int = 0, threads: int | None = None
) -> Iterator:
    """Apply a function to jobs on all cores and yield the results in the order of the jobs.

    Only a few jobs per core are started before their results are consumed.

    Args:
        work: The function.
        jobs: Its arguments.
        ahead: Number of jobs that are started in any case, such as the size of a batch.
        threads: Number of threads; None: one per core.
    """
    threads = threads or os.cpu_count() or 1
    max_pending = max(4 * threads, ahead)
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future] = deque()
        for job in jobs:
            pending.append(pool.submit(work, job))
            if len(pending) > max_pending:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def prefetch(items: Iterable[T], depth: int = 1) -> Iterator[T]:
    """Yield items that a thread of its own produces ahead of their consumer.

    Args:
        items: The items; an error that they raise is raised here.
        depth: Number of items that are produced ahead.
    """
    end: Any = object()
    remaining = iter(items)
    # One thread, so that `next` is never called twice at once.
    with ThreadPoolExecutor(1) as pool:
        pending = deque(pool.submit(next, remaining, end) for _ in range(depth))
        while (item := pending.popleft().result()) is not end:
            pending.append(pool.submit(next, remaining, end))
            yield cast("T", item)
