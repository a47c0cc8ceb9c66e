"""Tenants in virtual time, with the real router: budgets, shares of a short capacity, priorities, and their replay."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.types import ServingProfile
from federation.config import RoutingSettings
from federation.routing.decisions import Record
from federation.routing.rations import ShedRequest
from federation.routing.replay import replay
from federation.routing.router import Router
from policies.errors import NoCandidate
from policies.policy import Budget, Policy, Share, Shed, ShedStep, WhenExhausted
from policies.types import Outcome, Phase, Result
from tests.builders import MODEL, a_deployment, a_node, a_request, a_table

WALL = 1_700_000_000.0  # 14 November 2023, 22:13:20 UTC.


class Wall:
    def __init__(self) -> None:
        self.now = WALL

    def __call__(self) -> float:
        return self.now


def a_rationing_router(policy: Policy, *, seed: int = 7, nodes: int = 4, limit: int | None = 16, **more: Any) -> Router:
    """A router whose default policy is `policy`, over equal nodes with room for `limit` requests each."""
    routing = RoutingSettings(policy=policy.policy_id, **more)
    router = Router(routing, replica="r1", seed=seed, wall=Wall())
    served = a_deployment(max_concurrency=limit)
    router.install(a_table(*[a_node(f"eu/n{number}", [served]) for number in range(nodes)]))
    router.install_policies({policy.policy_id: policy})
    return router


# Short capacity


@dataclass(frozen=True)
class Stream:
    """Requests of one kind: so many a second, as a Poisson process."""

    tenant: str
    per_second: float
    priority: int = 0
    tokens: int = 600


class Run:
    """What became of streams that met for a time; requests take about `seconds` each at the nodes."""

    def __init__(self, router: Router, streams: list[Stream], *, seconds: float = 2.0, lasts: float, seed: int) -> None:
        self.asked: Counter[Stream] = Counter()
        self.admitted: Counter[Stream] = Counter()
        self.refusals: list[NoCandidate] = []
        rng = Random(seed)
        arrivals = [(rng.expovariate(each.per_second), number) for number, each in enumerate(streams)]
        heapq.heapify(arrivals)
        running: list[tuple[float, int, Record]] = []
        while arrivals[0][0] < lasts:
            now, number = heapq.heappop(arrivals)
            stream = streams[number]
            heapq.heappush(arrivals, (now + rng.expovariate(stream.per_second), number))
            while running and running[0][0] <= now:
                ended, _, record = heapq.heappop(running)
                outcome = Outcome(record.decision_id, phase=Phase.FINISHED, result=Result.OK)
                router.report(outcome, ended)
            # The first seconds fill the pool and the shares' memory.
            counts = now > lasts / 4
            self.asked[stream] += counts
            request = a_request(
                tenant_id=stream.tenant, priority=stream.priority, input_tokens=stream.tokens - 100, max_alternatives=0
            )
            try:
                record = router.place(request, now)
            except NoCandidate as error:
                self.refusals.append(error)
                continue
            self.admitted[stream] += counts
            heapq.heappush(running, (now + rng.uniform(0.5, 1.5) * seconds, record.number, record))

    def kept(self, stream: Stream) -> float:
        return self.admitted[stream] / self.asked[stream]

    def tokens(self) -> Mapping[str, float]:
        """Shares of admitted tokens by tenant."""
        sums: Counter[str] = Counter()
        for stream, count in self.admitted.items():
            sums[stream.tenant] += count * stream.tokens
        return {tenant: count / sums.total() for tenant, count in sums.items()}


# 4 nodes × 16 places, two seconds each.
CAPACITY = 32.0


@pytest.mark.parametrize("flood", [2.0, 8.0])
@pytest.mark.parametrize("asked", [0.2, 0.45, 0.5, 1.0])
def test_a_flood_of_one_tenant_takes_nothing_from_anothers_share(asked: float, flood: float) -> None:
    router = a_rationing_router(Policy("fair", shares=(Share(("*",)),)))
    # High priority is no way to a larger share.
    a, b = Stream("a", flood * CAPACITY, priority=5), Stream("b", asked * CAPACITY)

    run = Run(router, [a, b], lasts=60.0, seed=2)

    # Of what it asks for, as far as that is its share of what there was.
    fair = min(run.asked[b], 0.5 * sum(run.admitted.values()))
    assert run.admitted[b] >= 0.95 * fair
    # And the capacity is used, by whoever wants it.
    assert sum(run.admitted.values()) >= 0.8 * CAPACITY * 45


def test_weights_divide_tokens_not_requests() -> None:
    shares = (Share(("gold",), 3.0), Share(("*",), 1.0))
    router = a_rationing_router(Policy("fair", shares=shares))
    # The same flood of requests; the others' are four times as long.
    streams = [Stream("gold", 2 * CAPACITY), Stream("b", 2 * CAPACITY, tokens=2_400), Stream("c", 5 * CAPACITY)]

    tokens = Run(router, streams, lasts=60.0, seed=4).tokens()

    assert tokens["gold"] == pytest.approx(0.6, abs=0.04)
    assert tokens["b"] == pytest.approx(0.2, abs=0.04)
    assert tokens["c"] == pytest.approx(0.2, abs=0.04)


def test_a_tenant_that_asks_for_little_keeps_it_and_the_rest_is_divided_among_the_others() -> None:
    router = a_rationing_router(Policy("fair", shares=(Share(("*",)),)))
    small, one, two = Stream("small", 3.0), Stream("one", 40.0), Stream("two", 150.0)

    run = Run(router, [small, one, two], lasts=60.0, seed=5)

    assert run.kept(small) >= 0.98
    assert run.tokens()["one"] == pytest.approx(run.tokens()["two"], abs=0.05)


@pytest.mark.parametrize(("limit", "places"), [(8, 32), (16, 64), (32, 128), (None, 192)])
@pytest.mark.parametrize("high", [0.4, 0.7])
def test_high_priority_loses_nothing_before_low_priority_loses_all_and_at_most_a_hundredth_then(
    high: float, limit: int | None, places: int
) -> None:
    # Without a limit room is a batch and a half: 4 × 48. A request takes two seconds.
    capacity = places / 2
    urgent, batch = Stream("a", high * capacity, priority=5), Stream("a", 2 * capacity, priority=-1)

    lost_to_batch = []
    for seed in range(11, 15):
        alone, both = (
            Run(a_rationing_router(Policy("shed", shed=Shed()), limit=limit), streams, lasts=30.0, seed=seed)
            for streams in ([urgent], [urgent, batch])
        )
        # Whenever it lost one, low priority was shed as a whole already: from 85 % on, or earlier in a small pool.
        lost = [error for error in both.refusals if getattr(error, "request", batch).priority == 5]
        assert all(float(error.details["utilization"]) >= 0.95 for error in lost)
        assert both.kept(batch) < 0.35
        lost_to_batch.append(alone.kept(urgent) - both.kept(urgent))

    # What was admitted of the batch runs on while a burst arrives; for that some places are kept.
    assert sum(lost_to_batch) / len(lost_to_batch) <= 0.01


def test_priorities_are_shed_lowest_first() -> None:
    router = a_rationing_router(Policy("shed", shed=Shed()))
    streams = [Stream("a", 0.6 * CAPACITY, priority=p) for p in (-10, 0, 5)]

    run = Run(router, streams, lasts=60.0, seed=3)

    low, normal, high = (run.kept(each) for each in streams)
    assert low < 0.1
    assert 0.3 < normal < 0.7
    assert high >= 0.95


def test_while_there_is_room_nobody_is_shed() -> None:
    router = a_rationing_router(Policy("fair", shares=(Share(("*",)),), shed=Shed()))

    run = Run(router, [Stream("a", 0.3 * CAPACITY, -5), Stream("b", 0.02 * CAPACITY)], lasts=60.0, seed=1)

    assert run.refusals == []


PER_TOKEN = 0.000_2
BY_WAIT = Policy("soon", shed=Shed((ShedStep(-1, 0.3), ShedStep(0, 0.6)), full_wait_seconds=1.0))


def a_queueing_router(*waits: float) -> Router:
    """Nodes with room for thousands of requests, where siblings have prompts of so many seconds waiting."""
    router = Router(RoutingSettings(policy="soon"), replica="r1", seed=7, wall=Wall())
    served = a_deployment(profile=ServingProfile(PER_TOKEN, 0.05, 50.0, 4_000))
    router.install(a_table(*[a_node(f"eu/n{number}", [served]) for number in range(len(waits))]))
    router.install_policies({"soon": BY_WAIT})
    slots = router.state.slots
    told = {slots[f"eu/n{n}/{MODEL}"]: (wait / PER_TOKEN, 0.0) for n, wait in enumerate(waits)}
    router.state.heed_siblings("b", told, 0.0, 0.0)
    return router


def kept_by_priority(router: Router) -> dict[int, int]:
    """How many of ten requests of each priority are admitted."""
    kept = {}
    for priority in (-1, 0, 1):
        kept[priority] = 0
        for number in range(10):
            with suppress(ShedRequest):
                router.decide(a_request(priority=priority), 0.0, number=number)
                kept[priority] += 1
    return kept


def test_queues_for_a_prefill_make_a_room_full_while_batches_are_nearly_empty() -> None:
    assert kept_by_priority(a_queueing_router(0.2, 0.2, 0.2, 0.2)) == {-1: 10, 0: 10, 1: 10}
    assert kept_by_priority(a_queueing_router(0.6, 0.6, 0.6, 0.6)) == {-1: 0, 0: 10, 1: 10}
    assert kept_by_priority(a_queueing_router(3.0, 3.0, 3.0, 3.0)) == {-1: 0, 0: 0, 1: 10}


def test_neither_one_idle_looking_node_nor_one_sick_one_says_how_long_queues_are() -> None:
    assert kept_by_priority(a_queueing_router(0.0, 3.0, 3.0, 3.0, 3.0))[0] == 0
    assert kept_by_priority(a_queueing_router(0.1, 0.1, 0.1, 0.1, 60.0))[-1] == 10


def test_who_is_shed_for_a_wait_is_told_the_wait() -> None:
    with pytest.raises(ShedRequest) as caught:
        a_queueing_router(0.8, 0.8).place(a_request(priority=-1), 0.0)

    assert caught.value.details["wait_seconds"] == "0.800"
    assert "80% full by queues of 0.80 s" in str(caught.value)
    record = a_queueing_router(0.8, 0.8).place(a_request(priority=1), 0.0)
    (stage,) = [stage for stage in record.render().stages if stage.name == "admission"]
    assert stage.detail == "80% full by queues of 0.80 s; requests of priority 1 are shed with chance 0%"


def test_who_is_shed_is_told_why_and_when_to_come_back() -> None:
    router = a_rationing_router(Policy("fair", shares=(Share(("*",)),)))

    run = Run(router, [Stream("a", 10 * CAPACITY, -1), Stream("b", 0.3 * CAPACITY)], lasts=20.0, seed=1)

    shed = [error for error in run.refusals if isinstance(error, ShedRequest)]
    assert {error.reason for error in shed} == {"NO_CAPACITY"}
    by_share = next(error for error in reversed(shed) if error.details["shed_by"] == "share")
    assert by_share.details["tenant"] == "a"
    assert float(by_share.details["share"]) > 1.0
    assert "times its fair share of tokens" in str(by_share)
    waits = {error.retry_after_seconds for error in shed}
    assert all(wait is not None and 1.0 <= wait < 2.0 for wait in waits)
    assert len(waits) > len(shed) / 2, "not all may come back at once"


def test_a_decision_tells_what_admission_read() -> None:
    router = a_rationing_router(Policy("shed", shed=Shed()))

    record = router.place(a_request(priority=-1), 0.0)

    (stage,) = [stage for stage in record.render().stages if stage.name == "admission"]
    assert stage.detail == "0% full; requests of priority -1 are shed with chance 0%"


@given(st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_admitted_decisions_are_replayed_as_they_were(seed: int) -> None:
    rng = Random(seed)
    shares = (Share(("a",), rng.choice([0.5, 3.0])), Share(("*",))) if rng.random() < 0.7 else ()
    shed = Shed(full_wait_seconds=rng.choice([None, 0.5, 5.0]))
    router = a_rationing_router(Policy("mixed", shares=shares, shed=shed), seed=seed)
    streams = [Stream(tenant, rng.uniform(10.0, 100.0), rng.choice([-1, 0, 1])) for tenant in "abc"]

    Run(router, streams, lasts=2.0, seed=seed)

    records = [json.loads(record.to_json()) for record in router.ring.newest(40)]
    assert len(records) > 5
    for record in records:
        assert record["admission"] is not None
        assert replay(record).differences == ()
    forged = {**records[-1], "admission": {**records[-1]["admission"], "utilization": 5.0}}
    assert not replay(forged).identical


def test_reading_changes_nobodys_share() -> None:
    def run(look: bool) -> list[str]:
        router = a_rationing_router(Policy("fair", shares=(Share(("*",)),), shed=Shed()))
        made = []
        for number in range(300):
            request = a_request(tenant_id="ab"[number % 2], priority=-(number % 3))
            if look:
                router.candidates(request, number * 0.01)
                for attempt in range(3):
                    with suppress(NoCandidate):
                        router.decide(request, number * 0.01, number=attempt)
            try:
                made.append(router.place(request, number * 0.01).names()[0])
            except NoCandidate as error:
                made.append(error.reason)
        return made

    assert run(True) == run(False)
    assert "NO_CAPACITY" in run(False)


def test_refusals_are_counted_by_what_for_and_class_of_priority() -> None:
    budgets = (
        Budget(("poor",), usd_per_day=0.0),
        Budget(("thrifty",), usd_per_day=0.0, when_exhausted=WhenExhausted.DEMOTE),
    )
    router = a_rationing_router(Policy("fair", shares=(Share(("*",)),), budgets=budgets), limit=2)
    router.place(a_request(tenant_id="thrifty", priority=3), 0.0)
    for tenant, priority in [*[("a", -2)] * 9, *[("b", 0)] * 9, *[("c", 7)] * 9, ("poor", 7)]:
        with suppress(NoCandidate):
            router.place(a_request(tenant_id=tenant, priority=priority), 0.0)

    counted = router.rations.refusals

    assert router.rations.demotions == 1
    assert counted["budget", "high"] == 1
    assert {kind for _, kind in counted} == {"low", "normal", "high"}
    assert {reason for reason, _ in counted} <= {"priority", "share", "budget"}
    assert counted.total() == router.stats.refused["NO_CAPACITY"] + router.stats.refused["BUDGET_EXHAUSTED"]


# Policies of tenants


def test_a_tenants_policy_decides_where_a_request_names_none() -> None:
    router = a_rationing_router(
        Policy("plain"), tenant_policies=("acme-lab=cost_first", "acme-*=gold", "*corp=plain"), limit=None
    )
    router.install_policies({"plain": Policy("plain"), "gold": Policy("gold")})

    def policy_of(tenant: str, named: str = "") -> str:
        return router.place(a_request(tenant_id=tenant, policy_id=named), 0.0).render().policy_id

    assert [policy_of(tenant) for tenant in ("acme-lab", "acme-1", "corp", "", "other")] == [
        "cost_first", "gold", "plain", "plain", "plain",
    ]  # fmt: skip
    assert policy_of("acme-1", "balanced") == "balanced"


def test_naming_another_policy_is_no_way_around_ones_share_and_priority() -> None:
    gold = Policy("gold", shares=(Share(("*",)),))
    router = a_rationing_router(Policy("plain"), tenant_policies=("a=gold",))
    router.install_policies({"plain": Policy("plain"), "gold": gold})

    def flood(tenant: str, named: str) -> Counter[str]:
        told = Counter[str]()
        for _ in range(64):
            try:
                record = router.place(a_request(tenant_id=tenant, policy_id=named, priority=-1), 0.0)
            except NoCandidate as error:
                told[error.details.get("shed_by", "full")] += 1
            else:
                told[record.render().policy_id] += 1
                assert replay(json.loads(record.to_json())).identical
        return told

    escaping = flood("a", "plain")

    assert escaping["plain"] > 0
    assert escaping["share"] > 0
    assert escaping["full"] == 0
    # A tenant whose own policy sheds nobody is shed by the policy that it names, and by none where it names none.
    assert flood("b", "gold")["share"] + flood("b", "gold")["priority"] > 0
    assert flood("b", "")["plain"] > 0


# Budgets


def spent(router: Router, tenant: str = "acme", at: float = WALL) -> tuple[float, float]:
    return router.rations.ledger.spent(tenant, at)


def test_a_decision_is_charged_as_estimated_and_corrected_by_the_outcome_once() -> None:
    router = a_rationing_router(Policy("p", budgets=(Budget(("acme",), usd_per_day=1.0),)))
    decision = router.route(a_request(tenant_id="acme"), 0.0)
    estimate = 500e-6 + 2 * 100e-6

    charged = spent(router)
    outcome = Outcome(decision.decision_id, result=Result.OK, input_tokens=400, output_tokens=1_000)
    for _ in range(2):
        router.report(outcome, 1.0)

    assert decision.target.estimated_cost_usd == pytest.approx(estimate)
    assert charged == pytest.approx((estimate, estimate))
    assert spent(router) == pytest.approx((400e-6 + 2_000e-6, 400e-6 + 2_000e-6))


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        # Nothing is told of tokens: the estimate stands; a failure without tokens costs nothing.
        ([Outcome("", result=Result.OK)], 700e-6),
        ([Outcome("", result=Result.SERVER_ERROR)], 0.0),
        ([Outcome("", result=Result.CANCELLED, input_tokens=500, output_tokens=10)], 520e-6),
        # Only what is told is corrected.
        ([Outcome("", result=Result.OK, output_tokens=0)], 500e-6),
        # An alternative takes the place of an attempt that nobody reports on, and comes on top of one that cost.
        ([Outcome("", 1, Phase.STARTED)], 700e-6),
        ([Outcome("", 1, result=Result.OK, input_tokens=500, output_tokens=50)], 600e-6),
        (
            [
                Outcome("", 0, result=Result.TIMEOUT, input_tokens=500, output_tokens=0),
                Outcome("", 1, Phase.STARTED),
                Outcome("", 1, result=Result.OK, input_tokens=500, output_tokens=50),
            ],
            1_100e-6,
        ),
        # In another order it comes to the same.
        (
            [
                Outcome("", 1, result=Result.OK, input_tokens=500, output_tokens=50),
                Outcome("", 0, result=Result.TIMEOUT, input_tokens=500, output_tokens=0),
            ],
            1_100e-6,
        ),
    ],
)
def test_what_attempts_cost(reports: list[Outcome], expected: float) -> None:
    router = a_rationing_router(Policy("p", budgets=(Budget(("*",), usd_per_day=1.0),)))
    decision = router.route(a_request(tenant_id="acme"), 0.0)

    for report in reports:
        router.report(replace(report, decision_id=decision.decision_id), 1.0)

    assert spent(router)[0] == pytest.approx(expected)


def test_a_spent_budget_refuses_until_the_day_is_over_and_tells_only_the_callers_figures() -> None:
    router = a_rationing_router(Policy("p", budgets=(Budget(("a*",), usd_per_day=0.002),)))
    for _ in range(3):
        router.place(a_request(tenant_id="acme"), 0.0)
    router.place(a_request(tenant_id="anders"), 0.0)

    with pytest.raises(NoCandidate) as refused:
        router.place(a_request(tenant_id="acme"), 0.0)

    error = refused.value
    assert error.reason == "BUDGET_EXHAUSTED"
    assert error.retry_after_seconds == 6_400.0
    assert error.details == {"tenant": "acme", "period": "day", "limit_usd": "0.002", "spent_usd": "0.0021"}
    assert "has spent its 0.002 USD of this day; it begins anew in 2 h" in str(error)
    assert "anders" not in str(error)
    # Others have their own, and the next day is a new one.
    router.place(a_request(tenant_id="anders"), 0.0)
    router.place(a_request(tenant_id="globex"), 0.0)
    router._wall.now += 6_400.0  # type: ignore[attr-defined]
    router.place(a_request(tenant_id="acme"), 0.0)
    assert spent(router, at=WALL + 6_400)[1] == pytest.approx(4 * 0.0007)


def test_a_month_outlasts_its_days() -> None:
    router = a_rationing_router(Policy("p", budgets=(Budget(("acme",), usd_per_month=0.001),)))
    router.place(a_request(tenant_id="acme"), 0.0)
    router._wall.now += 86_400.0  # type: ignore[attr-defined]
    router.place(a_request(tenant_id="acme"), 0.0)

    with pytest.raises(NoCandidate) as refused:
        router.place(a_request(tenant_id="acme"), 0.0)

    # From the 15th to the 1st of December.
    assert refused.value.retry_after_seconds == 6_400.0 + 15 * 86_400.0
    assert refused.value.details["period"] == "month"


def test_a_spent_budget_may_demote_and_says_so() -> None:
    budget = Budget(("acme",), usd_per_day=0.0005, when_exhausted=WhenExhausted.DEMOTE)
    router = a_rationing_router(Policy("p", budgets=(budget,), shed=Shed()))
    request = a_request(tenant_id="acme", priority=7, cost_tolerance=100.0)

    first, second = router.place(request, 0.0), router.place(request, 0.0)

    assert (first.request.priority, first.request.cost_tolerance) == (7, 100.0)
    assert (second.request.priority, second.request.cost_tolerance) == (-1, 0.0)
    assert second.plan.ranking.weights["cost"] == 2.0
    (stage,) = [stage for stage in second.render().stages if stage.name == "budget"]
    assert stage.detail == (
        "tenant 'acme' has spent its 0.0005 USD of this day: demoted, priority 7 to -1, cost_tolerance 100 to 0"
    )
    assert replay(json.loads(second.to_json())).identical


def test_naming_another_policy_is_no_way_around_ones_budget() -> None:
    gold = Policy("gold", budgets=(Budget(("*",), usd_per_day=0.0005),))
    router = a_rationing_router(Policy("plain"), tenant_policies=("acme=gold",))
    router.install_policies({"plain": Policy("plain"), "gold": gold})

    router.place(a_request(tenant_id="acme", policy_id="plain"), 0.0)

    for named in ("", "plain", "balanced"):
        with pytest.raises(NoCandidate, match=r"has spent its 0\.0005 USD"):
            router.place(a_request(tenant_id="acme", policy_id=named), 0.0)
    router.place(a_request(tenant_id="globex"), 0.0)


def test_a_rule_sees_the_priority_that_a_budget_left() -> None:
    from policies.policy import Match, Rule

    budget = Budget(("*",), usd_per_day=0.0, when_exhausted=WhenExhausted.DEMOTE)
    rules = (Rule("no batch work", Match(max_priority=-1), refuse="not today"),)
    router = a_rationing_router(Policy("p", budgets=(budget,), rules=rules))

    with pytest.raises(NoCandidate, match="not today"):
        router.place(a_request(priority=9), 0.0)


def test_without_budgets_nothing_is_charged() -> None:
    router = a_rationing_router(Policy("plain"))

    record = router.place(a_request(MODEL, tenant_id="acme"), 0.0)

    assert (record.charges, record.admission, record.plan.room) == (None, None, None)
    assert router.rations.ledger.tenants(WALL) == []
