"""The contract of every store: what `put` promises."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from catalog.errors import Conflict, EtagMismatch, NotFound, NotOwner, RequestIdReused
from catalog.store import CatalogStore
from catalog.types import DeploymentStatus, Node, Region, Resource, ResourceKind
from tests.catalog.builders import (
    OWNER,
    Clock,
    a_deployment,
    a_full_node,
    a_model,
    a_node,
    a_policy,
    a_region,
    contents,
)

pytestmark = pytest.mark.anyio

DAY = 86_400.0


async def test_a_stored_resource_has_owner_revision_and_etag(store: CatalogStore) -> None:
    (region,) = await store.put([a_region(jurisdictions=("DE", "EU"), round_trip_seconds={"us-east-1": 0.08})])

    assert (region.owner, region.revision) == (OWNER, 1)
    assert region.etag
    assert await store.get(ResourceKind.REGION, "eu-west-1") == region


async def test_a_node_comes_back_with_all_that_was_registered(store: CatalogStore, clock: Clock) -> None:
    await store.put([a_region()])
    registered = a_full_node()

    (node,) = await store.put([registered])

    assigned = {"owner": OWNER, "revision": 3, "etag": node.etag, "generation": 1, "create_time": clock.now}
    assert node == replace(registered, **assigned)
    assert await store.get(ResourceKind.NODE, node.name) == node


async def test_what_is_stored_does_not_change_with_what_was_sent(store: CatalogStore) -> None:
    labels, round_trips, prices = {"a": "1"}, {"us-east-1": 0.08}, {"us-east-1": 0.02}
    await store.put([a_region(round_trip_seconds=round_trips, egress_prices_usd_per_gb=prices)])
    await store.put([a_node(labels=labels)])

    for sent in (labels, round_trips, prices):
        sent.clear()

    snapshot = await store.snapshot()
    region = snapshot.regions["eu-west-1"]
    assert (region.round_trip_seconds, region.egress_prices_usd_per_gb) == ({"us-east-1": 0.08}, {"us-east-1": 0.02})
    assert snapshot.nodes["eu-west-1/gpu-1"].labels == {"a": "1"}


async def test_every_changed_resource_has_a_revision_of_its_own(store: CatalogStore) -> None:
    await store.put([a_region()])

    nodes = await store.put([a_node(f"eu-west-1/gpu-{at}") for at in range(5)])

    assert [node.revision for node in nodes] == [3, 4, 5, 6, 7]
    assert (await store.snapshot()).revision == 7


async def test_the_same_content_writes_nothing_and_answers_what_is_stored(store: CatalogStore) -> None:
    await store.put([a_region()])
    (first,) = await store.put([a_node(labels={"a": "1", "b": "2"})])

    (again,) = await store.put([a_node(labels={"b": "2", "a": "1"})])
    (with_a_stale_etag,) = await store.put([a_node(labels={"a": "1", "b": "2"}, etag="of-some-older-version")])

    assert again == with_a_stale_etag == first
    assert (await store.snapshot()).revision == first.revision


async def test_deployments_in_another_order_are_the_same_content(store: CatalogStore) -> None:
    await store.put([a_region()])
    (first,) = await store.put([a_node("eu-west-1/gpu-1", "a", "b")])

    (again,) = await store.put([a_node("eu-west-1/gpu-1", "b", "a")])

    assert again == first


async def test_other_content_without_an_etag_is_a_conflict(store: CatalogStore) -> None:
    await store.put([a_region()])
    (first,) = await store.put([a_node()])

    with pytest.raises(Conflict) as conflict:
        await store.put([a_node(zone="b")])

    assert conflict.value.etag == first.etag
    assert await store.get(ResourceKind.NODE, first.name) == first


async def test_other_content_with_the_current_etag_replaces(store: CatalogStore, clock: Clock) -> None:
    await store.put([a_region()])
    (first,) = await store.put([a_node()])
    clock.now += 60

    (second,) = await store.put([a_node(zone="b", etag=first.etag)])

    assert second.zone == "b"
    assert second.revision == first.revision + 1
    assert second.etag != first.etag
    assert (second.generation, second.create_time) == (2, first.create_time)


@pytest.mark.parametrize("etag", ["0000000000000000", "anything"])
async def test_a_stale_etag_is_refused(store: CatalogStore, etag: str) -> None:
    (first,) = await store.put([a_region()])

    with pytest.raises(EtagMismatch) as mismatch:
        await store.put([a_region(provider="aws", etag=etag)])

    assert mismatch.value.current == first.etag


async def test_an_etag_for_a_name_that_is_not_there_is_refused(store: CatalogStore) -> None:
    with pytest.raises(EtagMismatch) as mismatch:
        await store.put([a_region(etag="0123456789abcdef")])

    assert mismatch.value.current == ""


async def test_all_or_none_of_a_put_is_stored(store: CatalogStore) -> None:
    await store.put([a_region()])
    (first,) = await store.put([a_node("eu-west-1/gpu-1")])

    with pytest.raises(Conflict):
        await store.put([a_node("eu-west-1/gpu-0", "new-model"), a_node("eu-west-1/gpu-1", zone="b")])

    snapshot = await store.snapshot()
    assert (snapshot.revision, list(snapshot.nodes), list(snapshot.models)) == (
        first.revision,
        ["eu-west-1/gpu-1"],
        ["llama-3-70b"],
    )


async def test_one_name_twice_in_a_put_is_refused(store: CatalogStore) -> None:
    await store.put([a_region()])

    with pytest.raises(ValueError, match=r"node 'eu-west-1/gpu-1' is named twice in one write; send each"):
        await store.put([a_node(), a_node(zone="b")])


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            a_node(deployments=(a_deployment(), a_deployment(weight=2.0))),
            "names model 'llama-3-70b' in two deployments",
        ),
        (a_node(deployments=(a_deployment(node="eu-west-1/other"),)), "both must name one node"),
        (a_node(price_usd_per_hour=math.nan), "holds a number that is not finite"),
        (a_node("eu-west-1/"), "every one of its ids must be given"),
        (a_node("eu-west-1/gpu\0"), "cannot hold a NUL character"),
    ],
)
async def test_a_node_that_contradicts_itself_is_refused(store: CatalogStore, node: Node, message: str) -> None:
    await store.put([a_region()])

    with pytest.raises(ValueError, match=message):
        await store.put([node])

    assert (await store.snapshot()).revision == 1


async def test_a_node_needs_its_region(store: CatalogStore) -> None:
    with pytest.raises(NotFound) as missing:
        await store.put([a_node("eu-north-1/gpu-1")])

    assert (missing.value.kind, missing.value.name) == ("region", "eu-north-1")


async def test_a_region_may_come_in_the_same_put_as_its_nodes(store: CatalogStore) -> None:
    resources: list[Resource] = [a_node(), a_region()]

    node, region = await store.put(resources)

    assert (region.revision, node.revision) == (1, 3)
    assert isinstance(node, Node)
    assert isinstance(region, Region)


async def test_unknown_models_get_minimal_records_with_the_capabilities_that_are_named(store: CatalogStore) -> None:
    await store.put([a_region()])
    nodes = [
        a_node("eu-west-1/gpu-1", deployments=(a_deployment("m", "eu-west-1/gpu-1", capabilities=("generate",)),)),
        a_node("eu-west-1/gpu-2", deployments=(a_deployment("m", "eu-west-1/gpu-2", capabilities=("code", "embed")),)),
    ]

    stored = await store.put(nodes)

    model = await store.get(ResourceKind.MODEL, "m")
    assert model == a_model("m", capabilities=("code", "embed", "generate"), owner=OWNER, revision=2, etag=model.etag)
    # Whoever reads the log meets the model first.
    assert [node.revision for node in stored] == [3, 4]


async def test_a_model_that_was_described_stays_as_it_is(store: CatalogStore) -> None:
    await store.put([a_region()])
    (model,) = await store.put([a_model(family="llama")])

    await store.put([a_node()])

    assert await store.get(ResourceKind.MODEL, "llama-3-70b") == model


async def test_a_minimal_model_can_be_described_later_with_its_etag(store: CatalogStore) -> None:
    await store.put([a_region()])
    await store.put([a_node()])
    minimal = await store.get(ResourceKind.MODEL, "llama-3-70b")

    (model,) = await store.put([a_model(family="llama", etag=minimal.etag)])

    assert model.family == "llama"


async def test_a_record_of_another_owner_is_refused(store: CatalogStore) -> None:
    with pytest.raises(NotOwner) as refused:
        await store.put([a_region("us-east-1", owner="us-east-1")])

    assert refused.value.owner == "us-east-1"
    assert (await store.snapshot()).revision == 0


async def test_a_drain_survives_a_registration(store: CatalogStore) -> None:
    await store.put([a_region()])
    await store.put([a_node("eu-west-1/gpu-1", "a", "b")])
    drained = await store.edit(ResourceKind.NODE, "eu-west-1/gpu-1", lambda node: replace(node, draining=True))

    (same,) = await store.put([a_node("eu-west-1/gpu-1", "a", "b")])
    (other,) = await store.put([a_node("eu-west-1/gpu-1", "a", etag=same.etag)])

    assert same == drained
    assert other.draining


async def test_a_deployments_drain_survives_a_registration(store: CatalogStore) -> None:
    await store.put([a_region()])
    await store.put([a_node("eu-west-1/gpu-1", "a", "b")])

    def drain_a(node: Resource) -> Resource:
        assert isinstance(node, Node)
        a, b = node.deployments
        return replace(node, deployments=(replace(a, status=DeploymentStatus.DRAINING), b))

    drained = await store.edit(ResourceKind.NODE, "eu-west-1/gpu-1", drain_a)
    (same,) = await store.put([a_node("eu-west-1/gpu-1", "a", "b")])
    (other,) = await store.put([a_node("eu-west-1/gpu-1", "a", "b", zone="b", etag=same.etag)])

    assert same == drained
    assert [of.status for of in other.deployments] == [DeploymentStatus.DRAINING, DeploymentStatus.READY]


async def test_the_generation_counts_changes_of_the_spec_only(store: CatalogStore) -> None:
    await store.put([a_region()])
    await store.put([a_node()])
    name = "eu-west-1/gpu-1"

    drained = await store.edit(ResourceKind.NODE, name, lambda node: replace(node, draining=True))
    ended = await store.edit(ResourceKind.NODE, name, lambda node: replace(node, expired=True, expire_time=5.0))
    (changed,) = await store.put([a_node(accelerator="h100", etag=ended.etag)])

    generations = [node.generation for node in (drained, ended, changed) if isinstance(node, Node)]
    assert generations == [1, 1, 2]


async def test_an_expired_node_comes_back_with_its_registration(store: CatalogStore) -> None:
    await store.put([a_region()])
    (first,) = await store.put([a_node()])
    ended = await store.edit(
        ResourceKind.NODE, first.name, lambda node: replace(node, expired=True, expire_time=1_700_000_030.0)
    )

    (back,) = await store.put([a_node()])

    assert back == replace(first, revision=ended.revision + 1)
    assert (await store.snapshot()).nodes[first.name] == back


async def test_a_registration_cannot_set_what_the_store_sets(store: CatalogStore, clock: Clock) -> None:
    await store.put([a_region(revision=99)])
    claims = a_node(expired=True, expire_time=5.0, generation=7, revision=99, create_time=5.0)

    (node,) = await store.put([claims])

    assert (node.expired, node.expire_time) == (False, 0.0)
    assert (node.generation, node.revision, node.create_time) == (1, 3, clock.now)
    assert await store.put([claims]) == (node,)


async def test_a_request_id_answers_what_it_answered_first(store: CatalogStore, clock: Clock) -> None:
    await store.put([a_region()])
    first = await store.put([a_node("eu-west-1/gpu-1"), a_node("eu-west-1/gpu-2")], request_id="r1")
    await store.put([a_node("eu-west-1/gpu-1", zone="b", etag=first[0].etag)])
    await store.delete(ResourceKind.NODE, "eu-west-1/gpu-2")
    before = await store.snapshot()
    clock.now += DAY - 1

    again = await store.put([a_node("eu-west-1/gpu-1"), a_node("eu-west-1/gpu-2")], request_id="r1")

    assert again == first
    assert contents(await store.snapshot()) == contents(before)


async def test_a_request_id_remembers_that_nothing_was_to_be_written(store: CatalogStore) -> None:
    (first,) = await store.put([a_region()])
    await store.put([a_region()], request_id="r1")
    await store.put([a_region(provider="aws", etag=first.etag)])

    assert await store.put([a_region()], request_id="r1") == (first,)


async def test_a_request_id_for_another_content_is_refused(store: CatalogStore) -> None:
    await store.put([a_region()], request_id="r1")

    with pytest.raises(RequestIdReused):
        await store.put([a_region(provider="aws")], request_id="r1")
    with pytest.raises(RequestIdReused):
        await store.put([a_region(), a_region("eu-west-2")], request_id="r1")


async def test_a_request_that_failed_may_be_repeated_under_its_id(store: CatalogStore) -> None:
    with pytest.raises(NotFound):
        await store.put([a_node()], request_id="r1")
    await store.put([a_region()])

    (node,) = await store.put([a_node()], request_id="r1")

    assert node.generation == 1


async def test_a_request_id_is_forgotten_after_a_day(store: CatalogStore, clock: Clock) -> None:
    (first,) = await store.put([a_region()], request_id="r1")
    clock.now += DAY

    (second,) = await store.put([a_region(provider="aws", etag=first.etag)], request_id="r1")

    assert second.provider == "aws"
    assert await store.put([a_region(provider="aws", etag=first.etag)], request_id="r1") == (second,)


async def test_words_that_no_database_stores_are_refused(store: CatalogStore) -> None:
    with pytest.raises(ValueError, match="request_id holds a NUL"):
        await store.put([a_region()], request_id="r\0")
    with pytest.raises(ValueError, match="actor holds a NUL"):
        await store.put([a_region()], actor="r\0")


async def test_nothing_to_put_is_fine(store: CatalogStore) -> None:
    nothing: list[Region] = []

    assert await store.put(nothing) == ()


async def test_a_thousand_nodes_go_into_one_put(store: CatalogStore) -> None:
    await store.put([a_region()])
    nodes = [a_node(f"eu-west-1/gpu-{at}", f"m{at % 7}", "all") for at in range(1000)]

    stored = await store.put(nodes)

    snapshot = await store.snapshot()
    assert snapshot.nodes == {node.name: node for node in stored}
    assert [node.revision for node in stored] == list(range(10, 1010))


async def test_names_that_look_like_sql_are_only_names(store: CatalogStore) -> None:
    odd = "'; DROP TABLE regions; --%s :name {} \u2603"

    (model,) = await store.put([a_model(odd)])
    (policy,) = await store.put([a_policy(odd, document='{"a":"\\u0000"}')])

    assert await store.get(ResourceKind.MODEL, odd) == model
    assert await store.policy_history(odd) == (policy,)
