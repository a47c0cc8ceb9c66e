from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import NotFound
from catalog.types import Engine
from federation.config import HealthSettings
from federation.health.grading import Evidence, grade
from policies.ageing import aged_score
from policies.health import WORTH, Grade
from policies.types import Result
from tests.federation.health.fleet import MODEL, Fleet, a_node, a_snapshot


def test_a_node_is_unknown_and_not_ready_until_its_first_probe():
    health = Fleet().health()

    assert (health.grade, health.ready, health.score) == (Grade.UNKNOWN, False, 0.3)
    assert health.reason == "not probed yet"
    assert health.last_check_time == 0.0


def test_the_first_pass_makes_it_healthy_and_ready_at_full_score():
    fleet = Fleet().passed()

    assert (fleet.health().grade, fleet.health().ready, fleet.health().score) == (Grade.HEALTHY, True, 1.0)
    assert fleet.health().last_check_time == 1.7e9 + 1_000.0


def test_three_failed_probes_in_a_row_make_it_unhealthy_and_two_do_not():
    fleet = Fleet().passed()

    grades = [fleet.failed().health().grade for _ in range(3)]

    assert grades == [Grade.HEALTHY, Grade.HEALTHY, Grade.UNHEALTHY]
    assert fleet.health().score == 0.0
    assert fleet.health().reason == "3 probes failed: connection refused"


def test_a_pass_between_failures_starts_the_count_anew():
    fleet = Fleet().passed().failed().failed().passed().failed().failed()

    assert fleet.health().grade is Grade.HEALTHY
    assert fleet.health().reason == "2 of 3 probes failed before it is unhealthy: connection refused"


def test_an_unhealthy_node_needs_two_passes_and_then_starts_slowly():
    fleet = Fleet().passed().failed().failed().failed()

    first = fleet.passed().health()
    second = fleet.passed().health()
    later = fleet.after(15.0).passed().health()

    assert (first.grade, first.reason) == (Grade.UNHEALTHY, "1 of 2 probes passed since it was unhealthy")
    assert (second.grade, second.score) == (Grade.HEALTHY, pytest.approx(0.1))
    assert later.score == pytest.approx(0.55)


def test_probes_come_soon_until_they_have_decided():
    fleet = Fleet().passed()
    undecided = [fleet.monitor.undecided("r/n1")]
    undecided += [fleet.failed().monitor.undecided("r/n1") for _ in range(3)]
    undecided += [fleet.passed().monitor.undecided("r/n1") for _ in range(2)]

    assert undecided == [False, True, True, False, True, False]


def test_an_engine_that_does_not_list_the_model_loads_and_is_not_ready():
    fleet = Fleet().passed(models=["another"])

    before = fleet.health()
    listed = fleet.after(10.0).passed(models=["another", MODEL]).health()

    assert (before.grade, before.ready, before.score) == (Grade.LOADING, False, 0.0)
    assert before.reason == f"model {MODEL!r} is not listed"
    assert (listed.grade, listed.ready) == (Grade.HEALTHY, True)
    assert listed.score == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["served", MODEL, "adapter-1"])
def test_a_model_may_be_listed_by_its_served_name_its_id_or_an_adapter(name: str):
    node = a_node()
    deployment = replace(node.deployments[0], served_model_name="served", adapters=("adapter-1",))

    fleet = Fleet(replace(node, deployments=(deployment,))).passed(models=[name])

    assert fleet.health().ready


def test_an_engine_that_cannot_list_is_ready_by_its_probe():
    assert Fleet().passed(models=None).health().ready


def test_one_unlisted_model_does_not_make_its_neighbours_load():
    fleet = Fleet(a_node(models=("a", "b"))).passed(models=["a"])

    assert fleet.node().grade is Grade.HEALTHY
    assert (fleet.health("r/n1/a").grade, fleet.health("r/n1/a").ready) == (Grade.HEALTHY, True)
    assert (fleet.health("r/n1/b").grade, fleet.health("r/n1/b").ready) == (Grade.LOADING, False)


