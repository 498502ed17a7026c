"""Fixtures of all tests: catalogues on SQLite and PostgreSQL, and cached pose networks."""

import functools
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dataset.catalogue.session import catalogue_url
from tests.support.catalogues import URL_FILE

# URL of a PostgreSQL server where tests may create databases; .ci/run starts one.
SERVER = "FASHION_TAGGER_TEST_POSTGRES"
# The slowest test files run first, so that no worker starts one at the end.
LONGEST = (
    *("test_training.py", "test_network.py", "test_find_similar.py", "test_survival.py"),
    *("test_evaluation.py", "test_browser.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def skip_disk_syncs() -> Iterator[None]:
    """Skip disk syncs in the test process, since no test simulates a power failure.

    Commands in other processes, including those that are killed, sync as usual.
    """
    from dataset.catalogue import session

    as_always = session._set_pragmas

    def set_pragmas(connection: sqlite3.Connection, record: object) -> None:
        as_always(connection, record)
        connection.execute("PRAGMA synchronous = OFF")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "_set_pragmas", set_pragmas)
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def load_once() -> Callable[..., Any]:
    """Return a `load_estimator` that builds each pose network once."""
    from dataset.pose import checkpoints

    once = functools.cache(checkpoints.load_estimator)
    # Normalize the arguments, so that equal calls share a cache entry.
    return lambda model, flip=False, dark=False: once(model, flip, dark)


@pytest.fixture(scope="module")
def one_estimator(load_once: Callable[..., Any]) -> Iterator[None]:
    """Use the pose networks that are built already."""
    from dataset.pose import checkpoints

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "load_estimator", load_once)
        yield


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Select the database of the catalogues in the test's folder."""
    if request.param == "sqlite":
        yield request.param
        return
    if SERVER not in os.environ:
        pytest.skip(f"{SERVER} names no PostgreSQL server; .ci/run starts one")
    server = catalogue_url(os.environ[SERVER])
    name = f"test_{uuid.uuid4().hex}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    url = server.set(database=name).render_as_string(hide_password=False)
    (tmp_path / URL_FILE).write_text(url, encoding="utf-8")
    yield request.param
    with engine.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()
