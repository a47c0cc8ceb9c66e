"""Which driver speaks to which database, how its connections are set up, and what its errors mean.

Everything that differs between SQLite and PostgreSQL, but for the lock of `schema.py`, is in this file.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, TimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from catalog.errors import CatalogError, StoreReadOnly, StoreUnavailable

# Readers of a SQLite file do not wait for the writer (WAL); each is a thread.
SQLITE_READERS = 4

# How long a command waits for a connection; a person looks on. libpq knows whole seconds, 2 at least.
TOOL_CONNECT_SECONDS = 5

# How long a place in the pool is taken by a try to reach a database that does not answer; who asks gives up earlier.
SERVER_CONNECT_SECONDS = 2

# PostgreSQL SQLSTATEs, https://www.postgresql.org/docs/current/errcodes-appendix.html
READ_ONLY = {"25006"}
DISK_FULL = {"53100"}
LOCKED = {"55P03", "57014"}
REPEATABLE = {"40001", "40P01", "23505"}
# Connection exceptions, too many connections, and an operator's shutdown.
AWAY = ("08", "53", "57P")


def parse_url(url: str) -> URL:
    """`sqlite:///FILE` or `postgresql://…`; ValueError, without the password, for anything else."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(
            "store.url cannot be read; write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE "
            "(percent-encode reserved characters in a password)"
        ) from None
    dialect = parsed.drivername.partition("+")[0]
    if dialect == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise ValueError("store.url names no file: write sqlite:///FILE (sqlite:////FILE for an absolute path)")
        return parsed.set(drivername="sqlite")
    if dialect in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql")
    raise ValueError(f"store.url starts with {parsed.drivername}://; write sqlite:///FILE or postgresql://…")


def is_sqlite(url: URL) -> bool:
    return url.drivername == "sqlite"


def sync_engine(url: URL, *, lock_seconds: float, begin: str = "BEGIN") -> Engine:
    """An engine for tools that work through one connection; `begin` is how SQLite begins a transaction."""
    if is_sqlite(url):
        engine = create_engine(url, connect_args=_sqlite_arguments(lock_seconds))
        _set_up_sqlite(engine, lock_seconds, begin=begin)
        return engine
    with _psycopg_needed():
        return create_engine(
            url.set(drivername="postgresql+psycopg"),
            use_native_hstore=False,
            connect_args={"prepare_threshold": None, "connect_timeout": TOOL_CONNECT_SECONDS},
        )


def writer_engine(url: URL, *, lock_seconds: float, connections: int) -> AsyncEngine:
    """The engine that writes; on PostgreSQL it reads, too.

    SQLite: one connection, whose transactions take the file's write lock when they begin.
    """
    if is_sqlite(url):
        return _sqlite_engine(url, lock_seconds, connections=1, begin="BEGIN IMMEDIATE")
    with _psycopg_needed():
        engine = create_async_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_size=connections,
            max_overflow=0,
            pool_timeout=lock_seconds,
            # Else the first connection asks for the types of an extension that we do not use.
            use_native_hstore=False,
            # Prepared statements live in a session, which a pooler in transaction mode does not keep.
            connect_args={"prepare_threshold": None, "connect_timeout": SERVER_CONNECT_SECONDS},
        )
    logging.getLogger("sqlalchemy.pool.impl.AsyncAdaptedQueuePool").addFilter(_is_news)
    return engine


def _is_news(record: logging.LogRecord) -> bool:
    # Of a connection that broke or was hung up the caller learns; that its cursor did not close either is no news.
    return record.msg != "Error closing cursor"


def reader_engine(url: URL, writer: AsyncEngine, *, lock_seconds: float) -> AsyncEngine:
    """The engine whose transactions read everything at one time. On PostgreSQL it shares the writer's connections."""
    if is_sqlite(url):
        return _sqlite_engine(url, lock_seconds, connections=SQLITE_READERS, begin="BEGIN")
    return writer.execution_options(isolation_level="REPEATABLE READ")


@contextmanager
def _psycopg_needed() -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise CatalogError("PostgreSQL needs its driver; install it with: pip install 'fairway[postgres]'") from None


