"""What a user would pick instead, in the same run: bare picks of `intelligent-routing`, and of the LiteLLM router.

Neither filters, scores nor explains: the first picks an index out of equal accelerators in compiled code, the second
one of a list by weight or by measured latency. Installed by the extra `bench`; what is missing is told as missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from tests.bench.measure import Result, Scope, per_second

STRATEGIES = ("p2c", "round_robin", "least_connections")
LITELLM = ("simple-shuffle", "latency-based-routing")


def intelligent_routing(strategy: str, scope: Scope) -> float | None:
    """Picks a second at the setting that its authors publish; None where it is not installed."""
    try:
        import intelligent_routing as other
    except ImportError:
        return None
    router = other.Router(strategy)
    for number in range(scope.accelerators):
        router.add_accelerator(other.Accelerator(number, 100))

    def pick(count: int) -> None:
        for number in range(count):
            router.route_request(other.Request(number, 1, 1))

    return per_second(pick, scope.picks, scope)


def litellm(strategy: str, deployments: int, scope: Scope) -> float | None:
    """Picks a second of the LiteLLM router, without a call behind them; None where it is not installed."""
    # Else it asks the internet for prices first.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    try:
        from litellm import Router
    except ImportError:
        return None
    router = Router(
        model_list=[
            {
                "model_name": "m",
                "litellm_params": {"model": "openai/m", "api_base": f"http://n{number}:8000", "api_key": "none"},
                "model_info": {"id": f"n{number}"},
            }
            for number in range(deployments)
        ],
        routing_strategy=strategy,
    )
    asked = [{"role": "user", "content": "hello"}]
    picked = set()

    def pick(count: int) -> None:
        for _ in range(count):
            found = router.get_available_deployment(model="m", messages=asked, request_kwargs={})
            picked.add(found["model_info"]["id"])

    rate = per_second(pick, max(10, 10 * scope.decisions // deployments), scope)
    assert len(picked) > 1, f"the LiteLLM router's {strategy} picked one deployment only"
    return rate


def run(scope: Scope) -> Iterator[Result]:
    """Picks a second of the others."""
    for strategy in STRATEGIES:
        rate = intelligent_routing(strategy, scope)
        if rate is not None:
            yield Result(f"intelligent-routing {strategy}, a bare pick of {scope.accelerators:,}", rate, "1/s")
    for strategy in LITELLM:
        for deployments in scope.litellm:
            rate = litellm(strategy, deployments, scope)
            if rate is not None:
                yield Result(f"LiteLLM router {strategy}, a pick of {deployments:,}", rate, "1/s")
