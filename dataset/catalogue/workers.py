"""Worker processes of crawls: each claims rows under its id, and claims of dead ones are released.

A worker is dead when its process no longer exists on this machine, or when its last heartbeat is
older than the lease. Each function is a step of a transaction that the caller commits.
"""

import os
import platform
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import Search, Sighting, Worker, now

# A worker without a heartbeat for the lease is dead; a busy catalogue may delay one for 30 seconds.
LEASE, HEARTBEAT_SECONDS = timedelta(seconds=120), 20
# Work of an unfinished run that is older does not belong to the current run.
MAX_RESUME_AGE = timedelta(days=1)
NEVER = datetime(1970, 1, 1)


def register(session: Session) -> int:
    """Add this process as a worker, which resumes the work of dead ones.

    Returns:
        The id of the worker.
    """
    worker = _worker_of_this_process(run_started=now())
    session.add(worker)
    session.flush()
    for other in session.scalars(sa.select(Worker)).all():
        _resume_from(other, worker)
    release_dead(session, worker.id)
    return worker.id


def _worker_of_this_process(**values: object) -> Worker:
    process = os.getpid()
    return Worker(
        machine=_machine(),
        process=process,
        process_started=_process_started(process) or "",
        **values,
    )


def _resume_from(other: Worker, worker: Worker) -> None:
    worker.run_started = max(min(worker.run_started, other.run_started), now() - MAX_RESUME_AGE)


def record_heartbeat(session: Session, worker_id: int) -> None:
    """Record that the worker of this process is alive."""
    ensure_registered(session, worker_id).heartbeat = now()


def ensure_registered(session: Session, worker_id: int) -> Worker:
    """Return the worker of this process, for a transaction that claims work.

    A worker that another one removed as dead, after the machine slept for instance, is added again.
    Without its row, nobody would release its claims if the process died.
    """
    worker = session.get(Worker, worker_id)
    if worker is None:
        worker = _worker_of_this_process(id=worker_id)
        session.add(worker)
        session.flush()
    return worker


def run_started(session: Session, worker_id: int) -> datetime:
    """Return when the run started that a worker takes part in or resumes."""
    worker = session.get(Worker, worker_id)
    return worker.run_started if worker is not None else now()


def unregister(session: Session, worker_id: int, is_complete: bool) -> None:
    """Release the claims of a worker.

    Args:
        session: The session.
        worker_id: The worker.
        is_complete: Whether it has left no work to resume; then its row is deleted.
    """
    for table in (Search, Sighting):
        session.execute(
            sa.update(table)
            .where(table.worker_id == worker_id)
            .values(worker_id=None)
            .execution_options(synchronize_session=False)
        )
    if is_complete:
        session.execute(sa.delete(Worker).where(Worker.id == worker_id))
    else:
        session.execute(sa.update(Worker).where(Worker.id == worker_id).values(heartbeat=NEVER))


def release_dead(session: Session, worker_id: int) -> None:
    """Release the claims of dead workers; the worker of this process resumes their work."""
    worker = ensure_registered(session, worker_id)
    for other in session.scalars(sa.select(Worker).where(Worker.id != worker_id)).all():
        if _is_dead(other):
            _resume_from(other, worker)
            unregister(session, other.id, is_complete=True)


def is_any_alive(session: Session) -> bool:
    """Return whether a worker is alive."""
    return not all(_is_dead(worker) for worker in session.scalars(sa.select(Worker)))


def _is_dead(worker: Worker) -> bool:
    if worker.heartbeat < now() - LEASE:
        return True
    return (
        worker.machine == _machine() and _process_started(worker.process) != worker.process_started
    )


def _machine() -> str:
    """Return the name of this machine and its process namespace, within which pids are unique."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return f"{platform.node()} {namespace}".strip()


def _process_started(process: int) -> str | None:
    """Return when a process started, in seconds since boot, which tells reused pids apart.

    Returns:
        None where there is no such process or it is a zombie, empty where the system does not tell.
    """
    try:
        info = psutil.Process(process)
        if info.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        # Since boot: the time of day changes when the clock is set.
        return f"{info.create_time() - psutil.boot_time():.2f}"
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return ""
