"""Decisions in process: `Router.place` on warm plans, against a bare pick of an index and the plain pipeline."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from random import Random

import numpy as np

from catalog.types import Snapshot
from federation.config import RoutingSettings
from federation.memory import settle_memory
from federation.routing.decisions import Record
from federation.routing.router import Router
from federation.routing.runs import Run
from federation.routing.table import build_table
from policies.errors import NoCandidate
from policies.pipeline import choose, evaluate
from policies.registry import BUILT_IN
from policies.types import Explain, RouteRequest
from tests.bench import others
from tests.bench.measure import SEED, Result, Scope, held, per_second, ratio_in_turns
from tests.builders import MODEL, a_deployment, a_node, a_region, a_snapshot, all_well

REGIONS = 10
# Batch places of a node that are taken when the fleet is at 70 % load.
LOAD = 0.7


def a_fleet(size: int) -> tuple[Snapshot, Router]:
    """A router over so many deployments in ten regions of three zones, half of them loaded to about 70 %."""
    rng = Random(SEED)
    regions = [
        a_region(f"r{n}", round_trip_seconds={f"r{m}": 0.01 + 0.02 * abs(n - m) for m in range(REGIONS) if m != n})
        for n in range(REGIONS)
    ]
    nodes = [
        a_node(
            f"r{number % REGIONS}/n{number}",
            [a_deployment(price_usd_per_million_output_tokens=1.0 + number % 3)],
            zone=f"z{number // REGIONS % 3}",
        )
        for number in range(size)
    ]
    snapshot = a_snapshot(*nodes, regions=regions)
    router = Router(RoutingSettings(decisions_kept=1_000), replica="b", seed=SEED, wall=lambda: 1_700_000_000.0)
    router.install(build_table(snapshot, all_well(snapshot), home_region="r0", now=0.0))
    state = router.state
    for slot in range(size):
        state.in_flight[slot] = float(int(rng.gauss(LOAD * 32, 3)))
        state.pending[slot] = float(max(0, int(rng.gauss(600, 300))))
    state.moved()
    return snapshot, router


def requests(picker: str = "") -> list[RouteRequest]:
    """A thousand requests of ten kinds: origins, and prompts of all lengths."""
    rng = Random(SEED)
    return [
        RouteRequest(
            model_id=MODEL,
            origin_region=f"r{number % REGIONS}",
            input_tokens=int(rng.lognormvariate(6.5, 0.8)),
            max_output_tokens=200,
            policy_id=picker,
            explain=Explain.SUMMARY,
        )
        for number in range(1_000)
    ]


def decide(router: Router, asked: list[RouteRequest], count: int) -> None:
    """Decides, and ends each request at once, so that the load stays where it is."""
    place, release = router.place, router.reservations.release
    kinds = len(asked)
    for number in range(count):
        release(place(asked[number % kinds], 1.0).number)


def with_picker(router: Router, picker: str) -> None:
    router.install_policies({picker: replace(router.policy("balanced"), policy_id=picker, picker=picker)})


def plain(router: Router, request: RouteRequest, number: int) -> str:
    """The plain pipeline for one request: filter everything, score everything, sort."""
    record = router.decide(request, 1.0, number=number, whole=True)
    table, ask = router.table, record.ask
    pool = table.pool.take(record.plan.rows)
    found = evaluate(ask, pool, router.state.load(pool.slot), BUILT_IN)
    picked = choose(found, BUILT_IN, picker="predicted", seed=record.seed, key="", session_slot=-1, wanted=3)
    assert picked is not None
    return pool.names[int(pool.row[picked.target])]


def rates(router: Router, asked: list[RouteRequest], scope: Scope) -> tuple[float, float]:
    """Decisions a second on warm rankings, and candidates visited for each."""
    decide(router, asked, scope.decisions)
    visited, decisions = router.stats.visited, router.stats.decisions
    rate = per_second(lambda count: decide(router, asked, count), scope.decisions, scope)
    return rate, (router.stats.visited - visited) / (router.stats.decisions - decisions)


@contextmanager
def settled() -> Iterator[None]:
    """Collects garbage as the server does, which leaves out what its start made."""
    before = gc.get_threshold()
    settle_memory()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def of_router(router: Router, size: int, scope: Scope, bare: float | None) -> Iterator[Result]:
    """A router over so many deployments: both pickers, and at the main size what they are compared with."""
    asked = requests()
    decide(router, asked, scope.decisions)
    check(router, asked)
    predicted, looked = rates(router, asked, scope)
    main = size == scope.fleets[-2]
    name = f"predicted, {size:,} deployments at 70 % load"
    if main:
        yield held(scope, name, predicted, "1/s", ">= 60,000/s", predicted >= 60_000)
    else:
        yield Result(name, predicted, "1/s")
    yield Result(f"candidates visited by predicted, {size:,} deployments", looked, "a decision")
    with_picker(router, "power_of_two")
    paired = requests("power_of_two")
    check_spread(router, paired)
    rate, _ = rates(router, paired, scope)
    ratio = None if bare is None else rate / bare
    name = f"power_of_two, {size:,} deployments, target and 3 alternatives"
    if not main:
        yield Result(name, rate, "1/s")
        return
    yield held(
        scope,
        name,
        rate,
        "1/s",
        ">= 250,000/s and >= 0.15",
        rate >= 250_000 and (ratio is None or ratio >= 0.15),
        baseline="intelligent-routing p2c" if bare is not None else "",
        ratio=ratio,
    )
    check_batch(router, paired)
    many = per_second(lambda count: batch(router, paired, count), scope.decisions, scope)
    yield held(
        scope,
        f"a batch of {scope.decisions:,}, power_of_two, {size:,} deployments",
        many,
        "1/s",
        ">= 2 x one by one",
        many >= 2 * rate,
        baseline="one by one",
        ratio=many / rate,
    )
    slow = per_second(
        lambda count: [plain(router, asked[n % len(asked)], n) for n in range(count)],
        max(2, scope.decisions // 20),
        scope,
    )
    yield Result(f"plain pipeline, {size:,} deployments", slow, "1/s")
    yield Result(f"predicted over the plain pipeline, {size:,}", predicted, "1/s", "plain pipeline", predicted / slow)
    told = per_second(lambda count: tell(router, asked, count), scope.decisions, scope)
    yield Result(f"predicted with its explanation rendered, {size:,}", told, "1/s", "not rendered", told / predicted)


def tell(router: Router, asked: list[RouteRequest], count: int) -> None:
    """Decides with all that an answer tells: target, alternatives, reasons and stages."""
    for number in range(count):
        record = router.place(asked[number % len(asked)], 1.0)
        record.render()
        router.reservations.release(record.number)


def batch(router: Router, asked: list[RouteRequest], count: int) -> None:
    """Decides many at once, and ends them all."""
    kinds = len(asked)
    placed = router.place_many([asked[number % kinds] for number in range(count)], 1.0)
    release = router.reservations.release
    for place, part in enumerate(placed.parts):
        assert not isinstance(part, NoCandidate)
        release(part.number + place - part.begin if isinstance(part, Run) else part.number)


def check_batch(router: Router, asked: list[RouteRequest]) -> None:
    """What a batch gives are whole decisions, spread, and remembered one by one."""
    placed = router.place_many(asked[:200], 1.0)
    records = [record for record in placed if isinstance(record, Record)]
    assert len(records) == len(asked[:200])
    assert len({record.row for record in records}) > min(20, len(router.table.pool) // 4)
    for record in records:
        assert record.alternatives
        assert router.decision(record.decision_id) is record
        assert record.render().reasoning
        router.reservations.release(record.number)


def run(scope: Scope) -> Iterator[Result]:
    """Deciding in process, at every size of fleet."""
    bare = others.intelligent_routing("p2c", scope)
    routers = {}
    for size in scope.fleets:
        _, routers[size] = a_fleet(size)
        with settled():
            yield from of_router(routers[size], size, scope, bare)
    small, large = scope.fleets[0], scope.fleets[-1]
    for picker, asked in (("predicted", requests()), ("power_of_two", requests("power_of_two"))):
        with settled():
            ratio = ratio_in_turns(
                *[partial(decide, routers[size], asked) for size in (small, large)], scope.decisions, scope
            )
        yield held(
            scope,
            f"time of a decision by {picker}, {large:,} against {small:,} deployments",
            ratio,
            "x",
            "<= 1.25",
            ratio <= 1.25,
            baseline=f"{small:,} deployments",
            ratio=ratio,
        )


def check(router: Router, asked: list[RouteRequest]) -> None:
    """What is measured is a decision: near the best of the plain pipeline, with alternatives, and spread."""
    targets = set()
    for number, request in enumerate(asked[:20]):
        record = router.decide(request, 1.0, number=number, whole=True)
        found = record.evaluation
        best, mine = found.total[found.order[0]], found.total[record.target]
        per_point = 1.0 / (router.policy("").latency_points_per_second / record.plan.ranking.weight_sum)
        margin = 0.020 + 0.05 * float(found.seen.time_to_first_token[found.order[0]])
        assert (best - mine) * per_point <= margin + 1e-9, "the choice is not near the best"
        assert len(record.alternatives) == 3
        targets.add(record.names()[0])
    assert len(targets) > 5, "decisions are not spread"
    assert np.isfinite(router.state.matrix).all()


def check_spread(router: Router, asked: list[RouteRequest]) -> None:
    """Power of two choices draws evenly and takes the less loaded: no deployment gets more than a few of many."""
    got = Counter(router.decide(request, 1.0, number=number).names()[0] for number, request in enumerate(asked[:200]))
    eligible = len(router.table.pool)
    assert max(got.values()) <= 6 + 6 * 200 / eligible, "one deployment was drawn again and again"
    assert len(got) >= min(100, eligible // 4), "draws are not spread"
