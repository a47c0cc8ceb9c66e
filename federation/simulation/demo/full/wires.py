"""The way from one region to a replica of another: a TCP relay that takes as long as the distance, and can be cut."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CHUNK_BYTES = 65_536


class Wire:
    """Passes bytes on, each way after half of the round trip; `target` may be told later than the address.

    While it is cut nobody is told anything: what is on the way is lost, and connections stay silent.
    """

    def __init__(self, round_trip_seconds: float) -> None:
        self._half = round_trip_seconds / 2
        self._cut = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.address = self.target = ""

    def cut(self) -> None:
        self._cut = True
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    def heal(self) -> None:
        """What is connected anew goes through."""
        self._cut = False

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it is accepted at the other end."""
        if self._cut:
            return
        host, _, port = self.target.rpartition(":")
        try:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except (OSError, ValueError):
            # Nobody listens, or not yet.
            writer.close()
            return
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._add(asyncio.create_task(self._pass_on(source, sink)))

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = asyncio.create_task(self._arrive(under_way, sink))
        self._add(arriving)
        data = b"?"
        while data:
            try:
                data = await source.read(CHUNK_BYTES)
            except ConnectionError:
                data = b""
            under_way.put_nowait((time.monotonic() + self._half, data))

    async def _arrive(self, under_way: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(due - time.monotonic())
            if not data:
                break
            sink.write(data)
            try:
                await sink.drain()
            except ConnectionError:
                break
        sink.close()

    def _add(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@asynccontextmanager
async def wire(round_trip_seconds: float) -> AsyncIterator[Wire]:
    """A way that listens at its `address` while the block runs."""
    passing = Wire(round_trip_seconds)
    # Connections that came while it was cut are held, silent, until the end.
    held: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        await passing.carry(reader, writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    passing.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield passing
    finally:
        server.close()
        passing.cut()
        for writer in held:
            writer.close()
