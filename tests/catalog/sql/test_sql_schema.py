"""The schema: which one a database has, who upgrades it, and what programs of another age are told."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import cast

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from catalog.errors import SchemaAhead, SchemaBehind, StoreUnavailable
from catalog.sql import schema
from catalog.sql.engines import parse_url, sync_engine
from catalog.sql.tables import metadata
from tests.catalog.builders import a_node, a_region
from tests.catalog.conftest import Open
from tests.catalog.sql.test_sql_replicas import without
from tests.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without anything, of each kind in turn."""
    if request.param == "sqlite":
        # A directory whose name is special to URLs, to configparser and to Alembic.
        (tmp_path / "100%(here)s & more").mkdir()
        return f"sqlite:///{tmp_path / '100%(here)s & more' / 'fairway.db'}"
    return cast(Postgres, request.getfixturevalue("postgres")).empty_database()


def run(url: str, statement: str) -> None:
    """Runs a statement behind the program's back."""
    engine = sync_engine(parse_url(url), lock_seconds=60.0)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def test_an_upgrade_creates_the_schema_once(empty_url: str) -> None:
    assert schema.current(empty_url) is None

    assert schema.upgrade(empty_url)

    assert not schema.upgrade(empty_url)
    assert schema.current(empty_url) == schema.head()
    schema.check(empty_url)


def test_the_steps_lead_to_the_tables_that_the_program_uses(empty_url: str) -> None:
    schema.upgrade(empty_url)
    engine = sync_engine(parse_url(empty_url), lock_seconds=60.0)

    with engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), metadata)

    engine.dispose()
    assert difference == []


def test_a_sqlite_file_is_in_wal_mode(sqlite_url: str) -> None:
    with closing(sqlite3.connect(make_url(sqlite_url).database or "")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.anyio
async def test_a_database_without_a_catalog_is_behind(empty_url: str, opened: Open) -> None:
    with pytest.raises(SchemaBehind, match="holds no catalog yet; create it with: fairway db upgrade"):
        schema.check(empty_url)
    with pytest.raises(SchemaBehind, match="fairway db upgrade"):
        await opened(empty_url)


def test_looking_at_a_file_does_not_make_it(tmp_path: Path) -> None:
    with pytest.raises(SchemaBehind):
        schema.check(f"sqlite:///{tmp_path / 'fairway.db'}")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.anyio
async def test_a_newer_database_asks_for_a_newer_program(empty_url: str, opened: Open) -> None:
    schema.upgrade(empty_url)
    run(empty_url, "UPDATE alembic_version SET version_num = '9999'")

    for use in (schema.check, schema.upgrade):
        with pytest.raises(SchemaAhead, match=r"has schema 9999, which this program .*; upgrade this program"):
            use(empty_url)
    with pytest.raises(SchemaAhead):
        await opened(empty_url)
    assert schema.current(empty_url) == "9999"


@pytest.mark.anyio
async def test_a_program_runs_beside_the_next_one_and_starts_anew_beside_it(empty_url: str, opened: Open) -> None:
    schema.upgrade(empty_url)
    running = await opened(empty_url)
    await running.put([a_region()])

    # What the next program's upgrade does: it adds, and nobody stops for it.
    following = f"{int(schema.head()) + 1:04}"
    run(empty_url, "ALTER TABLE nodes ADD COLUMN colour TEXT")
    run(empty_url, "CREATE TABLE colours (colour TEXT PRIMARY KEY)")
    run(empty_url, f"UPDATE alembic_version SET version_num = '{following}'")
    await running.put([a_node("eu-west-1/a", "m")])
    schema.check(empty_url)
    assert not schema.upgrade(empty_url)
    again = await opened(empty_url)
    await again.put([a_node("eu-west-1/b", "m")])

    assert sorted((await running.snapshot()).nodes) == ["eu-west-1/a", "eu-west-1/b"]
    assert schema.current(empty_url) == following


def test_an_older_known_schema_is_behind_and_says_both() -> None:
    with pytest.raises(SchemaBehind, match=r"has schema 0001, this program needs 0003; .* with: fairway db upgrade"):
        schema.check_current("0001", parse_url("sqlite:///fairway.db"), known=("0001", "0002", "0003"))


UPGRADE = """
import sys
from catalog.sql import schema
schema.head()
print("ready", flush=True)
sys.stdin.readline()
print(schema.upgrade(sys.argv[1]), flush=True)
"""


def test_of_several_processes_that_upgrade_exactly_one_does(empty_url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", UPGRADE, empty_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(5)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    applied = [process.communicate()[0].strip() for process in processes]

    assert sorted(applied) == ["False", "False", "False", "False", "True"]
    schema.check(empty_url)


def test_an_upgrade_that_another_process_does_is_not_waited_for_forever(postgres: Postgres) -> None:
    url = postgres.empty_database()

    with psycopg.connect(url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (schema.UPGRADE_LOCK,))
        with pytest.raises(StoreUnavailable, match="is being upgraded by another process"):
            schema.upgrade(url, wait_seconds=0.2)

    assert schema.upgrade(url)


def test_a_file_that_another_process_writes_is_not_waited_for_forever(tmp_path: Path) -> None:
    file = tmp_path / "fairway.db"

    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match="locked by another process"):
            schema.upgrade(f"sqlite:///{file}", wait_seconds=0.2)
        other.execute("ROLLBACK")

    assert schema.upgrade(f"sqlite:///{file}")


def test_a_database_without_advisory_locks_is_upgraded_all_the_same(postgres: Postgres) -> None:
    url = postgres.empty_database()
    without(postgres, url, "pg_try_advisory_xact_lock(bigint) RETURNS boolean")
    postgres.execute(f"ALTER DATABASE {make_url(url).database} SET search_path = public, lacking, pg_catalog")

    assert schema.upgrade(url)
    assert not schema.upgrade(url)


def test_a_failed_upgrade_leaves_nothing(empty_url: str) -> None:
    run(empty_url, "CREATE TABLE requests (old TEXT)")

    # Its last table is in the way.
    with pytest.raises(DBAPIError, match="already exists"):
        schema.upgrade(empty_url)

    assert schema.current(empty_url) is None
    run(empty_url, "DROP TABLE requests")
    assert schema.upgrade(empty_url)


def test_a_database_that_is_away_is_called_unavailable() -> None:
    for use in (schema.current, schema.check, schema.upgrade):
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1/fairway does not answer"):
            use("postgresql://fairway@127.0.0.1:1/fairway")
