"""What a router makes of reports: room is given back, repeats count once, and who is late or fails is doubted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from federation.routing.decisions import Record
from federation.routing.router import Reported, Router
from policies.types import Explain, Outcome, Phase, Result
from tests.builders import HALF_OPEN, MODEL, a_deployment, a_node, a_region, a_request, a_router, a_table

TOKENS = 500


def a_fleet(size: int = 3, **settings: Any) -> Router:
    return a_router(a_table(*(a_node(f"eu/n{i}") for i in range(size))), **settings)


def placed(router: Router, now: float = 0.0, **request: Any) -> Record:
    return router.place(a_request(input_tokens=TOKENS, **request), now)


def room(router: Router, deployment: str) -> tuple[int, int]:
    """Requests in flight and tokens without a first token."""
    return router.load_of(deployment)


def everywhere(router: Router) -> tuple[float, float]:
    return float(router.state.matrix[1].sum()), float(router.state.matrix[0].sum())


def suspicion(router: Router, deployment: str) -> float:
    return router.state.suspicion[router.state.slots[deployment]]


def wait(router: Router, deployment: str) -> float:
    return router.state.wait[router.state.slots[deployment]]


def told(record: Record, phase: Phase, attempt: int = 0, **fields: Any) -> Outcome:
    return Outcome(record.decision_id, attempt, phase, **fields)


def finished(record: Record, result: Result = Result.OK, attempt: int = 0, **fields: Any) -> Outcome:
    return told(record, Phase.FINISHED, attempt, result=result, **fields)


# Room


def test_a_decision_takes_room_at_its_target_alone() -> None:
    router = a_fleet()

    record = placed(router)

    target, *others = record.names()
    assert room(router, target) == (1, TOKENS)
    assert [room(router, name) for name in others] == [(0, 0), (0, 0)]


def test_the_first_token_gives_the_tokens_back_and_the_end_the_request() -> None:
    router = a_fleet()
    record = placed(router)
    (target, *_) = record.names()

    assert router.report(told(record, Phase.FIRST_TOKEN, time_to_first_token_seconds=0.1), 0.1) is Reported.ACCEPTED
    assert room(router, target) == (1, 0)
    assert router.report(finished(record), 2.0) is Reported.ACCEPTED
    assert room(router, target) == (0, 0)


@pytest.mark.parametrize("result", Result)
def test_the_end_alone_gives_everything_back_whatever_the_result(result: Result) -> None:
    router = a_fleet()
    record = placed(router)

    router.report(finished(record, result), 2.0)

    assert everywhere(router) == (0.0, 0.0)


def test_only_what_is_not_cached_takes_room() -> None:
    router = a_fleet(1)
    router.state.saw_prefixes([7], router.state.slots[f"eu/n0/{MODEL}"])

    record = router.place(a_request(input_tokens=2_000, prefix_hashes=(7, 8), prefix_block_tokens=512), 0.0)

    assert room(router, record.names()[0]) == (1, 2_000 - 512)


def test_an_alternative_that_is_tried_takes_the_room_over() -> None:
    router = a_fleet()
    record = placed(router)
    target, first, _ = record.names()

    router.report(told(record, Phase.STARTED, 1), 1.0)

    assert room(router, target) == (0, 0)
    assert room(router, first) == (1, TOKENS)


def test_an_attempt_that_was_not_planned_moves_nothing() -> None:
    router = a_fleet()
    record = placed(router)

    for attempt in (0, 3, 9):
        router.report(told(record, Phase.STARTED, attempt), 1.0)

    assert room(router, record.names()[0]) == (1, TOKENS)
    assert everywhere(router) == (1.0, TOKENS)


def test_a_late_word_of_an_attempt_that_was_given_up_leaves_the_next_ones_room_alone() -> None:
    router = a_fleet()
    record = placed(router)
    _, first, _ = record.names()
    router.report(told(record, Phase.STARTED, 1), 1.0)

    router.report(told(record, Phase.FIRST_TOKEN, 0, time_to_first_token_seconds=1.5), 1.5)
    router.report(finished(record, Result.CANCELLED, 0), 1.6)

    assert room(router, first) == (1, TOKENS)


@pytest.mark.parametrize("attempt", [1, 2])
def test_the_end_of_a_later_attempt_ends_an_earlier_one_that_nobody_ended(attempt: int) -> None:
    router = a_fleet()
    record = placed(router)

    router.report(told(record, Phase.FIRST_TOKEN, attempt), 1.0)
    assert everywhere(router) == (1.0, 0.0)
    router.report(finished(record, attempt=attempt), 2.0)

    assert everywhere(router) == (0.0, 0.0)


@pytest.mark.parametrize(
    "before",
    [
        lambda r: finished(r, attempt=1),
        lambda r: finished(r, attempt=2),
        lambda r: told(r, Phase.STARTED, 2),
    ],
    ids=["its own end", "the end of a later one", "the start of a later one"],
)
def test_a_start_that_comes_late_takes_no_room_back(before: Callable[[Record], Outcome]) -> None:
    router = a_fleet()
    record = placed(router)
    router.report(before(record), 1.0)
    then = everywhere(router), room(router, record.names()[1])

    router.report(told(record, Phase.STARTED, 1), 1.1)

    assert (everywhere(router), room(router, record.names()[1])) == then


def test_whatever_the_order_and_repeats_all_room_is_given_back_in_the_end() -> None:
    from random import Random

    for seed in range(200):
        rng = Random(seed)
        router = a_fleet(4)
        records = [placed(router) for _ in range(6)]
        news = [
            told(r, phase, a, result=Result.OK)
            for r in records
            for phase in Phase
            for a in range(3)
            if rng.random() < 0.6
        ]
        news += [finished(r, attempt=3) for r in records]
        rng.shuffle(news)
        now = 0.0
        for outcome in news + rng.sample(news, 5):
            now += 0.01
            router.report(outcome, now)
            assert (router.state.matrix[:2] >= 0.0).all()
        assert everywhere(router) == (0.0, 0.0), seed
        assert len(router.reservations) == 0


# Forgotten room


def test_tokens_that_nobody_reports_go_when_their_first_token_is_long_overdue_and_the_request_later() -> None:
    router = a_fleet()
    record = placed(router)
    (target, *_) = record.names()
    seen = {}

    for tick in range(1, 1_000):
        router.sweep(tick / 10)
        seen[tick / 10] = room(router, target)

    # Predicted 0.101 s to the first token and 2.1 s to the last: 4 times and 2 s, 3 times and 30 s.
    assert seen[2.0] == (1, TOKENS)
    assert seen[3.0] == (1, 0)
    assert seen[30.0] == (1, 0)
    assert seen[40.0] == (0, 0)
    assert len(router.reservations) == 0


def test_a_long_answer_that_was_announced_keeps_its_room() -> None:
    router = a_fleet()
    record = router.place(a_request(max_output_tokens=10_000), 0.0)

    for tick in range(1, 3_000):
        router.sweep(tick / 10)

    # 200 s of decoding at 50 tokens a second.
    assert room(router, record.names()[0]) == (1, 0)


# Once


@pytest.mark.parametrize("phase", Phase)
def test_a_repeat_counts_once(phase: Phase) -> None:
    heard: list[str] = []
    router = a_fleet()
    router._on_outcome = lambda name, outcome, now: heard.append(name)
    record = placed(router)
    outcome = told(record, phase, 1, result=Result.SERVER_ERROR)

    first = router.report(outcome, 0.1)
    state = router.state.matrix.copy()
    repeats = [router.report(replace(outcome, latency_seconds=9.0), 0.1) for _ in range(5)]

    assert first is Reported.ACCEPTED
    assert repeats == [Reported.REPEATED] * 5
    assert (router.state.matrix == state).all()
    assert len(heard) == (0 if phase is Phase.STARTED else 1)


def test_other_attempts_and_phases_are_no_repeats() -> None:
    router = a_fleet()
    record = placed(router)

    found = [
        router.report(told(record, phase, attempt, result=Result.OK), 0.1) for phase in Phase for attempt in (0, 1)
    ]

    assert found == [Reported.ACCEPTED] * 6


def test_an_outcome_of_nobody_knows_whom_is_unknown_and_changes_nothing() -> None:
    router = a_fleet()
    placed(router)
    before = router.state.matrix.copy()

    for decision_id in ("", "r1", "r1-", "r1-zz", "r1-ffff", "other-0", "r2-0", "-1", "r1--1"):
        assert router.report(Outcome(decision_id, result=Result.SERVER_ERROR), 0.0) is Reported.UNKNOWN

    assert (router.state.matrix == before).all()


def test_an_outcome_of_another_replicas_decision_counts_for_the_deployment_that_it_names_once() -> None:
    heard: list[str] = []
    router = a_fleet()
    router._on_outcome = lambda name, outcome, now: heard.append(name)
    outcome = Outcome("r9-5", 0, Phase.FINISHED, Result.SERVER_ERROR, "eu", "n1", MODEL)

    found = [router.report(outcome, 0.0) for _ in range(3)]

    assert found == [Reported.ACCEPTED, Reported.REPEATED, Reported.REPEATED]
    assert heard == [f"eu/n1/{MODEL}"]
    assert suspicion(router, f"eu/n1/{MODEL}") == pytest.approx(3.0)
    assert router.report(replace(outcome, decision_id="r9-6", node_id="never"), 0.0) is Reported.UNKNOWN


def test_outcomes_without_a_decision_cannot_be_told_apart_and_count_each() -> None:
    router = a_fleet()
    outcome = Outcome("", 0, Phase.FINISHED, Result.SERVER_ERROR, "eu", "n1", MODEL)

    found = [router.report(outcome, 0.0) for _ in range(3)]

    assert found == [Reported.ACCEPTED] * 3
    assert suspicion(router, f"eu/n1/{MODEL}") == pytest.approx(12.0)


@pytest.mark.parametrize("whole", [False, True], ids=["walked", "by bounds, over the columns"])
def test_the_only_deployment_is_asked_until_its_circuit_opens_however_it_fails(whole: bool) -> None:
    router = a_fleet(1)
    bounds = {"max_latency_seconds": 1e6} if whole else {}

    for second in range(8):
        record = router.place(a_request(input_tokens=8_000, **bounds), float(second))
        assert record.walked is not whole
        router.report(finished(record, Result.SERVER_ERROR), second + 0.5)

    assert suspicion(router, f"eu/n0/{MODEL}") == 50.0


@pytest.mark.parametrize("kept", [0, 2])
def test_a_decision_that_is_no_longer_remembered_still_gives_its_room_back(kept: int) -> None:
    router = a_fleet(decisions_kept=kept)
    records = [placed(router) for _ in range(10)]

    first = [router.report(told(r, Phase.FIRST_TOKEN, time_to_first_token_seconds=0.1), 0.1) for r in records]
    assert everywhere(router) == (10.0, 0.0)
    last = [router.report(finished(r), 1.0) for r in records]
    again = [router.report(finished(r), 1.1) for r in records]

    assert first == last == [Reported.ACCEPTED] * 10
    assert everywhere(router) == (0.0, 0.0)
    assert again == [Reported.REPEATED] * 10


# Doubt


def test_an_answer_much_later_than_predicted_is_doubted_by_as_much_as_it_was_late() -> None:
    router = a_fleet()
    record = placed(router)
    (target, *_) = record.names()

    # Predicted 0.1 s at the node, 1 ms away.
    router.report(told(record, Phase.FIRST_TOKEN, time_to_first_token_seconds=2.001), 2.0)

    assert 5.0 < suspicion(router, target) <= 20.0 + 1e-9
    assert wait(router, target) == pytest.approx(1.9)


def answered(router: Router, seconds: float, now: float = 0.0) -> str:
    """The target of a request whose first token came so long after it; it ends at once."""
    record = placed(router, now)
    router.report(finished(record, time_to_first_token_seconds=seconds + 0.001, latency_seconds=seconds + 0.001), now)
    return record.names()[0]


def test_an_answer_that_met_two_requests_of_others_is_no_reason_for_doubt() -> None:
    router = a_fleet(1)
    for _ in range(200):
        answered(router, 0.1)

    # Predicted 0.1 s at the node, like all before it.
    target = answered(router, 0.29)
    assert suspicion(router, target) == 1.0

    answered(router, 0.35)
    assert suspicion(router, target) == pytest.approx(3.5, rel=0.2)


def test_an_answer_in_time_halves_doubt() -> None:
    router = a_fleet(1)
    (target, *_) = placed(router).names()
    router.state.suspect(router.state.slots[target], 9.0)

    answered(router, 0.1)

    assert suspicion(router, target) == pytest.approx(5.0)


def test_a_wait_that_is_told_only_at_the_end_is_as_old_as_its_first_token() -> None:
    router = a_fleet()
    record = placed(router)
    (target, *_) = record.names()

    router.report(finished(record, time_to_first_token_seconds=1.101, latency_seconds=21.101), 21.0)

    assert wait(router, target) == pytest.approx(1.0 / 2**20, abs=1e-6)


def test_an_old_wait_does_not_take_the_place_of_newer_news() -> None:
    router = a_fleet()
    record = placed(router)
    (target, *_) = record.names()
    router.observe_load("/".join(target.split("/")[:2]), 10.0, 8.0, 21.0)
    newer = wait(router, target)

    router.report(finished(record, time_to_first_token_seconds=0.101, latency_seconds=21.101), 21.0)

    assert newer > 0.5
    assert wait(router, target) == newer


@pytest.mark.parametrize("first", [0.05, 0.101, 0.19])
def test_an_answer_about_when_it_was_predicted_is_not(first: float) -> None:
    router = a_fleet()
    record = placed(router)

    router.report(told(record, Phase.FIRST_TOKEN, time_to_first_token_seconds=first), first)

    assert suspicion(router, record.names()[0]) == 1.0
    assert wait(router, record.names()[0]) == pytest.approx(max(0.0, first - 0.101), abs=1e-9)


def test_who_failed_is_doubted_at_once_and_doubly_the_next_time_up_to_fifty() -> None:
    router = a_fleet(1)
    levels = []

    for _ in range(7):
        record = placed(router)
        router.report(finished(record, Result.TIMEOUT), 0.0)
        levels.append(suspicion(router, record.names()[0]))

    assert levels == [3.0, 6.0, 12.0, 24.0, 48.0, 50.0, 50.0]


@pytest.mark.parametrize(
    ("result", "doubted"),
    [
        (Result.OK, False),
        (Result.CLIENT_ERROR, False),
        (Result.CANCELLED, False),
        (Result.OVERLOADED, False),
        (Result.SERVER_ERROR, True),
        (Result.TIMEOUT, True),
        (Result.UNREACHABLE, True),
    ],
)
def test_only_failures_of_the_deployment_are_held_against_it(result: Result, doubted: bool) -> None:
    router = a_fleet()
    record = placed(router)

    router.report(finished(record, result), 0.0)

    assert (suspicion(router, record.names()[0]) > 1.0) is doubted


@pytest.mark.parametrize("result", [Result.CLIENT_ERROR, Result.CANCELLED, Result.SERVER_ERROR])
def test_a_quick_failure_never_looks_fast(result: Result) -> None:
    router = a_fleet(1)
    record = placed(router)
    slot = record.slot(0)
    router.state.wait[slot] = 0.8

    router.report(finished(record, result, time_to_first_token_seconds=0.0, latency_seconds=0.001), 0.0)

    assert router.state.wait[slot] == pytest.approx(0.8)


def test_who_says_that_it_is_full_is_not_ill_but_gets_no_more_for_some_seconds() -> None:
    router = a_fleet(2)
    record = placed(router)
    full = record.names()[0]

    router.report(finished(record, Result.OVERLOADED), 0.0)

    assert suspicion(router, full) == 1.0
    assert all(placed(router).names()[0] != full for _ in range(10))


def test_doubt_fades_by_half_in_fifteen_seconds() -> None:
    router = a_fleet()
    record = placed(router)
    router.report(finished(record, Result.SERVER_ERROR), 0.0)
    levels = {}

    for tick in range(1, 6_000):
        router.sweep(tick / 10)
        levels[tick / 10] = suspicion(router, record.names()[0])

    assert levels[15.0] == pytest.approx(2.0, abs=0.01)
    assert levels[30.0] == pytest.approx(1.5, abs=0.01)
    assert levels[599.9] == 1.0


def test_a_first_token_that_is_overdue_is_doubted_where_first_tokens_are_reported() -> None:
    router = a_fleet(2)
    other = placed(router)
    router.report(told(other, Phase.FIRST_TOKEN, time_to_first_token_seconds=0.1), 0.1)
    owing = placed(router, 0.1)

    router.sweep(0.2)
    assert suspicion(router, owing.names()[0]) == 1.0
    for tick in range(3, 13):
        router.sweep(tick / 10)

    assert suspicion(router, owing.names()[0]) > 2.0


def test_where_nobody_reports_first_tokens_none_is_overdue() -> None:
    router = a_fleet(2)
    record = placed(router)

    for tick in range(1, 100):
        router.sweep(tick / 10)

    assert suspicion(router, record.names()[0]) == 1.0


def test_who_is_doubted_is_told_to_the_monitor() -> None:
    doubts: list[tuple[str, float]] = []
    router = a_fleet()
    router._on_suspicion = lambda name, level, now: doubts.append((name, level))
    record = placed(router)

    router.report(finished(record, Result.SERVER_ERROR), 0.0)
    router.sweep(0.0)

    assert doubts == [(record.names()[0], pytest.approx(3.0))]


def test_a_doubted_node_gets_less_and_is_not_left_out_for_it() -> None:
    router = a_fleet(2)
    bad = placed(router)
    router.report(finished(bad, Result.SERVER_ERROR), 0.0)

    after = []
    for number in range(5):
        after.append(placed(router, float(number)))
        router.report(finished(after[-1]), float(number))

    assert all(record.names()[0] != bad.names()[0] for record in after)
    assert all(bad.names()[0] in record.names()[1:] for record in after)


# What others have waiting


def test_a_report_of_load_says_who_waits_there_and_fades_within_seconds() -> None:
    router = a_fleet()
    name = f"eu/n1/{MODEL}"

    router.observe_load("eu/n1", 20.0, 4.0, 0.0)

    assert router.state.running[router.state.slots[name]] == 24.0
    # Four prompts of the usual 512 tokens at 0.2 ms each.
    assert wait(router, name) == pytest.approx(4 * 512 * 0.0002)
    router.sweep(1.0)
    assert wait(router, name) == pytest.approx(2 * 512 * 0.0002)
    router.sweep(10.0)
    assert router.state.running[router.state.slots[name]] == pytest.approx(24.0 / 4)


def test_a_queue_that_no_engine_can_have_leaves_numbers_to_decide_by() -> None:
    router = a_fleet()

    router.observe_load("eu/n1", 1.7e308, 1.7e308, 0.0)

    assert np.isfinite(router.state.matrix).all()
    for each in router.candidates(a_request(), 0.0).candidates:
        assert each.choice.estimated_time_to_first_token_seconds is not None
        assert np.isfinite(each.choice.estimated_time_to_first_token_seconds)
    assert router.place(a_request(explain=Explain.FULL), 0.0).names()[0] != f"eu/n1/{MODEL}"


def test_our_own_waiting_prompts_are_not_counted_twice() -> None:
    router = a_fleet(1)
    for _ in range(3):
        router.place(a_request(input_tokens=512), 0.0)

    router.observe_load("eu/n0", 0.0, 3.0, 0.0)

    assert wait(router, f"eu/n0/{MODEL}") == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize(("running", "queue"), [(None, None), (None, 2.0), (8.0, None)])
def test_what_a_report_does_not_say_stays_as_it_was(running: float | None, queue: float | None) -> None:
    router = a_fleet()
    name = f"eu/n1/{MODEL}"
    router.observe_load("eu/n1", 20.0, 4.0, 0.0)
    before = router.state.running[router.state.slots[name]], wait(router, name)

    router.observe_load("eu/n1", running, queue, 0.0)

    after = router.state.running[router.state.slots[name]], wait(router, name)
    assert (after[0] == before[0]) is (running is None)
    assert (after[1] == before[1]) is (queue is None)


def test_a_report_of_a_node_that_is_not_there_changes_nothing() -> None:
    router = a_fleet()
    before = router.state.matrix.copy()

    router.observe_load("eu/never", 20.0, 4.0, 0.0)

    assert (router.state.matrix == before).all()


def test_all_deployments_of_a_node_share_its_load() -> None:
    router = a_router(a_table(a_node("eu/a", [a_deployment(), a_deployment("other")])))

    router.observe_load("eu/a", 10.0, 0.0, 0.0)

    assert [router.state.running[slot] for slot in router.state.slots.values()] == [10.0, 10.0]


# Trials


def test_a_trial_is_over_with_its_outcome() -> None:
    router = a_router(a_table(a_node("eu/a"), a_node("eu/b"), health={"eu/b": HALF_OPEN}))
    trial = placed(router)
    assert trial.names()[0] == f"eu/b/{MODEL}"
    assert placed(router).names()[0] == f"eu/a/{MODEL}"

    router.report(finished(trial), 1.0)

    assert placed(router, 1.0).names()[0] == f"eu/b/{MODEL}"


def test_a_trial_that_failed_is_the_last_one_by_its_table() -> None:
    table = a_table(a_node("eu/a"), a_node("eu/b"), health={"eu/b": HALF_OPEN})
    router = a_router(table)
    trial = placed(router)
    assert trial.names()[0] == f"eu/b/{MODEL}"

    router.report(finished(trial, result=Result.SERVER_ERROR), 1.0)

    assert {placed(router, 1.0).names()[0] for _ in range(5)} == {f"eu/a/{MODEL}"}
    router.install(table)
    assert router.state.trial[router.state.slots[f"eu/b/{MODEL}"]] == 1.0


def test_a_trial_that_moves_on_to_an_alternative_is_over() -> None:
    router = a_router(a_table(a_node("eu/a"), a_node("eu/b"), health={"eu/b": HALF_OPEN}))
    trial = placed(router)

    router.report(told(trial, Phase.STARTED, 1), 1.0)

    assert room(router, f"eu/b/{MODEL}") == (0, 0)
    assert placed(router, 1.0).names()[0] == f"eu/b/{MODEL}"


# Tables come and go


def test_room_and_doubt_outlive_a_table() -> None:
    nodes = [a_node(f"eu/n{i}") for i in range(3)]
    router = a_router(a_table(*nodes))
    record = placed(router)
    router.state.suspect(record.slot(0), 4.0)

    router.install(a_table(a_node("ap/first"), *nodes, now=1.0, regions=[a_region("ap")]))

    target = record.names()[0]
    assert room(router, target) == (1, TOKENS)
    assert suspicion(router, target) == 4.0
    router.report(finished(record), 1.0)
    assert room(router, target) == (0, 0)


def test_the_end_of_a_request_whose_deployment_is_gone_is_no_trouble() -> None:
    router = a_fleet()
    record = placed(router)

    router.install(a_table(a_node("eu/other"), now=1.0))

    assert router.report(finished(record, Result.SERVER_ERROR), 1.0) is Reported.ACCEPTED
    assert everywhere(router) == (0.0, 0.0)
