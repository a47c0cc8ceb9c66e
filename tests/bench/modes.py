"""grpcio's server modes side by side: what an empty call and a Route cost, and how long calls wait beside rebuilds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import grpc

from federation.opening import event_loop
from federation.v1 import routing_pb2
from tests.bench import caller
from tests.bench.measure import Result, Scope
from tests.bench.served import METHOD, STREAM
from tests.bench.servers import Served, served
from tests.builders import MODEL

Way = Callable[[Served, list[bytes], int], Awaitable[tuple[bytes, ...]]]
LOOPS = ("asyncio", "uvloop")
# Messages of a stream that are under way, as many as calls are elsewhere.
AHEAD = 32


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


async def unary(server: Served, asked: list[bytes], count: int) -> tuple[bytes, ...]:
    """So many calls, 32 at a time; what was answered."""
    return (await caller.load(server.port, METHOD, lambda n: asked[n % len(asked)], count)).answers


async def streamed(server: Served, asked: list[bytes], count: int) -> tuple[bytes, ...]:
    """So many messages of one stream, 32 ahead of what was answered."""
    answers: list[bytes] = []
    ahead = asyncio.Semaphore(AHEAD)
    async with grpc.aio.insecure_channel(server.address) as channel:
        stream = channel.stream_stream(STREAM)()

        async def write() -> None:
            for number in range(count):
                await ahead.acquire()
                await stream.write(asked[number % len(asked)])
            await stream.done_writing()

        writing = asyncio.create_task(write())
        async for answer in stream:
            answers.append(answer)
            ahead.release()
        await writing
    return tuple(answers)


async def per_cpu_second(server: Served, what: str, how: Way, scope: Scope) -> float:
    """Calls or messages for a CPU second of the server: the best of some rounds, after a warm-up."""
    asked = requests() if what == "route" else [b"x" * 40]
    best = 0.0
    await how(server, asked, scope.calls // 4)
    for _ in range(min(3, scope.rounds)):
        before = server.cpu_seconds()
        answers = await how(server, asked, scope.calls)
        assert len(answers) == scope.calls
        best = max(best, len(answers) / (server.cpu_seconds() - before))
        if what == "route":
            checked(answers)
    return best


async def measured(scope: Scope) -> list[Result]:
    results: list[Result] = []
    least: dict[str, float] = {}
    for what in ("empty", "route"):
        for mode in modes(scope):
            ways: tuple[tuple[str, Way], ...] = ((f"{what} call, {mode}", unary),)
            if mode in LOOPS:
                ways = (*ways, (f"{what} message of a stream, {mode}", streamed))
            for name, how in ways:
                async with served(mode, what) as server:
                    rate = await per_cpu_second(server, what, how, scope)
                base = least.setdefault(what, rate)
                results.append(Result(name, rate, "calls per CPU s", "asyncio", rate / base))
    for mode in modes(scope):
        if mode.startswith("processes-"):
            continue
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
