"""Whole runs: every request ends once, the same seed gives the same bytes, faults do what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from federation.simulation.faults import KINDS, Fault
from federation.simulation.fleet import load_fleet
from federation.simulation.metrics import first_token_seconds
from federation.simulation.report import as_json
from federation.simulation.routers import Behaviour
from federation.simulation.run import Outcome, Scenario, prepared, simulate
from federation.simulation.traces import load_trace
from policies.presets import PRESETS
from policies.types import Result

FLEET = load_fleet("three-regions")
SHORT = load_trace("bursty.csv")[:500]
FASTEST = "us-east-1/h100x4-1"


def a_run(name: str = "balanced", *faults: str, load: float = 0.5, seed: int = 1) -> Outcome:
    scenario = Scenario(FLEET, SHORT, load, tuple(Fault(kind) for kind in faults), seed)
    return simulate(scenario, name)


@pytest.mark.parametrize("kind", ["", *KINDS])
def test_every_request_ends_exactly_once_whatever_breaks(kind: str):
    outcome = a_run("balanced", *([kind] if kind else []))

    assert [journey.number for journey in outcome.journeys] == list(range(len(SHORT)))
    for journey in outcome.journeys:
        assert journey.ended is not None
        assert (journey.result is None) == bool(journey.refused)
        if journey.result is Result.OK:
            assert journey.first_token is not None
            assert journey.arrived < journey.first_token <= journey.ended


def test_a_first_token_never_comes_before_light_and_prefill_allow():
    profiles = {node.name: node for node in FLEET.nodes}

    for journey in a_run().journeys:
        node = profiles[journey.node]
        path = FLEET.round_trip[FLEET.gateways[journey.gateway].region_id, node.region_id]
        work = (journey.request.input_tokens - journey.cached_tokens) * node.profile.prefill_seconds_per_token
        least = max(work, node.profile.min_time_to_first_token_seconds)
        assert first_token_seconds(journey) >= path + least - 1e-6


PROGRAM = """
import json
from federation.simulation.run import Scenario, simulate
from federation.simulation.faults import Fault
from federation.simulation.fleet import load_fleet
from federation.simulation.report import as_json
from federation.simulation.traces import load_trace
scenario = Scenario(load_fleet("three-regions"), load_trace("bursty.csv")[:500], 0.5, (Fault("flapping"),), 1)
print(json.dumps(as_json(scenario, [simulate(scenario, "balanced")])))
"""


def test_the_same_seed_gives_the_same_bytes_in_every_process():
    told = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            timeout=120,
        ).stdout
        for hash_seed in ("1", "2")
    ]

    assert told[0] == told[1]
    assert json.loads(told[0])["policies"]["balanced"]["requests"] == 500


def test_another_seed_gives_another_run():
    one, two = a_run(seed=1), a_run(seed=2)

    scenario = Scenario(FLEET, SHORT, 0.5)
    assert as_json(scenario, [one]) != as_json(scenario, [two])


def test_a_node_that_fails_fast_draws_few_requests_and_loses_none():
    outcome = a_run("balanced", "fast-failure")

    begin, end = 0.25 * SHORT[-1].arrival, 0.75 * SHORT[-1].arrival
    assert outcome.summary.errors == 0.0
    assert 0 < outcome.summary.retries < 0.05 * len(SHORT)
    assert end > begin


def test_a_killed_node_gets_nothing_while_it_is_dead():
    outcome = a_run("balanced", "killed")

    length = max(journey.arrived for journey in outcome.journeys)
    late = [j for j in outcome.journeys if 0.5 * length < j.arrived < 0.74 * length and j.result is Result.OK]
    assert FASTEST not in {journey.node for journey in late}
    assert outcome.summary.errors < 0.05


def test_a_gray_node_is_left_and_comes_back():
    outcome = a_run("balanced", "gray", load=0.3)

    length = max(journey.arrived for journey in outcome.journeys)
    share = Counter(
        int(journey.arrived / length * 4) for journey in outcome.journeys if journey.targets and journey.node == FASTEST
    )
    assert share[2] < 0.5 * share[0]
    assert share[3] > share[2]


def test_a_cut_region_is_left_and_its_own_gateway_goes_on():
    outcome = a_run("balanced", "cut", load=0.3)

    assert outcome.summary.errors < 0.1
    scenario = Scenario(FLEET, SHORT, 0.3, (Fault("cut"),), 1)
    length = prepared(scenario)[-1].arrival
    inside = [j for j in outcome.journeys if 0.5 * length < j.arrived < 0.7 * length and j.result is Result.OK]
    crossing = [
        j for j in inside if ("eu-central-1" in j.node) != (FLEET.gateways[j.gateway].region_id == "eu-central-1")
    ]
    assert len(crossing) <= 0.1 * len(inside)


def test_routers_that_tell_each_other_their_sums_predict_better_and_keep_the_tail_shorter() -> None:
    sharing = Behaviour(PRESETS["balanced"], sharing=True)

    def errors_and_tails(*behaviour: Behaviour) -> tuple[float, float]:
        found = [
            simulate(Scenario(FLEET, SHORT, 0.7, (), seed), "balanced", *behaviour).summary for seed in range(1, 5)
        ]
        return sum(each.prediction_error or 0.0 for each in found), sum(each.p99 for each in found)

    error, tail = errors_and_tails()
    shared_error, shared_tail = errors_and_tails(sharing)

    assert 0.0 < shared_error < 0.8 * error
    assert shared_tail < 0.95 * tail


def test_dearer_prices_move_work_away_where_money_comes_first():
    usual = simulate(Scenario(FLEET, SHORT, 0.3), "cost_first").summary
    dear = simulate(Scenario(FLEET, SHORT, 0.3, (Fault("prices", "us-east-1", 0.0, 1.0),)), "cost_first").summary

    assert dear.load_by_region.get("us-east-1", 0.0) < 0.5 * usual.load_by_region["us-east-1"]


def test_an_overload_is_a_burst_of_the_same_requests():
    calm, burst = Scenario(FLEET, SHORT, 0.5), Scenario(FLEET, SHORT, 0.5, (Fault("overload"),))

    assert [replace(r, arrival=0) for r in prepared(calm)] == [replace(r, arrival=0) for r in prepared(burst)]
    assert prepared(burst)[-1].arrival < prepared(calm)[-1].arrival
