from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.circuit import Open
from policies.health import CircuitState, Grade
from policies.types import Outcome, Phase, Result
from tests.federation.health.fleet import FAILURES, MODEL, Fleet, a_node

NAME = f"r/n1/{MODEL}"


def tripped() -> Fleet:
    return Fleet().passed().answered(times=5, result=Result.UNREACHABLE)


def half_open() -> Fleet:
    fleet = tripped()
    for _ in range(4):
        fleet.after(8.5).passed()
    assert fleet.health().circuit.state is CircuitState.HALF_OPEN
    return fleet


@pytest.mark.parametrize("result", FAILURES)
def test_five_failures_in_a_row_open_a_circuit_at_once_and_the_reason_says_so(result: Result):
    fleet = Fleet().passed().answered(times=4, result=result)
    before = fleet.health().circuit

    circuit = fleet.answered(result=result).health().circuit

    assert (before.state, before.failures) == (CircuitState.CLOSED, 4)
    assert (circuit.state, circuit.failures, circuit.opens_total) == (CircuitState.OPEN, 5, 1)
    assert 27.0 <= circuit.retry_at - fleet.now <= 33.0
    assert circuit.reason == f"5 failures in a row, the last: {result.value}"
    assert fleet.wanted == ["r/n1"]


@pytest.mark.parametrize("result", [Result.CLIENT_ERROR, Result.CANCELLED, Result.OVERLOADED])
def test_what_is_not_the_nodes_fault_opens_nothing_and_breaks_no_row(result: Result):
    fleet = Fleet().passed().answered(times=4, result=Result.TIMEOUT).answered(times=100, result=result)

    assert fleet.health().circuit.failures == 4
    assert fleet.health().grade is Grade.HEALTHY
    assert fleet.health().latency_p99_seconds == pytest.approx(60.0, rel=0.02)


def test_half_of_twenty_outcomes_open_it():
    fleet = Fleet().passed()
    for _ in range(9):
        fleet.answered(result=Result.SERVER_ERROR).answered()
    fleet.answered()
    before = fleet.health().circuit.state

    circuit = fleet.answered(result=Result.SERVER_ERROR).health().circuit

    assert before is CircuitState.CLOSED
    assert (circuit.state, circuit.reason) == (CircuitState.OPEN, "10 of 20 outcomes failed in 30 s")


def test_old_failures_are_not_counted_in_the_share():
    fleet = Fleet().passed()
    for _ in range(9):
        fleet.answered(result=Result.SERVER_ERROR).answered()
    fleet.after(31.0).passed()

    assert fleet.answered().answered(result=Result.SERVER_ERROR).health().circuit.state is CircuitState.CLOSED


def test_a_half_open_circuit_closes_after_three_successes_and_starts_slowly():
    fleet = half_open()

    states = [fleet.after(1.0).answered().health().circuit.state for _ in range(3)]
    first, later = fleet.health().score, fleet.after(15.0).passed().health().score

    assert states == [CircuitState.HALF_OPEN, CircuitState.HALF_OPEN, CircuitState.CLOSED]
    assert first == pytest.approx(0.1)
    assert later == pytest.approx(0.55)
    assert fleet.health().circuit.opens_total == 1


def test_a_failed_trial_opens_it_for_twice_as_long():
    circuit = half_open().answered(result=Result.TIMEOUT).health().circuit

    assert (circuit.state, circuit.opens_total, circuit.reason) == (CircuitState.OPEN, 2, "a trial failed: timeout")


def test_failures_before_it_opened_do_not_open_it_again_after_it_closed():
    fleet = half_open().recovered()

    fleet.answered(times=30).answered(times=4, result=Result.TIMEOUT)

    assert fleet.health().circuit.state is CircuitState.CLOSED


@given(st.lists(st.sampled_from(Result), max_size=40))
def test_late_outcomes_of_an_open_circuit_change_nothing(results: list[Result]):
    fleet = tripped()
    before = fleet.health().circuit

    for result in results:
        fleet.answered(result=result)

    assert fleet.health().circuit == before


