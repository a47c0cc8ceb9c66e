"""Snapshots from changes."""

from __future__ import annotations

from catalog.snapshot import EMPTY_SNAPSHOT, apply, deployments
from catalog.types import Change, Resource, ResourceKind, Snapshot, kind_of, name_of
from tests.catalog.builders import a_deployment, a_model, a_node, a_policy, a_region


def put(revision: int, resource: Resource) -> Change:
    return Change(revision, kind_of(resource), name_of(resource), resource)


def test_changes_of_every_kind_are_applied() -> None:
    resources = (a_region(), a_model(), a_node(), a_policy())

    snapshot = apply(EMPTY_SNAPSHOT, (put(at, resource) for at, resource in enumerate(resources, start=1)))

    region, model, node, policy = resources
    assert snapshot == Snapshot(
        4, {"eu-west-1": region}, {"llama-3-70b": model}, {"eu-west-1/gpu-1": node}, {"balanced": policy}
    )


def test_a_removed_resource_is_gone_and_removing_it_again_is_harmless() -> None:
    before = apply(EMPTY_SNAPSHOT, [put(1, a_node())])
    removed = Change(2, ResourceKind.NODE, "eu-west-1/gpu-1", None)

    after = apply(before, [removed, Change(3, ResourceKind.NODE, "eu-west-1/gpu-1", None)])

    assert (after.revision, dict(after.nodes)) == (3, {})
    assert list(before.nodes) == ["eu-west-1/gpu-1"]


def test_what_did_not_change_is_shared() -> None:
    before = apply(EMPTY_SNAPSHOT, [put(1, a_region()), put(2, a_node())])

    after = apply(before, [put(3, a_node("eu-west-1/gpu-2"))])

    assert after.regions is before.regions
    assert after.nodes is not before.nodes
    assert after.nodes["eu-west-1/gpu-1"] is before.nodes["eu-west-1/gpu-1"]


def test_changes_that_were_applied_already_change_nothing() -> None:
    changes = [put(1, a_region()), put(2, a_region(provider="aws"))]
    snapshot = apply(EMPTY_SNAPSHOT, changes)

    assert apply(snapshot, changes) is snapshot
    assert apply(snapshot, []) is snapshot


def test_a_snapshot_of_plain_dicts_is_left_as_it_is() -> None:
    plain = Snapshot(1, {}, {}, {"eu-west-1/gpu-1": a_node()}, {})

    after = apply(plain, [put(2, a_node("eu-west-1/gpu-2"))])

    assert (len(plain.nodes), len(after.nodes)) == (1, 2)


def test_deployments_come_in_the_order_of_their_names() -> None:
    nodes = [
        a_node("b/x", "z", "a"),
        a_node("a/x-1", "m"),
        a_node("a/x", "m"),
        a_node("a-1/x", "m"),
        a_node("a/x", deployments=(a_deployment("n", "a/x"), a_deployment("meta/llama", "a/x"))),
    ]
    snapshot = apply(EMPTY_SNAPSHOT, (put(at, node) for at, node in enumerate(nodes, start=1)))

    names = [deployment.name for deployment in deployments(snapshot)]

    assert names == ["a-1/x/m", "a/x-1/m", "a/x/meta/llama", "a/x/n", "b/x/a", "b/x/z"]
    assert names == sorted(names)
