"""From a registration to a decision, over real sockets."""

from __future__ import annotations

import pytest

from tests.federation.server import engine, running

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop")]


async def test_one_registration_makes_a_node_routable_at_its_first_passed_probe() -> None:
    async with running() as fairway, engine("llama") as node:
        await fairway.register("local", "gpu-1", node.url, "llama")

        decision = await fairway.until_routable("llama")

    assert decision.target.deployment == "local/gpu-1/llama"
    assert decision.target.endpoint == node.url
    assert decision.reasoning
