"""The command line in this process, against a real server."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

import pytest
from cli_server import Served, serving
from typer.testing import CliRunner, Result

from federation.cli.main import PROGRAM, app

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def shared() -> Iterator[Served]:
    with serving() as served:
        yield served


@pytest.fixture
def server(shared: Served) -> Served:
    """The server, with nothing asked so far."""
    shared.asked.requests.clear()
    return shared


@pytest.fixture
def run(server: Served, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `fairway` with a line of arguments, and more of them, against the server."""
    monkeypatch.setenv("FAIRWAY_SERVER", server.address)
    monkeypatch.setenv("FAIRWAY_TIMEOUT", "60s")
    monkeypatch.setenv("COLUMNS", "100")
    # Errors of usage are drawn by typer, which has its own word for the width.
    monkeypatch.setenv("TERMINAL_WIDTH", "200")

    def invoke(line: str, *more: str, input: str | None = None) -> Result:
        return CliRunner().invoke(app, [*shlex.split(line), *more], input=input, prog_name=PROGRAM)

    return invoke
