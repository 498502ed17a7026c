"""Open a catalogue: create it, or migrate it to the current revision."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from dataset.errors import BadInput, Failure, first_line, replace_control_characters

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
# The newest revision in migrations/versions; a constant, so that Alembic is imported only when
# there is something to migrate.
HEAD = "0018"
BUSY_TIMEOUT_MS = 30_000
# Page cache of each SQLite connection.
CACHE_KB = 16_000
POSTGRESQL = "postgresql+psycopg"
# How a transaction that writes starts on SQLite, and the advisory lock of writers on PostgreSQL.
WRITE_OPTIONS = {"sqlite_begin": "IMMEDIATE"}
WRITER_LOCK = 20_261_125
DAMAGED = "the file is not a catalogue or is damaged; name another one with --catalogue"
UNREACHABLE = "check that the folder exists and is writable"
READ_ONLY = (
    "the file or its folder is read-only; change its permissions, or name another with --catalogue"
)
DISK_FULL = "committed work is kept: free disk space, then repeat the command"
CHECK_SERVER = "check that the server runs, then repeat the command"
# Remedies by words in the messages of SQLite and psycopg.
REMEDIES = {
    "not a database": DAMAGED,
    "malformed": DAMAGED,
    "Could not decode": DAMAGED,
    "unsupported file format": DAMAGED,
    "has no column": DAMAGED,
    "no such column": DAMAGED,
    "no such table": DAMAGED,
    "datatype mismatch": DAMAGED,
    "locked": "another process is writing to it; try again when that has finished",
    "disk is full": DISK_FULL,
    "disk I/O error": DISK_FULL,
    "readonly database": READ_ONLY,
    "No space left": DISK_FULL,
    "connection failed": "check that the server runs, its address, user, password and database",
    "resolve host": "check the host name of the URL",
    "connection is": CHECK_SERVER,
    "terminating connection": CHECK_SERVER,
    "unable to open": UNREACHABLE,
}


class _CatalogueSession(Session):
    """A session that reports damaged rows, which SQLAlchemy cannot convert, as a Failure."""

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the session."""
        super().__exit__(error_type, error, traceback)
        may_be_damage = isinstance(
            error, (ValueError, TypeError, ArithmeticError, LookupError, AttributeError)
        )
        if may_be_damage and (_is_raised_by_sqlalchemy(traceback) or self._is_damaged()):
            assert error is not None
            url = self.get_bind().engine.url
            raise Failure(f"catalogue {_shown(url)}: {first_line(error)}; {DAMAGED}") from error

    def _is_damaged(self) -> bool:
        """Return whether SQLite finds damage in the file."""
        engine = self.get_bind().engine
        if engine.dialect.name != "sqlite":
            return False
        with engine.connect() as connection:
            result = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            return result != "ok" or bool(
                connection.exec_driver_sql("PRAGMA foreign_key_check").first()
            )


def _is_raised_by_sqlalchemy(traceback: TracebackType | None) -> bool:
    module = ""
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next
    return module.startswith("sqlalchemy.")


class Sessions(sessionmaker[Session]):
    """A session factory of a catalogue. Transactions of `begin` write, one at a time.

    They take the write lock before they read, so that what they have read is still valid when they
    write.
    """

    @contextlib.contextmanager
    def begin(self) -> Iterator[Session]:
        """Yield a session whose transaction writes and is committed when the block succeeds."""
        with super().begin() as session:
            _lock_for_writing(session.connection(execution_options=WRITE_OPTIONS))
            yield session


def _lock_for_writing(connection: sa.Connection) -> None:
    """Wait for other writers; on SQLite the immediate transaction has done so."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITER_LOCK)))


def catalogue_url(text: str) -> sa.URL:
    """Return the URL of a catalogue.

    Args:
        text: An SQLAlchemy URL or the path of an SQLite file.

    Raises:
        BadInput: It is a URL of an unknown kind.
    """
    if "://" not in text:
        return sa.URL.create("sqlite", database=text)
    # Only the scheme is repeated in messages, because anything after it may be a password.
    shown = f"--catalogue {text.partition('://')[0]}://…"
    if text.count("@") > 1:
        raise BadInput(f"{shown}: more than one @; write %40 for an @ in a user name or password")
    try:
        url = sa.make_url(text.replace("postgres://", "postgresql://", 1))
        url.get_dialect()
    except ImportError:
        # The driver is missing: `_engine` raises an error with the remedy.
        pass
    except (ArgumentError, NoSuchModuleError, ValueError):
        # Not chained: the original message may have a part of the password.
        raise BadInput(
            f"{shown}: not a URL of a catalogue; name an SQLite file (catalogue.sqlite) or an"
            " SQLAlchemy URL (postgresql://me@host/photos); in a user name or password, write"
            " %2F for / and %3A for :"
        ) from None
    # SQLAlchemy defaults to psycopg2, the project depends on psycopg 3.
    return url.set(drivername=POSTGRESQL) if url.drivername == "postgresql" else url


def _shown(url: sa.URL) -> str:
    """Return a URL for messages: without its password, which may be in the query, too."""
    return url.set(query={}).render_as_string()


def open_catalogue(text: str, must_exist: bool = False) -> Sessions:
    """Open a catalogue and migrate it to the current revision.

    A copy of an older SQLite catalogue is kept beside it as NAME.before-REVISION-was-REVISION. A
    current SQLite catalogue in a read-only place can be read.

    Args:
        text: An SQLAlchemy URL or the path of an SQLite file.
        must_exist: Raise an error instead of creating an SQLite file.

    Raises:
        BadInput: It does not exist, or is a URL of an unknown kind.
        Failure: It cannot be read or written, is damaged, or was written by a newer version. The
            sessions raise it too.
    """
    url = catalogue_url(text)
    if must_exist:
        _check_exists(url)
    engine = _engine(url)
    if engine.dialect.name == "sqlite":
        is_read_only = bool(engine.url.query)
        sa.event.listen(engine, "connect", _set_read_pragmas if is_read_only else _set_pragmas)
        sa.event.listen(engine, "begin", _begin)

    def explain(context: ExceptionContext) -> None:
        error = context.original_exception
        if _remedy(error):
            raise _failure(url, error) from error

    sa.event.listen(engine, "handle_error", explain)
    try:
        _migrate(engine, url)
    # SQLite's messages may quote a damaged schema, which is not UTF-8.
    except (SQLAlchemyError, sqlite3.Error, UnicodeDecodeError) as error:
        raise _failure(url, error) from error
    return Sessions(engine, class_=_CatalogueSession, expire_on_commit=False)


def _engine(url: sa.URL) -> sa.Engine:
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite and (mode := _read_only_mode(Path(str(url.database)))):
        path = quote(str(Path(str(url.database)).absolute()))
        url = url.set(database=f"file:{path}", query={**mode, "uri": "true"})
    try:
        # The server may have closed a pooled connection.
        return sa.create_engine(url, pool_pre_ping=not is_sqlite)
    except ImportError as error:
        raise BadInput(
            f"--catalogue {_shown(url)}: {first_line(error)}; for PostgreSQL:"
            " pip install 'fashion-tagger[postgres]'"
        ) from error


def _read_only_mode(path: Path) -> dict[str, str]:
    """Return SQLite's parameters for a file that cannot be written; otherwise an empty dict."""
    if not path.is_file() or all(os.access(place, os.W_OK) for place in (path, path.parent)):
        return {}
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        if not path.with_name(f"{path.name}-shm").exists():
            raise Failure(
                f"the catalogue {path} was not closed and cannot be read in a read-only place; copy"
                f" it with {log.name} to a folder that can be written"
            )
        return {"mode": "ro"}
    # Without a write-ahead log no other process writes; SQLite would create one to read.
    return {"immutable": "1"}


