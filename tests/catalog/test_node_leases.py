"""Leases of nodes, in virtual time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.leases import Leases
from catalog.types import Node
from tests.catalog.builders import a_node

A, B = "eu-west-1/a", "eu-west-1/b"


def nodes(*of: Node) -> dict[str, Node]:
    return {node.name: node for node in of}


def test_a_lease_ends_after_its_time_and_is_reported_once() -> None:
    leases = Leases()
    leases.grant(A, 30.0, now=100.0)

    assert leases.expired(129.9) == ()
    assert leases.expired(130.0) == (A,)
    assert leases.expired(500.0) == ()


def test_a_renewal_starts_a_full_lease() -> None:
    leases = Leases()
    leases.grant(A, 30.0, now=0.0)

    assert leases.renew(A, now=29.0)

    assert leases.expired(58.9) == ()
    assert leases.expired(59.0) == (A,)


def test_what_holds_no_lease_is_not_renewed() -> None:
    leases = Leases()
    leases.grant(A, 30.0, now=0.0)
    leases.expired(30.0)

    assert not leases.renew(A, now=31.0)
    assert not leases.renew("eu-west-1/never", now=31.0)
    leases.grant(A, 30.0, now=31.0)
    assert leases.renew(A, now=32.0)


def test_a_renewal_counts_while_the_end_was_not_reported() -> None:
    leases = Leases()
    leases.grant(A, 30.0, now=0.0)

    assert leases.renew(A, now=31.0)

    assert leases.expired(31.0) == ()
    assert leases.expired(61.0) == (A,)


def test_those_that_ended_first_are_reported_first() -> None:
    leases = Leases()
    leases.grant(A, 30.0, now=0.0)
    leases.grant(B, 10.0, now=0.0)
    leases.renew(A, now=0.5)

    assert leases.expired(100.0) == (B, A)


def test_a_lease_of_zero_never_ends() -> None:
    leases = Leases()
    leases.grant(A, 0.0, now=0.0)

    assert leases.renew(A, now=1.0)
    assert leases.expired(1e12) == ()
    assert len(leases) == 1


def test_a_forgotten_node_is_not_reported() -> None:
    leases = Leases()
    leases.grant(A, 30.0, now=0.0)

    leases.forget(A)
    leases.forget("eu-west-1/never")

    assert leases.expired(100.0) == ()
    assert not leases.renew(A, now=100.0)


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan])
def test_a_lease_that_cannot_be_meant_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"lease_seconds of node 'eu-west-1/a' is .*; it must be 0 \(never ends\) or"):
        Leases().grant(A, seconds, now=0.0)


def test_a_restart_grants_every_node_one_full_lease() -> None:
    leases = Leases()

    leases.sync(nodes(a_node(A, lease_seconds=30.0), a_node(B, lease_seconds=0.0)), now=1000.0)

    assert leases.expired(1029.9) == ()
    assert leases.expired(1e9) == (A,)


def test_a_node_whose_record_is_expired_gets_no_lease_before_its_heartbeat() -> None:
    leases = Leases()

    leases.sync(nodes(a_node(A, expired=True)), now=0.0)

    assert not leases.renew(A, now=1.0)
    assert leases.expired(1e9) == ()


def test_a_change_of_the_record_leaves_its_lease_alone() -> None:
    leases = Leases()
    leases.sync(nodes(a_node(A, revision=1)), now=0.0)

    leases.sync(nodes(a_node(A, revision=2, draining=True)), now=20.0)

    assert leases.expired(30.0) == (A,)


@pytest.mark.parametrize(("seconds", "end"), [(10.0, 15.0), (100.0, 105.0)])
def test_a_changed_lease_counts_from_the_last_renewal(seconds: float, end: float) -> None:
    leases = Leases()
    leases.sync(nodes(a_node(A, revision=1, lease_seconds=30.0)), now=0.0)
    leases.renew(A, now=5.0)

    leases.sync(nodes(a_node(A, revision=2, lease_seconds=seconds)), now=6.0)

    assert leases.expired(end - 0.1) == ()
    assert leases.expired(end) == (A,)


def test_a_lease_that_becomes_endless_does_not_end_and_back() -> None:
    leases = Leases()
    leases.sync(nodes(a_node(A, revision=1, lease_seconds=30.0)), now=0.0)

    leases.sync(nodes(a_node(A, revision=2, lease_seconds=0.0)), now=6.0)
    assert leases.expired(1000.0) == ()
    leases.sync(nodes(a_node(A, revision=3, lease_seconds=30.0)), now=1000.0)

    assert leases.expired(1030.0) == (A,)


def test_a_node_that_is_gone_is_forgotten() -> None:
    leases = Leases()
    leases.sync(nodes(a_node(A), a_node(B)), now=0.0)

    leases.sync(nodes(a_node(B)), now=1.0)

    assert leases.expired(100.0) == (B,)
    assert len(leases) == 0


def test_a_node_that_was_granted_before_its_record_is_seen_is_kept() -> None:
    leases = Leases()
    leases.grant(A, 30.0, now=0.0)

    leases.sync({}, now=1.0)

    assert leases.renew(A, now=2.0)


def test_a_reported_node_gets_no_lease_from_a_catalog_that_does_not_know_it_yet() -> None:
    leases = Leases()
    catalog = nodes(a_node(A, revision=1))
    leases.sync(catalog, now=0.0)
    assert leases.expired(30.0) == (A,)

    leases.sync(catalog, now=31.0)

    assert not leases.renew(A, now=32.0)
    assert leases.expired(1e9) == ()


def test_a_node_that_came_back_by_another_replica_gets_a_lease() -> None:
    leases = Leases()
    leases.sync(nodes(a_node(A, revision=1)), now=0.0)
    leases.expired(30.0)

    leases.sync(nodes(a_node(A, revision=2, expired=True)), now=31.0)
    leases.sync(nodes(a_node(A, revision=3)), now=40.0)

    assert leases.expired(69.9) == ()
    assert leases.expired(70.0) == (A,)


names = st.sampled_from([A, B, "eu-west-1/c"])
steps = st.lists(
    st.tuples(
        st.sampled_from(["grant", "renew", "forget", "expired"]),
        names,
        st.sampled_from([0.0, 1.0, 5.0, 30.0]),
        st.sampled_from([0.0, 0.5, 1.0, 4.0, 31.0]),
    ),
    max_size=60,
)


@given(steps)
def test_leases_end_as_a_plain_table_of_deadlines_says(story: list[tuple[str, str, float, float]]) -> None:
    leases, seconds_of, ends, now = Leases(), dict[str, float](), dict[str, float](), 0.0
    for step, name, seconds, passed in story:
        now += passed
        match step:
            case "grant":
                leases.grant(name, seconds, now)
                seconds_of[name] = seconds or math.inf
                ends[name] = now + seconds_of[name]
            case "renew":
                assert leases.renew(name, now) == (name in ends)
                if name in ends:
                    ends[name] = now + seconds_of[name]
            case "forget":
                leases.forget(name)
                ends.pop(name, None)
            case _:
                over = sorted((end, of) for of, end in ends.items() if end <= now)
                assert leases.expired(now) == tuple(of for _, of in over)
                for _, of in over:
                    del ends[of]
        assert len(leases) == len(ends)
