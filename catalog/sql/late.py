"""A store whose database did not answer when its process started; the first read that reaches it opens it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.errors import CatalogError, StoreUnavailable
from catalog.sql import schema
from catalog.sql.engines import is_sqlite, parse_url
from catalog.sql.sessions import Sessions, Timeouts, Written
from catalog.sql.store import SqlStore, opened

T = TypeVar("T")

# For the upgrade of a schema, whose lock another replica may hold; it is tried again by the next read.
UPGRADE_SECONDS = 5.0


def open_late(
    url: str,
    *,
    owner: str,
    clock: Callable[[], float],
    migrate: bool,
    timeouts: Timeouts | None = None,
    connections: int = 5,
) -> SqlStore:
    """As `open_store`, without asking the database; every call is StoreUnavailable until a read finds it.

    `migrate` upgrades its schema then. ValueError for a URL of another kind.
    """
    sessions = LateSessions(
        parse_url(url),
        owner=owner,
        timeouts=timeouts or Timeouts(),
        connections=connections,
        upgrade=url if migrate else "",
    )
    store = SqlStore(sessions, clock=clock)

    def tell() -> None:
        store.incarnation = sessions.incarnation

    sessions.on_open = tell
    return store


class LateSessions(Sessions):
    """Sessions that open their database by the first read. Writes never do: they fail at once until then."""

    def __init__(self, url: URL, *, owner: str, timeouts: Timeouts, connections: int, upgrade: str) -> None:
        super().__init__(url, owner=owner, timeouts=timeouts, connections=connections)
        self.on_open: Callable[[], None] = lambda: None
        # Taken to be there until it is known; a database without it is polled.
        self.notifies = not is_sqlite(url)
        self._size = connections
        self._upgrade = upgrade
        self._opened = False
        self._opening = asyncio.Lock()
        self._why: StoreUnavailable = StoreUnavailable("the database has not answered since this process started")

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]], *, seconds: float | None = None) -> T:
        if not self._opened:
            await self._open()
        return await super().read(work, seconds=seconds)

    async def write(
        self, work: Callable[[AsyncConnection, int], Awaitable[Written[T]]], *, more_seconds: float = 0.0
    ) -> Written[T]:
        if not self._opened:
            raise StoreUnavailable(str(self._why))
        return await super().write(work, more_seconds=more_seconds)

    async def _open(self) -> None:
        if self._opening.locked():
            # One asks; the others need not wait for what it finds out.
            raise StoreUnavailable(str(self._why))
        async with self._opening:
            try:
                if self._upgrade:
                    await asyncio.to_thread(schema.upgrade, self._upgrade, wait_seconds=UPGRADE_SECONDS)
                # Others than these, so that what opens does not wait for itself.
                plain = Sessions(self.url, owner=self.owner, timeouts=self.timeouts, connections=self._size)
                try:
                    await opened(plain)
                finally:
                    await plain.close()
            except CatalogError as error:
                # A schema that is behind or ahead is for an operator to put right, under a server that routes on.
                self._why = StoreUnavailable(str(error))
                raise self._why from error
            self.incarnation, self.notifies = plain.incarnation, plain.notifies
            self._opened = True
            self.on_open()
