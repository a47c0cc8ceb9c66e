"""The whole full demonstration: starts everything, plays the scenes, replays every decision, and ends it all."""

from __future__ import annotations

import shlex
import sys
import time
from contextlib import AsyncExitStack
from random import Random

import aiohttp
import grpc

from federation.edge.client import Client, ClientOptions, RouteError
from federation.simulation.demo import postgres
from federation.simulation.demo.checks import NotShown, expect, until
from federation.simulation.demo.engines import START_SECONDS
from federation.simulation.demo.fleet import DECISIONS, PACE, load_fleet
from federation.simulation.demo.full.machines import Machines
from federation.simulation.demo.full.places import Federation, Place
from federation.simulation.demo.full.plan import PEER_LEASE_SECONDS, REPLICAS, decision_log, plan
from federation.simulation.demo.full.scenes import SCENES
from federation.simulation.demo.gateway import Gateway
from federation.simulation.demo.load import Load
from federation.simulation.demo.processes import Ended, Processes
from federation.simulation.demo.screen import Screen
from federation.simulation.demo.staying import stay_until_ended


def missing() -> str:
    """What to install before it can be played; empty where all is there."""
    names = postgres.missing()
    if not names:
        return ""
    return (
        f"fairway demo --full runs PostgreSQL servers, and {' and '.join(names)} {'is' if len(names) == 1 else 'are'} "
        "not installed: pip install 'fairway[demo]'"
    )


async def play(screen: Screen, processes: Processes, *, stay: bool, seed: int) -> int:
    """The exit code: 0 where each scene showed what it says, 1 where one did not."""
    fleet = plan(load_fleet())
    screen.title(
        f"Fairway: {len(fleet.regions)} regions, each with {len(REPLICAS)} replicas on a PostgreSQL of its own, "
        f"{len(fleet.nodes)} engines. Seed {seed}."
    )
    part = "The start"
    async with AsyncExitStack() as stack:
        try:
            machines = await stack.enter_async_context(Machines(fleet, processes, seed))
            all_of_it = await _started(stack, screen, processes, machines, seed)
            for number, scene in enumerate(SCENES, start=1):
                part = f"Scene {number} ({scene.title})"
                screen.scene(number, scene.title, scene.promise)
                await scene.play(all_of_it)
                machines.require(machines.names())
            part = "The end (replay)"
            _replay(all_of_it)
        except NotShown as error:
            screen.failed(f"{part} did not show what it says.")
            screen.failed(f"expected: {error.expected}")
            screen.failed(f"seen:     {error.seen}")
            return 1
        except (Ended, RouteError, grpc.RpcError, aiohttp.ClientError, RuntimeError) as error:
            screen.failed(f"{part} could not go on: {error}")
            return 1
        screen.text("")
        requests = sum(len(place.load.sent) for place in all_of_it.places)
        screen.title(
            f"All {len(SCENES)} scenes showed what they say, with {requests} requests under load, "
            f"in {screen.seconds:.0f} s."
        )
        if stay:
            await stay_until_ended(screen, "Everything goes on running until Ctrl-C. Try:", _to_try(all_of_it))
    return 0


async def _started(
    stack: AsyncExitStack, screen: Screen, processes: Processes, machines: Machines, seed: int
) -> Federation:
    """Everything up, registered with its owner, healthy, and known everywhere."""
    rng, clock, fleet = Random(seed), time.monotonic, plan(load_fleet())
    screen.event(
        f"starting {len(fleet.regions)} PostgreSQL servers, {len(machines.names())} replicas and {len(fleet.nodes)} "
        f"engines, each a process. The ways between regions take as long as the real ones. Set shorter than the "
        f"defaults: probes every {PACE.probe_interval_seconds:g} s, leases of peers of {PEER_LEASE_SECONDS:g} s."
    )
    with screen.waiting("waiting for databases, replicas and engines"):
        await machines.start()
    places = []
    for region in fleet.regions:
        # A decision takes a millisecond; on a machine that has better to do, its processes may not run for seconds.
        options = ClientOptions(route_timeout_seconds=10.0)
        addresses = [machines.replicas[name] for name in machines.names(region.region_id)]
        client, *replicas = [
            await stack.enter_async_context(Client(to, options, rng=Random(rng.getrandbits(64))))
            for to in (addresses, *addresses)
        ]
        gateway = await stack.enter_async_context(Gateway(fleet, client, clock=clock, rng=Random(rng.getrandbits(64))))
        load = Load(gateway, clock=clock, rng=Random(rng.getrandbits(64)))
        places.append(Place(region, fleet, screen, client, tuple(replicas), gateway, load, clock))
    all_of_it = Federation(fleet, machines, processes, screen, tuple(places), clock)
    for place in places:
        await place.declare(machines)
    with screen.waiting("waiting until every region knows all nodes, and they are healthy"):
        await until("all links up and all nodes known", all_of_it.joined, START_SECONDS)
    screen.event("each region routes to its own nodes and to those of the others")
    return all_of_it


def _replay(all_of_it: Federation) -> None:
    """All decisions of all replicas, also of those that were killed, made again from what they read."""
    directory = all_of_it.machines.directory
    log = directory / DECISIONS
    with log.open("w", encoding="utf-8") as together:
        for name in all_of_it.machines.names():
            for line in decision_log(directory, name).read_text(encoding="utf-8").splitlines(keepends=True):
                # The last line of a life that was ended by SIGKILL may be half of one.
                if line.endswith("}\n"):
                    together.write(line)
    words = ["replay", "--log", str(log), "--assert-identical"]
    title = "the decisions of all replicas, made again from what they read"
    all_of_it.screen.command(title, shlex.join(["fairway", *words]))
    code = all_of_it.processes.run([sys.executable, "-m", "federation", *words])
    expect(code == 0, "exit code 0 of `fairway replay`", code)


def _to_try(all_of_it: Federation) -> list[str]:
    machines, model = all_of_it.machines, all_of_it.fleet.model.model_id
    first = [machines.replicas[machines.names(place.id)[0]] for place in all_of_it.places]
    return [
        f"fairway peers list --server {first[0]}",
        f"fairway top --server {first[1]}",
        f"fairway route --server {first[2]} --model {model} --input-tokens 800 --output-tokens 200",
        f"fairway candidates --server {first[2]} --model {model} --privacy confidential",
        f"fairway replay --log {machines.directory / DECISIONS} --assert-identical",
    ]
