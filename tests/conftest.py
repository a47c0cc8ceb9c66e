"""What every test may ask for. Nothing here costs anything before a test does."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import settings

from catalog.sql import schema
from tests.postgres import Postgres


def pytest_configure() -> None:
    """Settings of the whole suite: properties may take as long as they do on a busy machine.

    They try the same cases each time, so that a change is to blame for what fails; `make fuzz` tries others.
    And Ctrl-C reaches the processes that tests start, also where a shell began the tests in its background.
    """
    settings.register_profile("fairway", deadline=None, derandomize="FAIRWAY_FUZZ_CASES" not in os.environ)
    settings.load_profile("fairway")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests marked `anyio` run in asyncio, as the program does."""
    return "asyncio"


@pytest.fixture(scope="session")
async def one_loop(anyio_backend: str) -> AsyncIterator[None]:
    """Keeps one event loop for all tests that ask for it.

    gRPC has one completion queue a process: what ends late for a loop that is closed breaks the next test's loop.
    """
    yield  # noqa: PT022 - only a fixture that yields keeps its loop open


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One server for each test process, started by the first test that asks."""
    server = Postgres(schema.upgrade)
    yield server
    server.close()


@pytest.fixture
def postgres(postgres_server: Postgres) -> Postgres:
    """The server, running, whatever the test before did to it."""
    postgres_server.thaw()
    postgres_server.start()
    return postgres_server
