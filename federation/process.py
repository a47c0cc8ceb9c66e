"""A control plane as a process: signals, exit codes, and several workers under one supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from federation import logs
from federation.api.listening import StartError, Unreachable, check_plain_text, parse_address
from federation.app import VERSION, ControlPlane, control_plane
from federation.cli.failure import ExitCode
from federation.config import ConfigError, Settings, masked
from federation.memory import settle_memory
from federation.opening import event_loop, replicated, store_url
from federation.workers.seat import Seat
from federation.workers.supervisor import Supervisor


async def serve(
    settings: Settings,
    *,
    ready: Callable[[ControlPlane], None] | None = None,
    stop: asyncio.Event | None = None,
    seat: Seat | None = None,
) -> int:
    """Runs a control plane until SIGTERM, SIGINT or `stop`, then drains it; answers the exit code.

    `ready` is called once it listens, with the addresses that were bound. A second signal ends the process at once.
    """
    log = logs.get() if seat is None else logs.get(worker=seat.number)
    stopping = stop or asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stopping.is_set():
            log.warning("second signal; ending at once", signal=number.name)
            os._exit(128 + number)
        log.info("draining", signal=number.name, seconds=settings.server.drain_seconds)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        async with control_plane(settings, log=log, seat=seat) as plane:
            log.info(
                "serving" if seat is None else "worker serving",
                grpc=str(plane.address),
                admin=str(plane.admin_address),
                region=settings.region.id,
                store=masked(store_url(settings.store)),
                version=VERSION,
            )
            settle_memory()
            if ready is not None:
                ready(plane)
            await stopping.wait()
            await plane.drain(settings.server.drain_seconds)
        log.info("stopped" if seat is None else "worker stopped")
        return 0
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def run(settings: Settings) -> int:
    """`fairway serve`: the exit code; a server that cannot start leaves one line on stderr.

    2 for settings that cannot be used, 4 where what it needs does not answer, 6 for what else is in the way.
    """
    logs.configure(settings.telemetry)
    if settings.server.workers == 1:
        return _ended(serve(settings))
    return _ended(supervise(settings))


async def supervise(settings: Settings) -> int:
    """Runs several workers on one SQLite file. ConfigError, StartError."""
    if replicated(settings):
        raise ConfigError(
            f"server.workers: {settings.server.workers} processes of one server share a SQLite file; on PostgreSQL run "
            "further replicas instead, each with an address of its own"
        )
    listen = parse_address("server.listen", settings.server.listen)
    check_plain_text(listen, settings.security, insecure=settings.server.insecure)
    return await Supervisor(settings, logs.get()).run()


def run_worker(settings: Settings, seat: Seat) -> int:
    """One of several workers: it ends, as by a signal, when its supervisor ends."""
    logs.configure(settings.telemetry)
    return _ended(_work(seat.own(settings), seat))


async def _work(settings: Settings, seat: Seat) -> int:
    stop = asyncio.Event()
    supervisor = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(supervisor), sys.stdin)

    async def until_alone() -> None:
        await supervisor.read()
        stop.set()

    def ready(plane: ControlPlane) -> None:
        sys.stdout.write(f"{plane.address}\n")
        sys.stdout.flush()

    alone = asyncio.create_task(until_alone())
    try:
        return await serve(settings, ready=ready, stop=stop, seat=seat)
    finally:
        alone.cancel()


def _ended(running: Coroutine[Any, Any, int]) -> int:
    try:
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            return runner.run(running)
    except (ConfigError, StartError) as e:
        sys.stderr.write(f"fairway: {e}\n")
        match e:
            case ConfigError():
                return ExitCode.USAGE
            case Unreachable():
                return ExitCode.UNREACHABLE
            case _:
                return ExitCode.CONFLICT
