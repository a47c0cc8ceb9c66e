"""`make profile`: flame graphs of Route over gRPC, of a rebuild and of a start, in build/profile/*.svg.

py-spy looks at the running processes from outside, which needs the right to trace them: root, or on many systems
`sudo`, or `kernel.yama.ptrace_scope=0`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc

from tests.bench.measure import FULL
from tests.bench.scale import fill
from tests.bench.servers import MODEL, fairway, register
from tests.bench.wire import ROUTE, Asked, requests
from tests.federation.server import engine

OUT = Path(__file__).parents[2] / "build" / "profile"
SECONDS = 10
PY_SPY = Path(sys.executable).with_name("py-spy")
REBUILD = """
from tests.bench.deciding import a_fleet
from tests.bench.rebuilding import rebuild, recompiled
from federation.routing.compiling import compile_catalog
from dataclasses import replace
snapshot, _ = a_fleet(10_000)
for _ in range(5):
    compile_catalog(snapshot)
    build, drained = rebuild(snapshot), recompiled(snapshot, lambda node: replace(node, draining=True))
    for _ in range(100):
        build()
        drained()
"""


def flame(name: str, *of: str) -> None:
    """Draws one flame graph: of a process (`--pid N`), or of a program (`-- PROGRAM …`)."""
    path = OUT / f"{name}.svg"
    subprocess.run([PY_SPY, "record", "--output", str(path), "--rate", "500", *of], check=True)
    print(path)


async def route() -> None:
    """Route under load for some seconds."""
    async with (
        engine(MODEL) as node,
        fairway() as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        await register(channel, node.url, FULL.nodes)
        asked = Asked(server, ROUTE, [request.SerializeToString() for request in requests()])
        drawn = asyncio.create_task(
            # Threads that wait for their queue look busy from outside on some systems; what holds the interpreter is.
            asyncio.to_thread(flame, "route", "--gil", "--pid", str(server.pid), "--duration", str(SECONDS))
        )
        while not drawn.done():
            await asked.cost(1_000)
        await drawn


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    asyncio.run(route())
    flame("rebuild", "--", sys.executable, "-c", REBUILD)
    with tempfile.TemporaryDirectory() as scratch:
        database = f"sqlite:///{scratch}/large.db"
        asyncio.run(fill(database, FULL))
        flame("start", "--", sys.executable, "-m", "tests.bench.catalogued", database)


if __name__ == "__main__":
    main()
