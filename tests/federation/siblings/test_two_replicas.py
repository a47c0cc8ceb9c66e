"""What one replica learns, the others know, and know once: in virtual time, with the real parts."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from catalog.types import Replica
from federation.routing.router import Reported
from federation.siblings.outgoing import AGAIN_SECONDS
from policies.circuit import Closed, HalfOpen, Open
from policies.errors import NoCandidate
from policies.types import Result
from tests.builders import MODEL
from tests.federation.siblings.world import STEP_SECONDS, World

N1 = f"eu/n1/{MODEL}"
FAILED = Result.SERVER_ERROR


def linked(names: str = "ab", **of: int) -> World:
    world = World(names, **of).link().run(0.5)
    assert all(len(one.siblings._up) == len(names) - 1 for one in world.all)
    return world


# Outcomes and circuits


def test_five_failures_at_one_open_the_circuit_at_both_once():
    world = linked()

    for _ in range(5):
        world["a"].told(FAILED)
    world.run(2 * STEP_SECONDS)

    assert [type(one.circuit()) for one in world.all] == [Open, Open]
    world.run(3.0)
    assert [one.opens() for one in world.all] == [1, 1]


def test_failures_in_a_row_count_wherever_they_are_reported_and_each_once():
    world = linked()

    for name in "abab":
        world[name].told(FAILED)
        world.run(0.3)
    assert [one.circuit() for one in world.all] == [Closed(failures=4), Closed(failures=4)]
    world["a"].told(FAILED)
    world.run(0.3)

    assert [type(one.circuit()) for one in world.all] == [Open, Open]


def test_a_success_at_one_ends_the_row_at_the_other():
    world = linked()
    for _ in range(4):
        world["a"].told(FAILED)
    world.run(0.3)

    world["b"].told(Result.OK)
    world.run(0.3)

    assert [one.circuit() for one in world.all] == [Closed(), Closed()]


def test_answers_beyond_those_that_are_told_one_by_one_count_too():
    world = linked()

    for _ in range(1_000):
        world["a"].told(Result.OK)
    world.run(0.3)

    assert world["b"].monitor._deployments[N1].outcomes.total == 1_000


def test_what_was_opened_while_the_wire_was_cut_is_told_when_it_is_there_again():
    world = linked()
    world.cut.add(frozenset("ab"))
    world.run(4.0)
    assert not world["a"].siblings._up
    for _ in range(5):
        world["a"].told(FAILED)
    world.run(1.0)
    assert isinstance(world["b"].circuit(), Closed)

    world.cut.clear()
    world.link().run(0.5)

    assert isinstance(world["b"].circuit(), Open)


def test_what_was_opened_before_a_replica_knew_the_node_is_told_it_again():
    """It was cut off from the database, and not from its sibling."""
    world = linked()
    nodes = {name: node for name, node in world.snapshot.nodes.items() if name != "eu/n1"}
    world["b"].monitor.sync(replace(world.snapshot, nodes=nodes), world.now)
    for _ in range(5):
        world["a"].told(FAILED)
    world.run(1.0)

    world["b"].monitor.sync(world.snapshot, world.now)
    assert isinstance(world["b"].circuit(), Closed)
    world.run(AGAIN_SECONDS)

    assert isinstance(world["b"].circuit(), Open)
    left = [one.circuit().until - world.now for one in world.all]
    assert left == pytest.approx([left[0]] * 2, abs=0.5)


def test_a_replica_that_starts_takes_over_what_the_others_know():
    world = linked()
    for _ in range(5):
        world["b"].told(FAILED)
    world["b"].monitor.eject("eu/n2", world.now, 300.0)
    world.run(0.5)
    world.kill("a")

    world.replicas["a"] = type(world["b"])(world, "a")
    world.read_database()
    world.link().run(0.5)

    assert isinstance(world["a"].circuit(), Open)
    assert world["a"].monitor.node("eu/n2", world.now).ejected_until > world.now + 290.0


def test_a_replica_that_starts_late_takes_over_what_is_left_of_an_ejection_and_no_more():
    world = linked()
    world["b"].monitor.eject("eu/n2", world.now, 300.0)
    world.run(1.0)
    world.kill("a")
    world.run(100.0)

    world.replicas["a"] = type(world["b"])(world, "a")
    world.read_database()
    world.link().run(0.5)

    left = [one.monitor.node("eu/n2", world.now).ejected_until - world.now for one in world.all]
    assert left == pytest.approx([198.5, 198.5], abs=0.5)


# Operators


def test_a_replica_that_starts_waits_for_others_and_not_for_its_own_life_before():
    async def waits(*, address: str) -> bool:
        siblings = World("b")["b"].siblings
        # It was killed a moment ago, so that its beats do not tell yet that it is gone.
        siblings.members.read([Replica("eu.a", address, "before", 7)], 1_000.0)
        # No time passes.
        siblings._sleep = lambda seconds: asyncio.Event().wait()
        running, joining = asyncio.create_task(siblings.run()), asyncio.create_task(siblings.join())
        for _ in range(3):
            await asyncio.sleep(0)
        waiting = not joining.done()
        (status,) = siblings.statuses()
        assert ("has the address of this replica" in status.reason) == (not waiting)
        running.cancel()
        joining.cancel()
        await asyncio.gather(running, joining, return_exceptions=True)
        return waiting

    assert not asyncio.run(waits(address="b"))
    assert asyncio.run(waits(address="elsewhere.invalid:1"))


def test_what_operators_do_at_one_holds_at_both():
    world = linked()
    for _ in range(5):
        world["a"].told(FAILED)
    world.run(0.3)

    world["b"].monitor.reset_circuit(N1, world.now)
    world["b"].monitor.eject("eu/n3", world.now, 60.0)
    world.run(0.3)
    assert [one.circuit() for one in world.all] == [Closed(0, 0, one.circuit().since) for one in world.all]
    assert all(one.monitor.node("eu/n3", world.now).ejected_until > world.now for one in world.all)

    world["a"].monitor.restore("eu/n3", world.now)
    world.run(0.3)
    assert all(one.monitor.node("eu/n3", world.now).ejected_until == 0.0 for one in world.all)
    assert [len(one.siblings._up) for one in world.all] == [1, 1]


def test_an_outlier_is_left_out_everywhere_and_not_more_of_a_pool_than_may_be():
    world = linked(nodes=20)
    for number in range(1, 21):
        for _ in range(30):
            world["a"].told(Result.OK, f"eu/n{number}/{MODEL}")
    for number in (1, 2, 3):
        for _ in range(20):
            for result in (FAILED, Result.OK):
                world["a"].told(result, f"eu/n{number}/{MODEL}")
    world.run(5.0)

    ejected = [
        {name for name, health in one.monitor.view(world.now).items() if health.ejected_until > world.now}
        for one in world.all
    ]
    assert ejected[0] == ejected[1]
    assert len(ejected[0]) == 2


# Trials


def half_open(world: World) -> None:
    for _ in range(5):
        world["a"].told(FAILED)
    world.run(40.0)
    assert all(isinstance(one.circuit(), HalfOpen) for one in world.all)


def trials(world: World) -> int:
    return sum(len(one.router.reservations.trials) for one in world.all)


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_one_trial_at_a_time_whoever_routes(names: str):
    world = linked(names, nodes=1)
    half_open(world)
    most = 0
    open_trials = []

    def everybody_routes() -> None:
        nonlocal most
        for one in world.all:
            try:
                record = one.route()
            except NoCandidate:
                continue
            open_trials.append((world.now, one, record))
        most = max(most, trials(world))
        # Each takes longer than a turn.
        for at, one, record in list(open_trials):
            if world.now - at >= 1.5:
                open_trials.remove((at, one, record))
                one.told(FAILED if len(open_trials) % 2 else Result.CANCELLED, N1, record.decision_id)

    world.run(30.0, everybody_routes)

    assert most == 1


@pytest.mark.parametrize("busy", ["a", "b"])
def test_three_trials_close_it_for_all_though_only_one_has_traffic(busy: str):
    world = linked(nodes=1)
    half_open(world)

    def routes() -> None:
        try:
            record = world[busy].route()
        except NoCandidate:
            return
        world[busy].told(Result.OK, N1, record.decision_id)

    world.run(10.0, routes)

    assert [type(one.circuit()) for one in world.all] == [Closed, Closed]


def test_the_turn_of_a_replica_that_died_comes_back():
    world = linked(nodes=1)
    half_open(world)
    owner, other = sorted(world.all, key=lambda one: not one.siblings.ours("eu/n1"))
    world.run(1.3)
    assert N1 in other.siblings._up[owner.me.replica_id].turns

    world.kill(other.name)
    world.run(0.3)

    assert owner.route().by == "trial"


# Decisions of others


def test_an_outcome_that_lands_elsewhere_reaches_the_replica_that_decided():
    world = linked(nodes=1)
    record = world["a"].route()
    assert world["a"].router.load_of(N1) == (1, 500)

    accepted = [world["b"].told(FAILED, N1, record.decision_id) for _ in range(2)]
    world.run(2 * STEP_SECONDS)

    assert accepted == [Reported.ACCEPTED, Reported.REPEATED]
    assert world["a"].router.load_of(N1) == (0, 0)
    assert len(record.outcomes) == 1
    world.run(0.5)
    assert [one.circuit() for one in world.all] == [Closed(failures=1), Closed(failures=1)]


def test_an_outcome_for_a_replica_that_is_gone_counts_where_it_landed():
    world = linked(nodes=1)
    record = world["a"].route()
    decision = record.decision_id
    world["b"].told(FAILED, N1, decision)

    world.kill("a")
    world["b"].told(FAILED, N1, decision.replace("-0", "-7"))

    assert world["b"].circuit() == Closed(failures=2)


# Load


def test_what_one_has_under_way_counts_at_the_other_for_as_long_as_it_is_fresh():
    world = linked(nodes=1)
    world["a"].route()
    world.run(2 * STEP_SECONDS)

    assert world["b"].router.state.in_flight[0] == 1.0
    assert world["b"].router.load_of(N1) == (0, 0)
    assert world["a"].router.state.in_flight[0] == 1.0
    world.cut.add(frozenset("ab"))
    world.run(0.5)
    assert 0.0 < world["b"].router.state.in_flight[0] < 1.0
    world.run(1.0)
    assert world["b"].router.state.in_flight[0] == 0.0


def test_news_that_lay_in_a_queue_are_as_old_as_that():
    world = linked(nodes=1)
    world["a"].route()
    world.run(1.0)
    assert world["b"].router.state.in_flight[0] == 1.0

    world.delay = 0.5
    world.run(2.0)
    world["b"].router.state.advance(world.now)

    assert world["b"].router.state.in_flight[0] == 0.0


def test_what_is_over_leaves_no_rounding_behind_that_would_be_told_for_ever():
    one = World("a", nodes=1)["a"]
    state, told = one.router.state, []
    for tokens in range(100, 200):
        state.choose(0, float(tokens))
        state.heed_siblings("eu.b", {0: (tokens / 7.0, tokens / 3.0)}, 0.05, one.world.now)
        state.release(0, float(tokens), 1.0)
        told.append(one.telling.standing(one.monitor, one.router, one.world.now, anew=True).sums)

    assert told == [{}] * len(told)


def test_two_requests_at_two_replicas_go_to_two_nodes():
    world = linked(nodes=2)
    first = world["a"].route(input_tokens=20_000)
    world.run(2 * STEP_SECONDS)

    second = world["b"].route(input_tokens=20_000)

    assert first.names()[0] != second.names()[0]


def test_suspicion_is_shared_and_still_fades():
    world = linked()
    slot = world["a"].router.state.slots[N1]
    world["a"].router.state.suspect(slot, 10.0)
    world.run(0.3)
    levels = [one.router.state.suspicion[slot] for one in world.all]

    world.run(60.0)

    assert levels == pytest.approx([10.0, 10.0], rel=0.05)
    assert all(one.router.state.suspicion[slot] < 2.0 for one in world.all)


# Probes and leases


def test_each_node_is_one_replicas_to_probe_and_what_it_finds_all_know():
    world = linked("abc", nodes=60)
    shares = {one.name: {name for name in world.snapshot.nodes if one.siblings.ours(name)} for one in world.all}

    assert sum(map(len, shares.values())) == 60
    assert len(set.union(*shares.values())) == 60
    assert min(map(len, shares.values())) >= 10
    at = world.now
    world["a"].passes("eu/n1")
    world.run(0.3)
    assert all(one.monitor._nodes["eu/n1"].probe_at >= at for one in world.all)


def test_the_nodes_of_a_replica_that_dies_are_taken_over_and_no_others_move():
    world = linked("abc", nodes=60)
    before = {one.name: {name for name in world.snapshot.nodes if one.siblings.ours(name)} for one in world.all}

    world.kill("b")
    after = {one.name: {name for name in world.snapshot.nodes if one.siblings.ours(name)} for one in world.all}

    assert before["a"] <= after["a"]
    assert before["c"] <= after["c"]
    assert after["a"] | after["c"] == set(world.snapshot.nodes)
    # All of what it has now is due within an interval.
    taken = after["a"] - before["a"]
    assert all(world["a"].prober._due[name] <= world.now + 10.0 for name in taken)


def test_a_beat_at_one_renews_at_both_and_only_the_one_that_heard_it_ends_the_lease():
    world = linked(nodes=1)

    def beats() -> None:
        world["a"].leases.beat("eu/n1", world.now)
        world["a"].telling.beat("eu/n1", None)

    world.run(1.0, beats)
    a, b = world["a"].siblings, world["b"].siblings

    assert world["b"].leases._holders == {"eu/n1": "eu.a"}
    assert b.elsewhere("eu/n1", "eu.a")
    assert not a.elsewhere("eu/n1", "") or not a.ours("eu/n1")
    assert world["b"].leases._leases.expired(world.now + 29.0) == ()


# Everything at once


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_lost_repeated_cut_or_killed_replicas_come_to_agree(seed: int):
    world = World("abc", nodes=5, seed=seed)
    world.loses, world.repeats = 0.01, 0.05
    chance = world.chance

    def anything() -> None:
        one = chance.choice(world.all)
        deployment = f"eu/n{chance.randrange(5) + 1}/{MODEL}"
        match chance.randrange(40):
            case 0:
                world.cut ^= {frozenset(chance.sample("abc", 2))}
            case 1:
                one.monitor.reset_circuit(deployment, world.now)
            case 2:
                one.monitor.eject(deployment.rpartition("/")[0], world.now, 20.0)
            case 3:
                one.monitor.restore(deployment.rpartition("/")[0], world.now)
            case 4 if len(world.replicas) > 1:
                world.kill(one.name)
            case 5 if len(world.replicas) < 3:
                name = next(iter(set("abc") - world.replicas.keys()))
                world.replicas[name] = type(one)(world, name)
            case number if number < 30:
                one.told(chance.choice((FAILED, FAILED, Result.OK)), deployment)
        if chance.random() < 0.1:
            world.read_database()
            world.link()

    world.run(30.0, anything)
    world.cut.clear()
    world.loses = 0.0
    for _ in range(5):
        world.read_database()
        world.link().run(1.0)

    circuits = [{name: type(one.circuit(name)) is Closed for name in one.monitor._deployments} for one in world.all]
    ejected = [
        {name: node.ejected_until > world.now + 2.0 for name, node in one.monitor._nodes.items()} for one in world.all
    ]
    assert all(each == circuits[0] for each in circuits)
    assert all(each == ejected[0] for each in ejected)
    assert all(len(one.siblings._up) == len(world.replicas) - 1 for one in world.all)
