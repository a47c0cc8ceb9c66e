"""The contract of every store: what `edit`, `delete` and `get` promise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from catalog.errors import EtagMismatch, ModelInUse, NotFound
from catalog.store import CatalogStore
from catalog.types import DeploymentStatus, Resource, ResourceKind
from tests.catalog.builders import Clock, a_deployment, a_model, a_node, a_policy, a_region

pytestmark = pytest.mark.anyio

GPU_1 = "eu-west-1/gpu-1"


async def test_an_edit_reads_changes_and_writes(store: CatalogStore, clock: Clock) -> None:
    await store.put([a_region()])
    (node,) = await store.put([a_node()])
    clock.now += 60

    edited = await store.edit(ResourceKind.NODE, GPU_1, lambda of: replace(of, draining=True))

    assert edited == replace(node, draining=True, revision=node.revision + 1, etag=edited.etag)
    assert edited.etag != node.etag
    assert await store.get(ResourceKind.NODE, GPU_1) == edited


async def test_an_edit_that_changes_nothing_writes_nothing(store: CatalogStore) -> None:
    (region,) = await store.put([a_region()])

    edited = await store.edit(ResourceKind.REGION, "eu-west-1", lambda of: replace(of, etag="mine", revision=99))

    assert edited == region
    assert (await store.snapshot()).revision == 1


async def test_an_edit_of_nothing_is_not_found(store: CatalogStore) -> None:
    with pytest.raises(NotFound) as missing:
        await store.edit(ResourceKind.MODEL, "m", lambda of: of)

    assert (missing.value.kind, missing.value.name) == ("model", "m")


async def test_what_the_change_of_an_edit_raises_passes_through(store: CatalogStore) -> None:
    await store.put([a_region()])

    def refuse(_: Resource) -> Resource:
        raise KeyError("not today")

    with pytest.raises(KeyError, match="not today"):
        await store.edit(ResourceKind.REGION, "eu-west-1", refuse)
    # The store is not stuck in the middle of it.
    await store.put([a_region("eu-west-2")])

    assert (await store.snapshot()).revision == 2


async def test_an_edit_keeps_the_name_and_the_kind(store: CatalogStore) -> None:
    await store.put([a_region()])

    with pytest.raises(ValueError, match="an edit keeps kind and name"):
        await store.edit(ResourceKind.REGION, "eu-west-1", lambda of: a_region("eu-west-2"))


async def test_an_edit_that_names_a_new_model_makes_its_record(store: CatalogStore) -> None:
    await store.put([a_region()])
    await store.put([a_node(GPU_1, "a")])

    node = await store.edit(
        ResourceKind.NODE, GPU_1, lambda of: replace(of, deployments=(a_deployment("b"), a_deployment("a")))
    )

    assert (await store.get(ResourceKind.MODEL, "b")).revision == node.revision - 1
    with pytest.raises(ModelInUse):
        await store.delete(ResourceKind.MODEL, "b")


async def test_a_deleted_resource_is_gone(store: CatalogStore) -> None:
    await store.put([a_region()])
    (node,) = await store.put([a_node()])

    revision = await store.delete(ResourceKind.NODE, GPU_1)

    assert revision == node.revision + 1
    assert (await store.snapshot()).nodes == {}
    with pytest.raises(NotFound):
        await store.get(ResourceKind.NODE, GPU_1)
    with pytest.raises(NotFound):
        await store.delete(ResourceKind.NODE, GPU_1)


async def test_a_delete_may_name_the_version_that_it_means(store: CatalogStore) -> None:
    (policy,) = await store.put([a_policy()])

    with pytest.raises(EtagMismatch) as mismatch:
        await store.delete(ResourceKind.POLICY, "balanced", etag="older")
    await store.delete(ResourceKind.POLICY, "balanced", etag=policy.etag)

    assert mismatch.value.current == policy.etag
    assert (await store.snapshot()).policies == {}


async def test_a_model_stays_while_a_node_serves_it(store: CatalogStore) -> None:
    await store.put([a_region()])
    await store.put([a_node("eu-west-1/gpu-2", "a"), a_node(GPU_1, "a", "b")])

    with pytest.raises(ModelInUse) as used:
        await store.delete(ResourceKind.MODEL, "a")
    await store.delete(ResourceKind.NODE, GPU_1)
    await store.delete(ResourceKind.MODEL, "b")
    with pytest.raises(ModelInUse) as still_used:
        await store.delete(ResourceKind.MODEL, "a")

    assert (used.value.node, still_used.value.node) == (GPU_1, "eu-west-1/gpu-2")


async def test_a_removed_deployment_does_not_hold_its_model(store: CatalogStore) -> None:
    await store.put([a_region()])
    (first,) = await store.put([a_node(GPU_1, "a")])
    removed = a_deployment("a", status=DeploymentStatus.REMOVED)
    await store.put([a_node(GPU_1, deployments=(removed,), etag=first.etag)])

    await store.delete(ResourceKind.MODEL, "a")

    assert (await store.snapshot()).models == {}


async def test_a_node_that_is_registered_again_starts_anew(store: CatalogStore, clock: Clock) -> None:
    await store.put([a_region()])
    (first,) = await store.put([a_node(zone="a")])
    await store.put([a_node(zone="b", etag=first.etag)])
    await store.delete(ResourceKind.NODE, GPU_1)
    clock.now += 60

    (again,) = await store.put([a_node(zone="a")])

    assert (again.generation, again.create_time) == (1, clock.now)
    assert again.revision == 6


async def test_kinds_do_not_share_names(store: CatalogStore) -> None:
    await store.put([a_region("x")])
    await store.put([a_model("x")])
    await store.put([a_policy("x")])

    await store.delete(ResourceKind.MODEL, "x")

    snapshot = await store.snapshot()
    assert (list(snapshot.regions), list(snapshot.models), list(snapshot.policies)) == (["x"], [], ["x"])
