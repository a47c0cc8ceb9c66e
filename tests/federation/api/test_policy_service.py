"""PolicyService over a real channel."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from catalog.types import PolicyRecord
from federation.v1 import policy_pb2 as pb
from tests.federation.server import Running, engine, failing, running, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop")]


@pytest.fixture
async def fairway() -> AsyncIterator[Running]:
    async with running() as server:
        yield server


def a_put(policy_id: str = "mine", document: Any = None, **fields: Any) -> pb.PutPolicyRequest:
    text = document if isinstance(document, str) else json.dumps(document or {"weights": {"cost": 3.0}})
    return pb.PutPolicyRequest(
        policy={"policy_id": policy_id, "document_json": text, "etag": fields.pop("etag", "")}, **fields
    )


async def test_a_stored_policy_decides_from_then_on(fairway: Running) -> None:
    stored = (await fairway.policy.PutPolicy(a_put())).policy

    read = (await fairway.policy.GetPolicy(pb.GetPolicyRequest(policy_id="mine"))).policy
    await until(lambda: "mine" in fairway.plane.router.policies)

    assert read == stored
    assert read.document_json == '{"weights":{"cost":3.0}}'
    assert read.create_time.seconds > 0
    policy = fairway.plane.router.policies["mine"]
    assert (policy.weights.cost, policy.revision) == (3.0, stored.revision)


async def test_a_document_that_cannot_be_used_is_told_all_its_faults_and_the_last_good_one_stays(
    fairway: Running,
) -> None:
    good = (await fairway.policy.PutPolicy(a_put())).policy

    failure = await failing(
        fairway.policy.PutPolicy(a_put(document={"weights": {"cost": -1, "latancy": 1}, "picker": "absent"}))
    )

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert len(failure.violations) >= 3
    assert any("weights" in path for path in failure.violations)
    assert (await fairway.policy.GetPolicy(pb.GetPolicyRequest(policy_id="mine"))).policy == good


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[]", "must be a JSON object"),
        ('{"weights": {"cost": NaN}}', "NaN, which is not a number"),
        ('{"picker": "best", "picker": "best"}', "names 'picker' twice"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
async def test_what_is_not_a_json_object_is_refused(fairway: Running, text: str, told: str) -> None:
    failure = await failing(fairway.policy.PutPolicy(a_put(document=text)))

    assert told in failure.violations["policy.document_json"]


async def test_a_check_stores_nothing(fairway: Running) -> None:
    revision = fairway.plane.feed.revision

    answer = await fairway.policy.PutPolicy(a_put(validate_only=True))

    assert answer.policy.document_json
    assert fairway.plane.feed.revision == revision
    assert (await failing(fairway.policy.GetPolicy(pb.GetPolicyRequest(policy_id="mine")))).reason == "POLICY_UNKNOWN"


async def test_another_document_needs_the_etag(fairway: Running) -> None:
    first = (await fairway.policy.PutPolicy(a_put())).policy
    other = {"weights": {"cost": 4.0}}

    conflict = await failing(fairway.policy.PutPolicy(a_put(document=other)))
    second = (await fairway.policy.PutPolicy(a_put(document=other, etag=first.etag))).policy

    assert (conflict.code, conflict.reason) == (grpc.StatusCode.ALREADY_EXISTS, "POLICY_CONFLICT")
    assert second.revision > first.revision
    read = await fairway.policy.GetPolicy(pb.GetPolicyRequest(policy_id="mine", revision=first.revision))
    assert read.policy.document_json == first.document_json
    history = await fairway.policy.ListPolicies(pb.ListPoliciesRequest(history_of="mine", page_size=1))
    older = await fairway.policy.ListPolicies(
        pb.ListPoliciesRequest(history_of="mine", page_size=1, page_token=history.next_page_token)
    )
    assert [policy.revision for policy in (*history.policies, *older.policies)] == [second.revision, first.revision]
    assert older.next_page_token == ""


async def test_presets_are_listed_and_can_be_taken_over_and_come_back(fairway: Running) -> None:
    listed = (await fairway.policy.ListPolicies(pb.ListPoliciesRequest())).policies
    stored = (await fairway.policy.PutPolicy(a_put("balanced"))).policy
    over = (await fairway.policy.GetPolicy(pb.GetPolicyRequest(policy_id="balanced"))).policy
    await fairway.policy.DeletePolicy(pb.DeletePolicyRequest(policy_id="balanced", etag=stored.etag))
    back = (await fairway.policy.GetPolicy(pb.GetPolicyRequest(policy_id="balanced"))).policy

    names = [policy.policy_id for policy in listed]
    assert names == sorted(names)
    assert {"balanced", "sovereign", "cost_first"} <= set(names)
    assert all(policy.preset and policy.revision == 0 for policy in listed)
    assert not over.preset
    assert back.preset
    assert json.loads(back.document_json)


async def test_a_presets_document_can_be_stored_as_it_is(fairway: Running) -> None:
    for preset in (await fairway.policy.ListPolicies(pb.ListPoliciesRequest())).policies:
        await fairway.policy.PutPolicy(a_put(f"{preset.policy_id}-2", preset.document_json))


async def test_the_servers_default_stays() -> None:
    async with running({"routing.policy": "mine"}) as fairway:
        await fairway.policy.PutPolicy(a_put())
        failure = await failing(fairway.policy.DeletePolicy(pb.DeletePolicyRequest(policy_id="mine")))

    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "POLICY_IN_USE")
    assert "routing.policy" in failure.message


async def test_a_stored_document_of_a_newer_program_leaves_the_last_good_one_in_place(fairway: Running) -> None:
    good = (await fairway.policy.PutPolicy(a_put())).policy
    await until(lambda: "mine" in fairway.plane.router.policies)
    newer = PolicyRecord("mine", '{"picker_of_the_future":1}', etag=good.etag)

    await fairway.plane.store.put([newer])
    await until(lambda: "mine" in fairway.plane.installer.refused_policies)

    assert fairway.plane.router.policies["mine"].revision == good.revision
    (line,) = [line for line in fairway.logged if line["event"].startswith("stored policy cannot be used")]
    assert line["staying_revision"] == good.revision
    assert "picker_of_the_future" in line["violations"]


async def test_a_preview_makes_recent_decisions_again_and_changes_nothing(fairway: Running) -> None:
    async with engine("m") as node:
        await fairway.register("local", "n1", node.url, "m")
        await fairway.until_routable("m")
    made = fairway.plane.router.stats.decisions

    told = await fairway.policy.PreviewPolicy(a_preview('{"picker": "best"}'))
    without = await fairway.policy.PreviewPolicy(a_preview("{}", without_regions=["local"]))

    assert (told.decisions, told.moved, told.refused, told.violations) == (made, 0, 0, 0)
    assert without.refused == made
    assert without.changes[0].reason == "ALL_NODES_UNHEALTHY"
    assert fairway.plane.router.stats.decisions == made


async def test_a_preview_of_a_document_that_cannot_be_used_tells_its_faults(fairway: Running) -> None:
    failure = await failing(fairway.policy.PreviewPolicy(a_preview('{"picker": "nobody"}')))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "picker" in str(failure.violations)


def a_preview(document: str, **fields: Any) -> pb.PreviewPolicyRequest:
    return pb.PreviewPolicyRequest(policy={"policy_id": "try", "document_json": document}, **fields)
