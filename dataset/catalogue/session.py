"""Opening a catalogue: made, brought up to date, or refused when it is newer than we are."""

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from dataset.errors import BadInput, Failure, first_line

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
# The newest revision in migrations/versions: known here so that Alembic loads only when needed.
HEAD = "0014"
BUSY_TIMEOUT_MS = 30_000
# Of each connection: a crawl takes more memory until it is full.
CACHE_KB = 16_000
POSTGRESQL = "postgresql+psycopg"
# How a transaction that writes begins on SQLite, and the lock that writers share on PostgreSQL.
WRITES = {"sqlite_begin": "IMMEDIATE"}
WRITERS = 20_261_125
DAMAGED = "the file is not a catalogue or is damaged; name another one with --catalogue"
FULL = "nothing that was finished is lost: make room, then repeat the command"
# Words of SQLite's and psycopg's -> what to do.
REMEDIES = {
    "not a database": DAMAGED,
    "malformed": DAMAGED,
    "locked": "another program holds it; try again when that one has ended",
    "disk is full": FULL,
    "disk I/O error": FULL,
    "readonly database": "the file or its folder can't be written; make it so, or name another"
    " with --catalogue",
    "No space left": FULL,
    "connection failed": "check that the server runs, its address, user, password and database",
    "connection is": "check that the server runs, then repeat the command",
    "terminating connection": "check that the server runs, then repeat the command",
    "unable to open": "check that the folder exists and can be written",
}


class Sessions(sessionmaker[Session]):
    """Makes sessions on a catalogue. Those of `begin` write, and one at a time does.

    They queue before they read, so that what they read still holds when they write.
    """

    @contextlib.contextmanager
    def begin(self) -> Iterator[Session]:
        """A session whose transaction is committed at the end."""
        with super().begin() as session:
            _queue(session.connection(execution_options=WRITES))
            yield session


def _queue(connection: sa.Connection) -> None:
    """Wait until nobody else writes; SQLite does so by itself in a transaction that WRITES."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITERS)))


def catalogue_url(text: str) -> sa.URL:
    """TEXT, an SQLAlchemy URL or the path of an SQLite file, as a URL.

    Raises:
        BadInput: TEXT is a URL that SQLAlchemy does not know.
    """
    if "://" not in text:
        return sa.URL.create("sqlite", database=text)
    try:
        url = sa.make_url(text.replace("postgres://", "postgresql://", 1))
        url.get_dialect()
    except ImportError:
        # Told when it is opened, with the remedy.
        pass
    except (ArgumentError, NoSuchModuleError) as error:
        raise BadInput(
            f"--catalogue {_without_password(text)}: not a catalogue's address; name an SQLite file"
            " (catalogue.sqlite) or an SQLAlchemy URL (postgresql://me@host/photos)"
        ) from error
    # psycopg is the driver that we depend on; SQLAlchemy's own choice is an older one.
    return url.set(drivername=POSTGRESQL) if url.drivername == "postgresql" else url


def _without_password(text: str) -> str:
    """TEXT without what may stand between // and @."""
    scheme, _, rest = text.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def open_catalogue(text: str, must_exist: bool = False) -> Sessions:
    """Sessions on the catalogue TEXT (see `catalogue_url`), its tables brought up to date.

    An older SQLite catalogue is copied aside first, to NAME.before-REVISION.

    Raises:
        BadInput: no catalogue there and MUST_EXIST, or not a catalogue's address.
        Failure: it can't be read or written, is damaged, or was made by a newer program; the
            sessions raise it too, whenever it comes to that.
    """
    url = catalogue_url(text)
    if must_exist:
        _refuse_missing(url)
    engine = _engine(url)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _set_pragmas)
        sa.event.listen(engine, "begin", _begin)

    def explain(context: ExceptionContext) -> None:
        error = context.original_exception
        if _remedy(error):
            raise _failure(url, error) from error

    sa.event.listen(engine, "handle_error", explain)
    try:
        _bring_up_to_date(engine, url)
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise _failure(url, error) from error
    return Sessions(engine, expire_on_commit=False)