def _failure(url: sa.URL, error: BaseException) -> Failure:
    reason = replace_control_characters(first_line(getattr(error, "orig", None) or error))
    default = DAMAGED if isinstance(error, UnicodeDecodeError) else UNREACHABLE
    remedy = _remedy(error) or default
    return Failure(f"catalogue {_shown(url)}: {reason}; {remedy}")


def _remedy(error: BaseException) -> str | None:
    """Return the remedy for an error of the database; None for an unexpected error."""
    text = str(error)
    return next((remedy for words, remedy in REMEDIES.items() if words in text), None)


def _check_exists(url: sa.URL) -> None:
    name = url.database
    is_file = url.get_backend_name() == "sqlite" and name not in (None, "", ":memory:")
    if is_file and not Path(str(name)).exists():
        raise BadInput(
            f"there is no catalogue at {name}; crawl first (crawl lamoda --tags polo), or name"
            " another with --catalogue"
        )


def _set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    # sqlite3 would start no transaction before changes of tables; `_begin` does.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "foreign_keys = ON",
        "synchronous = FULL",
        f"cache_size = -{CACHE_KB}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _set_read_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    connection.execute(f"PRAGMA cache_size = -{CACHE_KB}")


def _begin(connection: sa.Connection) -> None:
    mode = connection.get_execution_options().get("sqlite_begin", "")
    connection.exec_driver_sql(f"BEGIN {mode}")


def _migrate(engine: sa.Engine, url: sa.URL) -> None:
    tables = sa.inspect(engine).get_table_names()
    revision = _revision(engine) if "alembic_version" in tables else None
    if revision == HEAD:
        return
    if revision is None and tables:
        raise Failure(
            f"{_shown(url)} has tables ({', '.join(tables[:3])} …) but is not"
            " a catalogue of fashion-tagger; name another file with --catalogue"
        )
    if revision is not None:
        _check_not_newer(revision, url)
    if engine.url.query and engine.dialect.name == "sqlite":
        raise Failure(
            f"the catalogue {_shown(url)} is of an earlier version and must be migrated,"
            f" but {READ_ONLY}"
        )
    if revision is not None:
        _back_up(url, revision)
    _upgrade(engine)


def _revision(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        return connection.scalar(sa.text("SELECT version_num FROM alembic_version"))


def _check_not_newer(revision: str, url: sa.URL) -> None:
    known = {path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")}
    if revision not in known:
        raise Failure(
            f"the catalogue {_shown(url)} was written by a newer fashion-tagger"
            f" (its revision is {revision}, ours is {HEAD}); upgrade: pip install -U fashion-tagger"
        )


def _back_up(url: sa.URL, revision: str) -> None:
    """Copy an SQLite file with its backup API, which includes the write-ahead log."""
    if url.get_backend_name() != "sqlite":
        return
    source = Path(str(url.database))
    copy_path = source.with_name(f"{source.name}.before-{HEAD}-was-{revision}")
    if copy_path.exists():
        copy_path = copy_path.with_name(f"{copy_path.name}-{datetime.now():%Y%m%d%H%M%S}")
    with sqlite3.connect(source) as original, sqlite3.connect(copy_path) as copy:
        original.backup(copy)
    original.close()
    copy.close()


def _upgrade(engine: sa.Engine) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    # Of two processes that migrate at once, the second one waits and finds nothing to do.
    with engine.execution_options(**WRITE_OPTIONS).begin() as connection:
        _lock_for_writing(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def overwrite_journal(sessions: Sessions) -> None:
    """Remove deleted data from SQLite's write-ahead log, unless another process is reading it."""
    engine: sa.Engine = sessions.kw["bind"]
    if engine.dialect.name == "sqlite":
        connection = engine.raw_connection()
        connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.close()
