"""The schema of the database: which one it has, whether it is ours, and the upgrade, which one process does at a time.

Programs one step apart may run side by side, in any order, so that a release can be rolled out and back: a step only
adds what the older program does not miss, and is numbered after the one before.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from catalog.errors import SchemaAhead, SchemaBehind, StoreUnavailable
from catalog.sql.engines import is_sqlite, parse_url, sqlstate, sync_engine, translated

# Any number, the same in every program: the advisory lock of those who upgrade. ("fairway" in ASCII)
UPGRADE_LOCK = 0x66616972776179
# How long to wait for another upgrade. Longer than a step takes on 100,000 nodes; an orchestrator restarts us anyway.
WAIT_SECONDS = 60.0
# Between two looks at the lock. One statement each.
LOOK_SECONDS = 0.1
# Alembic's context is one for the whole process, whatever its threads upgrade.
_alembic = threading.Lock()
# undefined_function, feature_not_supported: a database that has no advisory locks.
NO_LOCKS = {"42883", "0A000"}


@cache
def steps() -> tuple[str, ...]:
    """The schemas that this program knows, oldest first; it needs the last."""
    return tuple(script.revision for script in reversed(list(_scripts().walk_revisions())))


def head() -> str:
    """The schema that this program needs."""
    return steps()[-1]


def current(url: str) -> str | None:
    """The schema that the database has; None where it has none. StoreUnavailable."""
    parsed = parse_url(url)
    if not file_exists(parsed):
        return None
    with _translating(parsed), _connected(parsed, "BEGIN") as connection:
        return current_of(connection)


def check(url: str) -> None:
    """SchemaBehind or SchemaAhead unless the database has the schema that this program needs, or the next one.

    StoreUnavailable.
    """
    check_current(current(url), parse_url(url))


def check_current(found: str | None, url: URL, known: Sequence[str] | None = None) -> None:
    """The same, of a schema that was read already; `known` as `steps()`, the default."""
    known = known or steps()
    where = url.render_as_string(hide_password=True)
    if found is None:
        raise SchemaBehind(f"{where} holds no catalog yet; create it with: fairway db upgrade")
    if found == known[-1] or _is_next(found, known[-1]):
        return
    if found in known:
        raise SchemaBehind(
            f"{where} has schema {found}, this program needs {known[-1]}; bring it up to date with: fairway db upgrade"
        )
    raise SchemaAhead(
        f"{where} has schema {found}, which this program does not know (it knows up to {known[-1]}, and runs beside "
        "one step more); "
        "upgrade this program to the version that the other replicas run"
    )


def _is_next(found: str, head: str) -> bool:
    """Whether a schema is one step after a program's own, of the program that is being rolled out beside it."""
    return found.isdecimal() and head.isdecimal() and int(found) == int(head) + 1


def current_of(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def file_exists(url: URL) -> bool:
    """False where a SQLite file would only be made by opening it."""
    name = url.database or ""
    return not is_sqlite(url) or name.startswith("file:") or Path(name).exists()


def upgrade(url: str, *, wait_seconds: float = WAIT_SECONDS) -> bool:
    """Brings the schema up to date in one transaction; False where it was, or is one step ahead.

    SchemaAhead, StoreUnavailable. Of several processes at once, one applies and the others wait for it, `wait_seconds`
    at most.
    """
    parsed = parse_url(url)
    until = time.monotonic() + wait_seconds
    with _translating(parsed):
        if is_sqlite(parsed):
            _write_ahead(parsed, until)
        try:
            return _upgrade(parsed, until, locked=True)
        except DBAPIError as error:
            if sqlstate(error) not in NO_LOCKS:
                raise
        # Without the lock, whoever comes second fails on the first table, and finds it done.
        try:
            return _upgrade(parsed, until, locked=False)
        except DBAPIError:
            if current(url) != head():
                raise
            return False


def _upgrade(url: URL, until: float, *, locked: bool) -> bool:
    # SQLite's lock is the file's own, which the transaction takes when it begins.
    with _connected(url, "BEGIN IMMEDIATE", until) as connection:
        if locked and not is_sqlite(url):
            _lock(connection, url, until)
        found = current_of(connection)
        if found is not None and (found == head() or _is_next(found, head())):
            return False
        if found is not None:
            # Behind is what we came for; ahead goes up.
            with suppress(SchemaBehind):
                check_current(found, url)
        config = _config()
        config.attributes["connection"] = connection
        with _alembic:
            command.upgrade(config, "head")
        connection.commit()
        return True


def _lock(connection: Connection, url: URL, until: float) -> None:
    # Held until the transaction ends, and so also behind a pooler that lends a session for one transaction only.
    while not connection.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK}).scalar_one():
        if time.monotonic() >= until:
            raise StoreUnavailable(
                f"{url.render_as_string(hide_password=True)} is being upgraded by another process, which did not end "
                "in time; see what it waits for (pg_stat_activity), then run again: fairway db upgrade"
            )
        time.sleep(LOOK_SECONDS)


def _write_ahead(url: URL, until: float) -> None:
    """Puts the file into WAL mode, which it keeps: readers do not wait for the writer then."""
    while True:
        try:
            with sqlite3.connect(
                url.database or "",
                timeout=max(0.0, until - time.monotonic()),
                uri=(url.database or "").startswith("file:"),
            ) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
            connection.close()
            return
        except sqlite3.OperationalError as error:
            # This one statement does not wait for locks, whatever the timeout.
            busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() >= until:
                raise
        time.sleep(LOOK_SECONDS)


@contextmanager
def _connected(url: URL, begin: str, until: float | None = None) -> Iterator[Connection]:
    seconds = WAIT_SECONDS if until is None else max(0.0, until - time.monotonic())
    engine = sync_engine(url, lock_seconds=seconds, begin=begin)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _translating(url: URL) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        known = translated(error, url)
        if known is None:
            raise
        raise known from error


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    # Alembic reads options through configparser, to which % is special.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    # One path, though other systems would split it at colons and blanks.
    config.set_main_option("path_separator", "newline")
    return config
