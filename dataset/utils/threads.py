"""Parallel work in threads, for functions that release the global interpreter lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor


def map_in_threads(work: Callable, jobs: Iterable, ahead: int = 0) -> Iterator:
    """Apply a function to jobs on all cores and yield the results in the order of the jobs.

    Only a few jobs per core are started before their results are consumed.

    Args:
        work: The function.
        jobs: Its arguments.
        ahead: Number of jobs that are started in any case, such as the size of a batch.
    """
    max_pending = max(4 * (os.cpu_count() or 1), ahead)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pending: deque[Future] = deque()
        for job in jobs:
            pending.append(pool.submit(work, job))
            if len(pending) > max_pending:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
