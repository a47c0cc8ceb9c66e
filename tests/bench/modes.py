"""grpcio's server modes side by side: what an empty call and a Route cost, and how long calls wait beside rebuilds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from federation.opening import event_loop
from federation.v1 import routing_pb2
from tests.bench import caller
from tests.bench.measure import Result, Scope
from tests.bench.served import METHOD
from tests.bench.servers import cpu_seconds, served
from tests.builders import MODEL


def modes(scope: Scope) -> list[str]:
    """What can be measured here; uvloop only where it is installed."""
    missing = {"uvloop"} if event_loop() is asyncio.new_event_loop else set()
    return [mode for mode in scope.modes if mode not in missing]


def requests() -> list[bytes]:
    return [
        routing_pb2.RouteRequest(
            model_id=MODEL,
            request_id=f"r{number}",
            origin={"region_id": f"r{number % 10}"},
            prompt={"input_tokens": 100 + 37 * number, "max_output_tokens": 100},
        ).SerializeToString()
        for number in range(32)
    ]


def checked(answers: tuple[bytes, ...]) -> None:
    """What was answered are decisions, with alternatives, and over more than one place."""
    found = [routing_pb2.RouteResponse.FromString(answer).decision for answer in answers]
    assert found
    assert all(decision.target.endpoint and len(decision.alternatives) == 3 for decision in found)
    assert len({decision.target.deployment for decision in found}) > min(5, len(found) // 4)


async def per_cpu_second(served_by: int, port: int, what: str, scope: Scope) -> float:
    """Calls for a CPU second of the server: the best of some rounds, after a warm-up."""
    asked = requests() if what == "route" else [b"x" * 40]
    best = 0.0
    await caller.load(port, METHOD, lambda n: asked[n % len(asked)], scope.calls // 4)
    for _ in range(min(3, scope.rounds)):
        before = cpu_seconds(served_by)
        load = await caller.load(port, METHOD, lambda n: asked[n % len(asked)], scope.calls)
        best = max(best, len(load.took) / (cpu_seconds(served_by) - before))
        if what == "route":
            checked(load.answers)
    return best


async def measured(scope: Scope) -> list[Result]:
    results: list[Result] = []
    least: dict[str, float] = {}
    for what in ("empty", "route"):
        for mode in modes(scope):
            async with served(mode, what) as server:
                rate = await per_cpu_second(server.pid, server.port, what, scope)
            base = least.setdefault(what, rate)
            results.append(Result(f"{what} call, {mode}", rate, "calls per CPU s", "asyncio", rate / base))
    for mode in modes(scope):
        async with served(mode, "route", "--rebuild") as server:
            asked = requests()
            load = await caller.load(
                server.port, METHOD, lambda n, a=asked: a[n % len(a)], scope.calls // 2, concurrency=4
            )
        results += [
            Result(f"route call beside rebuilds, {mode}, p{share * 100:.0f}", load.quantile(share) * 1000, "ms")
            for share in (0.5, 0.99)
        ]
    return results


def run(scope: Scope) -> Iterator[Result]:
    """Every figure of the modes."""
    yield from asyncio.run(measured(scope))
