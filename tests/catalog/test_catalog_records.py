"""Resources as JSON."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from catalog.records import CODECS, decode, decode_answer, digest, encode, encode_answer, seal
from catalog.types import (
    Deployment,
    Engine,
    Node,
    Reach,
    Region,
    RegionStatus,
    Resource,
    ResourceKind,
    ServingProfile,
    kind_of,
)
from tests.catalog.builders import a_full_node, a_model, a_node, a_policy, a_region

FULL_REGION = Region(
    "eu-west-1",
    provider="aws",
    jurisdictions=("IE", "EU"),
    latitude=53.3,
    longitude=-6.3,
    reach=Reach.GATEWAY,
    ingress_endpoint="https://ingress.example",
    status=RegionStatus.DRAINING,
    egress_price_usd_per_gb=0.0,
    round_trip_seconds={"us-east-1": 0.07},
    egress_prices_usd_per_gb={"us-east-1": 0.02},
    owner="eu-west-1",
    revision=7,
    etag="0123456789abcdef",
)
FULL_MODEL = a_model(
    family="llama",
    version="3",
    quantization="fp8",
    context_window_tokens=131_072,
    modality="text",
    tokenizer="llama3",
    capabilities=("generate",),
    aliases=("llama",),
    equivalence_class="llama-3-70b",
)
SEALED_NODE = seal(
    replace(a_full_node(), draining=True, expired=True, expire_time=8.5, generation=3, create_time=1.5),
    owner="eu-west-1",
    revision=9,
)


@pytest.mark.parametrize(
    "resource",
    [a_region(), FULL_REGION, a_model(), FULL_MODEL, a_node(), SEALED_NODE, a_policy(create_time=1e9)],
)
def test_what_is_written_is_read_back(resource: Resource) -> None:
    back = decode(kind_of(resource), encode(resource))

    assert back == resource
    for of in fields(resource):
        assert type(getattr(back, of.name)) is type(getattr(resource, of.name)) or of.name in (
            "labels",
            "round_trip_seconds",
            "egress_prices_usd_per_gb",
        )


def test_the_full_builders_leave_no_field_at_its_default() -> None:
    """So that the test above tests every field."""
    for resource, plain in ((FULL_REGION, a_region()), (SEALED_NODE, a_node())):
        same = [of.name for of in fields(resource) if getattr(resource, of.name) == getattr(plain, of.name)]
        assert same in (["region_id"], ["region_id", "node_id", "endpoint", "engine"])
    (deployment,) = SEALED_NODE.deployments
    stated = {of.name for of in fields(deployment) if of.init}
    assert set(json.loads(encode(SEALED_NODE))["deployments"][0]) == stated - {"region_id", "node_id"}


def test_codecs_name_only_fields_that_exist() -> None:
    for cls, codecs in CODECS.items():
        assert set(codecs) <= {of.name for of in fields(cls)}


def test_a_field_of_a_newer_program_is_passed_over() -> None:
    node = a_node()
    document = json.loads(encode(node))
    document["from_the_future"] = {"a": 1}
    document["deployments"][0]["from_the_future"] = 2

    assert decode(kind_of(node), json.dumps(document)) == node


def test_what_was_read_cannot_be_changed() -> None:
    node = decode(kind_of(a_node()), encode(a_node(labels={"a": "b"})))

    assert isinstance(node, Node)
    with pytest.raises(TypeError):
        node.labels["a"] = "c"  # type: ignore[index]


def test_an_etag_marks_the_content_and_not_what_the_store_assigns() -> None:
    first = seal(a_node(), owner="a", revision=1)

    moved = seal(replace(a_node(), generation=9, create_time=5.0, etag="x"), owner="b", revision=2)
    drained = seal(a_node(draining=True), owner="a", revision=1)

    assert moved.etag == first.etag
    assert drained.etag != first.etag


def test_a_digest_marks_what_a_request_wants() -> None:
    assert digest([a_node(labels={"a": "1", "b": "2"})]) == digest([a_node(labels={"b": "2", "a": "1"}, etag="x")])
    assert digest([a_node()]) == digest([a_node(draining=True, expired=True, revision=7)])
    assert digest([a_node()]) != digest([a_node(zone="b")])
    assert digest([a_region("x")]) != digest([a_region("x"), a_region("y")])
    # Kinds with the same fields set are not mixed up.
    assert digest([a_region("x")]) != digest([a_model("x")])


def test_an_answer_is_kept_as_it_was_given() -> None:
    answer = (FULL_REGION, SEALED_NODE)

    assert decode_answer(encode_answer(answer)) == answer


def a_served(node_id: str, profile: ServingProfile) -> Node:
    deployment = Deployment("r", node_id, "m", capabilities=("generate",), profile=profile)
    return Node("r", node_id, "http://n:1", Engine.VLLM, deployments=(deployment,))


def test_what_many_deployments_have_in_common_is_read_as_one_object() -> None:
    profile = ServingProfile(prefill_seconds_per_token=0.0002, max_batch_size=32)
    nodes = [a_served("n1", profile), a_served("n2", profile)]

    first, second = (decode(ResourceKind.NODE, encode(node)) for node in nodes)

    assert [first, second] == nodes
    assert isinstance(first, Node)
    assert isinstance(second, Node)
    assert first.deployments[0].profile is second.deployments[0].profile
    assert first.deployments[0].capabilities is second.deployments[0].capabilities


def test_whole_numbers_and_floats_of_a_profile_stay_what_they_are() -> None:
    texts = [encode(a_served("n", ServingProfile(decode_tokens_per_second=speed))) for speed in (50, 50.0)]

    again = [encode(decode(ResourceKind.NODE, text)) for text in texts]

    assert again == texts
    assert texts[0] != texts[1]
