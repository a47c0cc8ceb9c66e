"""Wrong starts by hand: the exit code of `fairway serve`, and the one line that says what to do; no traceback."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from catalog.sql import schema
from tests.federation.process import start

USAGE, UNREACHABLE, PRECONDITION = 2, 4, 6


@dataclass(frozen=True)
class Row:
    """A start that must fail: what is typed, what stands in `fairway.toml`, and what the operator reads."""

    name: str
    code: int
    says: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    config: str | bytes | None = None


ROWS = (
    Row("no config file", USAGE, ("absent.toml", "No such file", "--config"), ("--config", "absent.toml")),
    Row("a directory as config file", USAGE, ("configuration file .", "directory"), ("--config", ".")),
    Row("a config file of other bytes", USAGE, ("fairway.toml", "byte 0", "UTF-8"), config=b"\xff\xfe\x00"),
    Row("a config file that is no TOML", USAGE, ("fairway.toml is not TOML", "line 1"), config="[server\n"),
    Row("an unknown key", USAGE, ("server.listn", "did you mean server.listen?"), config="[server]\nlistn = ':1'\n"),
    Row("an unknown section", USAGE, ("[serve]", "did you mean server?"), config="[serve]\nlisten = ':1'\n"),
    Row("a key outside of a section", USAGE, ("write [region]",), config="region = 'eu'\n"),
    Row(
        "text for a number",
        USAGE,
        ("server.workers", "must be a whole number", "'many'", "fairway.toml"),
        config="[server]\nworkers = 'many'\n",
    ),
    Row("a number for text", USAGE, ("region.id", "must be text", "not 7"), config="[region]\nid = 7\n"),
    Row("text for a list", USAGE, ("region.owns", "must be a list"), config="[region]\nowns = 'eu'\n"),
    Row("text for a truth", USAGE, ("reflection", "true or false"), config="[server]\nreflection = 'perhaps'\n"),
    Row("too few", USAGE, ("unhealthy_after", "must be 1 or more"), config="[health]\nunhealthy_after = 0\n"),
    Row("too many", USAGE, ("min_score", "must be 1 or less"), config="[routing]\nmin_score = 1.5\n"),
    Row("no number", USAGE, ("probe_timeout_seconds", "finite"), config="[health]\nprobe_timeout_seconds = nan\n"),
    Row("an unknown word", USAGE, ("log_level", "'debug', 'info'"), config="[telemetry]\nlog_level = 'loud'\n"),
    Row("an unknown scheme", USAGE, ("allowed_schemes.0", "'http'"), config="[health]\nallowed_schemes = ['ftp']\n"),
    Row(
        "a network that is none",
        USAGE,
        ("health.allowed_cidrs.1", "10.0.0.0/33", "write it as 10.0.0.0/8"),
        config="[health]\nallowed_cidrs = ['10.0.0.0/8', '10.0.0.0/33']\n",
    ),
    Row(
        "a network with bits of a host",
        USAGE,
        ("health.allowed_cidrs.0", "10.0.0.1/8 has host bits set"),
        config="[health]\nallowed_cidrs = ['10.0.0.1/8']\n",
    ),
    Row("a region id with capitals", USAGE, ("region.id", "lower-case", "'EU West'"), ("--region", "EU West")),
    Row("no region id", USAGE, ("region.id", "as in eu-west-1"), ("--region", "")),
    Row("an owned region's id", USAGE, ("region.owns.0", "lower-case"), ("--region", "eu", "--owns", "EU")),
    Row("a tenant without a policy", USAGE, ("TENANT=POLICY",), config="[routing]\ntenant_policies = ['acme']\n"),
    Row("a model without a place", USAGE, ("GLOB@JURISDICTION",), config="[peering]\nwithhold = ['secret-*']\n"),
    Row("no port", USAGE, ("server.listen", "HOST:PORT"), ("--listen", "localhost")),
    Row("a port beyond all", USAGE, ("server.admin", "HOST:PORT"), ("--admin", "127.0.0.1:70000")),
    Row("a database of another kind", USAGE, ("store.url starts with mysql://",), ("--database", "mysql://h/d")),
    Row("a database URL that is none", USAGE, ("store.url cannot be read",), ("--database", "nonsense")),
    Row("a database without a file", USAGE, ("store.url names no file",), ("--database", "sqlite:///")),
    Row("a peer that is none", USAGE, ("peering.peers", "host and a port"), ("--peer", "no where", "--owns", "local")),
    Row("a key without its file", USAGE, ("key.pem: No such",), ("--tls-cert", "key.pem", "--tls-key", "key.pem")),
    Row(
        "a database directory that is missing",
        UNREACHABLE,
        ("store.url: ", "cannot be opened; check that its directory exists"),
        ("--database", "sqlite:///absent/fairway.db"),
    ),
    Row(
        "a database that is not there",
        UNREACHABLE,
        ("store.url: ", "does not answer", "u:***@"),
        ("--database", "postgresql://u:hunter2@127.0.0.1:9/db"),
    ),
    Row(
        "a password in the query",
        UNREACHABLE,
        ("does not answer", "password=***"),
        ("--database", "postgresql://127.0.0.1:9/db?user=u&password=hunter2"),
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_wrong_start_is_told_in_a_line(tmp_path: Path, row: Row) -> None:
    arguments = row.arguments
    if row.config is not None:
        raw = row.config if isinstance(row.config, bytes) else row.config.encode()
        (tmp_path / "fairway.toml").write_bytes(raw)
        arguments = ("--config", "fairway.toml", *arguments)

    code, line = refused(tmp_path, *arguments)

    assert (code, [word for word in row.says if word not in line]) == (row.code, []), line


@pytest.fixture
def taken() -> Iterator[str]:
    """An address that another process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("flag", ["listen", "admin"])