def test_an_engine_that_says_not_yet_loads_before_its_first_pass_and_fails_after_it():
    fleet = Fleet()
    for _ in range(10):
        fleet.failed(error="HTTP 503", loading=True)
    starting = fleet.health()
    ready = fleet.passed().health()
    for _ in range(3):
        fleet.failed(error="HTTP 503", loading=True)

    assert (starting.grade, starting.reason) == (Grade.LOADING, "its engine is not ready: HTTP 503")
    assert (ready.grade, ready.score) == (Grade.HEALTHY, pytest.approx(0.1))
    assert fleet.health().grade is Grade.UNHEALTHY


def test_slow_probes_degrade_it_and_one_slow_probe_is_remembered_for_a_while():
    fleet = Fleet().passed(latency=1.5)

    slow = fleet.health()
    fleet.after(10.0).passed(latency=0.01)

    assert (slow.grade, slow.score, slow.reason) == (Grade.DEGRADED, 0.5, "probes take 1.5 s, over 1 s")
    assert fleet.health().grade is Grade.HEALTHY


def test_suspicion_degrades_it_until_it_has_faded():
    fleet = Fleet().passed()
    fleet.monitor.observe_suspicion(f"r/n1/{MODEL}", 5.0, fleet.now)

    suspected = fleet.health().grade
    fleet.after(14.0)
    still = fleet.health().grade
    fleet.after(3.0)

    assert (suspected, still, fleet.health().grade) == (Grade.DEGRADED, Grade.DEGRADED, Grade.HEALTHY)


def test_a_long_queue_or_a_full_cache_degrades_it():
    assert Fleet().passed().load(queue_depth=33.0).health().reason == "33 requests wait, over 32"
    assert Fleet().passed().load(queue_depth=32.0).health().grade is Grade.HEALTHY
    assert Fleet().passed().load(kv_cache_utilization=0.97).health().reason == "KV cache is 97% full, over 95%"
    recovered = Fleet().passed().load(queue_depth=50.0).load(queue_depth=1.0)
    assert recovered.health().grade is Grade.HEALTHY


def test_a_queue_that_nobody_tells_of_any_more_is_soon_forgotten():
    fleet = Fleet().passed().load(queue_depth=64.0)

    while fleet.now < 1_018.0:
        fleet.after(3.0).passed()
    told = fleet.health().grade
    fleet.after(5.0).passed()

    assert told is Grade.DEGRADED
    assert fleet.health().grade is Grade.HEALTHY


def test_more_than_five_percent_of_failures_degrade_it_when_they_are_many():
    few = Fleet().passed().answered(times=17).answered(times=2, result=Result.SERVER_ERROR)
    many = Fleet().passed().answered(times=38).answered(times=2, result=Result.SERVER_ERROR)
    over = Fleet().passed().answered(times=37).answered(times=3, result=Result.SERVER_ERROR)

    assert few.health().grade is Grade.HEALTHY
    assert few.health().error_ratio is None
    assert (many.health().grade, many.health().error_ratio) == (Grade.HEALTHY, 0.05)
    assert (over.health().grade, over.health().reason) == (Grade.DEGRADED, "8% of outcomes failed, over 5%")
    for _ in range(4):
        over.after(9.0).passed()
    assert over.health().grade is Grade.HEALTHY


def test_a_long_generation_is_not_a_slow_node():
    fleet = Fleet().passed().answered(times=100, latency_seconds=300.0, time_to_first_token_seconds=0.2)

    assert fleet.health().grade is Grade.HEALTHY


