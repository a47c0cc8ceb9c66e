"""The faults of `cases.py` at the scale of CI: that what must hold holds, not how fast this machine is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import cases
from tests.faults.scale import Scale
from tests.postgres import Postgres

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop"), pytest.mark.slow]
SHORT = Scale()


@pytest.mark.parametrize("one_way", [False, True], ids=["both ways", "one way"])
async def test_a_region_that_is_cut_off_fails_no_call_and_agrees_again(tmp_path: Path, one_way: bool) -> None:
    found = await cases.partition(tmp_path, SHORT, one_way=one_way)

    assert found.measured.startswith("0 of "), found


async def test_a_database_that_goes_and_comes_back_fails_no_route(tmp_path: Path, postgres: Postgres) -> None:
    found = await cases.database_outage(tmp_path, SHORT, postgres)

    assert found.measured.startswith("0 of "), found
    assert "catalog NOT_SERVING, routing SERVING" in found.measured


async def test_a_database_that_is_stuck_fails_no_route(tmp_path: Path, postgres: Postgres) -> None:
    found = await cases.database_stuck(tmp_path, SHORT, postgres)

    assert found.measured.startswith("0 of "), found


async def test_half_a_region_that_dies_sends_the_share_of_envoys_table_abroad(tmp_path: Path) -> None:
    found = await cases.correlated_failure(tmp_path, SHORT)

    assert found.met, found


async def test_a_drain_that_is_taken_back_leaves_nothing_behind(tmp_path: Path) -> None:
    found = await cases.drain_and_back(tmp_path, SHORT)

    assert "back everywhere" in found.measured


async def test_a_watch_that_is_cut_again_and_again_tells_every_change_once(tmp_path: Path) -> None:
    found = await cases.watch_resume(tmp_path, SHORT)

    assert found.met, found


async def test_a_change_is_seen_in_the_decisions_of_another_region(tmp_path: Path) -> None:
    found = await cases.seen_abroad(tmp_path, SHORT)

    assert "bytes/s" in found.measured
