"""Every kind of store, for tests that hold for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import pytest

from catalog.memory import MemoryStore
from catalog.sql import schema
from catalog.sql.sessions import Timeouts
from catalog.sql.store import SqlStore, open_store
from catalog.store import CatalogStore
from tests.catalog.builders import OWNER, Clock
from tests.postgres import Postgres

# Nothing here measures time, and the machine may be busy.
PATIENT = Timeouts(write=30.0, read=60.0, poll=0.02)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A file with our schema."""
    url = f"sqlite:///{tmp_path / 'fairway.db'}"
    schema.upgrade(url)
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def sql_url(request: pytest.FixtureRequest) -> str:
    """An empty catalog in each database, in turn."""
    if request.param == "sqlite":
        return cast(str, request.getfixturevalue("sqlite_url"))
    return cast(Postgres, request.getfixturevalue("postgres")).database()


Open = Callable[..., Awaitable[SqlStore]]


@pytest.fixture
async def opened(clock: Clock) -> AsyncIterator[Open]:
    """Opens stores, patient ones where the test does not say otherwise, and closes them in the end."""
    async with AsyncExitStack() as stack:

        async def opens(url: str, *, owner: str = OWNER, timeouts: Timeouts = PATIENT) -> SqlStore:
            store = await open_store(url, owner=owner, clock=clock, timeouts=timeouts)
            stack.push_async_callback(store.close)
            return store

        yield opens


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, clock: Clock, opened: Open) -> CatalogStore:
    """An empty store of each kind, in turn."""
    match request.param:
        case "memory":
            return MemoryStore(OWNER, clock=clock)
        case "sqlite":
            return await opened(request.getfixturevalue("sqlite_url"))
        case _:
            return await opened(cast(Postgres, request.getfixturevalue("postgres")).database())
