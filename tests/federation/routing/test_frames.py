"""What makes decisions quick changes none of them: drawn pairs, seeds in blocks, the ring, reservations as numbers."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from federation.routing.groups import HEADS
from federation.routing.replay import replay
from federation.routing.reservations import Reservations
from federation.routing.router import Router
from federation.routing.state import State
from policies import chance
from policies.errors import NoCandidate
from policies.policy import Policy
from policies.types import RouteRequest
from tests.builders import a_deployment, a_node, a_request, a_router, a_table
from tests.fleets import random_fleet, stir

PAIRS = Policy("pairs", picker="power_of_two")


def a_drawing_router(seed: int, size: int, *, stirred: bool) -> Router:
    fleet = random_fleet(Random(seed), size, calm=True)
    router = fleet.router(PAIRS, seed=seed)
    if stirred:
        stir(router, seed, fleet.health)
    return router


def a_kind(rng: Random) -> RouteRequest:
    return a_request(
        "small",
        policy_id="pairs",
        origin_region=rng.choice(["eu", "us", "ap"]),
        input_tokens=rng.choice([1, 300, 3_000]),
        max_alternatives=rng.choice([0, 1, 3, 16]),
    )


@pytest.mark.parametrize("stirred", [False, True], ids=["idle", "loaded"])
def test_a_pair_drawn_at_once_is_the_pair_that_the_walk_draws(stirred: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    for seed in range(60):
        router = a_drawing_router(seed, (5, 40, 150)[seed % 3], stirred=stirred)
        rng = Random(seed)
        for number in range(12):
            request = a_kind(rng)
            try:
                quick = router.decide(request, 0.0, number=number)
                with monkeypatch.context() as patched:
                    patched.setattr("federation.routing.deciding.draw_two", lambda *args: None)
                    walked = router.decide(request, 0.0, number=number)
            except NoCandidate:
                continue
            if quick.drawn is None:
                continue
            compared += 1
            assert quick.names()[0] == walked.names()[0]
            assert (quick.at_node, quick.by, quick.near) == (walked.at_node, walked.by, walked.near)
            assert len(quick.chosen) == len(walked.chosen) or len(quick.chosen) > 1
            assert quick.figures(quick.target) == walked.figures(walked.target)
    assert compared > 80


def test_alternatives_to_a_pair_are_those_of_the_moment_whenever_they_are_asked_for() -> None:
    told = 0
    for seed in range(40):
        router, again = (a_drawing_router(seed, 70 + seed, stirred=True) for _ in range(2))
        rng = Random(seed)
        requests = [a_kind(rng) for _ in range(10)]
        late = [record for record in router.place_many(requests, 0.0) if not isinstance(record, NoCandidate)]
        for record in late:
            router.reservations.release(record.number)
        router.state.matrix[:2] += 1_000.0
        router.state.moved()
        early = [r.entry() for request in requests if (r := placed(again, request)) is not None]

        assert [record.entry() for record in late] == early
        assert all(replay(entry).identical for entry in early)
        told += sum(record.drawn is not None for record in late)
    assert told > 40


def placed(router: Router, request: RouteRequest):  # type: ignore[no-untyped-def]
    try:
        return router.place(request, 0.0)
    except NoCandidate:
        return None


def test_alternatives_to_a_pair_are_of_other_zones() -> None:
    nodes = [a_node(f"eu/{zone}{n}", zone=zone) for zone in "abcd" for n in range(20)]
    router = a_router(a_table(*nodes))
    router.install_policies({"pairs": PAIRS})

    for _ in range(50):
        record = router.place(a_request(policy_id="pairs"), 0.0)

        # At times both draws are one.
        if record.drawn is not None:
            assert len({name.split("/")[1][0] for name in record.names()}) == 4


def test_who_is_suspected_or_full_is_no_alternative_while_others_are_there() -> None:
    nodes = [
        a_node(f"eu/{zone}{n}", [a_deployment(max_concurrency=4)], zone=zone) for zone in "abcd" for n in range(20)
    ]
    router = a_router(a_table(*nodes))
    router.install_policies({"pairs": PAIRS})
    bad = {f"eu/{zone}{n}" for zone in "abcd" for n in range(0, 20, 2)}
    for name, slot in router.state.slots.items():
        if name.rsplit("/", 1)[0] in bad:
            if slot % 4:
                router.state.suspicion[slot] = 20.0
            else:
                router.state.in_flight[slot] = 4.0
    router.state.moved()

    others = []
    for _ in range(100):
        record = router.place(a_request(policy_id="pairs"), 0.0)
        router.reservations.release(record.number)
        if record.drawn is not None:
            pair = {row for row, *_ in record.drawn[:2]}
            others += [record.names()[n] for n, row in enumerate(record.chosen) if row not in pair]

    assert len(others) > 10
    assert not bad & {"/".join(name.split("/")[:2]) for name in others}


@pytest.mark.parametrize("picker", ["predicted", "best"])
def test_a_walk_with_all_laid_out_looks_at_whom_the_plain_one_looks_at(
    picker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = 0
    for seed in range(40):
        fleet = random_fleet(Random(seed), (5, 40, 150)[seed % 3], calm=True)
        router = fleet.router(Policy("pairs", picker=picker), seed=seed)
        if seed % 2:
            stir(router, seed, fleet.health)
        rng = Random(seed)
        for number in range(8):
            request = a_kind(rng)
            try:
                quick = router.decide(request, 0.0, number=number)
                with monkeypatch.context() as patched:
                    patched.setattr("federation.routing.walk._glide", lambda *args: None)
                    plain = router.decide(request, 0.0, number=number)
            except NoCandidate:
                continue
            if not quick.walked or quick.swept:
                continue
            compared += 1
            assert quick.looked == plain.looked
            assert (quick.chosen, quick.at_node, quick.near) == (plain.chosen, plain.at_node, plain.near)
            assert quick.rejected == plain.rejected
    assert compared > 80


def test_prompts_much_longer_than_usual_are_walked_too() -> None:
    router = a_router(a_table(*(a_node(f"eu/n{number}", zone="abc"[number % 3]) for number in range(600))))
    rng = Random(7)
    for slot in range(600):
        router.state.in_flight[slot] = float(int(rng.gauss(22, 3)))
        router.state.pending[slot] = float(max(0, int(rng.gauss(600, 300))))
    router.state.moved()

    for number in range(300):
        tokens = 12_000 if number % 10 == 9 else 500
        record = router.place(a_request(input_tokens=tokens), 0.0)
        router.reservations.release(record.number)

        assert record.walked
        assert not record.swept


def test_those_who_stand_level_are_not_all_looked_at_and_the_first_of_them_are_chosen_among() -> None:
    router = a_router(a_table(*(a_node(f"eu/n{number:03}", zone="abc"[number % 3]) for number in range(600))))
    rng = Random(7)

    for number in range(400):
        # From an idle fleet to one where each has a few under way.
        request = a_request(input_tokens=int(rng.lognormvariate(6.5, 1.0)), max_output_tokens=200)
        plain = router.decide(request, 0.0, number=number, whole=True).evaluation
        record = router.place(request, 0.0)

        leaders = [int(plain.pool.row[place]) for place in plain.order[: router.policy("").max_candidates]]
        assert not record.swept
        assert len(record.entries or ()) <= 60
        assert record.row in leaders


def test_a_walk_that_knows_too_few_heads_of_a_large_group_finds_more() -> None:
    router = a_router(a_table(*(a_node(f"eu/n{number}") for number in range(4_000))))
    rng = Random(7)
    for slot in range(4_000):
        router.state.in_flight[slot] = float(int(rng.gauss(22, 3)))
        router.state.pending[slot] = float(max(0, int(rng.gauss(6_000, 30))))
    router.state.moved()

    # The shortest of their class: the order of heads is that of longer ones, and says the less of these.
    records = [router.place(a_request(input_tokens=2_060), 0.0) for _ in range(40)]

    assert max(len(record.entries or ()) for record in records) > HEADS
    assert not any(record.swept for record in records)
    for record in records:
        found = router.decide(a_request(input_tokens=2_060), 0.0, number=record.number, whole=True).evaluation
        best = found.seen.time_to_first_token[found.order[0]]
        assert record.at_node <= 1.05 * float(best) + 0.020


def test_seeds_drawn_up_together_are_those_drawn_up_one_by_one() -> None:
    for seed, first in ((0, 0), (7, 1_024), (2**63 + 5, 2**40), (-3, 5)):
        made = chance.seeds(seed, first, 100)
        alone = [chance.mix(seed ^ number) for number in range(first, first + 100)]

        assert made == [(own, chance.draw(own, 0), chance.draw(own, 1)) for own in alone]


def test_a_decision_is_the_same_placed_or_made_again_by_its_number() -> None:
    router = a_router(a_table(*(a_node(f"eu/n{number}") for number in range(100))))
    for _ in range(1_100):
        record = router.place(a_request(), 0.0)
        router.reservations.release(record.number)
        if record.number % 100 == 0:
            assert router.decide(a_request(), 0.0, number=record.number).seed == record.seed


def test_the_ring_finds_decisions_between_refused_ones() -> None:
    router = a_router(a_table(a_node("eu/a")), decisions_kept=50)
    made = []
    for number in range(200):
        if number % 3 == 0:
            with pytest.raises(NoCandidate):
                router.place(a_request("nobody-has-it"), 0.0)
        else:
            made.append(router.place(a_request(), 0.0))
            router.reservations.release(made[-1].number)

    assert router.ring.newest(99) == made[-50:]
    assert all(router.ring.get(record.number) is record for record in made[-50:])
    assert [router.ring.get(number) for number in (-1, 0, 1, 198, 200, 999)] == [None] * 6


def test_room_that_is_held_as_numbers_is_drawn_up_when_something_happens_to_it() -> None:
    state = State()
    state.slots_for(["a"], 0.0)
    rooms = Reservations(state)
    rooms.hold(7, 0, 100.0, 1.0, 0.6, 2.0, 0.1, 0.05, 200, 50.0)

    found = rooms.get(7)

    assert found is not None
    assert rooms.get(7) is found
    assert (found.attempt, found.tokens, found.predicted, found.trial, found.pending) == (0, 100.0, 0.6, False, True)
    assert found.expected == pytest.approx(0.2)
    assert found.latency == pytest.approx(0.05 + 0.6 + 4.0)
    assert (state.pending[0], state.in_flight[0]) == (100.0, 1.0)
    rooms.first_token(7, 0, 1.5)
    rooms.sweep(500.0)
    assert len(rooms) == 0
    assert not np.any(state.matrix[:2])