def test_a_healthy_node_without_news_fades_to_unknown_without_a_step():
    fleet = Fleet().passed()
    scores, grades = [], []
    for _ in range(120):
        fleet.after(1.0)
        scores.append(fleet.health().score)
        grades.append(fleet.health().grade)

    assert scores[:20] == [1.0] * 20
    assert max(a - b for a, b in pairwise(scores)) < 0.04
    assert grades.index(Grade.UNKNOWN) == 34
    assert scores[34] == pytest.approx(0.65)
    assert 0.3 < scores[-1] < 0.32
    assert fleet.health().ready
    assert fleet.health().reason == "no passed probe or answer for 120 s; it was healthy"


def test_answers_keep_a_grade_fresh_and_bring_it_back():
    fleet = Fleet().passed().after(60.0)
    faded = fleet.health().grade
    fleet.answered()

    assert faded is Grade.UNKNOWN
    assert (fleet.health().grade, fleet.health().score) == (Grade.HEALTHY, 1.0)


def test_failing_probes_do_not_make_an_old_opinion_fresh():
    fleet = Fleet().passed().after(30.0)
    before = fleet.health().score

    assert fleet.failed().health().score <= before < 1.0


def test_silence_does_not_heal_an_unhealthy_node():
    fleet = Fleet().failed().failed().failed().after(600.0)

    assert (fleet.health().grade, fleet.health().score) == (Grade.UNHEALTHY, 0.0)


def test_a_probe_that_lives_never_saws_the_score():
    fleet = Fleet().passed()
    scores = set()
    for _ in range(20):
        for _ in range(16):  # an interval, its jitter and a slow probe
            scores.add(fleet.after(1.0).health().score)
        fleet.passed()

    assert scores == {1.0}


def test_the_version_grows_with_grades_circuits_and_readiness_but_not_with_load():
    fleet = Fleet()
    versions = [fleet.monitor.version]
    for happening in (
        fleet.passed,
        fleet.failed,
        fleet.failed,
        fleet.failed,
        lambda: fleet.passed().passed(),
        lambda: fleet.passed(models=["other"]),
        lambda: fleet.answered(times=5, result=Result.TIMEOUT),
    ):
        happening()
        versions.append(fleet.monitor.version)
    moved = [b > a for a, b in pairwise(versions)]
    fleet.load(queue_depth=3.0).load(queue_depth=4.0, running_requests=9.0).answered()

    assert moved == [True, False, False, True, True, True, True]
    assert fleet.monitor.version == versions[-1]


def test_a_changed_endpoint_or_engine_starts_anew_and_other_changes_do_not():
    node = a_node()
    fleet = Fleet(node).passed()

    fleet.monitor.sync(a_snapshot(replace(node, zone="b", generation=2)), fleet.now)
    kept = fleet.health().grade
    fleet.monitor.sync(a_snapshot(replace(node, endpoint="http://elsewhere:1")), fleet.now)
    moved = fleet.health().grade
    fleet.passed()
    fleet.monitor.sync(a_snapshot(replace(node, endpoint="http://elsewhere:1", engine=Engine.SGLANG)), fleet.now)

    assert (kept, moved, fleet.health().grade) == (Grade.HEALTHY, Grade.UNKNOWN, Grade.UNKNOWN)


def test_what_is_gone_from_the_catalog_is_forgotten_and_late_news_of_it_passed_over():
    fleet = Fleet(a_node("n1", models=("a", "b")), a_node("n2")).passed()

    fleet.monitor.sync(a_snapshot(a_node("n1", models=("b",))), fleet.now)
    fleet.passed("r/n2").failed("r/n2").load("r/n2", queue_depth=1.0).answered("r/n1/a", result=Result.TIMEOUT)
    fleet.monitor.observe_suspicion("r/n1/a", 9.0, fleet.now)

    assert list(fleet.monitor.view(fleet.now)) == ["r/n1/b"]
    for ask in (fleet.monitor.node, fleet.monitor.deployment):
        with pytest.raises(NotFound, match="r/n2"):
            ask("r/n2", fleet.now)
    with pytest.raises(NotFound):
        fleet.monitor.reset_circuit("r/n1/a", fleet.now)


