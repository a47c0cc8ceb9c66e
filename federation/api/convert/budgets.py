"""Budgets as messages: a line for each tenant, policy and period."""

from __future__ import annotations

from collections.abc import Iterator

from federation.api.convert.times import timestamp
from federation.routing.ledger import period_ends
from federation.routing.rations import Rations
from federation.v1 import fleet_pb2 as pb
from policies.policy import WhenExhausted

WHEN_EXHAUSTED = {
    WhenExhausted.REFUSE: pb.WHEN_EXHAUSTED_REFUSE,
    WhenExhausted.DEMOTE: pb.WHEN_EXHAUSTED_DEMOTE,
}


def budgets_to(rations: Rations, tenant_id: str, unix_time: float) -> Iterator[tuple[str, pb.TenantBudget]]:
    """Every budget with its position in the list, in the list's order; `tenant_id` "" is everybody."""
    day_end, month_end = (timestamp(period_ends(period, unix_time)) for period in ("day", "month"))
    for policy, tenant, number, budget in rations.listed(tenant_id, unix_time):
        today, this_month = rations.ledger.spent(tenant, unix_time)
        for period, limit, spent, end in (
            (pb.BUDGET_PERIOD_DAY, budget.usd_per_day, today, day_end),
            (pb.BUDGET_PERIOD_MONTH, budget.usd_per_month, this_month, month_end),
        ):
            if limit is not None:
                # A number of four digits: positions are compared as text.
                yield (
                    f"{policy}\0{tenant}\0{number:04}{period}",
                    pb.TenantBudget(
                        tenant_id=tenant,
                        policy_id=policy,
                        period=period,
                        limit_usd=limit,
                        spent_usd=spent,
                        reset_time=end,
                        when_exhausted=WHEN_EXHAUSTED[budget.when_exhausted],
                    ),
                )
