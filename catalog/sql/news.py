"""Waking those who wait for changes: at once for writes of this process, soon for those of others.

One task a store asks the database for its revision while somebody waits, however many wait. A notification of
PostgreSQL only makes it ask earlier; where there are none (SQLite, a pooler in transaction mode, another database)
asking alone is enough.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from catalog.errors import StoreUnavailable

logger = logging.getLogger(__name__)

CHANNEL = "fairway"
# How long after a failed LISTEN the next is tried. Meanwhile asking goes on, so that nothing is late but by a poll.
LISTEN_AGAIN_SECONDS = 30.0

Pause = Callable[[float], Awaitable[None]]


class News:
    """The newest revision that is known, and who waits for a newer one.

    `read` asks the database, `pause` returns after the given seconds or earlier. Starts its task at the first wait.
    """

    def __init__(self, read: Callable[[], Awaitable[int]], pause: Pause, *, poll_seconds: float) -> None:
        self._read = read
        self._pause = pause
        self._poll_seconds = poll_seconds
        self._revision = 0
        self._advanced = asyncio.Event()
        self._waiting = 0
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def advance(self, revision: int) -> None:
        """Wakes whoever waits for a revision up to this one."""
        if revision > self._revision:
            self._revision = revision
            self._advanced.set()
            self._advanced = asyncio.Event()

    async def wait(self, after_revision: int, timeout_seconds: float) -> None:
        """Returns when a revision after the given one is known, or at the latest after the timeout."""
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._follow(), name="catalog news")
        self._waiting += 1
        self._wanted.set()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    while self._revision <= after_revision and not self._closed:
                        await self._advanced.wait()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._wanted.clear()
        # A caller that loops gives way to others even where there is always news.
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Ends the task and every wait; idempotent."""
        self._closed = True
        self._advanced.set()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self) -> None:
        while True:
            await self._wanted.wait()
            try:
                self.advance(await self._read())
            except StoreUnavailable as error:
                # Those who wait go by their timeouts; reads and writes say what is wrong.
                logger.debug("no news from the catalog: %s", error)
            except Exception:
                logger.exception("asking the catalog for its revision failed; asking again")
            await self._pause(self._poll_seconds)


class Listener:
    """Pauses that a notification of PostgreSQL ends early. Keeps one connection besides the pool."""

    def __init__(self, engine: AsyncEngine, *, connect_seconds: float) -> None:
        self._engine = engine
        self._connect_seconds = connect_seconds
        self._connection: Any = None
        self._again = 0.0

    async def pause(self, seconds: float) -> None:
        """Returns at the next notification, or after the seconds."""
        import psycopg

        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        try:
            if self._connection is None and loop.time() >= self._again:
                self._again = loop.time() + LISTEN_AGAIN_SECONDS
                async with asyncio.timeout(self._connect_seconds):
                    self._connection = await self._listen()
            if self._connection is not None:
                async for _ in self._connection.notifies(timeout=max(0.0, until - loop.time()), stop_after=1):
                    pass
                return
        except (psycopg.Error, OSError) as error:
            logger.info("no notifications from the catalog's database, polling: %s", error)
            await self.close()
        await asyncio.sleep(max(0.0, until - loop.time()))

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _listen(self) -> Any:
        import psycopg

        arguments, options = self._engine.dialect.create_connect_args(self._engine.url)
        connection = await psycopg.AsyncConnection.connect(*arguments, **{**options, "autocommit": True})
        await connection.execute(f"LISTEN {CHANNEL}")
        return connection
