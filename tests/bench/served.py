"""A server of one grpcio mode: `python -m tests.bench.served MODE [empty|route] [--rebuild]` prints its port.

Modes: `asyncio`, `uvloop`, and `pool-N` with N threads. `empty` answers bytes; `route` decides over 1,000 deployments
with the conversions of the real service. With `--rebuild` a table of 10,000 is built every 100 ms beside it, as a
control plane under writes does: in the same loop, or in a thread beside the pool.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

from federation.api import validation
from federation.api.convert import decisions as convert
from federation.api.convert.targets import framed
from federation.api.listening import SERVER_OPTIONS
from federation.opening import event_loop
from federation.v1 import routing_pb2
from tests.bench.deciding import a_fleet
from tests.bench.rebuilding import rebuild

METHOD = "/bench.Served/Call"
REBUILD_SECONDS = 0.1
REBUILT = 10_000


def empty(request: bytes) -> bytes:
    """Forty bytes, for whatever."""
    return b"y" * 40


def routing() -> Callable[[bytes], bytes]:
    """Decides as `Route` does; one caller at a time, since the router has one writer."""
    _, router = a_fleet(1_000)
    one = threading.Lock()

    def route(request: bytes) -> bytes:
        message = routing_pb2.RouteRequest.FromString(request)
        validation.check(message)
        asked = convert.request_from(message)
        with one:
            record = router.place(asked, 1.0)
            decision = record.render()
            router.reservations.release(record.number)
        return framed(b"\x0a", convert.decision_encoded(decision))

    return route


def rebuilding() -> Callable[[], object]:
    """Builds a table of many deployments, once a call."""
    snapshot, _ = a_fleet(REBUILT)
    return rebuild(snapshot)


def serve_pool(threads: int, answer: Callable[[bytes], bytes], rebuild: Callable[[], object] | None) -> None:
    server = grpc.server(ThreadPoolExecutor(threads), options=SERVER_OPTIONS)
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: answer(request))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Served", {"Call": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    while rebuild is not None:
        rebuild()
        time.sleep(REBUILD_SECONDS)
    server.wait_for_termination()


async def serve_loop(answer: Callable[[bytes], bytes], rebuild: Callable[[], object] | None) -> None:
    async def call(request: bytes, context: object) -> bytes:
        return answer(request)

    server = grpc.aio.server(options=SERVER_OPTIONS)
    handler = grpc.unary_unary_rpc_method_handler(call)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Served", {"Call": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    while rebuild is not None:
        rebuild()
        await asyncio.sleep(REBUILD_SECONDS)
    await server.wait_for_termination()


def main(mode: str, what: str = "empty", *options: str) -> None:
    answer = routing() if what == "route" else empty
    rebuild = rebuilding() if "--rebuild" in options else None
    if mode.startswith("pool-"):
        serve_pool(int(mode.removeprefix("pool-")), answer, rebuild)
        return
    loop = {"asyncio": asyncio.new_event_loop, "uvloop": event_loop(), "served": event_loop()}[mode]
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(serve_loop(answer, rebuild))


if __name__ == "__main__":
    main(*sys.argv[1:])
