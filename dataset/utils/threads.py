"""Parallel work in threads, for functions that release the global interpreter lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor


def map_in_threads(work: Callable, jobs: Iterable) -> Iterator:
    """Apply a function to jobs on all cores and yield the results in the order of the jobs.

    Only a few jobs per core are started before their results are consumed.
    """
    max_pending = 4 * (os.cpu_count() or 1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pending: deque[Future] = deque()
        for job in jobs:
            pending.append(pool.submit(work, job))
            if len(pending) > max_pending:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
