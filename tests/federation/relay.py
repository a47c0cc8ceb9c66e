"""A TCP relay between two processes, which can be cut: what a network that fails looks like from both ends.

async with relay(target) as wire:
    ... connect to wire.address ...
    wire.cut()      # nothing goes through, nobody is told
    wire.heal()     # what is connected anew goes through
    wire.stall()    # answers wait; what is asked goes through: a partition in one direction
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Relay:
    """Passes bytes on until it is cut; connections of before the cut stay silent for ever."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._cut = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers = asyncio.Event()
        self._answers.set()
        self.address = ""
        self.bytes = 0
        self.connections = 0

    def cut(self) -> None:
        """Drops everything from now on: packets are lost, no connection is reset."""
        self._cut = True
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    def stall(self) -> None:
        """Holds what the target says, until healed: packets are lost and sent again."""
        self._answers.clear()

    def heal(self) -> None:
        """Lets new connections through, and answers that were held."""
        self._cut = False
        self._answers.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._cut:
            # Held, not reset: the other end finds out by its own timeout.
            await asyncio.Event().wait()
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        for source, sink, answers in ((reader, far_writer, False), (far_reader, writer, True)):
            task = asyncio.create_task(self._pump(source, sink, answers))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, answers: bool) -> None:
        try:
            while data := await source.read(65_536):
                if answers:
                    await self._answers.wait()
                self.bytes += len(data)
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        sink.close()


@asynccontextmanager
async def relay(target: str) -> AsyncIterator[Relay]:
    """A relay to `host:port`."""
    host, _, port = target.rpartition(":")
    passing = Relay(host, int(port))
    handlers: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(passing.serve(reader, writer))
        handlers.add(task)
        task.add_done_callback(handlers.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port_here = server.sockets[0].getsockname()[1]
    passing.address = f"127.0.0.1:{port_here}"
    try:
        yield passing
    finally:
        server.close()
        tasks = [*handlers, *passing._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
