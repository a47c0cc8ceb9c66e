"""A server that dies often: one process after the other, on one database.

Each life is a process of its own that runs `federation.process.serve` and ends by SIGKILL. What makes hundreds of them
affordable is that they are forked from one that has imported the program and done nothing else (the `forkserver` of
multiprocessing), so that a life begins in a third of a second instead of two.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# For a machine that does much else.
START_SECONDS = 60.0

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["federation.process", "federation.cli.serve", "catalog.sql.store", "psycopg"])


@dataclass
class Life:
    """One life of the server, from its first answer to its SIGKILL."""

    process: Any
    address: str
    admin: str
    _line: Connection

    @classmethod
    async def begin(cls, flags: Mapping[str, object], log: Path) -> Life:
        """A process that listens. AssertionError with its log where it ends before."""
        ours, theirs = _server.Pipe()
        process = _server.Process(target=_live, args=(dict(flags), log, theirs), daemon=True)
        await asyncio.to_thread(process.start)
        theirs.close()
        listens = await asyncio.to_thread(ours.poll, START_SECONDS)
        try:
            assert listens, "no answer in time"
            address, admin = ours.recv()
            return cls(process, address, admin, ours)
        except (EOFError, AssertionError) as e:
            process.kill()
            raise AssertionError(f"the server did not start ({e}): {log.read_text()[-4000:]}") from None

    async def end(self) -> None:
        """SIGKILL, now."""
        self.process.kill()
        await asyncio.to_thread(self.process.join)
        assert self.process.exitcode == -9
        self._line.close()

    async def drain(self) -> int:
        """SIGTERM; the exit code once it ended."""
        self.process.terminate()
        await asyncio.to_thread(self.process.join, START_SECONDS)
        self._line.close()
        return int(self.process.exitcode)


def _live(flags: Mapping[str, object], log: Path, line: Connection) -> None:
    """The process: serves until it is killed, or until whoever began it is gone."""
    from federation import logs, process
    from federation.config import load

    def watch() -> None:
        try:
            line.recv()
        except EOFError:
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, sys.stderr.fileno())
    settings = load(None, {}, {"server.listen": "127.0.0.1:0", "server.admin": "127.0.0.1:0", **flags})
    logs.configure(settings.telemetry)
    asyncio.run(process.serve(settings, ready=lambda plane: line.send((str(plane.address), str(plane.admin_address)))))
