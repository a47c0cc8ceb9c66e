"""Oracles: what they foresee happens, and nobody who knows less does much better."""

from __future__ import annotations

import pytest

from federation.simulation.baselines import BASELINES
from federation.simulation.fleet import load_fleet
from federation.simulation.routers import good_within
from federation.simulation.run import Scenario, simulate
from federation.simulation.traces import load_trace, with_priorities

FLEET = load_fleet("three-regions")
SHORT = load_trace("bursty.csv")[:600]


def test_what_the_oracle_foresees_happens():
    outcome = simulate(Scenario(FLEET, SHORT, 0.6), "oracle")

    assert outcome.summary.prediction_error == pytest.approx(0.0, abs=0.02)


def test_giving_up_saves_more_good_answers_in_an_overload():
    scenario = Scenario(FLEET, with_priorities(SHORT, 1), 1.4)

    greedy = simulate(scenario, "oracle")
    saving = simulate(scenario, "oracle-giving-up")

    assert saving.summary.good > greedy.summary.good
    late = [
        j for j in saving.journeys if j.predicted and j.targets and j.predicted > good_within(j.request.input_tokens)
    ]
    assert not late


def test_the_cheapest_costs_less_than_the_soonest():
    scenario = Scenario(FLEET, SHORT, 0.4)

    soonest, cheapest = simulate(scenario, "oracle").summary, simulate(scenario, "oracle-cheapest").summary

    assert cheapest.cost_usd < soonest.cost_usd
    assert cheapest.good > soonest.good - 0.02


@pytest.mark.parametrize("name", list(BASELINES))
def test_every_baseline_serves_the_trace_and_none_beats_the_oracle(name: str):
    scenario = Scenario(FLEET, SHORT[:250], 0.5)

    oracle, theirs = simulate(scenario, "oracle").summary, simulate(scenario, name).summary

    assert theirs.errors < 0.1
    assert theirs.p99 > 0.9 * oracle.p99
