"""Which process has what in hand: rows are claimed under its number, and the dead lose theirs.

A process is dead when its machine no longer has it, or when it gave no sign of life for a lease.
Each function is a step of a transaction that the caller commits.
"""

import os
import platform
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import Search, Sighting, Worker, now

# A sign of life comes every BEAT seconds; a busy catalogue may hold it up for half a minute.
LEASE, BEAT = timedelta(seconds=120), 20
LATEST = timedelta(days=1)
NEVER = datetime(1970, 1, 1)


def sign_on(session: Session) -> int:
    """The number of a new worker: this process, which goes on with what others began."""
    process = os.getpid()
    worker = Worker(machine=_machine(), process=process, born=_born(process) or "", since=now())
    session.add(worker)
    session.flush()
    for other in session.scalars(sa.select(Worker)).all():
        _go_on_with(other, worker)
    free_dead(session, worker.id)
    return worker.id


def _go_on_with(other: Worker, worker: Worker) -> None:
    # What was left longer ago is no work of today's.
    worker.since = max(min(worker.since, other.since), now() - LATEST)


def beat(session: Session, worker: int) -> None:
    """WORKER lives; one that was taken for dead meanwhile, as on a machine that slept, is back."""
    known = session.get(Worker, worker)
    if known is None:
        process = os.getpid()
        known = Worker(id=worker, machine=_machine(), process=process, born=_born(process) or "")
        session.add(known)
    known.beat = now()


def since(session: Session, worker: int) -> datetime:
    """When the work began that WORKER goes on with."""
    known = session.get(Worker, worker)
    return known.since if known is not None else now()


def sign_off(session: Session, worker: int, ended: bool) -> None:
    """WORKER has nothing in hand any more. ENDED: nor has it left anything for others to do."""
    for table in (Search, Sighting):
        session.execute(
            sa.update(table)
            .where(table.worker_id == worker)
            .values(worker_id=None)
            .execution_options(synchronize_session=False)
        )
    if ended:
        session.execute(sa.delete(Worker).where(Worker.id == worker))
    else:
        session.execute(sa.update(Worker).where(Worker.id == worker).values(beat=NEVER))


def free_dead(session: Session, worker: int) -> None:
    """Take from dead workers what they have in hand; WORKER goes on with it."""
    mine = session.get(Worker, worker)
    for other in session.scalars(sa.select(Worker).where(Worker.id != worker)).all():
        if _is_dead(other):
            if mine is not None:
                _go_on_with(other, mine)
            sign_off(session, other.id, ended=True)


def alive(session: Session) -> bool:
    """Whether a process is at work."""
    return not all(_is_dead(worker) for worker in session.scalars(sa.select(Worker)))


def _is_dead(worker: Worker) -> bool:
    if worker.beat < now() - LEASE:
        return True
    return worker.machine == _machine() and _born(worker.process) != worker.born


def _machine() -> str:
    """This machine, or the container on it: the same process number means the same process."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return f"{platform.node()} {space}".strip()


def _born(process: int) -> str | None:
    """When PROCESS began, in its machine's own measure, empty where that is not told.

    None where there is no such process, or it only waits to be buried.
    """
    try:
        # The name before it may hold spaces and brackets: state, then 18 more, then the beginning.
        told = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if told[0] in "ZX" else told[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return ""
    return ""
