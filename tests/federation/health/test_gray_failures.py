"""Ten nodes under steady traffic in virtual time: who is left out, how soon, and that nobody is without cause."""

from __future__ import annotations

import math
from random import Random

import pytest

from policies.health import CircuitState
from policies.types import Outcome, Result
from tests.federation.health.fleet import MODEL, Fleet, a_node

PER_SECOND = 200
STEP = 0.1


class Traffic:
    """Requests spread over all deployments that are not ejected or open, with outcomes drawn from a seed."""

    def __init__(self, nodes: int = 10, seed: int = 11, error_ratio: float = 0.0) -> None:
        self.fleet = Fleet(*(a_node(f"n{i}") for i in range(nodes)), seed=seed)
        self.rng = Random(seed)
        self.names = [f"r/n{i}/{MODEL}" for i in range(nodes)]
        self.errors = dict.fromkeys(self.names, error_ratio)
        self.slowness = dict.fromkeys(self.names, 1.0)
        self.sent = dict.fromkeys(self.names, 0)
        self.ejections: list[tuple[float, str]] = []
        self.opened: list[str] = []
        self.pending: list[tuple[float, int, str, Outcome]] = []
        self.probe_at = 0.0
        self.started = self.fleet.now

    def run(self, seconds: float) -> Traffic:
        end = self.fleet.now + seconds
        while self.fleet.now < end:
            self.fleet.now += STEP
            self.step()
        return self

    def step(self) -> None:
        fleet, now = self.fleet, self.fleet.now
        if now >= self.probe_at:
            self.probe_at = now + 10.0
            for i in range(len(self.names)):
                fleet.passed(f"r/n{i}")
        fleet.monitor.tick(now)
        view = fleet.monitor.view(now)
        out = {name for name, health in view.items() if health.ejected_until > now}
        for name in out - {name for at, name in self.ejections if at > now - 30.0}:
            self.ejections.append((now, name))
        self.opened += [n for n, h in view.items() if h.circuit.state is CircuitState.OPEN]
        open_to = [n for n in self.names if n not in out and view[n].circuit.state is CircuitState.CLOSED]
        for _ in range(int(PER_SECOND * STEP) if open_to else 0):
            self.send(self.rng.choice(open_to))
        self.pending.sort(key=lambda entry: entry[0])
        while self.pending and self.pending[0][0] <= now:
            _, _, name, outcome = self.pending.pop(0)
            fleet.monitor.observe_outcome(name, outcome, now)

    def send(self, name: str) -> None:
        self.sent[name] += 1
        tokens = int(self.rng.lognormvariate(6.0, 1.0))
        first = (0.05 + 2e-4 * tokens) * self.slowness[name] * self.rng.lognormvariate(0.0, 0.5)
        failed = self.rng.random() < self.errors[name]
        outcome = Outcome(
            "d",
            result=Result.SERVER_ERROR if failed else Result.OK,
            latency_seconds=first + 1.0,
            time_to_first_token_seconds=None if failed else first,
            input_tokens=tokens,
        )
        self.pending.append((self.fleet.now + first, len(self.pending), name, outcome))

    def share(self, name: str) -> float:
        return self.sent[name] / max(1, sum(self.sent.values()))


def test_a_node_with_a_third_of_errors_is_out_within_ten_seconds_of_its_first_fifty_outcomes():
    traffic = Traffic().run(60.0)
    sick = traffic.names[3]
    traffic.errors[sick] = 0.3
    begun = traffic.fleet.now

    traffic.run(12.5)  # 50 outcomes at 20/s, and 10 s
    traffic.sent = dict.fromkeys(traffic.names, 0)
    traffic.run(20.0)

    assert [name for _, name in traffic.ejections] == [sick]
    assert traffic.ejections[0][0] - begun < 12.5
    assert traffic.share(sick) <= 0.02


def test_a_node_that_fails_from_the_start_is_out_as_soon():
    traffic = Traffic()
    traffic.errors[traffic.names[0]] = 0.3

    traffic.run(12.5)

    assert traffic.ejections
    assert traffic.ejections[0][1] == traffic.names[0]


@pytest.mark.parametrize("warm_up", [0.0, 60.0])
def test_a_node_ten_times_slower_is_out_within_twenty_seconds(warm_up: float):
    traffic = Traffic().run(warm_up)
    slow = traffic.names[7]
    traffic.slowness[slow] = 10.0
    begun = traffic.fleet.now

    traffic.run(20.0)

    assert [name for _, name in traffic.ejections] == [slow]
    assert traffic.ejections[0][0] - begun < 20.0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_healthy_fleet_with_one_percent_of_errors_loses_nobody_in_ten_minutes(seed: int):
    traffic = Traffic(seed=seed, error_ratio=0.01).run(600.0)

    assert traffic.ejections == []
    assert traffic.opened == []
    assert sum(traffic.sent.values()) == pytest.approx(120_000, rel=0.01)


def test_a_node_that_stays_sick_is_out_longer_each_time():
    traffic = Traffic()
    sick = traffic.names[1]
    traffic.errors[sick] = 0.2  # enough for a pool to see, too little for five in a row
    lengths = []
    for _ in range(2_200):
        traffic.run(STEP)
        until = traffic.fleet.health(sick).ejected_until
        if until and (not lengths or until != lengths[-1][1]):
            lengths.append((until - traffic.fleet.now, until))

    assert [math.ceil(length / 30.0 - 0.01) for length, _ in lengths][:3] == [1, 2, 3]


def test_slow_hardware_that_is_known_to_be_slow_stays_in():
    traffic = Traffic()
    traffic.slowness[traffic.names[0]] = 4.0

    traffic.run(60.0)

    assert traffic.ejections == []


def test_in_a_pool_of_one_nobody_is_left_out():
    traffic = Traffic(nodes=1)
    traffic.errors[traffic.names[0]] = 0.3

    traffic.run(5.0)

    assert traffic.ejections == []


def test_when_most_fail_at_most_a_tenth_is_out():
    traffic = Traffic(nodes=10)
    for name in traffic.names[:6]:
        traffic.errors[name] = 0.3

    traffic.run(20.0)

    assert len(traffic.ejections) <= 1
