"""Faults of replicas and databases at the scale of CI: what must hold holds, however fast this machine is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import replica_cases, store_cases
from tests.faults.scale import Scale
from tests.postgres import Postgres

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop"), pytest.mark.slow]
SHORT = Scale()


async def test_replicas_that_are_killed_fail_no_call(tmp_path: Path, postgres: Postgres) -> None:
    found = await replica_cases.killed(tmp_path, SHORT, postgres)

    assert found.measured.startswith("0 of "), found


async def test_callers_that_hedge_do_not_notice_a_replica_that_swallows_everything(
    tmp_path: Path, postgres: Postgres
) -> None:
    found = await replica_cases.black_hole(tmp_path, SHORT, postgres, hedge=True)

    assert found.measured.startswith("0 failures"), found


async def test_a_herd_that_comes_at_once_is_served(tmp_path: Path, postgres: Postgres) -> None:
    found = await replica_cases.herd(tmp_path, SHORT, postgres)

    assert found.measured.startswith(f"all {SHORT.herd} served"), found


async def test_a_disk_that_is_full_refuses_writes_alone_and_breaks_nothing(tmp_path: Path) -> None:
    found = await store_cases.disk_full(tmp_path, SHORT)

    assert found.met, found


async def test_a_database_that_turns_read_only_refuses_writes_alone_and_says_so(
    tmp_path: Path, postgres: Postgres
) -> None:
    found = await store_cases.read_only(tmp_path, SHORT, postgres)

    assert found.measured.startswith("0 of "), found
    assert "writes RESOURCE_EXHAUSTED STORE_READ_ONLY," in found.measured, found


async def test_of_processes_that_start_at_once_one_upgrades_and_a_newer_schema_is_named(
    tmp_path: Path, postgres: Postgres
) -> None:
    found = await store_cases.migrators(tmp_path, SHORT, postgres)

    assert found.met, found
