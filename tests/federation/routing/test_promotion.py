"""Where sessions go when they must move: not to what only came back, and after a restart to where they were."""

from __future__ import annotations

from dataclasses import replace

from policies.health import Grade
from tests.builders import WELL, a_node, a_request, a_router, a_table

BACK = replace(WELL, recovered_at=100.0)
OUT = replace(WELL, grade=Grade.UNHEALTHY, score=0.0)
NODES = [a_node(f"eu/{name}") for name in "abc"]


def test_a_session_that_must_move_leaves_the_recovered_one_alone_until_the_hold_is_over() -> None:
    router = a_router(a_table(*NODES))
    homes = {}
    for number in range(12):
        homes[f"s{number}"] = router.route(a_request(session_id=f"s{number}"), 1.0).target.node_id
    moving = [session for session, home in homes.items() if home == "b"]

    health = {"eu/a/llama-3-8b": BACK, "eu/b/llama-3-8b": OUT}
    router.install(a_table(*NODES, health=health, now=130.0))
    held = {router.route(a_request(session_id=session), 130.0).target.node_id for session in moving}
    fresh = {router.route(a_request(session_id=f"new{n}"), 130.0).target.node_id for n in range(12)}

    assert moving
    assert held == {"c"}
    assert "a" in fresh


def test_where_only_recovered_ones_are_left_they_serve() -> None:
    router = a_router(a_table(*NODES[:2]))
    home = router.route(a_request(session_id="s"), 1.0).target.node_id
    other = "b" if home == "a" else "a"

    health = {f"eu/{home}/llama-3-8b": OUT, f"eu/{other}/llama-3-8b": BACK}
    router.install(a_table(*NODES[:2], health=health, now=130.0))

    assert router.route(a_request(session_id="s"), 130.0).target.node_id == other


def test_after_the_hold_it_is_like_any_other() -> None:
    router = a_router(a_table(*NODES))
    homes = {f"s{n}": router.route(a_request(session_id=f"s{n}"), 1.0).target.node_id for n in range(12)}

    health = {"eu/a/llama-3-8b": BACK, "eu/b/llama-3-8b": OUT, "eu/c/llama-3-8b": OUT}
    router.install(a_table(*NODES, health=health, now=200.0))
    moving = [session for session, home in homes.items() if home == "b"]
    targets = {router.route(a_request(session_id=session), 200.0).target.node_id for session in moving}

    assert targets == {"a"}


def test_after_a_restart_most_sessions_find_their_deployment_again() -> None:
    nodes = [a_node(f"eu/n{number}") for number in range(8)]
    before, after = a_router(a_table(*nodes), seed=1), a_router(a_table(*nodes), seed=2)

    homes = [
        [router.route(a_request(session_id=f"s{n}"), 1.0).target.node_id for n in range(64)]
        for router in (before, after)
    ]

    assert sum(a == b for a, b in zip(*homes, strict=True)) >= 32
