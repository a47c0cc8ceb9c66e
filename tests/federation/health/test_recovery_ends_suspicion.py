"""Whoever recovered starts slowly, and is not suspected besides for what it did before."""

from __future__ import annotations

from policies.health import CircuitState, Grade
from policies.types import Outcome, Result
from tests.builders import a_node as a_routed_node
from tests.builders import a_request, a_router, a_table
from tests.federation.health.fleet import MODEL, Fleet

NAME = f"r/n1/{MODEL}"


def a_fleet() -> tuple[Fleet, list[str]]:
    fleet = Fleet().passed()
    started: list[str] = []
    fleet.monitor.on_slow_start = started.append
    return fleet, started


def suspect(fleet: Fleet) -> Fleet:
    fleet.monitor.observe_suspicion(NAME, 50.0, fleet.now)
    return fleet


def test_trials_that_close_a_circuit_end_suspicion():
    fleet, started = a_fleet()
    suspect(fleet.answered(times=5, result=Result.UNREACHABLE))
    for _ in range(4):
        fleet.after(8.5).passed()
    assert fleet.health().circuit.state is CircuitState.HALF_OPEN
    before = list(started)

    suspect(fleet).recovered()

    assert (before, started) == ([], [NAME])
    assert fleet.health().circuit.state is CircuitState.CLOSED
    assert fleet.health().grade is Grade.HEALTHY
    # The slow start is what is left of the caution.
    assert fleet.health().score < 0.2
    assert fleet.after(30.0).passed().health().score == 1.0


def test_failures_before_a_recovery_are_no_latency_after_it():
    fleet, _ = a_fleet()
    fleet.answered(times=5, result=Result.UNREACHABLE)
    before = fleet.health().latency_p50_seconds

    fleet.monitor.reset_circuit(NAME, fleet.now)

    assert before is not None
    assert before > 50.0
    assert fleet.health().latency_p50_seconds is None


def test_probes_that_end_an_outage_end_suspicion():
    fleet, started = a_fleet()
    suspect(fleet.failed().failed().failed()).passed()
    before = list(started)

    fleet.passed()

    assert (before, started) == ([], [NAME])
    assert fleet.health().grade is Grade.HEALTHY


def test_one_probe_that_passes_ends_no_suspicion():
    fleet, started = a_fleet()

    suspect(fleet.failed()).passed()

    assert started == []
    assert fleet.health().grade is Grade.DEGRADED


def test_a_router_that_trusts_again_predicts_as_before():
    router = a_router(a_table(a_routed_node("eu/a")))
    decision = router.route(a_request(), 1.0)
    idle = decision.target.estimated_time_to_first_token_seconds
    router.report(Outcome(decision.decision_id, result=Result.UNREACHABLE), 1.1)
    suspected = router.route(a_request(), 1.2)
    router.report(Outcome(suspected.decision_id, result=Result.CANCELLED), 1.3)

    router.trust(decision.target.deployment)
    router.trust("nobody/knows/this")

    again = router.route(a_request(), 1.4).target.estimated_time_to_first_token_seconds
    late = suspected.target.estimated_time_to_first_token_seconds
    assert idle is not None
    assert late is not None
    assert late > 2 * idle
    assert again == idle
