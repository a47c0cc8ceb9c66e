"""Starts the workers of `fairway serve --workers N`, starts them again when they end, and ends them all.

    supervisor ─ holds the port, serves the admin port
        ├─ worker 0   the first: upgrades the schema, says what is wrong with the settings
        ├─ worker 1   ...                               each a replica beside the others

The kernel deals connections out among the workers that listen on the port. The supervisor serves no call and reads no
database, so that there is little that could end it; should it end, the workers drain and end too.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from aiohttp import web

from federation.api.listening import Address, StartError, check_free, parse_address
from federation.config import Settings
from federation.logs import Log
from federation.workers import pages
from federation.workers.seat import Seat, told

FIRST_RESTART_SECONDS = 0.1
MAX_RESTART_SECONDS = 10.0
# A worker that lived so long was well; the next restart is a quick one again.
WELL_SECONDS = 30.0
# What a worker gets beyond its drain to close its store; then it is killed.
CLOSE_SECONDS = 10.0


class Supervisor:
    """`run` answers the exit code: 0, or that of a first worker that could not start."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._workers: dict[int, asyncio.subprocess.Process] = {}
        self._restarts: Counter[int] = Counter()
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Runs until SIGTERM or SIGINT. ConfigError, StartError."""
        listen = parse_address("server.listen", self._settings.server.listen)
        admin = parse_address("server.admin", self._settings.server.admin)
        check_free("server.listen", listen)
        check_free("server.admin", admin)
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._on_signal, number)
                stack.callback(loop.remove_signal_handler, number)
            directory = Path(tempfile.mkdtemp(prefix="fairway-"))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            held = hold(listen)
            stack.callback(held.close)
            listen = Address(listen.host, held.getsockname()[1])
            server = self._settings.server.model_copy(update={"listen": str(listen)})
            settings = self._settings.model_copy(update={"server": server})
            seats = [Seat(number, directory) for number in range(settings.server.workers)]
            stack.push_async_callback(self._end)
            code = await self._first(settings, seats[0])
            if code is not None:
                return code
            admin = await self._serve_admin(admin, seats, stack)
            async with asyncio.TaskGroup() as group:
                for seat in seats:
                    group.create_task(self._keep(settings, seat))
                self._log.info("serving", grpc=str(listen), admin=str(admin), workers=len(seats))
                await self._stopping.wait()
                self._log.info("draining", workers=len(seats), seconds=settings.server.drain_seconds)
                await self._end()
        self._log.info("stopped")
        return 0

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            self._log.warning("second signal; ending at once", signal=number.name)
            for worker in self._workers.values():
                with suppress(ProcessLookupError):
                    worker.kill()
            os._exit(128 + number)
        self._stopping.set()

    async def _first(self, settings: Settings, seat: Seat) -> int | None:
        """Starts the first worker; its exit code if it ended before it served, None once it serves."""
        worker = await self._start(settings, seat)
        assert worker.stdout is not None
        ready = asyncio.ensure_future(worker.stdout.readline())
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([ready, stop], return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                return 0
            return None if ready.result() else await worker.wait()
        finally:
            ready.cancel()
            stop.cancel()

    async def _start(self, settings: Settings, seat: Seat) -> asyncio.subprocess.Process:
        for path in (seat.siblings, seat.admin):
            # What a killed worker left cannot be bound again.
            path.unlink(missing_ok=True)
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "federation.workers",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C is for the supervisor alone; a worker that got it too would take ours for the second signal.
            start_new_session=True,
        )
        self._workers[seat.number] = worker
        self._log.info("worker started", worker=seat.number, pid=worker.pid)
        assert worker.stdin is not None
        with suppress(ConnectionError):
            worker.stdin.write(told(settings, seat))
            await worker.stdin.drain()
        return worker

    async def _keep(self, settings: Settings, seat: Seat) -> None:
        """Has a worker run until all are to end."""
        delay = FIRST_RESTART_SECONDS
        while not self._stopping.is_set():
            started = time.monotonic()
            worker = self._workers.get(seat.number) or await self._start(settings, seat)
            code = await worker.wait()
            if self._stopping.is_set():
                return
            del self._workers[seat.number]
            self._restarts[seat.number] += 1
            delay = FIRST_RESTART_SECONDS if time.monotonic() - started >= WELL_SECONDS else delay
            self._log.error("worker ended; it is started again", worker=seat.number, code=code, seconds=delay)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            delay = min(2.0 * delay, MAX_RESTART_SECONDS)

    async def _end(self) -> None:
        """Has all workers drain and end; kills those that do not."""
        self._stopping.set()
        running = [worker for worker in self._workers.values() if worker.returncode is None]
        for worker in running:
            with suppress(ProcessLookupError):
                worker.terminate()
        waiting = [asyncio.ensure_future(worker.wait()) for worker in running]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=self._settings.server.drain_seconds + CLOSE_SECONDS)
            if late:
                self._log.error("workers did not end in time and are killed", workers=len(late))
        for worker in running:
            with suppress(ProcessLookupError):
                worker.kill()
        await asyncio.gather(*waiting)

    async def _serve_admin(self, address: Address, seats: list[Seat], stack: AsyncExitStack) -> Address:
        sockets = {seat.number: seat.admin for seat in seats}
        app = pages.application(
            lambda path: pages.ask_all(sockets, path), lambda: {number: self._restarts[number] for number in sockets}
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        try:
            await web.TCPSite(runner, address.host, address.port).start()
        except OSError as e:
            raise StartError(f"server.admin: cannot listen on {address}: {e.strerror}; choose another port") from None
        return Address(address.host, runner.addresses[0][1])


def hold(address: Address) -> socket.socket:
    """Binds the port without listening: it stays ours while workers come and go, and port 0 becomes one for all."""
    family, kind, protocol, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    held = socket.socket(family, kind, protocol)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(where)
    return held
