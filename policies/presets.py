"""Policies that ship with the program. A stored policy of the same name takes a preset's place."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from policies.policy import Bounds, Line, Policy, Shed, ShedStep, Weights

PRESETS: Mapping[str, Policy] = MappingProxyType(
    {
        policy.policy_id: policy
        for policy in (
            Policy(
                policy_id="balanced",
                description="Seconds first, healthy nodes, and a dollar per 1,000 requests is worth 0.05 s.",
            ),
            Policy(
                policy_id="enterprise_default",
                description="Health counts double, everything else alike.",
                weights=Weights(latency=1.0, throughput=1.0, cost=1.0, locality=1.0, health=2.0),
            ),
            Policy(
                policy_id="latency_first",
                description="The soonest first token; price hardly matters.",
                weights=Weights(latency=4.0, throughput=0.2, cost=0.2, locality=0.1, health=2.0),
            ),
            Policy(
                policy_id="cost_first",
                description="The cheapest that answers soon enough: a dollar per 1,000 requests is worth 2 s.",
                weights=Weights(latency=1.0, throughput=0.1, cost=4.0, locality=0.0, health=2.0),
                cost=Line(good=0.0, poor=0.01),
            ),
            Policy(
                policy_id="sovereign",
                description="Never leaves the jurisdictions of the origin's region; near ones first.",
                weights=Weights(latency=1.0, throughput=0.1, cost=0.5, locality=1.0, health=2.0),
                bounds=Bounds(home_jurisdiction=True),
            ),
            Policy(
                policy_id="interactive",
                description="Balanced; when queues grow to 0.3 s, low priorities go, so that others start within 1 s.",
                # High priorities are never shed. Their room is what the steps below them leave free.
                shed=Shed(steps=(ShedStep(-1, 0.3), ShedStep(0, 0.6)), full_wait_seconds=1.0),
            ),
            Policy(
                policy_id="throughput_first",
                description="The most tokens per second for long answers.",
                weights=Weights(latency=0.5, throughput=3.0, cost=0.5, locality=0.0, health=2.0),
                throughput=Line(good=200.0, poor=0.0),
            ),
        )
    }
)