def test_a_port_in_use_is_told_before_a_database_is_made(tmp_path: Path, taken: str, flag: str) -> None:
    code, line = refused(tmp_path, f"--{flag}", taken)

    assert code == PRECONDITION
    assert f"server.{flag}: cannot listen on {taken}: Address already in use" in line
    assert "choose another port" in line
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_another_process_locked_is_told_with_how_to_find_it(tmp_path: Path) -> None:
    schema.upgrade(f"sqlite:///{tmp_path}/fairway.db")
    with closing(sqlite3.connect(tmp_path / "fairway.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")

        code, line = refused(tmp_path)

    assert code == UNREACHABLE
    assert "is locked by another process" in line
    assert "`fuser fairway.db` names it" in line


def test_a_database_that_is_read_only_is_told(tmp_path: Path) -> None:
    schema.upgrade(f"sqlite:///{tmp_path}/fairway.db")

    code, line = refused(tmp_path, "--database", f"sqlite:///file:{tmp_path}/fairway.db?mode=ro&uri=true")

    assert code == PRECONDITION
    assert "is read-only" in line
    assert "make the file and its directory writable" in line


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "fairway.db").write_text("not a database, and long enough to be sure of that" * 100)

    code, line = refused(tmp_path)

    assert code == UNREACHABLE
    assert "is damaged or no SQLite database" in line


def test_a_database_of_a_later_program_is_told(tmp_path: Path) -> None:
    schema.upgrade(f"sqlite:///{tmp_path}/fairway.db")
    with closing(sqlite3.connect(tmp_path / "fairway.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()

    code, line = refused(tmp_path)

    assert code == PRECONDITION
    assert "has schema 9999, which this program does not know" in line


def refused(directory: Path, *arguments: str) -> tuple[int, str]:
    """The exit code of a server that does not start, and the one line on its stderr."""
    process = start(directory, *arguments)
    code = process.wait()
    process.ended()
    said = [str(line.get("text", line)) for line in process.lines]
    print("\n".join(said))
    assert len(said) == 1, said
    assert said[0].startswith(("fairway: ", "error: "))
    assert len(said[0]) < 400
    assert "hunter2" not in said[0]
    # A pattern is for programs.
    assert "^" not in said[0]
    return code, said[0]