def test_a_deployment_that_joins_a_running_node_is_ready_with_its_list():
    fleet = Fleet(a_node(models=("a",))).passed(models=["a", "b"])

    fleet.monitor.sync(a_snapshot(a_node(models=("a", "b"))), fleet.now)

    assert fleet.health("r/n1/b").ready


EVIDENCE = st.builds(
    Evidence,
    probed=st.just(True),
    passed_ever=st.just(True),
    passed=st.integers(0, 3),
    failed=st.integers(0, 2),
    probe_latency_seconds=st.none() | st.floats(0, 10),
    suspicion=st.floats(1, 50),
    error_ratio=st.none() | st.floats(0, 1),
    queue_depth=st.none() | st.floats(0, 100),
    kv_cache_utilization=st.none() | st.floats(0, 1),
    age_seconds=st.floats(0, 1_000),
)
SETTINGS = HealthSettings()


def score(evidence: Evidence) -> float:
    known, _, _ = grade(evidence, SETTINGS)
    return aged_score(WORTH[known], evidence.age_seconds, SETTINGS.probe_interval_seconds)


@given(
    EVIDENCE,
    st.sampled_from(
        ["probe_latency_seconds", "suspicion", "error_ratio", "queue_depth", "kv_cache_utilization", "age_seconds"]
    ),
    st.floats(0, 100),
)
def test_worse_in_any_respect_never_raises_the_score(evidence: Evidence, axis: str, more: float):
    worse = replace(evidence, **{axis: (getattr(evidence, axis) or 0.0) + more})

    assert score(worse) <= score(evidence)


HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(st.just("after"), st.floats(0.01, 60)),
        st.tuples(st.just("passed"), st.floats(0, 5)),
        st.tuples(st.just("failed"), st.booleans()),
        st.tuples(st.just("load"), st.floats(0, 100)),
        st.tuples(st.just("outcome"), st.sampled_from(Result)),
        st.tuples(st.just("suspicion"), st.floats(1, 100)),
        st.tuples(st.just("unlisted"), st.none()),
    ),
    max_size=60,
)


@given(HAPPENINGS)
def test_whatever_happens_the_view_tells_what_each_deployment_tells(happenings):
    fleet = Fleet()
    for what, value in happenings:
        match what:
            case "after":
                fleet.now += value
                fleet.monitor.tick(fleet.now)
            case "passed":
                fleet.passed(latency=value)
            case "failed":
                fleet.failed(loading=value)
            case "load":
                fleet.load(queue_depth=value)
            case "outcome":
                fleet.answered(result=value, latency_seconds=1.0, time_to_first_token_seconds=0.1, input_tokens=9)
            case "suspicion":
                fleet.monitor.observe_suspicion(f"r/n1/{MODEL}", value, fleet.now)
            case "unlisted":
                fleet.passed(models=[])

        seen = fleet.monitor.view(fleet.now)[f"r/n1/{MODEL}"]
        exact = fleet.health()
        assert 0.0 <= exact.score <= 1.0
        assert seen.score == pytest.approx(exact.score, abs=0.02)
        for name in ("grade", "ready", "circuit", "ejected_until", "queue_depth", "last_check_time"):
            assert getattr(seen, name) == getattr(exact, name)
        assert fleet.node().grade in Grade


def test_a_node_is_settled_while_its_last_probe_passed_and_listed_all_of_its_models():
    fleet = Fleet()
    before = fleet.monitor.settled("r/n1")

    after_a_pass = fleet.passed().monitor.settled("r/n1")
    fleet.monitor.sync(a_snapshot(a_node(models=[MODEL, "another"]), revision=2), fleet.now)
    with_another_model = fleet.monitor.settled("r/n1")
    both_listed = fleet.passed(models=[MODEL, "another"]).monitor.settled("r/n1")
    after_a_failure = fleet.failed().monitor.settled("r/n1")

    assert (before, after_a_pass, with_another_model, both_listed, after_a_failure) == (False, True, False, True, False)
    assert not fleet.monitor.settled("r/nobody")
