"""Transactions with an end: each gets an answer or an error of `catalog.errors` in the time that it was given."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import URL, func, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from catalog.changes import Entry
from catalog.errors import CatalogError, StoreUnavailable
from catalog.records import encode
from catalog.sql.engines import is_disconnect, is_repeatable, is_sqlite, reader_engine, translated, writer_engine
from catalog.sql.news import CHANNEL
from catalog.sql.tables import changes, owners

T = TypeVar("T")

# A lost connection or another transaction in the way is met again at once; more often, and it is no accident.
ATTEMPTS = 3
# How long writes of this process queue for their turn while the database does answer.
QUEUE_SECONDS = 10.0
# Errors of drivers and of the network. sqlite3's own come from setting up a connection.
DRIVER_ERRORS = (SQLAlchemyError, sqlite3.Error, OSError)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `write` bounds a transaction of one resource; larger ones get more, see `SqlStore.put`."""

    write: float = 1.0
    read: float = 30.0
    # Between two looks for changes of other processes, where nothing notifies.
    poll: float = 0.25


@dataclass(frozen=True, slots=True)
class Written(Generic[T]):
    """What a write's work came to: its answer, and the entries that it put into the log."""

    answer: T
    entries: tuple[Entry, ...] = ()


class Sessions:
    """Reads and writes of one owner's rows. Writes of a process go one by one, as the owner's row would make them."""

    def __init__(self, url: URL, *, owner: str, timeouts: Timeouts, connections: int) -> None:
        self.url = url
        self.owner = owner
        self.incarnation = ""
        self.notifies = False
        self.timeouts = timeouts
        self.writer = writer_engine(url, lock_seconds=timeouts.write, connections=connections)
        self.reader = reader_engine(url, self.writer, lock_seconds=timeouts.read)
        self._turn = asyncio.Lock()
        # Connections that came too late, on their way back to the pool.
        self._closing: set[asyncio.Task[None]] = set()
        # The failures to reach the database, counted, and the last one.
        self._outages = 0
        self._outage: CatalogError = StoreUnavailable("the catalog was not asked yet")

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]], *, seconds: float | None = None) -> T:
        """What the work reads, all of it at one time."""
        until = self._until(self.timeouts.read if seconds is None else seconds)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self._connected(self.reader, until) as connection:
                    return await work(connection)
            except DRIVER_ERRORS as error:
                if attempt == ATTEMPTS or not _again(error, until):
                    raise self._failure(error) from error
        raise AssertionError("the last attempt returns or raises")

    async def write(
        self, work: Callable[[AsyncConnection, int], Awaitable[Written[T]]], *, more_seconds: float = 0.0
    ) -> Written[T]:
        """Commits what the work writes after the owner's revision, which it is given. What it raises passes through.

        Who is cancelled when it has begun waits for its end, and does not learn whether it was committed.
        """
        outages = self._outages
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            raise StoreUnavailable(
                f"{self._where} is slow: this write waited {QUEUE_SECONDS:.0f} s for those before it and was not begun"
            ) from None
        try:
            # Who queued behind a write that failed so need not find out again, a timeout each.
            if outages != self._outages:
                raise type(self._outage)(str(self._outage))
            return await _to_its_end(self._attempts(work, self.timeouts.write + more_seconds))
        except StoreUnavailable as error:
            self._outages += 1
            self._outage = error
            raise
        finally:
            self._turn.release()

    async def begin(self, incarnation: str) -> None:
        """Stores the owner's row, unless another replica did."""
        row = {"owner": self.owner, "revision": 0, "incarnation": incarnation, "compacted_revision": 0}
        try:
            async with self._connected(self.writer, self._until(self.timeouts.write)) as connection:
                await connection.execute(insert(owners), [row])
                await connection.commit()
        except IntegrityError:
            return
        except DRIVER_ERRORS as error:
            raise self._failure(error) from error

    async def close(self) -> None:
        await self.writer.dispose()
        await self.reader.dispose()

    async def _attempts(
        self, work: Callable[[AsyncConnection, int], Awaitable[Written[T]]], seconds: float
    ) -> Written[T]:
        until = self._until(seconds)
        # A write whose commit was sent and not answered: it may stand in the log.
        doubted: Written[T] | None = None
        for attempt in range(1, ATTEMPTS + 1):
            written: Written[T] | None = None
            try:
                async with self._connected(self.writer, until) as connection:
                    revision = await self._lock(connection, seconds)
                    if doubted is not None and await self._is_committed(connection, doubted):
                        return doubted
                    made = await work(connection, revision)
                    if made.entries:
                        await self._advance(connection, made.entries[-1].revision)
                    written = made
                    await connection.commit()
                    return made
            except DRIVER_ERRORS as error:
                lost = is_disconnect(error) or isinstance(error, TimeoutError)
                if written is not None and written.entries and lost:
                    doubted = written
                if attempt == ATTEMPTS or not _again(error, until):
                    raise self._failure(error, doubtful=doubted is not None) from error
        raise AssertionError("the last attempt returns or raises")

    async def _lock(self, connection: AsyncConnection, seconds: float) -> int:
        """Locks the owner's row until the transaction ends; answers the revision."""
        if not is_sqlite(self.url):
            # The first ends what waits for a lock, before we hang up, so that the error can say so; the second frees
            # our lock should this process be stopped half way.
            milliseconds = max(1, round(seconds * 800))
            await connection.exec_driver_sql(
                f"SET LOCAL statement_timeout = {milliseconds}; "
                f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds}"
            )
        row = (
            await connection.execute(
                select(owners.c.revision, owners.c.incarnation).where(owners.c.owner == self.owner).with_for_update()
            )
        ).one_or_none()
        if row is None or row.incarnation != self.incarnation:
            raise StoreUnavailable(
                f"{self._where}: the catalog of owner {self.owner!r} was replaced while this process ran; "
                "restart it, so that it reads the new one; nothing was written"
            )
        return int(row.revision)

    async def _advance(self, connection: AsyncConnection, revision: int) -> None:
        statement = update(owners).where(owners.c.owner == self.owner).values(revision=revision)
        if self.notifies:
            await connection.execute(statement.returning(func.pg_notify(CHANNEL, self.owner)))
        else:
            await connection.execute(statement)

    async def _is_committed(self, connection: AsyncConnection, written: Written[T]) -> bool:
        # The lock was ours again, so that the earlier transaction has ended one way or the other.
        last = written.entries[-1]
        body = await connection.execute(
            select(changes.c.body).where(
                changes.c.owner == self.owner,
                changes.c.revision == last.revision,
                changes.c.kind == last.kind.value,
                changes.c.name == last.name,
            )
        )
        found = body.one_or_none()
        return found is not None and found.body == (None if last.after is None else encode(last.after))

    @asynccontextmanager
    async def _connected(self, engine: AsyncEngine, until: float) -> AsyncIterator[AsyncConnection]:
        """A connection that fails when its time is over, whatever it is waiting for then."""
        loop = asyncio.get_running_loop()
        connection = await self._connection(engine, until)
        end = loop.call_at(until, _hang_up, connection)
        try:
            yield connection
        except DBAPIError as error:
            if loop.time() >= until and is_disconnect(error):
                raise TimeoutError("no answer in time") from error
            raise
        finally:
            try:
                await _to_its_end(connection.close())
            finally:
                end.cancel()

    async def _connection(self, engine: AsyncEngine, until: float) -> AsyncConnection:
        """Waits for a connection, and gives it back if it comes when nobody waits any more.

        Interrupted half way, the driver would lose one that the pool had handed out.
        """
        connecting = asyncio.ensure_future(_connect(engine))
        try:
            async with asyncio.timeout_at(until):
                return await asyncio.shield(connecting)
        except TimeoutError:
            connecting.add_done_callback(self._give_back)
            raise TimeoutError("no connection in time") from None
        except asyncio.CancelledError:
            connecting.add_done_callback(self._give_back)
            raise

    def _give_back(self, connecting: asyncio.Task[AsyncConnection]) -> None:
        if not connecting.cancelled() and connecting.exception() is None:
            closing = asyncio.ensure_future(connecting.result().close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _failure(self, error: Exception, *, doubtful: bool = False) -> Exception:
        known = translated(error, self.url)
        if known is None:
            return error
        if doubtful:
            return StoreUnavailable(
                f"{known} (the connection broke during the commit: this write may have been stored; "
                "repeat it, best with the same request_id)"
            )
        return known

    def _until(self, seconds: float) -> float:
        return asyncio.get_running_loop().time() + seconds

    @property
    def _where(self) -> str:
        return self.url.render_as_string(hide_password=True)


async def _connect(engine: AsyncEngine) -> AsyncConnection:
    return await engine.connect()


async def _to_its_end(work: Awaitable[T]) -> T:
    """The work's answer; who is cancelled meanwhile waits for its end all the same.

    A driver that is interrupted half way drops its connection when it comes to it, and holds its locks until then.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except BaseException:  # the work's own, raised again below
            break
    if cancelled is not None:
        # The caller's own, by which who cancelled knows it.
        raise cancelled
    return task.result()


def _again(error: Exception, until: float) -> bool:
    return (is_repeatable(error) or is_disconnect(error)) and asyncio.get_running_loop().time() < until


def _hang_up(connection: AsyncConnection) -> None:
    """Ends a connection of PostgreSQL from our side, so that whoever waits for it gets an error now.

    Cancelling would ask the server to cancel, and wait up to 10 s for the answer of one that does not answer.
    SQLite's waits are bounded by its own timeout.
    """
    own = connection.sync_connection
    if own is None or own.closed or own.invalidated:
        return
    driver = own.connection.driver_connection
    pgconn = getattr(driver, "pgconn", None)
    if pgconn is None or pgconn.status != 0:  # CONNECTION_OK
        return
    # Through a copy of the descriptor: psycopg keeps and closes its own.
    with suppress(OSError), socket.socket(fileno=os.dup(pgconn.socket)) as line:
        line.shutdown(socket.SHUT_RDWR)
