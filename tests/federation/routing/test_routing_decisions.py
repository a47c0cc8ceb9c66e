"""Decisions as they are remembered, logged and recomputed."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from catalog.types import ServingProfile
from federation.config import RoutingSettings
from federation.routing import ring
from federation.routing.replay import VERSION, replay
from federation.routing.ring import DecisionLog, DecisionRing, DecisionUnknown
from federation.routing.router import Router
from policies.policy import Match, Narrow, Policy, Rule, Weights
from policies.registry import BUILT_IN
from policies.types import Explain
from tests.builders import SICK, a_deployment, a_node, a_request, a_router, a_table

# The ring


def test_the_newest_decisions_are_remembered() -> None:
    router = a_router(a_table(a_node("eu/a")), decisions_kept=5)

    records = [router.place(a_request(), 0.0) for _ in range(20)]

    assert len(router.ring) == 5
    assert router.ring.newest(3) == records[-3:]
    assert router.ring.newest(0) == []
    assert router.decision(records[-1].decision_id) is records[-1]
    with pytest.raises(DecisionUnknown, match="'r1-0' is not remembered: the newest 5 of this replica are kept"):
        router.decision("r1-0")


def test_none_are_remembered_where_none_are_wanted() -> None:
    router = a_router(a_table(a_node("eu/a")), decisions_kept=0)

    decision = router.route(a_request(), 0.0)

    assert len(router.ring) == 0
    with pytest.raises(DecisionUnknown):
        router.decision(decision.decision_id)


def test_decisions_of_the_oldest_tables_go_first_where_tables_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "TABLES_BYTES", 0)
    router = a_router(decisions_kept=1_000)
    made = []
    for number in range(12):
        router.install(a_table(a_node("eu/a"), now=float(number)))
        made.append([router.place(a_request(), float(number)).number for _ in range(3)])

    kept = [record.number for record in router.ring.newest(1_000)]

    assert kept == [number for group in made[-8:] for number in group]


def test_tables_that_no_decision_is_remembered_of_are_let_go_and_never_mixed_up() -> None:
    router = a_router(decisions_kept=2)
    numbers = []
    for number in range(300):
        # A table that is freed leaves its address to the next one.
        router.install(a_table(a_node("eu/a"), now=float(number)))
        numbers.append(router.place(a_request(), float(number)).number)
        router.reservations.release(numbers[-1])
        if number % 50 == 0:
            gc.collect()
        assert [record.number for record in router.ring.newest(2)] == numbers[-2:]

    assert len(router.ring._tables) <= 2


def test_a_ring_bears_the_same_table_again() -> None:
    router = a_router(a_table(a_node("eu/a")))
    ring = DecisionRing(3)

    for number in range(10):
        ring.add(router.decide(a_request(), 0.0, number=number))

    assert [record.number for record in ring.newest(9)] == [7, 8, 9]


# The log


def a_log(path: Path, *, sample: float = 1.0, max_bytes: int = 1 << 30, draws: tuple[float, ...] = ()) -> DecisionLog:
    chances = iter(draws)
    return DecisionLog(path, sample, max_bytes, lambda: next(chances))


def logged(log: DecisionLog, **settings: object) -> Router:
    router = Router(
        RoutingSettings(**settings),  # type: ignore[arg-type]
        replica="r1",
        seed=7,
        wall=lambda: 1_700_000_000.0,
        log=log,
    )
    router.install(a_table(*(a_node(f"eu/n{i}") for i in range(100))))
    return router


def test_each_decision_is_a_line_from_which_it_recomputes(tmp_path: Path) -> None:
    router = logged(log := a_log(tmp_path / "new" / "decisions.jsonl"))

    names = [router.place(a_request(), 0.0).names() for _ in range(20)]
    router.sweep(0.1)
    lines = (tmp_path / "new" / "decisions.jsonl").read_text().splitlines()
    log.close()

    entries = [json.loads(line) for line in lines]
    assert [(e["decision"]["target"], *e["decision"]["alternatives"]) for e in entries] == names
    assert all(replay(entry).identical for entry in entries)
    assert all(len(entry["names"]) == 100 for entry in entries), "what is logged holds every candidate"


def test_a_sample_is_written_and_no_more(tmp_path: Path) -> None:
    router = logged(log := a_log(tmp_path / "d.jsonl", sample=0.5, draws=(0.1, 0.9, 0.5, 0.49)))

    made = [router.place(a_request(), 0.0).decision_id for _ in range(4)]
    log.close()

    written = [json.loads(line)["decision_id"] for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    assert written == [made[0], made[3]]


def test_a_full_log_is_rotated_once_and_an_old_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    log = a_log(path, max_bytes=1_000)
    for number in range(30):
        log.write({"decision_id": number, "filler": "x" * 100})
    log.close()

    again = a_log(path, max_bytes=1_000)
    again.write({"decision_id": 30})
    again.close()

    old, new = ((tmp_path / name).read_text().splitlines() for name in ("d.jsonl.1", "d.jsonl"))
    numbers = [json.loads(line)["decision_id"] for line in old + new]
    assert numbers == list(range(31))[-len(numbers) :]
    assert (tmp_path / "d.jsonl.1").stat().st_size < 1_200
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.jsonl", "d.jsonl.1"]


def test_a_log_that_cannot_be_opened_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(OSError, match="file"):
        a_log(tmp_path / "file" / "d.jsonl")


# Replay


def an_entry(policy: Policy | None = None, **request: object) -> dict[str, object]:
    router = a_router(a_table(*(a_node(f"eu/n{i}") for i in range(4))))
    if policy is not None:
        router.install_policies({policy.policy_id: policy})
        request["policy_id"] = policy.policy_id
    entry: dict[str, object] = json.loads(router.place(a_request(**request), 0.0).to_json())
    return entry


def test_a_record_of_another_version_is_not_read() -> None:
    with pytest.raises(ValueError, match=f"has version 99; this program reads version {VERSION}"):
        replay({**an_entry(), "version": 99})
    with pytest.raises(ValueError, match="has version None"):
        replay({})


def test_a_record_that_is_cut_is_not_read() -> None:
    entry = an_entry()
    del entry["load"]

    with pytest.raises(KeyError):
        replay(entry)


def test_a_record_that_says_otherwise_is_told_with_what_differs() -> None:
    entry = an_entry(explain=Explain.NONE)
    decision = dict(entry["decision"])  # type: ignore[call-overload]
    totals = [decision["totals"][0] + 1.0, *decision["totals"][1:]]

    told = replay(
        {**entry, "decision": {**decision, "target": "eu/never/m", "near": 3, "by": "session", "totals": totals}}
    )

    assert not told.identical
    assert [difference.split(":")[0] for difference in told.differences] == [
        "choices",
        "how",
        f"total of {entry['names'][0]}",  # type: ignore[index]
    ]


def test_labels_with_signs_of_equality_recompute() -> None:
    table = a_table(a_node("eu/a", labels={"a=b": "c", "a": "b=c"}), a_node("eu/b", labels={"a": "b=c"}))
    router = a_router(table)

    record = router.place(a_request(node_labels=(("a=b", "c"),)), 0.0)

    assert record.rejected == {"LABELS": 1}
    assert replay(json.loads(record.to_json())).identical


def test_a_rule_that_narrowed_recomputes() -> None:
    policy = Policy("p", rules=(Rule("r", Match(), narrow=Narrow(regions=("e*",)), picker="weighted_random"),))

    assert replay(an_entry(policy)).identical


def test_a_picker_scorer_and_filter_of_another_package_recompute() -> None:
    registry = BUILT_IN.extend(
        {"theirs": lambda ask, pool, seen: pool.row.astype(np.float64)},
        {"odd": lambda ask, pool: pool.row % 2 == 1},
        {"last": lambda field: len(field) - 1},
    )
    router = Router(RoutingSettings(), replica="r1", seed=7, wall=lambda: 0.0, registry=registry)
    router.install(a_table(*(a_node(f"eu/n{i}") for i in range(6))))
    scorers = MappingProxyType({"theirs": 2.0})
    router.install_policies({"p": Policy("p", picker="last", extra_filters=("odd",), extra_scorers=scorers)})

    record = router.place(a_request(policy_id="p"), 0.0)
    told = replay(json.loads(record.to_json()), registry)

    assert record.rejected == {"RULE": 3}
    assert told.differences == ()


def test_prompts_and_keys_are_not_in_a_record() -> None:
    entry = an_entry(session_id="s-1", prefix_hashes=(1, 2))

    request = entry["request"]
    assert isinstance(request, dict)
    assert not {"prompt", "messages", "api_key", "authorization"} & {*entry, *request}


def test_a_decision_of_a_pool_of_many_keeps_those_that_were_looked_at() -> None:
    speeds = [ServingProfile(0.0001 * (1 + number), 0.01, 50.0, 32) for number in range(200)]
    router = a_router(a_table(*(a_node(f"eu/n{i:03}", [a_deployment(profile=p)]) for i, p in enumerate(speeds))))

    record = router.place(a_request(), 0.0)

    assert record.walked
    assert len(record.rows) < 20
    assert record.considered == 200
    assert replay(json.loads(record.to_json())).identical
    assert f"visited {record.visited} of 200" in record.render().stages[2].detail


def test_a_walk_in_panic_that_looked_at_no_healthy_one_recomputes() -> None:
    speeds = [ServingProfile(0.0001 * (1 + number), 0.01, 50.0, 32) for number in range(80)]
    sick = [a_node(f"eu/n{i:03}", [a_deployment(profile=p)]) for i, p in enumerate(speeds)]
    far = [a_node(f"ap/n{i}") for i in range(9)]
    router = a_router(a_table(*sick, *far, health={node.name: SICK for node in sick}))
    router.install_policies({"p": Policy("p", weights=Weights(health=0.01))})

    record = router.place(a_request(policy_id="p", max_alternatives=0), 0.0)

    assert record.panic
    assert record.walked
    assert all(name.startswith("eu/") for name in record.table.pool.names[record.rows[0] : record.rows[-1] + 1])
    assert replay(json.loads(record.to_json())).identical


def test_a_walk_that_does_not_end_soon_is_told_by_a_sweep_whom_to_visit() -> None:
    nodes = [a_node(f"eu/n{i:03}", [a_deployment(max_concurrency=0)]) for i in range(200)]
    router = a_router(a_table(*nodes, a_node("ap/free")))

    record = router.place(a_request(), 0.0)

    assert record.swept
    assert record.names() == ("ap/free/llama-3-8b",)
    assert record.rejected == {"AT_CAPACITY": 200}
    assert replay(replace_known(json.loads(record.to_json()))).identical


def replace_known(entry: dict[str, object]) -> dict[str, object]:
    """A record as it comes back from a file by another writer: the same values, other objects."""
    copied: dict[str, object] = json.loads(json.dumps(entry, sort_keys=True))
    return copied


def test_the_same_decision_is_rendered_alike_however_often_and_late() -> None:
    router = a_router(a_table(a_node("eu/a"), a_node("us/b")))
    record = router.place(a_request(explain=Explain.FULL), 0.0)

    first = record.render()

    assert record.render() == first
    assert replace(record.render(Explain.NONE), decide_time=0.0).target == first.target
