"""What others do, as policies of ours: each rule has the same circuits, retries and signals, and chooses its own way.

Rules that the product has no use for are pickers of a registry that only the simulator knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from federation.simulation.routers import Behaviour
from policies import chance
from policies.pickers import Field
from policies.policy import Line, Policy, Weights
from policies.pool import FloatArray, Pool
from policies.prediction import Ask, Prediction
from policies.presets import PRESETS
from policies.registry import BUILT_IN


def nearest(field: Field) -> int:
    """The nearest region, round robin in it."""
    path = field.time_to_first_token - field.at_node
    near = np.flatnonzero(path <= path.min() + 1e-6)
    return int(near[int(np.argmin(field.turn[near]))])


def two_by_requests(field: Field) -> int:
    """Of two drawn, the one with fewer requests of ours in flight."""
    one, two = chance.two_of(field.seed, len(field))
    return one if (field.in_flight[one], one) <= (field.in_flight[two], two) else two


def latency_average(field: Field) -> int:
    """The lowest average of recent latencies; those never tried come first, in turn (the rule of LiteLLM's router)."""
    return int(np.lexsort((field.turn, field.latency))[0])


class Scraped:
    """Points for an engine's own page: its batch and its queue as last told, on a line to a full batch of 64."""

    def __call__(self, ask: Ask, pool: Pool, seen: Prediction) -> FloatArray:
        # With nothing of our own remembered, throughput falls as the told batch grows, and what waits is in `at_node`.
        return 1.0 - seen.at_node / 5.0


REGISTRY = BUILT_IN.extend(
    {"scraped": Scraped()},
    {},
    {"nearest": nearest, "two_by_requests": two_by_requests, "latency_average": latency_average},
)
NOTHING = Weights(latency=0.0, throughput=0.0, cost=0.0, locality=0.0, health=0.0)
# No floor: a rule that does not score must not refuse by score.
PLAIN = Weights(latency=0.0, throughput=0.0, cost=0.0, locality=0.0, health=1.0)


def _plain(name: str, picker: str) -> Behaviour:
    policy = Policy(policy_id=name, picker=picker, weights=PLAIN, min_score=0.0, prefix_affinity=False)
    return Behaviour(policy, REGISTRY)


DEFAULT = "balanced"
BASELINES: Mapping[str, Behaviour] = MappingProxyType(
    {
        "nearest": _plain("nearest", "nearest"),
        "round_robin": _plain("round_robin", "round_robin"),
        "least_connections": _plain("least_connections", "least_connections"),
        "power_of_two": _plain("power_of_two", "two_by_requests"),
        "peak_ewma": _plain("peak_ewma", "peak_ewma"),
        "hot_cold": _plain("hot_cold", "hot_cold"),
        "latency_average": _plain("latency_average", "latency_average"),
        "composite": Behaviour(
            Policy(
                policy_id="composite",
                picker="best",
                weights=Weights(latency=0.0, throughput=1.0, cost=1.0, locality=1.0, health=2.0),
                throughput=Line(good=40.0, poor=0.0),
                extra_scorers=MappingProxyType({"scraped": 1.0}),
                min_score=0.0,
                prefix_affinity=False,
            ),
            REGISTRY,
            blind=True,
        ),
        "without_pending": Behaviour(Policy(policy_id="without_pending", prefix_affinity=False), REGISTRY, blind=True),
    }
)


def behaviour_of(name: str) -> Behaviour | None:
    """A baseline or preset by name; None where there is none of that name."""
    if name in BASELINES:
        return BASELINES[name]
    preset = PRESETS.get(name)
    return None if preset is None else Behaviour(preset)
