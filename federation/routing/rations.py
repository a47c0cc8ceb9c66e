"""Rations: budgets of tenants, and who goes on when capacity is short; `policies/admission.py` has the rules.

Reading (`within_budget`, `admit`) changes nothing; what was admitted and asked for is counted afterwards (`claimed`,
`shed`).  A policy without budgets, shares and shedding comes here for nothing but two comparisons.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from federation.routing.ledger import Ledger, period_ends
from federation.routing.shares import Shares
from federation.routing.state import IN_FLIGHT, PENDING, RUNNING, WAIT, State
from policies import chance
from policies.admission import (
    Exhausted,
    Standing,
    begins,
    budgets_of,
    exhausted,
    kept_of,
    named,
    over,
    shed_chance,
    weight_of,
)
from policies.errors import NoCandidate
from policies.policy import Budget, Policy, Share, Shed, WhenExhausted
from policies.pool import FloatArray, IntArray
from policies.types import Outcome, Phase, Result, RouteRequest

if TYPE_CHECKING:
    from federation.routing.decisions import Record
    from federation.routing.planner import Plan
    from federation.routing.ranking import Scalars

# Pools of shares; the oldest goes first.
MAX_POOLS = 4_096
# Batches that count as room where no limit is declared: a short queue keeps an engine busy.
BATCHES = 1.5
# Of the nodes' waits the one that so large a share of them stays under counts. The least is noise: a node that nobody
# heard of lately looks idle, and to every router at once. The longest may be of one sick node.
LATE_NODES = 0.75
# Which of a seed's draws decides; the pickers use the first few, shadows' samples another.
DRAW = 2_000
# Who was shed is told to come back after so long, or up to twice that, so that not all come back at once.
RETRY_SECONDS = 1.0
# Tenants whose policy is remembered.
MAX_TENANTS = 65_536
DEMOTED_PRIORITY = -1


@dataclass(frozen=True, slots=True)
class Room:
    """Where a kind of request may run: slots, how many requests they have room for in all, and who is shed there."""

    slots: IntArray
    places: float
    # Prefill seconds per token, by slot.
    per_token: FloatArray
    shed: Shed
    shares: tuple[Share, ...]

    def standing(self, priority: int, state: State) -> Standing:
        """How full the room is for a request: by its places, or by how long its nodes' queues are, whichever is more.

        Over 1 where requests queue. None: there is no room at all.
        """
        if self.places <= 0.0:
            return Standing(priority, None)
        moving = state.matrix[:, self.slots]
        used = float(np.maximum(moving[IN_FLIGHT], moving[RUNNING]).sum()) / self.places
        full = self.shed.full_wait_seconds
        if full is not None:
            place = int(LATE_NODES * (len(self.slots) - 1))
            waits = np.partition(moving[PENDING] * self.per_token + moving[WAIT], place)
            if waits[place] > used * full:
                return Standing(priority, float(waits[place]) / full, wait_seconds=float(waits[place]))
        return Standing(priority, used)


def room_of(terms: Policy, rows: IntArray, flat: Scalars) -> Room | None:
    """The room of some rows of a table; None where the policy of `Rations.terms` sheds nobody."""
    shed = terms.shedding
    if shed is None:
        return None
    kept: list[int] = rows.tolist()
    places = sum(min(flat.limit[row], BATCHES * flat.batch[row]) for row in kept)
    slots = np.array([flat.slot[row] for row in kept], dtype=np.int64)
    return Room(slots, places, np.array([flat.per_token[row] for row in kept]), shed, terms.shares)


@dataclass(frozen=True, slots=True)
class Admission:
    """What admitting a request read, and what came of it: kept with the decision, so that it can be recomputed."""

    standing: Standing
    shed: Shed
    seed: int

    @property
    def chance(self) -> float:
        return shed_chance(self.shed, self.standing)

    @property
    def admitted(self) -> bool:
        return chance.uniform(self.seed, DRAW) >= self.chance

    @property
    def by_share(self) -> bool:
        """Whether it would have been admitted but for its tenant's share."""
        return self.standing.share is not None and over(self.standing.share) > 0.0

    def told(self) -> str:
        """What was read and found, for people."""
        standing = self.standing
        if standing.utilization is None:
            return "nobody to ask for room"
        share = "" if standing.share is None else f", its tenant has {standing.share:.2f} times its fair share"
        wait = "" if standing.wait_seconds is None else f" by queues of {standing.wait_seconds:.2f} s"
        return (
            f"{standing.utilization:.0%} full{wait}{share}; requests of priority {standing.priority} are shed with"
            f" chance {self.chance:.0%}"
        )