def _engine(url: sa.URL) -> sa.Engine:
    try:
        # One that a server closed meanwhile is opened again.
        return sa.create_engine(url, pool_pre_ping=url.get_backend_name() != "sqlite")
    except ImportError as error:
        raise BadInput(
            f"--catalogue {url.render_as_string()}: {first_line(error)}; for PostgreSQL:"
            " pip install 'fashion-tagger[postgres]'"
        ) from error


def _failure(url: sa.URL, error: BaseException) -> Failure:
    reason = first_line(getattr(error, "orig", None) or error)
    remedy = _remedy(error) or "check that the folder exists and can be written"
    return Failure(f"catalogue {url.render_as_string()}: {reason}; {remedy}")


def _remedy(error: BaseException) -> str | None:
    """What to do about ERROR of a database; None where it may be a fault of ours."""
    text = str(error)
    return next((remedy for sign, remedy in REMEDIES.items() if sign in text), None)


def _refuse_missing(url: sa.URL) -> None:
    name = url.database
    is_file = url.get_backend_name() == "sqlite" and name not in (None, "", ":memory:")
    if is_file and not Path(str(name)).exists():
        raise BadInput(
            f"there is no catalogue at {name}; crawl first (crawl lamoda --tags polo), or name"
            " another with --catalogue"
        )


def _set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    # The driver's own BEGIN leaves out table changes, which must be all or nothing: see _begin.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "foreign_keys = ON",
        "synchronous = FULL",
        f"cache_size = -{CACHE_KB}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    mode = connection.get_execution_options().get("sqlite_begin", "")
    connection.exec_driver_sql(f"BEGIN {mode}")


def _bring_up_to_date(engine: sa.Engine, url: sa.URL) -> None:
    tables = sa.inspect(engine).get_table_names()
    revision = _revision(engine) if "alembic_version" in tables else None
    if revision == HEAD:
        return
    if revision is None and tables:
        raise Failure(
            f"{url.render_as_string()} holds tables ({', '.join(tables[:3])} …) but is no"
            " catalogue of fashion-tagger; name another file with --catalogue"
        )
    if revision is not None:
        _refuse_newer(revision, url)
        _copy_aside(url, revision)
    _upgrade(engine)


def _revision(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        return connection.scalar(sa.text("SELECT version_num FROM alembic_version"))


def _refuse_newer(revision: str, url: sa.URL) -> None:
    known = {path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")}
    if revision not in known:
        raise Failure(
            f"the catalogue {url.render_as_string()} was made by a newer fashion-tagger (its"
            f" revision is {revision}, ours is {HEAD}); upgrade: pip install -U fashion-tagger"
        )


def _copy_aside(url: sa.URL, revision: str) -> None:
    """Copy an SQLite file through its own backup, so that what the WAL holds comes along."""
    if url.get_backend_name() != "sqlite":
        return
    source = Path(str(url.database))
    aside = source.with_name(f"{source.name}.before-{HEAD}-was-{revision}")
    if aside.exists():
        aside = aside.with_name(f"{aside.name}-{datetime.now():%Y%m%d%H%M%S}")
    with sqlite3.connect(source) as old, sqlite3.connect(aside) as new:
        old.backup(new)
    old.close()
    new.close()


def _upgrade(engine: sa.Engine) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    # Another process may be at it: the one that comes second finds nothing left to do.
    with engine.execution_options(**WRITES).begin() as connection:
        _queue(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def overwrite_journal(sessions: Sessions) -> None:
    """Leave nothing of what was deleted in SQLite's write-ahead log, unless others read it now."""
    engine: sa.Engine = sessions.kw["bind"]
    if engine.dialect.name == "sqlite":
        connection = engine.raw_connection()
        connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.close()
