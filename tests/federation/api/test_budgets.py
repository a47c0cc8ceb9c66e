"""Budgets, policies of tenants and shedding over a real channel, and spend over a restart."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from catalog.memory import MemoryStore
from federation.v1 import catalog_pb2, policy_pb2, types_pb2
from federation.v1 import fleet_pb2 as pb
from tests.federation.server import Engine, Running, ShiftedClock, engine, failing, running, until

pytestmark = pytest.mark.anyio
SETTINGS = {"routing.tenant_policies": ("acme*=gold",)}
# A request of 1,000 tokens each way costs half a cent.
PROMPT = {"input_tokens": 1_000, "max_output_tokens": 1_000}


@pytest.fixture
async def node() -> AsyncIterator[Engine]:
    async with engine("m") as answers:
        yield answers


def at_noon() -> ShiftedClock:
    """A clock that shows the next noon of UTC, so that no day ends within a test."""
    clock = ShiftedClock()
    clock.advance(86_400 - (clock.wall() - 43_200) % 86_400)
    return clock


async def serve_a_model(fairway: Running, node: Engine, **deployment: Any) -> None:
    """One node with a price: 1 USD per million prompt tokens, 4 per million of answers."""
    await fairway.catalog.RegisterNode(
        catalog_pb2.RegisterNodeRequest(
            node=types_pb2.Node(
                region_id="local", node_id="n1", endpoint=node.url, engine=types_pb2.ENGINE_VLLM,
                lease_duration={"seconds": 0},
            ),
            deployments=[
                types_pb2.Deployment(
                    model_id="m", price_usd_per_million_input_tokens=1.0, price_usd_per_million_output_tokens=4.0,
                    **deployment,
                )
            ],
        )
    )  # fmt: skip


async def put(fairway: Running, policy_id: str, document: Any) -> None:
    stored = await fairway.policy.PutPolicy(
        policy_pb2.PutPolicyRequest(policy={"policy_id": policy_id, "document_json": json.dumps(document)})
    )
    revision = stored.policy.revision
    await until(lambda: getattr(fairway.plane.router.policies.get(policy_id), "revision", 0) == revision)


async def test_a_spent_budget_refuses_with_the_time_until_it_begins_anew(node: Engine) -> None:
    async with running(SETTINGS, clock=at_noon()) as fairway:
        await serve_a_model(fairway, node)
        await put(fairway, "gold", {"budgets": [{"tenants": ["acme*"], "usd_per_day": 0.008, "usd_per_month": 1.0}]})
        await fairway.until_routable("m", tenant_id="other", prompt=PROMPT)
        decisions = [await fairway.route("m", tenant_id="acme", prompt=PROMPT) for _ in range(2)]

        failure = await failing(fairway.route("m", tenant_id="acme", prompt=PROMPT))
        listed = (await fairway.fleet.ListBudgets(pb.ListBudgetsRequest())).budgets
        paged = await fairway.fleet.ListBudgets(pb.ListBudgetsRequest(page_size=1, tenant_id="acme"))
        rest = await fairway.fleet.ListBudgets(
            pb.ListBudgetsRequest(page_size=1, tenant_id="acme", page_token=paged.next_page_token)
        )

    assert {decision.policy_id for decision in decisions} == {"gold"}
    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED")
    assert failure.metadata == {"tenant": "acme", "period": "day", "limit_usd": "0.008", "spent_usd": "0.01"}
    assert failure.retry_seconds == pytest.approx(43_200, abs=600)
    assert failure.pushback == "-1"
    assert [(each.tenant_id, each.policy_id, each.period, each.limit_usd) for each in listed] == [
        ("acme", "gold", pb.BUDGET_PERIOD_DAY, 0.008),
        ("acme", "gold", pb.BUDGET_PERIOD_MONTH, 1.0),
    ]
    assert listed[0].spent_usd == pytest.approx(0.01)
    assert listed[0].when_exhausted == pb.WHEN_EXHAUSTED_REFUSE
    assert listed[0].reset_time.seconds % 86_400 == 0
    assert [*paged.budgets, *rest.budgets] == list(listed)
    assert not rest.next_page_token


class KeptStore(MemoryStore):
    """Outlives the server that closes it."""

    async def close(self) -> None:
        pass


async def test_spend_outlives_a_restart(node: Engine) -> None:
    # A life of a server has a name of its own, by its seed.
    store = KeptStore("local", clock=lambda: 1_700_000_000.0)
    async with running(SETTINGS, store=store, clock=at_noon()) as fairway:
        await serve_a_model(fairway, node)
        await put(fairway, "gold", {"budgets": [{"tenants": ["acme"], "usd_per_day": 0.004}]})
        await fairway.until_routable("m", tenant_id="acme", prompt=PROMPT)

    async with running(SETTINGS, store=store, clock=at_noon(), seed=2) as fairway:
        await until(lambda: "gold" in fairway.plane.router.policies)
        failure = await failing(fairway.route("m", tenant_id="acme", prompt=PROMPT))

    assert failure.reason == "BUDGET_EXHAUSTED"


async def test_low_priority_is_shed_with_retry_info_and_high_is_not(node: Engine) -> None:
    async with running() as fairway:
        await serve_a_model(fairway, node, max_concurrency=10)
        await put(fairway, "busy", {"shed": {}})
        await fairway.until_routable("m")
        for _ in range(8):
            await fairway.route("m", policy_id="busy", priority=5)

        failure = await failing(fairway.route("m", policy_id="busy", priority=-1))
        decision = await fairway.route("m", policy_id="busy", priority=5)

    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_CAPACITY")
    assert 1.0 <= (failure.retry_seconds or 0.0) < 2.0
    assert failure.metadata["shed_by"] == "priority"
    assert any(stage.name == "admission" for stage in decision.stages)


async def test_a_policy_that_settings_give_to_tenants_is_not_deleted(node: Engine) -> None:
    async with running(SETTINGS) as fairway:
        await put(fairway, "gold", {})

        failure = await failing(fairway.policy.DeletePolicy(policy_pb2.DeletePolicyRequest(policy_id="gold")))

    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "POLICY_IN_USE")
    assert "routing.tenant_policies" in failure.message
