"""Engines: the same results in the same order, whatever dies."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dataset.errors import Failure
from dataset.utils.engines import LOCAL_ENGINE, PhotoTask, RayEngine


@dataclass(frozen=True)
class SquareTask(PhotoTask[int, tuple[int, int]]):
    """Squares numbers, and says in batches of how many."""

    batch_size = 8
    seconds: float = 0.0
    # The worker that gets this number writes its process id here and waits to be killed.
    deadly: int = -1
    folder: Path = Path()

    def read(self, job: int) -> int:
        if job == self.deadly:
            path = self.folder / f"{os.getpid()}"
            path.touch()
            if len(list(self.folder.iterdir())) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        return job * job

    def start(self) -> Callable[[Sequence[Any]], Sequence[tuple[int, int]]]:
        return lambda batch: [(square, len(batch)) for square in batch]


@dataclass(frozen=True)
class FailingTask(PhotoTask[int, int]):
    """Fails at one number."""

    def read(self, job: int) -> int:
        if job == 70:
            raise Failure("no space is left")
        return job


@dataclass(frozen=True)
class FatalTask(PhotoTask[int, int]):
    """Kills every worker that gets one number."""

    def read(self, job: int) -> int:
        if job == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return job


def expected(count: int) -> list[tuple[int, int]]:
    last = count - count % 8
    return [(n * n, 8 if n < last else count % 8) for n in range(count)]


def test_the_local_engine_keeps_the_order_and_the_batches() -> None:
    assert list(LOCAL_ENGINE.map(SquareTask(), range(300))) == expected(300)
    assert list(LOCAL_ENGINE.map(SquareTask(), [])) == []
    with pytest.raises(Failure, match="no space is left"):
        list(LOCAL_ENGINE.map(FailingTask(), range(100)))


# Starting a cluster takes longer than these tests.
@pytest.mark.slow
def test_a_cluster_gives_the_same_results_in_the_same_order(engine: RayEngine) -> None:
    assert list(engine.map(SquareTask(), range(300))) == expected(300)
    assert list(engine.map(SquareTask(), [])) == []
    # Stopped in the middle: the next task starts with nothing left over.
    assert next(engine.map(SquareTask(), range(300))) == expected(300)[0]
    assert list(engine.map(SquareTask(), range(3))) == expected(3)


@pytest.mark.slow
def test_a_failure_of_a_task_is_that_of_the_command(engine: RayEngine) -> None:
    with pytest.raises(Failure, match="no space is left"):
        list(engine.map(FailingTask(), range(100)))


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_batches_only(engine: RayEngine, tmp_path: Path) -> None:
    task = SquareTask(deadly=130, folder=tmp_path)
    assert list(engine.map(task, range(300))) == expected(300)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_photos_that_kill_every_worker_are_named(engine: RayEngine) -> None:
    with pytest.raises(Failure, match="3 workers died of the same photos, the first of which is 0"):
        list(engine.map(FatalTask(), range(100)))


@pytest.mark.slow
def test_a_node_that_dies_costs_its_batches_only(cluster: Any) -> None:
    node = cluster.add_node(num_cpus=1)
    engine = RayEngine(workers=3)
    results = engine.map(SquareTask(seconds=0.02), range(600))
    first = [next(results) for _ in range(100)]
    cluster.remove_node(node, allow_graceful=False)
    assert first + list(results) == expected(600)
    engine.close()
