"""When tables come: soon after a change, however many kinds of requests wait for plans of theirs."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from federation.installer import SLICES_SECONDS
from tests.builders import MODEL, a_request
from tests.faults.stage import REGION, Stage

KINDS = 300
# Of real time, a plan for a few thousand deployments.
PLAN_SECONDS = 0.002


class Enough(Exception):
    """The run has shown what it should."""


def test_many_kinds_of_requests_make_no_table_late() -> None:
    stage = Stage([f"{REGION}/n{number}" for number in range(4)], seed=1)
    installer, router = stage.installer, stage.router
    stage.advance(1.0)
    renew, tables, slices = router.renew_plans, [installer.built_at], 0.0

    def renewed(most: int) -> int:
        """The real one, which takes its time."""
        nonlocal slices
        made = renew(most)
        stage.now += made * PLAN_SECONDS
        slices += made * PLAN_SECONDS
        return made

    async def sleep(seconds: float) -> None:
        nonlocal slices
        stage.now += seconds
        if seconds == 0.0:
            return
        assert slices < SLICES_SECONDS + 2 * PLAN_SECONDS
        slices = 0.0
        if installer.built_at > tables[-1]:
            tables.append(installer.built_at)
        if len(tables) > 20:
            raise Enough
        # All are asked for, and something changes.
        for number in range(KINDS):
            router.decide(a_request(MODEL, tenant_id=f"t{number}"), stage.now, number=number)
        if len(tables) % 2:
            stage.monitor.eject(f"{REGION}/n1", stage.now, 60.0)
        else:
            stage.monitor.restore(f"{REGION}/n1", stage.now)

    router.renew_plans, installer._sleep = renewed, sleep  # type: ignore[method-assign]
    with pytest.raises(Enough):
        asyncio.run(installer.run())

    assert max(after - before for before, after in pairwise(tables[1:])) < 0.2