def test_an_open_circuit_does_not_lower_the_score_for_it_is_a_filter():
    assert tripped().health().score == 1.0


def test_circuits_of_one_node_are_apart():
    fleet = Fleet(a_node(models=("a", "b"))).passed(models=["a", "b"])

    fleet.answered("r/n1/a", times=5, result=Result.SERVER_ERROR)

    assert fleet.health("r/n1/a").circuit.state is CircuitState.OPEN
    assert fleet.health("r/n1/b").circuit.state is CircuitState.CLOSED


def test_an_operators_reset_closes_it_at_once():
    fleet = tripped()

    fleet.monitor.reset_circuit(NAME, fleet.now)

    circuit = fleet.health().circuit
    assert (circuit.state, circuit.failures, circuit.opens_total) == (CircuitState.CLOSED, 0, 1)


def test_a_flapping_node_is_open_longer_each_time():
    fleet = Fleet().passed()
    lengths = []
    for _ in range(180):
        fleet.after(1.0)
        if int(fleet.now) % 2:
            fleet.passed()
        fleet.answered(times=5, result=Result.OK if int(fleet.now) % 4 < 2 else Result.UNREACHABLE)
        retry_at = fleet.health().circuit.retry_at
        if retry_at and (not lengths or retry_at != lengths[-1][1]):
            lengths.append((retry_at - fleet.now, retry_at))

    assert 2 <= len(lengths) <= 4
    assert [round(length / 30.0) for length, _ in lengths] == [1, 2, 4, 8][: len(lengths)]


def test_one_reporter_alone_does_not_open_it_for_others_while_probes_pass():
    fleet = Fleet().passed().answered(times=50, result=Result.TIMEOUT, reporter="tenant-a")

    assert fleet.health().circuit.state is CircuitState.CLOSED
    assert "r/n1" in fleet.wanted


def test_a_failed_probe_confirms_the_one_reporter():
    fleet = Fleet().passed().answered(times=50, result=Result.TIMEOUT, reporter="tenant-a").failed(error="HTTP 500")

    circuit = fleet.health().circuit

    assert circuit.state is CircuitState.OPEN
    assert circuit.reason == "failures of one reporter and a failed probe: HTTP 500"


def test_a_passed_probe_contradicts_the_one_reporter():
    fleet = Fleet().passed().answered(times=50, result=Result.TIMEOUT, reporter="tenant-a").passed().failed()

    assert fleet.health().circuit.state is CircuitState.CLOSED


def test_two_reporters_together_open_it():
    fleet = Fleet().passed().answered(times=4, result=Result.TIMEOUT, reporter="tenant-a")

    fleet.answered(result=Result.TIMEOUT, reporter="tenant-b")

    assert fleet.health().circuit.state is CircuitState.OPEN


def test_a_started_attempt_and_an_outcome_without_a_result_say_nothing():
    fleet = Fleet().passed()
    for outcome in (Outcome("d", phase=Phase.STARTED, result=Result.TIMEOUT), Outcome("d")):
        for _ in range(20):
            fleet.monitor.observe_outcome(NAME, outcome, fleet.now)

    assert fleet.health().circuit.failures == 0
    assert "outcome" not in fleet.health().signal_times


def test_time_half_opens_it_without_any_news():
    fleet = tripped()
    record = fleet.monitor._deployments[NAME]
    assert isinstance(record.circuit, Open)
    until = record.circuit.until

    fleet.monitor.tick(until - 0.01)
    before = fleet.monitor.deployment(NAME, until - 0.01).circuit.state
    version = fleet.monitor.version
    fleet.monitor.tick(until)

    assert before is CircuitState.OPEN
    assert fleet.monitor.deployment(NAME, until).circuit.state is CircuitState.HALF_OPEN
    assert fleet.monitor.version > version