def _sqlite_engine(url: URL, lock_seconds: float, *, connections: int, begin: str) -> AsyncEngine:
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=lock_seconds,
        connect_args=_sqlite_arguments(lock_seconds),
    )
    _set_up_sqlite(engine.sync_engine, lock_seconds, begin=begin)
    return engine


def _sqlite_arguments(lock_seconds: float) -> dict[str, object]:
    # No isolation level: the driver begins no transactions of its own, and those below begin as they say.
    return {"isolation_level": None, "timeout": lock_seconds}


def _set_up_sqlite(engine: Engine, lock_seconds: float, *, begin: str) -> None:
    def connected(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {round(lock_seconds * 1000)}")
        # In WAL mode, NORMAL would lose acknowledged writes when the power fails.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)


def sqlstate(error: BaseException) -> str:
    """The SQLSTATE of a PostgreSQL error; empty where there is none."""
    return getattr(error.orig, "sqlstate", None) or "" if isinstance(error, DBAPIError) else ""


def is_repeatable(error: BaseException) -> bool:
    """Whether another transaction stood in the way, and the same work may well succeed now.

    Unique violations count: an owner of the same database took the name between our look and our write.
    """
    return sqlstate(error) in REPEATABLE


def is_disconnect(error: BaseException) -> bool:
    """Whether the connection was lost, rather than never made."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def translated(error: Exception, url: URL) -> CatalogError | None:
    """What a driver's error means to callers; None where it is a bug of ours."""
    where = url.render_as_string(hide_password=True)
    if isinstance(error, TimeoutError):
        return StoreUnavailable(f"{where} did not answer in time: it or its machine is too busy; nothing was written")
    # A connection that fails before SQLAlchemy holds it comes as the driver raised it.
    cause: BaseException = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if isinstance(cause, sqlite3.Error):
        return _from_sqlite(cause, where, url.database or "")
    state = getattr(cause, "sqlstate", None) or ""
    if state in READ_ONLY:
        return StoreReadOnly(f"{where} refuses writes (a standby, or default_transaction_read_only): {_line(cause)}")
    if state in DISK_FULL:
        return StoreReadOnly(f"{where} has no disk space left; free some on the database's machine: {_line(cause)}")
    if state in LOCKED:
        return StoreUnavailable(
            f"{where} did not get a lock or an answer in time; another session may hold the owner's row "
            f"(look at pg_stat_activity for 'idle in transaction'); nothing was written: {_line(cause)}"
        )
    if state in REPEATABLE:
        return StoreUnavailable(f"{where}: other writers stood in the way each time; repeat the write: {_line(cause)}")
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    away = state.startswith(AWAY) or (not state and not kinds.isdisjoint(("OperationalError", "InterfaceError")))
    if away or is_disconnect(error) or isinstance(cause, OSError):
        return StoreUnavailable(f"{where} does not answer: {_line(cause)}")
    return None


def _from_sqlite(error: sqlite3.Error, where: str, file: str) -> CatalogError | None:
    # Extended codes hold the primary one in their lowest byte.
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreUnavailable(
                f"{where} is locked by another process: a second `fairway serve` on the same file, a backup, or a "
                f"sqlite3 shell with an open transaction (`fuser {file}` names it); nothing was written"
            )
        case sqlite3.SQLITE_READONLY:
            return StoreReadOnly(
                f"{where} is read-only ({error}); make the file and its directory writable for this user"
            )
        case sqlite3.SQLITE_FULL:
            return StoreReadOnly(f"{where} cannot grow: the disk or its quota is full; free some space")
        case sqlite3.SQLITE_CANTOPEN:
            return StoreUnavailable(f"{where} cannot be opened; check that its directory exists and is writable")
        case sqlite3.SQLITE_IOERR:
            return StoreUnavailable(f"{where} cannot be read or written: {error}; check the disk")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreUnavailable(f"{where} is damaged or no SQLite database ({error}); restore a backup")
        case _:
            return None


def _line(error: BaseException) -> str:
    """The driver's own words, on one line."""
    return " ".join(str(error).split())
