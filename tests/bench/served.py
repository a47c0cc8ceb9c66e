"""A server of one grpcio mode: `python -m tests.bench.served MODE [empty|route] [--rebuild]` prints its port.

Modes: `asyncio`, `uvloop`, `pool-N` with N threads, and `processes-N`, N of them on one port, whose ids it prints too.
All but the pools answer messages of a stream too. `empty` answers bytes; `route` decides over 1,000 deployments with
the conversions of the real service. With `--rebuild` a table of 10,000 is built every 100 ms beside it, as a control
plane under writes does: in the same loop, or in a thread beside the pool.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

from federation.api.convert.records import RecordWriter
from federation.api.convert.requests import RequestReader
from federation.api.convert.targets import framed
from federation.api.listening import ALONE, SERVER_OPTIONS, SHARING
from federation.opening import event_loop
from federation.v1 import routing_pb2
from tests.bench.deciding import a_fleet
from tests.bench.rebuilding import rebuild

METHOD = "/bench.Served/Call"
STREAM = "/bench.Served/Stream"
REBUILD_SECONDS = 0.1
REBUILT = 10_000


def empty(request: bytes) -> bytes:
    """Forty bytes, for whatever."""
    return b"y" * 40


def routing() -> Callable[[bytes], bytes]:
    """Decides as `Route` does; one caller at a time, since the router has one writer."""
    _, router = a_fleet(1_000)
    one, reader, writer = threading.Lock(), RequestReader(), RecordWriter()

    def route(request: bytes) -> bytes:
        message = routing_pb2.RouteRequest.FromString(request)
        with one:
            record = router.place(reader.read(message), 1.0)
            answer = writer.encoded(record)
            router.reservations.release(record.number)
        return framed(b"\x0a", answer)

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


async def serve_loop(
    answer: Callable[[bytes], bytes], rebuild: Callable[[], object] | None, port: int = 0, *, shared: bool = False
) -> None:
    async def call(request: bytes, context: object) -> bytes:
        return answer(request)

    async def stream(requests: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
        async for request in requests:
            yield answer(request)

    server = grpc.aio.server(options=(*SERVER_OPTIONS, SHARING if shared else ALONE))
    handlers = {
        "Call": grpc.unary_unary_rpc_method_handler(call),
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Served", handlers),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(port, flush=True)
    while rebuild is not None:
        rebuild()
        await asyncio.sleep(REBUILD_SECONDS)
    await server.wait_for_termination()


def serve_processes(count: int, what: str) -> None:
    """Serves from so many processes that share a port; they end with this one."""
    port, pids = "0", []
    for _ in range(count):
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.served", "served", what, f"--port={port}"],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        port = child.stdout.readline().strip()
        pids.append(child.pid)
    print(port, *pids, flush=True)
    child.wait()


def end_with_parent() -> None:
    """Ends this process once whoever started it is gone."""

    def wait() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def main(mode: str, what: str = "empty", *options: str) -> None:
    if mode.startswith("processes-"):
        serve_processes(int(mode.removeprefix("processes-")), what)
        return
    answer = routing() if what == "route" else empty
    rebuild = rebuilding() if "--rebuild" in options else None
    if mode.startswith("pool-"):
        serve_pool(int(mode.removeprefix("pool-")), answer, rebuild)
        return
    ports = [int(option.removeprefix("--port=")) for option in options if option.startswith("--port=")]
    if ports:
        end_with_parent()
    loop = {"asyncio": asyncio.new_event_loop, "uvloop": event_loop(), "served": event_loop()}[mode]
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(serve_loop(answer, rebuild, *ports, shared=bool(ports)))


if __name__ == "__main__":
    main(*sys.argv[1:])
