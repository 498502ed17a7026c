"""Run work on single photos in threads of this process, or on a Ray cluster.

A `PhotoTask` describes the work, an engine runs it: `LocalEngine` here, `RayEngine` in actors of a
cluster, each of which runs the task as `LocalEngine` does. Both give equal results in the order of
the jobs, since an actor gets whole batches.
"""

import itertools
import logging
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from dataset.errors import BadInput, Failure, first_line, shorten_for_display
from dataset.utils.cli_options import RAY
from dataset.utils.threads import map_in_threads

Job = TypeVar("Job")
Result = TypeVar("Result")
# Jobs that an actor gets at a time, rounded up to whole batches, and how many such chunks an actor
# has at most: it must not wait for the next one.
CHUNK_JOBS, MAX_CHUNKS_PER_ACTOR = 64, 2
# The command fails when so many workers have died while they computed the same chunk.
MAX_DEATHS = 3
# Beginnings of the names of environment variables that workers get from the command, unless their
# machine has them: credentials of file systems, and the backend of networks.
SHARED_VARIABLES = ("AWS_", "AZURE_", "FSSPEC_", "GOOGLE_", "KERAS_BACKEND")
# Number of threads of OpenCV, NumPy and TensorFlow.
THREAD_VARIABLES = (
    *("OPENCV_FOR_THREADS_NUM", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)
# Seconds that the first worker of a cluster may take to start.
START_SECONDS = 120


class PhotoTask(ABC, Generic[Job, Result]):
    """Work on photos, one by one or in batches.

    A task is sent to other processes: it and its jobs are picklable and refer to photos by their
    keys in an image store, or by paths that are the same on all machines. A photo that can't be
    read is a result, not an error.

    Attributes:
        batch_size: Number of photos that are computed together.
    """

    batch_size: ClassVar[int] = 1

    @abstractmethod
    def read(self, job: Job) -> Any:
        """Do what needs one photo only, such as reading it; called in threads."""

    def start(self) -> Callable[[Sequence[Any]], Sequence[Result]]:
        """Return the function that computes the results of a batch of what `read` returned.

        It is called once per worker and loads networks. By default what `read` returned is the
        result.
        """
        return _unchanged


def _unchanged(batch: Sequence[Any]) -> Sequence[Any]:
    return batch


class Engine(Protocol):
    """Runs a task on jobs."""

    def map(self, task: PhotoTask[Job, Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Yield the result of each job, in order, as soon as it is known.

        Jobs are taken as workers need them, so they may come from a generator, which must not use
        the engine itself.

        Raises:
            Failure: The task fails, or no worker is left.
        """
        ...

    def close(self) -> None:
        """Release what the workers hold; they start again when they are needed."""


@dataclass(frozen=True)
class LocalEngine:
    """Runs tasks in this process: photos are read in threads while a batch is computed."""

    def map(self, task: PhotoTask[Job, Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Yield the result of each job, in order."""
        yield from _run(task, task.start, jobs)

    def close(self) -> None:
        """Do nothing: threads end with their work."""


LOCAL_ENGINE = LocalEngine()


def _run(
    task: PhotoTask[Job, Result],
    start: Callable[[], Callable[[Sequence[Any]], Sequence[Result]]],
    jobs: Iterable[Job],
    threads: int | None = None,
) -> Iterator[Result]:
    """Yield the result of each job, in order; nothing is started without jobs."""
    compute = None
    photos = map_in_threads(task.read, jobs, task.batch_size, threads)
    while batch := list(itertools.islice(photos, task.batch_size)):
        compute = compute or start()
        yield from compute(batch)


class _Worker:
    """An actor: runs tasks on chunks of jobs; networks are loaded once per task.

    Args:
        environment: Environment variables for what the machine's environment does not set.
        threads: Number of threads that read photos.
    """

    def __init__(self, environment: Mapping[str, str], threads: int) -> None:
        self._threads = threads
        for name, value in environment.items():
            os.environ.setdefault(name, value)
        self._key = -1
        self._task: Any = None
        self._compute: Any = None

    def is_ready(self) -> bool:
        """Return that the worker has started."""
        return True

    def run(self, key: int, task: list[Any], jobs: Sequence[Any]) -> list[Any]:
        """Return the results of jobs.

        Args:
            key: Identifies the task.
            task: Reference of the task. It is in a list, because Ray would load the task, which
                may hold a network, for each call.
            jobs: Its jobs.
        """
        if key != self._key:
            import ray

            loaded = ray.get(task[0])
            self._key, self._task, self._compute = key, loaded, loaded.start()
        return list(_run(self._task, lambda: self._compute, jobs, self._threads))


@dataclass
class _Chunk:
    """Jobs that are computed together.

    Attributes:
        jobs: The jobs.
        deaths: Number of workers that died while they computed them.
        results: Their results; None until they are known.
    """

    jobs: Sequence[Any]
    deaths: int = 0
    results: list[Any] | None = None


@dataclass
class RayEngine:
    """Runs tasks in actors of a Ray cluster.

    Without the environment variable RAY_ADDRESS a cluster of this machine is started. The chunks of
    a worker that dies are computed by the others, and a new worker takes its place. The workers
    live as long as the engine, so that they start once.

    Attributes:
        workers: Number of actors; None for one per node, or several on larger nodes.
        gpus: GPUs per actor.
    """

    workers: int | None = None
    gpus: float = 0.0
    _pool: "_Pool | None" = field(default=None, init=False, repr=False)

    def map(self, task: PhotoTask[Job, Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Yield the result of each job, in order.

        Raises:
            BadInput: Ray is not installed.
            Failure: The cluster can't be used, the task fails, or no worker is left.
        """
        size = -(-CHUNK_JOBS // task.batch_size) * task.batch_size
        remaining = iter(jobs)
        chunks = (
            _Chunk(batch) for batch in iter(lambda: list(itertools.islice(remaining, size)), [])
        )
        first = next(chunks, None)
        if first is None:
            return
        if self._pool is None:
            ray = _connected_ray()
            workers, cores = self._resources(ray)
            self._pool = _Pool(ray, self._worker_factory(ray, cores), workers)
        for chunk in self._pool.run(task, itertools.chain([first], chunks)):
            assert chunk.results is not None
            yield from chunk.results

    def close(self) -> None:
        """Stop the workers."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _resources(self, ray: Any) -> tuple[int, int]:
        """Return the number of actors and the cores of each, so that all of them fit.

        By default an actor has as many cores as the smallest node.
        """
        cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        cores = [count for count in cores if count]
        if not cores:
            raise Failure("--engine ray: no node of the cluster has a free processor core")
        per_actor = max(1, sum(cores) // self.workers) if self.workers else min(cores)
        while per_actor > 1 and sum(count // per_actor for count in cores) < (self.workers or 1):
            per_actor -= 1
        room = sum(count // per_actor for count in cores)
        return min(self.workers or room, room), per_actor

    def _worker_factory(self, ray: Any, cores: int) -> Callable[..., Any]:
        threads = dict.fromkeys(THREAD_VARIABLES, str(cores))
        actor = ray.remote(
            num_cpus=cores,
            num_gpus=self.gpus,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": threads},
        )(_Worker)
        # As an argument, because the dashboard of Ray shows runtime environments.
        shared = {k: v for k, v in os.environ.items() if k.startswith(SHARED_VARIABLES)}
        return partial(actor.remote, shared, cores)


def _connected_ray() -> Any:
    """Return the module of Ray, connected to a cluster."""
    # Set before Ray is imported, which reads it then.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise BadInput("--engine ray: pip install 'fashion-tagger[ray]'") from error
    if not ray.is_initialized():
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            address = os.environ.get("RAY_ADDRESS", "this machine")
            raise Failure(f"--engine ray: {address} can't be used: {first_line(error)}") from error
    return ray


@dataclass
class _Pool:
    """Actors and the chunks that they compute.

    Attributes:
        ray: The module.
        create: Creates an actor.
        size: Number of actors.
        busy: Reference of a result, or of the readiness of an actor -> actor, and chunk if any.
        loads: Actor -> number of chunks that it has; only actors that have started.
        failed_starts: Number of actors that died before they had started.
        tasks: Number of tasks so far, which identifies the current one.
        task: Reference of the current task, in a list.
    """

    ray: Any
    create: Callable[..., Any]
    size: int
    busy: dict[Any, tuple[Any, _Chunk | None]] = field(default_factory=dict)
    loads: dict[Any, int] = field(default_factory=dict)
    failed_starts: int = 0
    tasks: int = 0
    task: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._start()

    def _start(self) -> None:
        for _ in range(self.size):
            self._add_actor()

    def run(self, task: PhotoTask, chunks: Iterator[_Chunk]) -> Iterator[_Chunk]:
        """Yield the chunks in order, each with its results."""
        self.tasks, self.task = self.tasks + 1, [self.ray.put(task)]
        try:
            yield from self._finished(chunks)
        finally:
            # A task that is not run to its end leaves nothing behind.
            if any(chunk for _, chunk in self.busy.values()):
                self.close()
                self._start()

    def _finished(self, chunks: Iterator[_Chunk]) -> Iterator[_Chunk]:
        waiting: deque[_Chunk] = deque()
        in_order: deque[_Chunk] = deque()
        window = self.size * MAX_CHUNKS_PER_ACTOR * 2
        while True:
            new = list(itertools.islice(chunks, window - len(in_order)))
            in_order.extend(new)
            waiting.extend(new)
            if not in_order:
                return
            while waiting and (actor := self._idle_actor()) is not None:
                self._submit(actor, waiting.popleft())
            waiting.extendleft(self._wait())
            while in_order and in_order[0].results is not None:
                yield in_order.popleft()

    def close(self) -> None:
        """Stop the actors."""
        actors = [*self.loads, *(actor for actor, chunk in self.busy.values() if chunk is None)]
        for actor in actors:
            self.ray.kill(actor)
        self.busy.clear()
        self.loads.clear()

    def _add_actor(self) -> None:
        actor = self.create()
        self.busy[actor.is_ready.remote()] = actor, None

    def _idle_actor(self) -> Any | None:
        """Return the actor with the fewest chunks, if it may get another one."""
        if not self.loads:
            return None
        actor = min(self.loads, key=lambda one: self.loads[one])
        return actor if self.loads[actor] < MAX_CHUNKS_PER_ACTOR else None

    def _submit(self, actor: Any, chunk: _Chunk) -> None:
        self.loads[actor] += 1
        self.busy[actor.run.remote(self.tasks, self.task, chunk.jobs)] = actor, chunk

    def _wait(self) -> list[_Chunk]:
        """Wait for a result, or for an actor to start; return chunks whose actor has died."""
        timeout = None if self.loads else START_SECONDS
        ready, _ = self.ray.wait(list(self.busy), num_returns=1, timeout=timeout)
        if not ready:
            raise Failure(
                f"--engine ray: no worker has started within {START_SECONDS} seconds; see the"
                " resources of the cluster with `ray status`"
            )
        lost: list[_Chunk] = []
        for reference in ready:
            if reference not in self.busy:
                continue
            actor, chunk = self.busy[reference]
            try:
                value = self.ray.get(reference)
            except self.ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except self.ray.exceptions.RayError:
                lost += self._remove(actor)
                continue
            del self.busy[reference]
            if chunk is None:
                self.loads[actor] = 0
            else:
                self.loads[actor] -= 1
                chunk.results = value
        return lost

    def _remove(self, actor: Any) -> list[_Chunk]:
        """Replace an actor that has died; return the chunks that it had."""
        lost = []
        for reference, (other, chunk) in list(self.busy.items()):
            if other == actor:
                del self.busy[reference]
                lost += [chunk] if chunk else []
        if lost:
            # It computed the chunk that it got first; the others were still waiting.
            lost[0].deaths += 1
            if lost[0].deaths == MAX_DEATHS:
                raise Failure(
                    f"--engine ray: {MAX_DEATHS} workers died of the same photos, the first of"
                    f" which is {shorten_for_display(repr(lost[0].jobs[0]))}; see the logs of Ray"
                )
        if self.loads.pop(actor, None) is None:
            self.failed_starts += 1
            if self.failed_starts > MAX_DEATHS * self.size:
                raise Failure("--engine ray: workers can't be started; see the logs of Ray")
        self._add_actor()
        return lost


def create_engine(name: str, workers: int | None = None, gpus: float = 0.0) -> Engine:
    """Return the engine of `--engine`.

    Args:
        name: `local` or `ray`.
        workers: Number of workers; None for one per node.
        gpus: GPUs per worker.
    """
    return RayEngine(workers, gpus) if name == RAY else LOCAL_ENGINE