class ShedRequest(NoCandidate):
    """A request that was refused for lack of capacity, with what is needed to count it."""

    def __init__(self, admission: Admission, plan: Plan, request: RouteRequest, tokens: int) -> None:
        standing, shed = admission.standing, admission.shed
        used = standing.utilization or 0.0
        wait = RETRY_SECONDS * (1.0 + chance.uniform(admission.seed, DRAW + 1))
        details = {"utilization": f"{used:.3f}", "priority": str(standing.priority), "shed_by": "priority"}
        full = f"{used:.0%} full"
        why = f"requests of priority {standing.priority} are shed from {begins(shed, standing):.0%} on"
        if standing.wait_seconds is not None:
            details["wait_seconds"] = f"{standing.wait_seconds:.3f}"
            full = f"{used:.0%} full by queues of {standing.wait_seconds:.2f} s"
        if admission.by_share:
            assert standing.share is not None
            details |= {"shed_by": "share", "tenant": request.tenant_id, "share": f"{standing.share:.3f}"}
            why = f"tenant {request.tenant_id!r} has {standing.share:.2f} times its fair share of tokens, and {why}"
        subject = plan.model_id or f"capability {request.capability}"
        super().__init__(
            "NO_CAPACITY",
            f"shed: {subject} is {full}; {why}; retry after {wait:.1f} s, or add nodes",
            retry_after_seconds=wait,
            details=details,
        )
        self.plan = plan
        self.request = request
        self.tokens = tokens


