"""Carries the ledger of what tenants spent to the store and back, every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from catalog.errors import CatalogError
from catalog.store import CatalogStore
from federation.logs import Log
from federation.routing.ledger import Ledger

# Longer, and several replicas overshoot a budget further; shorter, and an idle store is busy with little.
FLUSH_SECONDS = 5.0


class Bookkeeper:
    """Keeps the books for as long as the server runs. `writer` names this life of a replica."""

    def __init__(
        self,
        ledger: Ledger,
        store: CatalogStore,
        *,
        writer: str,
        wanted: Callable[[], bool],
        log: Log,
        wall: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._writer = writer
        self._wanted = wanted
        self._log = log
        self._wall = wall
        self._sleep = sleep
        self._failing = False

    async def start(self) -> None:
        """Reads what was spent before; while nobody has a budget, nobody asks."""
        if self._wanted():
            await self.step()

    async def run(self) -> None:
        """Keeps books until cancelled."""
        while True:
            await self._sleep(FLUSH_SECONDS)
            if self._wanted():
                await self.step()

    async def close(self) -> None:
        """Stores what was charged last."""
        if self._wanted():
            await self.step()

    async def step(self) -> bool:
        """One round; whether the store took and answered it."""
        try:
            await self._ledger.sync(self._store, self._writer, self._wall())
        except CatalogError as e:
            if not self._failing:
                self._log.warning("spend is kept in memory only until the store answers again", error=str(e))
            self._failing = True
            return False
        if self._failing:
            self._log.info("spend is stored again")
        self._failing = False
        return True