class Rations:
    """Budgets and shares of one router's tenants."""

    def __init__(self, tenant_policies: Iterable[str], default: str) -> None:
        self.ledger = Ledger()
        # (glob, policy id), first match wins.
        self._assigned = [(glob, policy) for glob, _, policy in (each.rpartition("=") for each in tenant_policies)]
        self._default = default
        self._policies: Mapping[str, Policy] = {}
        self._homes: OrderedDict[str, str] = OrderedDict()
        self._budgets: OrderedDict[tuple[str, str], tuple[Budget, ...]] = OrderedDict()
        self._pools: OrderedDict[str, Shares] = OrderedDict()
        # Whether any policy has a budget: without one, nobody's is looked up.
        self.budgeted = False
        # Refusals by (what for, class of priority), and decisions that a spent budget demoted.
        self.refusals: Counter[tuple[str, str]] = Counter()
        self.demotions = 0

    def install(self, policies: Mapping[str, Policy]) -> None:
        self._policies = policies
        self._budgets.clear()
        self.budgeted = any(policy.budgets for policy in policies.values())

    def policy_id(self, request: RouteRequest) -> str:
        """The policy that decides a request: the one that it names, else its tenant's, else the default."""
        return request.policy_id or (self.home(request.tenant_id) if self._assigned else self._default)

    def home(self, tenant: str) -> str:
        """The policy of a tenant's requests that name none."""
        found = self._homes.get(tenant)
        if found is None:
            found = next((policy for glob, policy in self._assigned if fnmatchcase(tenant, glob)), self._default)
            self._homes[tenant] = found
            if len(self._homes) > MAX_TENANTS:
                self._homes.popitem(last=False)
        return found

    def terms(self, request: RouteRequest, policy: Policy) -> Policy:
        """The policy by whose shares and steps a request is shed: its tenant's own, whatever policy it names.

        The one that decides, where the tenant's own sheds nobody.
        """
        if not request.policy_id:
            return policy
        home = self._policies.get(self.home(request.tenant_id))
        return policy if home is None or not (home.shares or home.shed) else home

    def budgets(self, tenant: str, policy: Policy) -> tuple[Budget, ...]:
        """What binds a tenant: the deciding policy's budgets, and always its own policy's, whatever a request names."""
        key = (policy.policy_id, tenant)
        found = self._budgets.get(key)
        if found is None:
            home = self._policies.get(self.home(tenant))
            both = [policy] if home is None or home.policy_id == policy.policy_id else [home, policy]
            found = budgets_of(both, tenant)
            self._budgets[key] = found
            if len(self._budgets) > MAX_TENANTS:
                self._budgets.popitem(last=False)
        return found

    def listed(self, tenant: str, unix_time: float) -> Iterator[tuple[str, str, int, Budget]]:
        """Policy, tenant and place of every budget that names a tenant ("" all that spent something or are named)."""
        spending = self.ledger.tenants(unix_time)
        for policy_id in sorted(self._policies):
            policy = self._policies[policy_id]
            # Names among the globs are tenants that may not have spent anything yet.
            names = {name for budget in policy.budgets for name in budget.tenants if not set(name) & set("*?[")}
            for each in [tenant] if tenant else sorted({*names, *spending}):
                for number, budget in enumerate(policy.budgets):
                    if named(budget.tenants, each):
                        yield policy_id, each, number, budget

    # Reading.

    def within_budget(self, request: RouteRequest, policy: Policy, unix_time: float) -> tuple[RouteRequest, str]:
        """The request as its tenant's money allows it, and what was done to it ("" nothing).

        NoCandidate("BUDGET_EXHAUSTED") with the time until the period ends. Only the caller's own figures are told.
        """
        budgets = self.budgets(request.tenant_id, policy)
        spent = exhausted(budgets, *self.ledger.spent(request.tenant_id, unix_time)) if budgets else None
        if spent is None:
            return request, ""
        told = f"tenant {request.tenant_id!r} has spent its {spent.limit:.10g} USD of this {spent.period}"
        if spent.when_exhausted is WhenExhausted.REFUSE:
            raise _refused(request.tenant_id, spent, told, period_ends(spent.period, unix_time) - unix_time)
        demoted = replace(request, priority=min(request.priority, DEMOTED_PRIORITY), cost_tolerance=0.0)
        return demoted, (
            f"{told}: demoted, priority {request.priority} to {demoted.priority},"
            f" cost_tolerance {request.cost_tolerance:g} to 0"
        )

    def admit(self, plan: Plan, room: Room, request: RouteRequest, tokens: int, state: State, seed: int) -> Admission:
        """What was read of a request's moment, where it is admitted. ShedRequest."""
        standing = replace(room.standing(request.priority, state), kept=kept_of(room.places))
        if room.shares:
            pool = self._pools.get(plan.pool)
            share = pool.share(request.tenant_id) if pool is not None else 0.0
            standing = replace(standing, share=share)
        found = Admission(standing, room.shed, seed)
        if not found.admitted:
            raise ShedRequest(found, plan, request, tokens)
        return found

    # Counting.

    def claimed(self, record: Record, now: float) -> None:
        """Counts an admitted request's tokens, and charges what it is estimated to cost."""
        self.demotions += bool(record.demotion)
        if record.plan.room is not None:
            self._count(record.plan, record.plan.room, record.request, record.tokens + record.answer, True, now)
        if self.budgeted and self.budgets(record.request.tenant_id, record.plan.policy):
            record.told.charges = {}
            self.recharge(record, 0, estimated(record, 0))

    def refused(self, error: NoCandidate, request: RouteRequest, now: float) -> None:
        """Counts who was refused for lack of capacity or money, and what was asked for by who was shed."""
        if error.reason == "BUDGET_EXHAUSTED":
            self.refusals["budget", priority_class(request.priority)] += 1
        if not isinstance(error, ShedRequest):
            return
        self.refusals[error.details["shed_by"], priority_class(error.request.priority)] += 1
        if error.plan.room is not None:
            self._count(error.plan, error.plan.room, error.request, error.tokens, False, now)

    def _count(self, plan: Plan, room: Room, request: RouteRequest, tokens: int, admitted: bool, now: float) -> None:
        if not room.shares:
            return
        pool = self._pools.get(plan.pool)
        if pool is None:
            pool = self._pools[plan.pool] = Shares(now)
            if len(self._pools) > MAX_POOLS:
                self._pools.popitem(last=False)
        weight = weight_of(room.shares, request.tenant_id)
        pool.add(request.tenant_id, weight, max(1.0, float(tokens)), admitted, now)

    def recharge(self, record: Record, attempt: int, usd: float) -> None:
        """Puts a sum in place of what an attempt of a decision was charged before."""
        if record.charges is None:
            return
        before = record.charges.get(attempt, 0.0)
        record.charges[attempt] = usd
        self.ledger.charge(record.request.tenant_id, usd - before, record.wall_time)

    def moved(self, record: Record, attempt: int) -> None:
        """An alternative is tried: its estimate is charged; those of attempts that nobody reported on are not."""
        if record.charges is not None:
            self._drop_estimates(record, attempt)
            self.recharge(record, attempt, estimated(record, attempt))

    def finished(self, record: Record, outcome: Outcome) -> None:
        """Puts what an attempt really cost in place of its estimate, which stays where no tokens are told.

        An attempt that failed without a word on tokens made none that somebody is paid for.
        """
        attempt = outcome.attempt
        if record.charges is None or attempt >= len(record.chosen):
            return
        self._drop_estimates(record, attempt)
        known = outcome.input_tokens is not None or outcome.output_tokens is not None
        if known:
            asked = record.tokens if outcome.input_tokens is None else outcome.input_tokens
            answered = record.answer if outcome.output_tokens is None else outcome.output_tokens
            self.recharge(record, attempt, actual(record, attempt, asked, outcome.cached_tokens or 0, answered))
        elif outcome.result is Result.OK or outcome.result is None:
            self.recharge(record, attempt, estimated(record, attempt))
        else:
            self.recharge(record, attempt, 0.0)

    def _drop_estimates(self, record: Record, attempt: int) -> None:
        """Of the attempts before one, those that nobody reported the end of."""
        assert record.charges is not None
        ended = {outcome.attempt for outcome in record.outcomes if outcome.phase is Phase.FINISHED}
        for other in tuple(record.charges):
            if other < attempt and other not in ended:
                self.recharge(record, other, 0.0)


def _refused(tenant: str, spent: Exhausted, told: str, wait: float) -> NoCandidate:
    return NoCandidate(
        "BUDGET_EXHAUSTED",
        f"{told}; it begins anew in {_span(wait)}; raise usd_per_{spent.period} in the policy, or wait",
        retry_after_seconds=wait,
        details={
            "tenant": tenant,
            "period": spent.period,
            "limit_usd": f"{spent.limit:.10g}",
            "spent_usd": f"{spent.spent:.10g}",
        },
    )


def _span(seconds: float) -> str:
    hours = seconds / 3600
    if hours < 1:
        return f"{seconds / 60:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def priority_class(priority: int) -> str:
    """Priorities as metrics tell them apart: callers choose the numbers."""
    return "high" if priority > 0 else "low" if priority < 0 else "normal"


def place_of(record: Record, attempt: int) -> int:
    """Where an attempt stands among the rows of its record."""
    return record.places[attempt]


def estimated(record: Record, attempt: int) -> float:
    """What an attempt was estimated to cost; nothing where no price is known."""
    return record.figures(place_of(record, attempt)).cost or 0.0


def actual(record: Record, attempt: int, input_tokens: int, cached_tokens: int, output_tokens: int) -> float:
    """What an attempt with these tokens cost, by the prices of its decision; nothing where no price is known."""
    place = place_of(record, attempt)
    row, scalars = int(record.rows[place]), record.plan.scalars
    if not scalars.priced[row]:
        return 0.0
    cost = output_tokens * record.plan.ranking.egress[scalars.domains.place[row]]
    if float(record.load.in_flight[place]) >= scalars.committed[row]:
        cached = min(cached_tokens, input_tokens)
        cost += (
            (input_tokens - cached) * scalars.input_price[row]
            + cached * scalars.cached_price[row]
            + output_tokens * scalars.output_price[row]
        )
    return cost
